//! Paths, walked from the leaf to the root. `bpf_d_path` is not allowed in tp_btf programs.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use bartizan_sensor_ebpf::abi::{CGROUP_COMPONENTS, COMPONENT_MAX, PATH_COMPONENTS, TAIL_MAX};

use super::{bound, field, offset, read};

/// Set in the result of [`walk`] when the path did not fit.
pub(crate) const TRUNCATED: u64 = 1 << 32;

/// Writes one name at `tail + used`; returns the bytes it took with its NUL.
#[inline(always)]
fn name(tail: *mut u8, used: u64, address: u64) -> u64 {
    // SAFETY: `used` is masked below TAIL_MAX, and the scratch goes on for more than COMPONENT_MAX behind it.
    let written = unsafe {
        bpf_probe_read_kernel_str(
            tail.add(bound::<{ TAIL_MAX as u32 - 1 }>(used) as usize).cast(),
            COMPONENT_MAX as u32,
            address as *const _,
        )
    };
    if written > 0 { bound::<{ COMPONENT_MAX as u32 * 2 - 1 }>(written as u64) } else { 0 }
}

/// Appends the components of `path` (the address of a `struct path`) to the tail, the leaf first, each with its NUL.
/// Returns the new fill of the tail, with [`TRUNCATED`] where components are missing.
#[inline(never)]
pub(crate) fn walk(tail: *mut u8, used: u64, path: u64) -> u64 {
    let mut used = used;
    let mut dentry: u64 = field!(path, path_dentry);
    let vfsmount: u64 = field!(path, path_mnt);
    if dentry == 0 || vfsmount == 0 {
        return used;
    }
    let mut mount = vfsmount - offset!(mount_mnt);
    for _ in 0..PATH_COMPONENTS {
        let root: u64 = read(mount + offset!(mount_mnt) + offset!(vfsmount_root));
        let parent: u64 = field!(dentry, dentry_parent);
        if dentry == root {
            let above: u64 = field!(mount, mount_parent);
            if above == mount || above == 0 {
                return used;
            }
            dentry = field!(mount, mount_mountpoint);
            mount = above;
            continue;
        }
        if used > (TAIL_MAX - COMPONENT_MAX) as u64 {
            return used | TRUNCATED;
        }
        used += name(tail, used, field!(dentry, dentry_name));
        if parent == dentry || parent == 0 {
            // A root that is no mount's root: a memfd, or a detached tree.
            return used;
        }
        dentry = parent;
    }
    used | TRUNCATED
}

/// Appends the names of the task's cgroup, the leaf first. A v1 hierarchy is asked where the unified one has the task in
/// its root.
#[inline(never)]
pub(crate) fn cgroup(tail: *mut u8, used: u64, task: u64) -> u64 {
    let mut used = used;
    let css_set: u64 = field!(task, task_cgroups);
    let unified: u64 = field!(css_set, css_set_dfl);
    let mut node: u64 = field!(unified, cgroup_kn);
    let mut above: u64 = field!(node, kn_parent);
    if above == 0 && offset!(cgroup_v1_subsys) != u64::from(bartizan_sensor_ebpf::layout::ABSENT) {
        let state: u64 = read(css_set + offset!(css_set_subsys) + offset!(cgroup_v1_subsys) * 8);
        let cgroup: u64 = field!(state, css_cgroup);
        node = field!(cgroup, cgroup_kn);
        above = field!(node, kn_parent);
    }
    for _ in 0..CGROUP_COMPONENTS {
        if above == 0 || used > (TAIL_MAX - COMPONENT_MAX) as u64 {
            break;
        }
        used += name(tail, used, field!(node, kn_name));
        node = above;
        above = field!(node, kn_parent);
    }
    used
}
