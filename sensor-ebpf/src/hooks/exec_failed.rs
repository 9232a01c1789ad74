//! An exec that failed.
//!
//! Best tier: fexit on the system call's own functions, which costs nothing to any other call and sees 32-bit callers.
//! Fallback: the calls' exit tracepoints. Both read the requested path from the caller's registers, which still are those
//! of the call, and from its memory, which another thread could have changed: the record is flagged accordingly.

use core::mem::offset_of;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_probe_read_user_str, bpf_task_pt_regs};
use aya_ebpf::macros::{fexit, tracepoint};
use aya_ebpf::programs::{FExitContext, TracePointContext};
use bartizan_sensor_ebpf::abi::{Count, ExecFailed, FAILED_NAME_MAX, FLAG_FROM_CALLER, FLAG_NAME_TRUNCATED, Kind, Span};

use crate::kernel::maps::BULK;
use crate::kernel::{emit, field, offset, read, task};

/// Kernel-internal restart codes, include/linux/errno.h.
pub(crate) const ERESTARTSYS: i64 = 512;
pub(crate) const ERESTART_RESTARTBLOCK: i64 = 516;

#[inline(always)]
fn failed(path: u64, result: i64) -> u32 {
    // An exec that a signal interrupts is restarted by the kernel: not an end of it.
    if result >= 0 || (ERESTARTSYS..=ERESTART_RESTARTBLOCK).contains(&-result) {
        return 0;
    }
    let current = task::current();
    let tgid: u32 = field!(current, task_tgid);
    if emit::is_self(Kind::ExecFailed, tgid) || emit::is_shed(Kind::ExecFailed) {
        return 0;
    }
    // Reserved memory, not a scratch: six programs come here, fexit ones can be preempted, and the guard against nested runs
    // is each program's own.
    let Some(mut entry) = BULK.reserve::<ExecFailed>(0) else {
        emit::count(Kind::ExecFailed, Count::RingFull);
        return 0;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: reserved memory of the record's size, submitted below with nothing in between that could leave.
    unsafe {
        let header = &raw mut (*record).header;
        task::subject(header, current);
        (*header).flags |= FLAG_FROM_CALLER;
        (*record).error = (-result) as u32;
        let written = bpf_probe_read_user_str((&raw mut (*record).name).cast(), FAILED_NAME_MAX as u32, path as *const _);
        let len = if written > 0 { written as u16 } else { 0 };
        if len >= FAILED_NAME_MAX as u16 {
            (*header).flags |= FLAG_NAME_TRUNCATED;
        }
        (*record).requested = Span { offset: offset_of!(ExecFailed, name) as u16, len };
        emit::stamp(header, Kind::ExecFailed, size_of::<ExecFailed>() as u32);
    }
    entry.submit(emit::wakeup(&BULK));
    emit::count(Kind::ExecFailed, Count::Emitted);
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

/// Result and saved registers at a system call's exit tracepoint. The layout is `syscall_tp_t`, not the format file's.
#[inline(always)]
pub(crate) fn at_exit(ctx: &TracePointContext) -> (u64, i64) {
    // `<VERIFIER>` A context may be dereferenced at constant offsets only, and this one comes from the kernel's BTF.
    let result: i64 = read(ctx.as_ptr() as u64 + offset!(syscall_exit_ret));
    (registers(), result)
}

/// Registers of the running task at its system call.
#[inline(always)]
pub(crate) fn registers() -> u64 {
    // SAFETY: helpers without side effects on the running task.
    unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as u64 }
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
