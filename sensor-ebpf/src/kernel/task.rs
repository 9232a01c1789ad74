//! Who acts.

use bartizan_sensor_ebpf::abi::{FLAG_KERNEL_THREAD, Header, Target};

use super::object::{Known, Object};
use super::{field, offset, read};

/// include/linux/sched.h.
pub(crate) const PF_IO_WORKER: u32 = 0x0000_0010;
pub(crate) const PF_USER_WORKER: u32 = 0x0000_4000;
pub(crate) const PF_KTHREAD: u32 = 0x0020_0000;

/// Fills the subject of `header` from `task`, and clears the flags.
///
/// # Safety
/// `header` must be valid for writing.
#[inline(always)]
pub(crate) unsafe fn subject<O: Object>(header: *mut Header, task: O) {
    let leader: O = field!(task, task_group_leader);
    let cred: O = field!(task, task_cred);
    let parent: O = field!(task, task_real_parent);
    let flags: u32 = field!(task, task_flags);
    let exec_id: u64 = field!(task, task_self_exec_id);
    // SAFETY: `header` is valid by contract.
    unsafe {
        (*header).flags = if flags & PF_KTHREAD != 0 { FLAG_KERNEL_THREAD } else { 0 };
        (*header).tgid = field!(task, task_tgid);
        (*header).tid = field!(task, task_pid);
        (*header).start_boottime = field!(leader, task_start_boottime);
        (*header).exec_id = exec_id as u32;
        // <VERIFIER> Compared first: where the kernel's types say `__rcu`, it may be null as far as the verifier knows.
        ((*header).uid, (*header).euid) =
            if cred.is_null() { (u32::MAX, u32::MAX) } else { (field!(cred, cred_uid), field!(cred, cred_euid)) };
        (*header).cgroup_id = cgroup_id(task);
        (*header).ppid = field!(parent, task_tgid);
    }
}

/// Fills `target` from `task`.
///
/// # Safety
/// `target` must be valid for writing.
#[inline(always)]
pub(crate) unsafe fn target<O: Object>(target: *mut Target, task: O) {
    let leader: O = field!(task, task_group_leader);
    let cred: O = field!(task, task_cred);
    let exec_id: u64 = field!(task, task_self_exec_id);
    // SAFETY: by contract.
    unsafe {
        (*target).start_boottime = field!(leader, task_start_boottime);
        (*target).tgid = field!(task, task_tgid);
        (*target).tid = field!(task, task_pid);
        (*target).exec_id = exec_id as u32;
        // <VERIFIER> As in `subject`.
        (*target).uid = if cred.is_null() { u32::MAX } else { field!(cred, cred_uid) };
    }
}

/// Address of the credentials that `task` acts with.
///
/// `<VERIFIER>` By the helper: what a load gives may be null as far as the verifier knows (see [`Known`]), and cannot be added to unchecked.
#[inline(always)]
pub(crate) fn cred(task: impl Object) -> u64 {
    read(task.address() + offset!(task_cred))
}

/// Those that others see of `task`, likewise.
#[inline(always)]
pub(crate) fn real_cred(task: impl Object) -> u64 {
    read(task.address() + offset!(task_real_cred))
}

/// Id of the task's cgroup in the unified hierarchy.
#[inline(always)]
fn cgroup_id<O: Object>(task: O) -> u64 {
    let css_set: O = field!(task, task_cgroups);
    let cgroup: O = field!(css_set, css_set_dfl);
    let node: O = field!(cgroup, cgroup_kn);
    field!(node, kn_id)
}

/// Address of the leader of the process with this `struct pid`; 0 where it has ended.
#[inline(always)]
pub(crate) fn leader_of(pid: u64) -> u64 {
    // A `struct hlist_node` is two addresses.
    let first: u64 = read(pid + offset!(pid_tasks) + offset!(pidtype_tgid) * 8);
    if first == 0 { 0 } else { first - offset!(task_pid_links) - offset!(pidtype_tgid) * 16 }
}

/// The running task.
#[inline(always)]
pub(crate) fn current() -> Known {
    // SAFETY: the helper takes nothing and returns a pointer of which the verifier knows the type (Linux 5.11).
    Known::new(unsafe { aya_ebpf::helpers::generated::bpf_get_current_task_btf() }.cast_const().cast())
}
