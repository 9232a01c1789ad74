//! A process ended: its last thread did. A leader may go before its threads; then this waits for the last of them.
//!
//! `signal->live` is counted down before the tracepoint: two last threads that run at once both read zero here, so the
//! first one to say so is remembered.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use bartizan_sensor_ebpf::abi::{Count, Exit, Kind, Ring};

use crate::kernel::maps::{BPF_NOEXIST, ENDED, Ended, PRIORITY};
use crate::kernel::object::Known;
use crate::kernel::{emit, field, task};

/// `SIGNAL_GROUP_EXIT`, include/linux/sched/signal.h.
const SIGNAL_GROUP_EXIT: u32 = 4;

#[btf_tracepoint(function = "sched_process_exit")]
fn sched_process_exit(ctx: BtfTracePointContext) -> u32 {
    // (struct task_struct *p [, bool group_dead])
    let exiting = Known::new(ctx.arg(0));
    let signal: Known = field!(exiting, task_signal);
    let live: i32 = field!(signal, signal_live);
    if live != 0 {
        return 0;
    }
    let tgid: u32 = field!(exiting, task_tgid);
    if emit::is_self(Kind::Exit, tgid) {
        return 0;
    }
    let leader: Known = field!(exiting, task_group_leader);
    let key = Ended { start_boottime: field!(leader, task_start_boottime), tgid: u64::from(tgid) };
    if ENDED.insert(&key, &1, BPF_NOEXIST).is_err() && ENDED.get_ptr(&key).is_some() {
        return 0;
    }
    let flags: u32 = field!(signal, signal_flags);
    // <VERIFIER> Both, because of two branches the compiler would make one load from either type.
    let (of_group, own): (u32, u32) = (field!(signal, signal_group_exit_code), field!(exiting, task_exit_code));
    let status = if flags & SIGNAL_GROUP_EXIT != 0 { of_group } else { own };
    let Some(mut entry) = PRIORITY.reserve::<Exit>(0) else {
        emit::count(Kind::Exit, Count::RingFull);
        return 0;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: as in the fork hook.
    unsafe {
        task::subject(&raw mut (*record).header, exiting);
        (*record).status = status;
        (*record).pad = 0;
        emit::stamp(&raw mut (*record).header, Kind::Exit, size_of::<Exit>() as u32);
    }
    entry.submit(emit::wakeup(Ring::Priority));
    emit::count(Kind::Exit, Count::Emitted);
    0
}
