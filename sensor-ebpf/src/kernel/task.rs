//! Who acts.

use bartizan_sensor_ebpf::abi::{FLAG_KERNEL_THREAD, Header, Target};

use super::{field, offset, read};

/// `PF_KTHREAD`, include/linux/sched.h.
const PF_KTHREAD: u32 = 0x0020_0000;

/// Fills the subject of `header` from `task` (an address), and clears the flags.
///
/// # Safety
/// `header` must be valid for writing.
#[inline(always)]
pub(crate) unsafe fn subject(header: *mut Header, task: u64) {
    let leader: u64 = field!(task, task_group_leader);
    let cred: u64 = field!(task, task_cred);
    let parent: u64 = field!(task, task_real_parent);
    let flags: u32 = field!(task, task_flags);
    let exec_id: u64 = field!(task, task_self_exec_id);
    // SAFETY: `header` is valid by contract.
    unsafe {
        (*header).flags = if flags & PF_KTHREAD != 0 { FLAG_KERNEL_THREAD } else { 0 };
        (*header).tgid = field!(task, task_tgid);
        (*header).tid = field!(task, task_pid);
        (*header).start_boottime = field!(leader, task_start_boottime);
        (*header).exec_id = exec_id as u32;
        (*header).uid = field!(cred, cred_uid);
        (*header).euid = field!(cred, cred_euid);
        (*header).cgroup_id = cgroup_id(task);
        (*header).ppid = field!(parent, task_tgid);
    }
}

/// Fills `target` from `task` (an address).
///
/// # Safety
/// `target` must be valid for writing.
#[inline(always)]
pub(crate) unsafe fn target(target: *mut Target, task: u64) {
    let leader: u64 = field!(task, task_group_leader);
    let cred: u64 = field!(task, task_cred);
    let exec_id: u64 = field!(task, task_self_exec_id);
    // SAFETY: by contract.
    unsafe {
        (*target).start_boottime = field!(leader, task_start_boottime);
        (*target).tgid = field!(task, task_tgid);
        (*target).tid = field!(task, task_pid);
        (*target).exec_id = exec_id as u32;
        (*target).uid = field!(cred, cred_uid);
    }
}

/// Id of the task's cgroup in the unified hierarchy.
#[inline(always)]
fn cgroup_id(task: u64) -> u64 {
    let css_set: u64 = field!(task, task_cgroups);
    let cgroup: u64 = field!(css_set, css_set_dfl);
    let node: u64 = field!(cgroup, cgroup_kn);
    field!(node, kn_id)
}

/// Address of the leader of the process with this `struct pid`; 0 where it has ended.
#[inline(always)]
pub(crate) fn leader_of(pid: u64) -> u64 {
    // A `struct hlist_node` is two addresses.
    let first: u64 = read(pid + offset!(pid_tasks) + offset!(pidtype_tgid) * 8);
    if first == 0 { 0 } else { first - offset!(task_pid_links) - offset!(pidtype_tgid) * 16 }
}

/// Address of the running task.
#[inline(always)]
pub(crate) fn current() -> u64 {
    // SAFETY: the helper takes nothing and returns an address.
    unsafe { aya_ebpf::helpers::generated::bpf_get_current_task() }
}
