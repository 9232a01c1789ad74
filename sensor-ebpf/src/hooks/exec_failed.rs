//! An exec that failed.
//!
//! Best tier: fexit on the system call's own functions, which costs nothing to any other call and sees 32-bit callers.
//! Fallback: the calls' exit tracepoints. Both read the requested path from the caller's registers, which still are those
//! of the call, and from its memory, which another thread could have changed: the record is flagged accordingly.

use core::mem::offset_of;

use aya_ebpf::helpers::generated::bpf_probe_read_user_str;
use aya_ebpf::macros::{fexit, tracepoint};
use aya_ebpf::programs::{FExitContext, TracePointContext};
use bartizan_sensor_ebpf::abi::{ExecFailed, FAILED_NAME_MAX, FLAG_FROM_CALLER, FLAG_NAME_TRUNCATED, Kind, Ring, Span};

use crate::kernel::call::{ERESTART_RESTARTBLOCK, ERESTARTSYS, at_exit, errno};
use crate::kernel::{emit, field, task};

#[inline(always)]
fn failed(path: u64, result: i64) -> u32 {
    // An exec that a signal interrupts is restarted by the kernel: not an end of it.
    if result >= 0 || (ERESTARTSYS..=ERESTART_RESTARTBLOCK).contains(&-result) {
        return 0;
    }
    // Reserved memory, not a scratch: six programs come here, fexit ones can be preempted, and the guard against nested runs
    // is each program's own.
    // SAFETY: every field is written, of the name as much as its span says.
    unsafe {
        emit::fixed(Kind::ExecFailed, Ring::Bulk, task::current(), |record: *mut ExecFailed| {
            let header = &raw mut (*record).header;
            (*header).flags |= FLAG_FROM_CALLER;
            (*record).error = errno(result);
            let written = bpf_probe_read_user_str((&raw mut (*record).name).cast(), FAILED_NAME_MAX as u32, path as *const _);
            let len = if written > 0 { written as u16 } else { 0 };
            if len >= FAILED_NAME_MAX as u16 {
                (*header).flags |= FLAG_NAME_TRUNCATED;
            }
            (*record).requested = Span { offset: offset_of!(ExecFailed, name) as u16, len };
        });
    }
    0
}

/// Return value of a traced system-call function: one argument, then the result.
#[inline(always)]
fn traced(ctx: &FExitContext) -> (u64, i64) {
    (ctx.arg::<*const u8>(0) as u64, ctx.arg::<u64>(1) as i64)
}

#[fexit]
fn fexit_execve(ctx: FExitContext) -> i32 {
    let (regs, result) = traced(&ctx);
    failed(field!(regs, regs_di), result);
    0
}

#[fexit]
fn fexit_execveat(ctx: FExitContext) -> i32 {
    let (regs, result) = traced(&ctx);
    failed(field!(regs, regs_si), result);
    0
}

#[fexit]
fn fexit_compat_execve(ctx: FExitContext) -> i32 {
    let (regs, result) = traced(&ctx);
    failed(field!(regs, regs_bx), result);
    0
}

#[fexit]
fn fexit_compat_execveat(ctx: FExitContext) -> i32 {
    let (regs, result) = traced(&ctx);
    failed(field!(regs, regs_cx), result);
    0
}

#[tracepoint]
fn sys_exit_execve(ctx: TracePointContext) -> u32 {
    let (regs, result) = at_exit(&ctx);
    failed(field!(regs, regs_di), result)
}

#[tracepoint]
fn sys_exit_execveat(ctx: TracePointContext) -> u32 {
    let (regs, result) = at_exit(&ctx);
    failed(field!(regs, regs_si), result)
}
