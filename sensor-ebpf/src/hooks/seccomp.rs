//! A filter of system calls was put on a task by `seccomp` or `prctl(PR_SET_SECCOMP)`, or an attempt failed.

use aya_ebpf::macros::{fexit, tracepoint};
use aya_ebpf::programs::{FExitContext, TracePointContext};
use bartizan_sensor_ebpf::abi::{Kind, Ring, Seccomp};
use bartizan_sensor_ebpf::layout::ABSENT;

use crate::kernel::call::{Call, at_exit, errno};
use crate::kernel::{emit, field, offset, task};

/// include/uapi/linux/seccomp.h.
const SECCOMP_SET_MODE_FILTER: u32 = 1;
const SECCOMP_FILTER_FLAG_NEW_LISTENER: u32 = 8;
/// include/uapi/linux/prctl.h.
pub(crate) const PR_SET_SECCOMP: u64 = 22;

/// The operation is one that sets something; to ask what there is (2, 3) is none.
#[inline(always)]
pub(crate) fn report(operation: u32, flags: u32, result: i64) {
    if operation > SECCOMP_SET_MODE_FILTER || offset!(task_seccomp_mode) == u64::from(ABSENT) {
        return;
    }
    let call = Call::now();
    let current = task::current();
    let count = if offset!(task_seccomp_count) == u64::from(ABSENT) { 0 } else { field!(current, task_seccomp_count) };
    let filter: u64 = if offset!(task_seccomp_filter) == u64::from(ABSENT) { 0 } else { field!(current, task_seccomp_filter) };
    let program: u64 =
        if filter == 0 || offset!(seccomp_filter_prog) == u64::from(ABSENT) { 0 } else { field!(filter, seccomp_filter_prog) };
    // SAFETY: every field is written.
    unsafe {
        emit::fixed(Kind::Seccomp, Ring::Bulk, current, |record: *mut Seccomp| {
            call.mark(&raw mut (*record).header);
            (*record).call = call.number();
            (*record).operation = operation;
            (*record).flags = flags;
            (*record).error = errno(result);
            (*record).mode = field!(current, task_seccomp_mode);
            (*record).filters = count;
            (*record).instructions = if program == 0 { 0 } else { field!(program, prog_len) };
            let listens = flags & SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 && result > 0;
            (*record).listener = if listens { result as u32 } else { 0 };
        });
    }
}

#[fexit]
fn fexit_seccomp(ctx: FExitContext) -> i32 {
    // (unsigned int op, unsigned int flags, void *uargs), then the result
    report(ctx.arg::<u32>(0), ctx.arg::<u32>(1), ctx.arg::<u64>(3) as i64);
    0
}

#[tracepoint]
fn sys_exit_seccomp(ctx: TracePointContext) -> u32 {
    let call = Call::now();
    let (_, result) = at_exit(&ctx);
    report(call.argument::<0>() as u32, call.argument::<1>() as u32, result);
    0
}
