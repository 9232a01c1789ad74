//! `prctl` with an option that hides or rewrites what a process is, and what it does to capabilities and filters.

use aya_ebpf::macros::{fexit, tracepoint};
use aya_ebpf::programs::{FExitContext, TracePointContext};
use bartizan_sensor_ebpf::abi::{Kind, Prctl, Ring};

use crate::kernel::call::{Call, at_exit, errno};
use crate::kernel::{emit, task};

/// include/uapi/linux/prctl.h.
const PR_SET_DUMPABLE: u64 = 4;
const PR_SET_MM: u64 = 35;
const PR_SET_CHILD_SUBREAPER: u64 = 36;
const PR_SET_PTRACER: u64 = 0x5961_6d61;

#[inline(always)]
pub(crate) fn report(call: Call, result: i64) {
    let option = call.argument::<0>();
    if !matches!(option, PR_SET_DUMPABLE | PR_SET_MM | PR_SET_CHILD_SUBREAPER | PR_SET_PTRACER) {
        return;
    }
    // SAFETY: every field is written.
    unsafe {
        emit::fixed(Kind::Prctl, Ring::Bulk, task::current(), |record: *mut Prctl| {
            call.mark(&raw mut (*record).header);
            (*record).option = option as u32;
            (*record).error = errno(result);
            (*record).arguments = [call.argument::<1>(), call.argument::<2>(), call.argument::<3>()];
        });
    }
}

#[fexit]
fn fexit_prctl(ctx: FExitContext) -> i32 {
    report(Call::now(), ctx.arg::<u64>(1) as i64);
    0
}

#[fexit]
fn fexit_prctl_32(ctx: FExitContext) -> i32 {
    report(Call::now(), ctx.arg::<u64>(1) as i64);
    0
}

#[tracepoint]
fn sys_exit_prctl(ctx: TracePointContext) -> u32 {
    let (_, result) = at_exit(&ctx);
    report(Call::now(), result);
    0
}

/// At the same exit, for the filters of system calls that are set here.
#[tracepoint]
fn sys_exit_prctl_seccomp(ctx: TracePointContext) -> u32 {
    let call = Call::now();
    if call.argument::<0>() == super::seccomp::PR_SET_SECCOMP {
        let (_, result) = at_exit(&ctx);
        // Modes are one above the operations.
        super::seccomp::report((call.argument::<1>() as u32).wrapping_sub(1), 0, result);
    }
    0
}
