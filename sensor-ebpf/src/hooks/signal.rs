//! A process sent a signal to another one.
//!
//! `tp_btf/signal_generate` on every kernel, whichever system call it was, 32-bit callers too. What the kernel itself sends, what timers
//! and the like send, and what a process sends to itself is none of it; of signals that programs use to talk to each other
//! (`SIGUSR1`, `SIGURG`, `SIGCHLD` ...) only those that go to another user's process.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use bartizan_sensor_ebpf::abi::{Kind, Ring, Signal};

use crate::kernel::{emit, field, task};

/// include/linux/sched/signal.h, `SEND_SIG_PRIV`: the kernel sends it.
const SEND_SIG_PRIV: u64 = 1;
/// include/uapi/asm-generic/siginfo.h: what timers, message queues, asynchronous I/O and SIGIO say.
const SI_TIMER: i32 = -2;
const SI_SIGIO: i32 = -5;
/// Signals that mean something to whoever gets them: HUP INT QUIT ILL TRAP ABRT BUS FPE KILL SEGV TERM CONT STOP TSTP SYS.
const TELLING: u64 = 1 << 1
    | 1 << 2
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 7
    | 1 << 8
    | 1 << 9
    | 1 << 11
    | 1 << 15
    | 1 << 18
    | 1 << 19
    | 1 << 20
    | 1 << 31;

/// Whether the running call is one with which a program writes `si_code` itself: rt_sigqueueinfo, rt_tgsigqueueinfo and
/// pidfd_send_signal, arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl.
#[inline(always)]
fn writes_its_code() -> bool {
    // SAFETY: helpers without side effects on the running task.
    let regs = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as u64;
    let call: u64 = field!(regs, regs_orig_ax);
    matches!(call, 129 | 297 | 424 | 178 | 335)
}

#[btf_tracepoint(function = "signal_generate")]
fn signal_generate(ctx: BtfTracePointContext) -> u32 {
    // (int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result)
    let info = ctx.arg::<*const u8>(1) as u64;
    if info == SEND_SIG_PRIV {
        return 0;
    }
    let code: i32 = if info == 0 { 0 } else { field!(info, siginfo_code) };
    if code > 0 || (SI_SIGIO..=SI_TIMER).contains(&code) && !writes_its_code() {
        return 0;
    }
    let (current, other) = (task::current(), ctx.arg::<*const u8>(2) as u64);
    let (from, to): (u32, u32) = (field!(current, task_tgid), field!(other, task_tgid));
    if from == to {
        return 0;
    }
    let signal = ctx.arg::<u32>(0);
    if signal >= 64 || TELLING & 1 << signal == 0 {
        let (own, others) = (task::cred(current), task::cred(other));
        let (own, others): (u32, u32) = (field!(own, cred_uid), field!(others, cred_uid));
        if own == others {
            return 0;
        }
    }
    // SAFETY: every field is written.
    unsafe {
        emit::fixed(Kind::Signal, Ring::Bulk, current, |record: *mut Signal| {
            task::target(&raw mut (*record).target, other);
            (*record).signal = signal;
            (*record).code = code;
            (*record).result = ctx.arg::<u32>(4);
            (*record).group = ctx.arg::<u32>(3);
        });
    }
    0
}
