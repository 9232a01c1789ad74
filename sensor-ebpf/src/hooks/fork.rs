//! A process was made. Threads are not processes: only thread-group leaders are told.
//!
//! `tp_btf/task_newtask` and not `sched_process_fork`, which does not say how: kernel/fork.c has it at the end of `copy_process`, where nothing
//! can fail any more, before the child is woken, and in the task that makes it, also with `CLONE_PARENT`.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use bartizan_sensor_ebpf::abi::{Count, Fork, Kind};

use crate::kernel::maps::PRIORITY;
use crate::kernel::{copy, emit, field, offset, task};

#[btf_tracepoint(function = "task_newtask")]
fn task_newtask(ctx: BtfTracePointContext) -> u32 {
    // (struct task_struct *task, unsigned long clone_flags)
    let (child, flags) = (ctx.arg::<*const u8>(0) as u64, ctx.arg::<u64>(1));
    let (pid, tgid): (u32, u32) = (field!(child, task_pid), field!(child, task_tgid));
    // Idle tasks, one for a processor that comes up, have pid 0 and are no processes.
    if pid != tgid || pid == 0 {
        return 0;
    }
    let parent = task::current();
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
        (*record).flags = flags;
        (*record).child_tgid = tgid;
        (*record).child_exec_id = exec_id as u32;
        copy((&raw mut (*record).comm).cast(), 16, child + offset!(task_comm));
        emit::stamp(&raw mut (*record).header, Kind::Fork, size_of::<Fork>() as u32);
    }
    entry.submit(0);
    emit::count(Kind::Fork, Count::Emitted);
    0
}
