//! A task changed its user or group ids by a system call of the setuid or setgid family.
//!
//! Best tier: fexit on the security hooks that every one of these calls goes through with the old and the new credentials at hand,
//! 32-bit callers too. Fallback: the calls' entry and exit tracepoints, the old ids waiting in a map in between.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{fexit, tracepoint};
use aya_ebpf::programs::{FExitContext, TracePointContext};
use bartizan_sensor_ebpf::abi::{Count, Credentials, Kind, Ring, TaskIds};

use crate::kernel::call::{at_exit, thread};
use crate::kernel::maps::SETID;
use crate::kernel::{emit, field, offset, read, task};

/// include/linux/security.h: which member of the family.
const LSM_SETID_ID: i32 = 1;
const LSM_SETID_RE: i32 = 2;
const LSM_SETID_RES: i32 = 4;

/// Numbers of the family on x86-64, arch/x86/entry/syscalls/syscall_64.tbl.
const SETUID: u32 = 105;
const SETGID: u32 = 106;
const SETREUID: u32 = 113;
const SETREGID: u32 = 114;
const SETRESUID: u32 = 117;
const SETRESGID: u32 = 119;
const SETFSUID: u32 = 122;
const SETFSGID: u32 = 123;

/// The ids of a `struct cred`.
#[inline(always)]
fn ids(cred: u64) -> TaskIds {
    TaskIds {
        uid: field!(cred, cred_uid),
        euid: field!(cred, cred_euid),
        suid: field!(cred, cred_suid),
        fsuid: field!(cred, cred_fsuid),
        gid: field!(cred, cred_gid),
        egid: field!(cred, cred_egid),
        sgid: field!(cred, cred_sgid),
        fsgid: field!(cred, cred_fsgid),
    }
}

#[inline(always)]
fn same(a: &TaskIds, b: &TaskIds) -> bool {
    a.uid == b.uid
        && a.euid == b.euid
        && a.suid == b.suid
        && a.fsuid == b.fsuid
        && a.gid == b.gid
        && a.egid == b.egid
        && a.sgid == b.sgid
        && a.fsgid == b.fsgid
}

/// Sends one record about the running task.
#[inline(always)]
fn report(call: u32, old: &TaskIds, new: &TaskIds) {
    if same(old, new) {
        return;
    }
    // SAFETY: every field is written.
    unsafe {
        emit::fixed(Kind::Credentials, Ring::Priority, task::current(), |record: *mut Credentials| {
            (*record).call = call;
            (*record).pad = 0;
            (*record).old = *old;
            (*record).new = *new;
        });
    }
}

/// (struct cred *new, const struct cred *old, int flags), then the result; which call it was follows from the flags.
#[inline(always)]
fn fixed(ctx: &FExitContext, calls: [u32; 4]) -> i32 {
    if ctx.arg::<i32>(3) == 0 {
        let (new, old) = (ctx.arg::<*const u8>(0) as u64, ctx.arg::<*const u8>(1) as u64);
        let [id, re, res, fs] = calls;
        let call = match ctx.arg::<i32>(2) {
            LSM_SETID_ID => id,
            LSM_SETID_RE => re,
            LSM_SETID_RES => res,
            _ => fs,
        };
        report(call, &ids(old), &ids(new));
    }
    0
}

#[fexit]
fn fexit_task_fix_setuid(ctx: FExitContext) -> i32 {
    fixed(&ctx, [SETUID, SETREUID, SETRESUID, SETFSUID])
}

#[fexit]
fn fexit_task_fix_setgid(ctx: FExitContext) -> i32 {
    fixed(&ctx, [SETGID, SETREGID, SETRESGID, SETFSGID])
}

/// Attached at the entry of all eight calls.
#[tracepoint]
fn sys_enter_setid(_ctx: TracePointContext) -> u32 {
    let current = task::current();
    let thread = thread();
    if SETID.insert(&thread, &ids(task::cred(current)), 0).is_err() {
        emit::count(Kind::Credentials, Count::TableFull);
    }
    0
}

/// Attached at the exit of all eight calls. setfsuid and setfsgid return the id before and never an error, so what counts is the change.
#[tracepoint]
fn sys_exit_setid(ctx: TracePointContext) -> u32 {
    let thread = thread();
    let Some(old) = SETID.get_ptr(&thread) else { return 0 };
    let (_, result) = at_exit(&ctx);
    if result >= 0 {
        // `<VERIFIER>` As in `at_exit`: a constant offset into the context.
        let call: u32 = read(ctx.as_ptr() as u64 + offset!(syscall_number));
        let current = task::current();
        // SAFETY: the map is preallocated, and the entry is this thread's own.
        report(call, unsafe { &*old }, &ids(task::cred(current)));
    }
    let _ = SETID.remove(&thread);
    0
}
