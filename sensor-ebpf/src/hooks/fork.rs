//! A process was made. Threads are not processes: only thread-group leaders are told.
//!
//! `tp_btf/task_newtask` and not `sched_process_fork`, which does not say how: kernel/fork.c has it at the end of `copy_process`, where nothing
//! can fail any more, before the child is woken, and in the task that makes it, also with `CLONE_PARENT`.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use bartizan_sensor_ebpf::abi::{Fork, Kind, Ring};

use crate::kernel::object::{Known, Object};
use crate::kernel::{copy, emit, field, offset, task};

#[btf_tracepoint(function = "task_newtask")]
fn task_newtask(ctx: BtfTracePointContext) -> u32 {
    // (struct task_struct *task, unsigned long clone_flags)
    let (child, flags) = (Known::new(ctx.arg(0)), ctx.arg::<u64>(1));
    let (pid, tgid): (u32, u32) = (field!(child, task_pid), field!(child, task_tgid));
    // Idle tasks, one for a processor that comes up, have pid 0 and are no processes.
    if pid != tgid || pid == 0 {
        return 0;
    }
    let exec_id: u64 = field!(child, task_self_exec_id);
    // SAFETY: every field is written.
    unsafe {
        emit::fixed(Kind::Fork, Ring::Priority, task::current(), |record: *mut Fork| {
            (*record).child_start_boottime = field!(child, task_start_boottime);
            (*record).flags = flags;
            (*record).child_tgid = tgid;
            (*record).child_exec_id = exec_id as u32;
            copy((&raw mut (*record).comm).cast(), 16, child.address() + offset!(task_comm));
        });
    }
    0
}
