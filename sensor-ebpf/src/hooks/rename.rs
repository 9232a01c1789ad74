//! A process got another name (`comm`) by `prctl(PR_SET_NAME)` or by a write to `/proc/<pid>/task/<tid>/comm`.
//!
//! Threads are none of it: thread pools name each of theirs. What exec does is told by the exec.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use bartizan_sensor_ebpf::abi::{Kind, Rename, Ring, Target};

use crate::kernel::call::Call;
use crate::kernel::task::{PF_IO_WORKER, PF_KTHREAD, PF_USER_WORKER};
use crate::kernel::{copy, emit, field, offset, task};

/// Threads of the kernel, and those that it makes for io_uring and vhost.
const KERNELS: u32 = PF_KTHREAD | PF_IO_WORKER | PF_USER_WORKER;

#[btf_tracepoint(function = "task_rename")]
fn task_rename(ctx: BtfTracePointContext) -> u32 {
    // (struct task_struct *task, const char *comm), before the change
    let (other, name) = (ctx.arg::<*const u8>(0) as u64, ctx.arg::<*const u8>(1) as u64);
    let (pid, tgid): (u32, u32) = (field!(other, task_pid), field!(other, task_tgid));
    let flags: u32 = field!(other, task_flags);
    if pid != tgid || flags & KERNELS != 0 || Call::now().is_exec() {
        return 0;
    }
    let mut after = [0_u64; 2];
    let mut before = [0_u64; 2];
    // SAFETY: both arrays have the 16 bytes of a `comm`.
    unsafe {
        bpf_probe_read_kernel_str(after.as_mut_ptr().cast(), 16, name as *const _);
        bpf_probe_read_kernel_str(before.as_mut_ptr().cast(), 16, (other + offset!(task_comm)) as *const _);
    }
    if before[0] == after[0] && before[1] == after[1] {
        return 0;
    }
    let current = task::current();
    // SAFETY: every field is written.
    unsafe {
        emit::fixed(Kind::Rename, Ring::Bulk, current, |record: *mut Rename| {
            (*record).target = Target { start_boottime: 0, tgid: 0, tid: 0, exec_id: 0, uid: 0 };
            let own: u32 = field!(current, task_tgid);
            if own != tgid {
                task::target(&raw mut (*record).target, other);
            }
            copy((&raw mut (*record).before).cast(), 16, before.as_ptr() as u64);
            copy((&raw mut (*record).after).cast(), 16, after.as_ptr() as u64);
        });
    }
    0
}
