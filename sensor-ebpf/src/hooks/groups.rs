//! A task changed its supplementary groups.
//!
//! Best tier: fentry on `commit_creds`, where the old credentials are still in force; whoever changes no groups has the same list in both.
//! Fallback: entry and exit of `setgroups`, the old groups waiting in a map in between.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use aya_ebpf::macros::{fentry, tracepoint};
use aya_ebpf::programs::{FEntryContext, TracePointContext};
use bartizan_sensor_ebpf::abi::{Count, GROUPS_MAX, GroupList, Groups, Kind, Ring};

use crate::kernel::call::{at_exit, thread};
use crate::kernel::maps::SETGROUPS;
use crate::kernel::{emit, field, offset, task, zero};

/// Bytes of the ids that are kept.
const KEPT: u32 = (GROUPS_MAX * size_of::<u32>()) as u32;

/// Writes the list at `info`, a `struct group_info`. Ids are those of the first user namespace, as the kernel has them.
///
/// # Safety
/// `to` must be valid for writing, and zeros.
#[inline(always)]
unsafe fn list(to: *mut GroupList, info: u64) {
    let count: u32 = field!(info, group_info_count);
    // `<VERIFIER>` The mask is a bound that it can see.
    let bytes = if count >= GROUPS_MAX as u32 { KEPT } else { core::hint::black_box(count * 4) & (KEPT - 1) };
    // SAFETY: as many bytes as there is room for, and of memory that was zeroed.
    unsafe {
        (*to).count = count;
        bpf_probe_read_kernel((&raw mut (*to).gids).cast(), bytes, (info + offset!(group_info_gids)) as *const _);
    }
}

#[inline(always)]
fn same(a: &GroupList, b: &GroupList) -> bool {
    // What is beyond those that are kept cannot be compared.
    if a.count != b.count || a.count > GROUPS_MAX as u32 {
        return false;
    }
    let mut index = 0;
    while index < GROUPS_MAX {
        if a.gids[index] != b.gids[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// Sends a record about the running task, if the lists are not the same. `old` writes the one before.
#[inline(always)]
fn report(old: impl FnOnce(*mut GroupList), new: u64) {
    let current = task::current();
    let tgid: u32 = field!(current, task_tgid);
    if emit::is_self(Kind::Groups, tgid) || emit::is_ignored(Kind::Groups, current) {
        return;
    }
    let Some(mut entry) = emit::of(Ring::Priority).reserve::<Groups>(0) else {
        emit::count(Kind::Groups, Count::RingFull);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: reserved memory of the record's size, every field of which is written before it is submitted.
    let same = unsafe {
        zero(record);
        old(&raw mut (*record).old);
        list(&raw mut (*record).new, new);
        same(&(*record).old, &(*record).new)
    };
    if same {
        entry.discard(0);
        return;
    }
    // SAFETY: as above.
    unsafe {
        task::subject(&raw mut (*record).header, current);
        emit::stamp(&raw mut (*record).header, Kind::Groups, size_of::<Groups>() as u32);
    }
    entry.submit(emit::wakeup(Ring::Priority));
    emit::count(Kind::Groups, Count::Emitted);
}

/// (struct cred *new).
#[fentry]
fn fentry_commit_groups(ctx: FEntryContext) -> i32 {
    let old: u64 = field!(task::real_cred(task::current()), cred_group_info);
    let new: u64 = field!(ctx.arg::<*const u8>(0) as u64, cred_group_info);
    if old != new {
        // SAFETY: `report` hands over zeros of the list's size.
        report(|to| unsafe { list(to, old) }, new);
    }
    0
}

#[tracepoint]
fn sys_enter_setgroups(_ctx: TracePointContext) -> u32 {
    let info: u64 = field!(task::cred(task::current()), cred_group_info);
    let mut groups = GroupList { count: 0, gids: [0; GROUPS_MAX] };
    // SAFETY: a list of our own.
    unsafe { list(&raw mut groups, info) };
    if SETGROUPS.insert(&thread(), &groups, 0).is_err() {
        emit::count(Kind::Groups, Count::TableFull);
    }
    0
}

#[tracepoint]
fn sys_exit_setgroups(ctx: TracePointContext) -> u32 {
    let thread = thread();
    let Some(old) = SETGROUPS.get_ptr(&thread) else { return 0 };
    let (_, result) = at_exit(&ctx);
    if result >= 0 {
        let info: u64 = field!(task::cred(task::current()), cred_group_info);
        // SAFETY: the map is preallocated, and the entry is this thread's own.
        report(|to| unsafe { *to = *old }, info);
    }
    let _ = SETGROUPS.remove(&thread);
    0
}
