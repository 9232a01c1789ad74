//! Paths, walked from the leaf to the root. `bpf_d_path` is not allowed in tp_btf programs.

use bartizan_sensor_ebpf::abi::{CGROUP_COMPONENTS, PATH_COMPONENTS};

use super::maps::Scratch;
use super::{field, offset, read, tail};

/// Appends the components of `path` (the address of a `struct path`) to the tail, the leaf first, each with its NUL.
/// Returns whether components are missing.
#[inline(always)]
pub(crate) fn walk(scratch: *mut Scratch, fixed: u64, path: u64) -> u64 {
    walk_from(scratch, fixed, field!(path, path_dentry), field!(path, path_mnt))
}

/// The same for a `struct dentry` and a `struct vfsmount`.
#[inline(never)]
pub(crate) fn walk_from(scratch: *mut Scratch, fixed: u64, dentry: u64, vfsmount: u64) -> u64 {
    let mut dentry = dentry;
    if dentry == 0 || vfsmount == 0 {
        return 0;
    }
    let mut mount = vfsmount - offset!(mount_mnt);
    for _ in 0..PATH_COMPONENTS {
        let root: u64 = read(mount + offset!(mount_mnt) + offset!(vfsmount_root));
        let parent: u64 = field!(dentry, dentry_parent);
        if dentry == root {
            let above: u64 = field!(mount, mount_parent);
            if above == mount || above == 0 {
                return 0;
            }
            dentry = field!(mount, mount_mountpoint);
            mount = above;
            continue;
        }
        if !tail::name(scratch, fixed, field!(dentry, dentry_name)) {
            return 1;
        }
        if parent == dentry || parent == 0 {
            // A root that is no mount's root: a memfd, or a detached tree.
            return 0;
        }
        dentry = parent;
    }
    1
}

/// The same from a `struct dentry` up to the root of its file system: where the caller's mount is not at hand.
#[inline(never)]
pub(crate) fn walk_in_file_system(scratch: *mut Scratch, fixed: u64, dentry: u64) -> u64 {
    let mut dentry = dentry;
    for _ in 0..PATH_COMPONENTS {
        let parent: u64 = field!(dentry, dentry_parent);
        if parent == dentry || parent == 0 {
            return 0;
        }
        if !tail::name(scratch, fixed, field!(dentry, dentry_name)) {
            return 1;
        }
        dentry = parent;
    }
    1
}

/// Appends the names of the task's cgroup, the leaf first. A v1 hierarchy is asked where the unified one has the task in
/// its root.
#[inline(never)]
pub(crate) fn cgroup(scratch: *mut Scratch, fixed: u64, task: u64) -> u64 {
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
        if above == 0 || !tail::name(scratch, fixed, field!(node, kn_name)) {
            break;
        }
        node = above;
        above = field!(node, kn_parent);
    }
    0
}
