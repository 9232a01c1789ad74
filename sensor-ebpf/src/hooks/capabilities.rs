//! A task changed its capabilities by itself: `capset`, `prctl` (bounding and ambient set, securebits), a new user namespace.
//!
//! What a change of user ids takes along is in the change of user ids, and what a file gives at exec is in the exec. Best tier: fentry on
//! `commit_creds`, where the old credentials are still in force. Fallback: the calls' entries and exits.

use aya_ebpf::macros::{fentry, tracepoint};
use aya_ebpf::programs::{FEntryContext, TracePointContext};
use bartizan_sensor_ebpf::abi::{Capabilities, CapabilitySets, Count, Kind, Ring};

use crate::kernel::call::{Call, at_exit, thread};
use crate::kernel::maps::CAPABILITIES;
use crate::kernel::{emit, field, task};

/// include/uapi/linux/prctl.h: PR_SET_KEEPCAPS, PR_CAPBSET_DROP, PR_SET_SECUREBITS, PR_CAP_AMBIENT.
const PRCTL_OPTIONS: [u64; 4] = [8, 24, 28, 47];
/// arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl.
const PRCTL: u32 = 157;
const PRCTL_32: u32 = 172;

#[inline(always)]
fn sets(cred: u64) -> CapabilitySets {
    let securebits: u32 = field!(cred, cred_securebits);
    CapabilitySets {
        effective: field!(cred, cred_cap_effective),
        permitted: field!(cred, cred_cap_permitted),
        inheritable: field!(cred, cred_cap_inheritable),
        bounding: field!(cred, cred_cap_bset),
        ambient: field!(cred, cred_cap_ambient),
        securebits: u64::from(securebits),
    }
}

#[inline(always)]
fn same(a: &CapabilitySets, b: &CapabilitySets) -> bool {
    a.effective == b.effective
        && a.permitted == b.permitted
        && a.inheritable == b.inheritable
        && a.bounding == b.bounding
        && a.ambient == b.ambient
        && a.securebits == b.securebits
}

#[inline(always)]
fn report(call: Call, before: &CapabilitySets, after: &CapabilitySets) {
    if same(before, after) {
        return;
    }
    // SAFETY: every field is written.
    unsafe {
        emit::fixed(Kind::Capabilities, Ring::Priority, task::current(), |record: *mut Capabilities| {
            call.mark(&raw mut (*record).header);
            (*record).before = *before;
            (*record).after = *after;
            (*record).call = call.number();
            (*record).pad = 0;
        });
    }
}

/// setuid, setgid, setreuid, setregid, setgroups, setresuid, setresgid, setfsuid, setfsgid of both tables: told by the change of
/// ids or of groups.
#[inline(always)]
fn sets_ids(call: Call) -> bool {
    let number = call.number();
    if call.is_32_bit() {
        matches!(number, 23 | 46 | 70 | 71 | 81 | 138 | 139 | 164 | 170 | 203..=206 | 208 | 210 | 213..=216)
    } else {
        matches!(number, 105 | 106 | 113 | 114 | 116 | 117 | 119 | 122 | 123)
    }
}

#[fentry]
fn fentry_commit_creds(ctx: FEntryContext) -> i32 {
    // (struct cred *new)
    let call = Call::now();
    if call.is_exec() || sets_ids(call) {
        return 0;
    }
    let old = task::real_cred(task::current());
    report(call, &sets(old), &sets(ctx.arg::<*const u8>(0) as u64));
    0
}

/// Whether the call can change capabilities; of `prctl` most options cannot.
#[inline(always)]
fn may_change(call: Call) -> bool {
    if call.number() != if call.is_32_bit() { PRCTL_32 } else { PRCTL } {
        return true;
    }
    let option = call.argument::<0>();
    let [keep, drop, bits, ambient] = PRCTL_OPTIONS;
    option == keep || option == drop || option == bits || option == ambient
}

/// Attached at the entries of `capset`, `prctl`, `unshare` and `setns`.
#[tracepoint]
fn sys_enter_capabilities(_ctx: TracePointContext) -> u32 {
    if !may_change(Call::now()) {
        return 0;
    }
    let thread = thread();
    if CAPABILITIES.insert(&thread, &sets(task::cred(task::current())), 0).is_err() {
        emit::count(Kind::Capabilities, Count::TableFull);
    }
    0
}

/// Attached at their exits.
#[tracepoint]
fn sys_exit_capabilities(ctx: TracePointContext) -> u32 {
    let call = Call::now();
    if !may_change(call) {
        return 0;
    }
    let thread = thread();
    let Some(before) = CAPABILITIES.get_ptr(&thread) else { return 0 };
    let (_, result) = at_exit(&ctx);
    if result >= 0 {
        // SAFETY: the map is preallocated, and the entry is this thread's own.
        report(call, unsafe { &*before }, &sets(task::cred(task::current())));
    }
    let _ = CAPABILITIES.remove(&thread);
    0
}
