//! A task went into other namespaces by `unshare` or `setns`, or tried to. What `clone` makes is told by the fork.
//!
//! Both tiers compare the task's own namespaces before and after, so nothing that the caller could change is believed.

use aya_ebpf::macros::{fentry, fexit, tracepoint};
use aya_ebpf::programs::{FEntryContext, FExitContext, TracePointContext};
use bartizan_sensor_ebpf::abi::{Count, Kind, NamespaceIds, Namespaces, Ring};
use bartizan_sensor_ebpf::layout::ABSENT;

use crate::kernel::call::{Call, at_exit, errno, thread};
use crate::kernel::maps::NAMESPACES;
use crate::kernel::object::Known;
use crate::kernel::{emit, field, namespace, offset, task};

/// include/uapi/linux/sched.h: every `CLONE_NEW*`.
const CLONE_NEW: u64 = 0x7e02_0080;

/// arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl.
const UNSHARE: u32 = 272;
const UNSHARE_32: u32 = 310;

#[inline(always)]
fn ids(task: Known) -> NamespaceIds {
    let proxy: Known = field!(task, task_nsproxy);
    let cred = task::cred(task);
    let has_time = offset!(nsproxy_time_for_children) != u64::from(ABSENT) && offset!(timens_inum) != u64::from(ABSENT);
    NamespaceIds {
        mnt: namespace!(proxy, nsproxy_mnt_ns, mntns_inum),
        pid: namespace!(proxy, nsproxy_pid_for_children, pidns_inum),
        net: namespace!(proxy, nsproxy_net_ns, netns_inum),
        uts: namespace!(proxy, nsproxy_uts_ns, utsns_inum),
        ipc: namespace!(proxy, nsproxy_ipc_ns, ipcns_inum),
        cgroup: namespace!(proxy, nsproxy_cgroup_ns, cgroupns_inum),
        user: namespace!(cred, cred_user_ns, userns_inum),
        time: if has_time { namespace!(proxy, nsproxy_time_for_children, timens_inum) } else { 0 },
    }
}

#[inline(always)]
fn same(a: &NamespaceIds, b: &NamespaceIds) -> bool {
    a.mnt == b.mnt
        && a.pid == b.pid
        && a.net == b.net
        && a.uts == b.uts
        && a.ipc == b.ipc
        && a.cgroup == b.cgroup
        && a.user == b.user
        && a.time == b.time
}

#[inline(always)]
fn is_unshare(call: Call) -> bool {
    call.number() == if call.is_32_bit() { UNSHARE_32 } else { UNSHARE }
}

/// What the call asks for; `None` when it is none of namespaces.
#[inline(always)]
fn asked(call: Call) -> Option<u64> {
    if !is_unshare(call) {
        return Some(call.argument::<1>() & CLONE_NEW);
    }
    let flags = call.argument::<0>() & CLONE_NEW;
    if flags == 0 { None } else { Some(flags) }
}

#[inline(always)]
fn before() {
    if asked(Call::now()).is_none() {
        return;
    }
    let thread = thread();
    if NAMESPACES.insert(&thread, &ids(task::current()), 0).is_err() {
        emit::count(Kind::Namespaces, Count::TableFull);
    }
}

#[inline(always)]
fn after(result: i64) {
    let call = Call::now();
    let Some(asked) = asked(call) else { return };
    let thread = thread();
    let Some(before) = NAMESPACES.get_ptr(&thread) else { return };
    let current = task::current();
    let now = ids(current);
    // SAFETY: the map is preallocated, and the entry is this thread's own.
    let before = unsafe { *before };
    let _ = NAMESPACES.remove(&thread);
    // To go where one is already changes nothing.
    if result >= 0 && same(&before, &now) {
        return;
    }
    // SAFETY: every field is written.
    unsafe {
        emit::fixed(Kind::Namespaces, Ring::Priority, current, |record: *mut Namespaces| {
            call.mark(&raw mut (*record).header);
            (*record).before = before;
            (*record).after = now;
            (*record).asked = asked;
            (*record).call = call.number();
            (*record).error = errno(result);
        });
    }
}

/// Attached to the calls' own functions.
#[fentry]
fn fentry_unshare(_ctx: FEntryContext) -> i32 {
    before();
    0
}

#[fexit]
fn fexit_unshare(ctx: FExitContext) -> i32 {
    // (unsigned long flags), then the result
    after(i64::from(ctx.arg::<i32>(1)));
    0
}

#[fentry]
fn fentry_setns(_ctx: FEntryContext) -> i32 {
    before();
    0
}

#[fexit]
fn fexit_setns(ctx: FExitContext) -> i32 {
    // (struct pt_regs *), then the result
    after(ctx.arg::<u64>(1) as i64);
    0
}

#[fentry]
fn fentry_setns_32(_ctx: FEntryContext) -> i32 {
    before();
    0
}

#[fexit]
fn fexit_setns_32(ctx: FExitContext) -> i32 {
    after(ctx.arg::<u64>(1) as i64);
    0
}

/// Attached at the entries of both calls.
#[tracepoint]
fn sys_enter_namespaces(_ctx: TracePointContext) -> u32 {
    before();
    0
}

/// Attached at the exits of both calls.
#[tracepoint]
fn sys_exit_namespaces(ctx: TracePointContext) -> u32 {
    let (_, result) = at_exit(&ctx);
    after(result);
    0
}
