//! A process was made. Threads are not processes: only thread-group leaders are told.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use bartizan_sensor_ebpf::abi::{Count, Fork, Kind};

use crate::kernel::maps::PRIORITY;
use crate::kernel::{copy, emit, field, offset, task};

#[btf_tracepoint(function = "sched_process_fork")]
fn sched_process_fork(ctx: BtfTracePointContext) -> u32 {
    // (struct task_struct *parent, struct task_struct *child)
    let (parent, child) = (ctx.arg::<*const u8>(0) as u64, ctx.arg::<*const u8>(1) as u64);
    let (pid, tgid): (u32, u32) = (field!(child, task_pid), field!(child, task_tgid));
    if pid != tgid {
        return 0;
    }
    let parent_tgid: u32 = field!(parent, task_tgid);
    if emit::is_self(Kind::Fork, parent_tgid) {
        return 0;
    }
    let Some(mut entry) = PRIORITY.reserve::<Fork>(0) else {
        emit::count(Kind::Fork, Count::RingFull);
        return 0;
    };
    let record = entry.as_mut_ptr();
    let exec_id: u64 = field!(child, task_self_exec_id);
    // SAFETY: reserved memory of the record's size, submitted below with nothing in between that could leave.
    unsafe {
        task::subject(&raw mut (*record).header, parent);
        (*record).child_start_boottime = field!(child, task_start_boottime);
        (*record).child_tgid = tgid;
        (*record).child_exec_id = exec_id as u32;
        copy((&raw mut (*record).comm).cast(), 16, child + offset!(task_comm));
        emit::stamp(&raw mut (*record).header, Kind::Fork, size_of::<Fork>() as u32);
    }
    entry.submit(0);
    emit::count(Kind::Fork, Count::Emitted);
    0
}
