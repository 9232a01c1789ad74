//! The image, credentials and standard streams of a task: the part that exec and seed records share.

use bartizan_sensor_ebpf::abi::{
    EXE_ALONE, EXE_UPPER, FLAG_CWD_TRUNCATED, FLAG_EXE_TRUNCATED, FLAG_RELAY_TRUNCATED, Fd, Header, Image, RELAY_SOCKETS, Relay, STDIO,
};
use bartizan_sensor_ebpf::layout::ABSENT;

use super::maps::{SCRATCH, Scratch};
use super::object::Object;
use super::{copy, fd, field, namespace, offset, path, read, tail};

/// include/uapi/linux/magic.h. In fs/overlayfs/ovl_entry.h, `__upperdentry` follows the `vfs_inode` of `struct ovl_inode` (6.1, 6.12 and
/// 6.18): not null is a file of the writable layer, also one that was copied up.
const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;

/// `I_CTIME_QUERIED`, include/linux/fs.h since 6.13: a mark in the nanoseconds that is no part of the time.
const CTIME_QUERIED: u32 = 1 << 31;

/// Fills `image` except for its spans.
///
/// # Safety
/// `image` must be valid for writing, and its bytes zero.
#[inline(always)]
pub(crate) unsafe fn credentials<O: Object>(image: *mut Image, task: O) {
    let cred = super::task::cred(task);
    let parent: O = field!(task, task_real_parent);
    let parent_leader: O = field!(parent, task_group_leader);
    let parent_exec_id: u64 = field!(parent, task_self_exec_id);
    let nsproxy: O = field!(task, task_nsproxy);
    let mnt_ns: O = field!(nsproxy, nsproxy_mnt_ns);
    // <VERIFIER> An address: where in it depends on the level, and nothing unknown can be added to a pointer of known type.
    let pid: u64 = read(task.address() + offset!(task_thread_pid));
    let level: u32 = field!(pid, pid_level);
    let pid_ns: u64 = read(pid + offset!(pid_numbers) + u64::from(level) * offset!(upid_size) + offset!(upid_ns));
    let signal: O = field!(task, task_signal);
    let sid_pid: u64 = signal.member(offset!(signal_pids) + offset!(pidtype_sid) * 8);
    let tty: O = field!(signal, signal_tty);
    // SAFETY: `image` is valid by contract.
    unsafe {
        (*image).parent_start_boottime = field!(parent_leader, task_start_boottime);
        (*image).parent_exec_id = parent_exec_id as u32;
        (*image).cap_effective = field!(cred, cred_cap_effective);
        (*image).gid = field!(cred, cred_gid);
        (*image).loginuid = if offset!(task_loginuid) == u64::from(ABSENT) { u32::MAX } else { field!(task, task_loginuid) };
        (*image).audit_session = if offset!(task_sessionid) == u64::from(ABSENT) { u32::MAX } else { field!(task, task_sessionid) };
        (*image).sid = if sid_pid == 0 { 0 } else { read(sid_pid + offset!(pid_numbers) + offset!(upid_nr)) };
        (*image).mnt_ns = field!(mnt_ns, mntns_inum);
        (*image).pid_ns = field!(pid_ns, pidns_inum);
        (*image).cgroup_ns = namespace!(nsproxy, nsproxy_cgroup_ns, cgroupns_inum);
        (*image).ipc_ns = namespace!(nsproxy, nsproxy_ipc_ns, ipcns_inum);
        (*image).net_ns = namespace!(nsproxy, nsproxy_net_ns, netns_inum);
        let has_time = offset!(nsproxy_time_ns) != u64::from(ABSENT) && offset!(timens_inum) != u64::from(ABSENT);
        (*image).time_ns = if has_time { namespace!(nsproxy, nsproxy_time_ns, timens_inum) } else { 0 };
        (*image).uts_ns = namespace!(nsproxy, nsproxy_uts_ns, utsns_inum);
        (*image).user_ns = namespace!(cred, cred_user_ns, userns_inum);
        copy((&raw mut (*image).comm).cast(), 16, task.address() + offset!(task_comm));
        if !tty.is_null() {
            copy((&raw mut (*image).tty).cast(), 16, tty.address() + offset!(tty_name));
        }
    }
}

/// Fills what the executable's inode says and appends cgroup, exe path and working directory to the tail.
///
/// # Safety
/// `image` and `header` must lie in `scratch`, whose tail begins at `fixed`.
#[inline(always)]
pub(crate) unsafe fn paths<O: Object>(scratch: *mut Scratch, header: *mut Header, image: *mut Image, fixed: usize, task: O) {
    let from = tail::used(scratch);
    path::cgroup(scratch, fixed as u64, task.address());
    // SAFETY: by contract, here and below.
    unsafe { (*image).cgroup = tail::span(scratch, fixed, from) };

    let mm: O = field!(task, task_mm);
    if !mm.is_null() {
        let file: O = field!(mm, mm_exe_file);
        if !file.is_null() {
            let inode: O = field!(file, file_inode);
            let sb: O = field!(inode, inode_sb);
            let mode: u16 = field!(inode, inode_mode);
            let magic: u64 = field!(sb, sb_magic);
            let (dentry, mount): (O, u64) =
                (file.member(offset!(file_path) + offset!(path_dentry)), file.member(offset!(file_path) + offset!(path_mnt)));
            let folder: u64 = field!(dentry, dentry_parent);
            let mut flags = if folder == dentry.address() { EXE_ALONE } else { 0 };
            if magic == OVERLAYFS_SUPER_MAGIC && read::<u64>(inode.address() + offset!(inode_struct_size)) != 0 {
                flags |= EXE_UPPER;
            }
            let from = tail::used(scratch);
            // SAFETY: as above.
            unsafe {
                if path::walk_from(scratch, fixed as u64, dentry.address(), mount) != 0 {
                    (*header).flags |= FLAG_EXE_TRUNCATED;
                }
                (*image).exe = tail::span(scratch, fixed, from);
                (*image).exe_inode = field!(inode, inode_ino);
                (*image).exe_device = field!(sb, sb_dev);
                (*image).exe_mode = u32::from(mode);
                (*image).exe_owner = field!(inode, inode_uid);
                (*image).exe_nlink = field!(inode, inode_nlink);
                (*image).exe_size = field!(inode, inode_size);
                (*image).exe_ctime_sec = field!(inode, inode_ctime_sec);
                let nanoseconds: u32 = field!(inode, inode_ctime_nsec);
                (*image).exe_ctime_nsec = nanoseconds & !CTIME_QUERIED;
                (*image).exe_magic = magic as u32;
                (*image).exe_flags |= flags;
            }
        }
    }
    let fs: O = field!(task, task_fs);
    if !fs.is_null() {
        let from = tail::used(scratch);
        // SAFETY: as above.
        unsafe {
            if path::walk(scratch, fixed as u64, fs.address() + offset!(fs_pwd)) != 0 {
                (*header).flags |= FLAG_CWD_TRUNCATED;
            }
            (*image).cwd = tail::span(scratch, fixed, from);
        }
    }
}

/// Describes descriptors 0-2 of `task` and what its parent holds of their other ends.
///
/// # Safety
/// `header`, `stdio` and `out` must lie in `scratch`, and the bytes of the last two be zero.
#[inline(always)]
pub(crate) unsafe fn streams<O: Object>(scratch: *mut Scratch, header: *mut Header, stdio: *mut [Fd; STDIO], out: *mut Relay, task: O) {
    let ends = no_ends(scratch);
    for number in 0..STDIO {
        let file = fd::file_of(task, number as u32);
        // SAFETY: three elements each; volatile, so that the values go through memory (see `fd::relay`).
        unsafe {
            let end = if file == 0 { 0 } else { fd::describe(file, stdio.cast::<Fd>().add(number)) };
            ends.add(number).write_volatile(end);
        }
    }
    // SAFETY: as above.
    if unsafe { ends.read_volatile() | ends.add(1).read_volatile() | ends.add(2).read_volatile() } == 0 {
        return;
    }
    let parent: O = field!(task, task_real_parent);
    let leader: O = field!(parent, task_group_leader);
    let exec_id: u64 = field!(parent, task_self_exec_id);
    // SAFETY: by contract.
    unsafe {
        (*out).tgid = field!(parent, task_tgid);
        (*out).start_boottime = field!(leader, task_start_boottime);
        (*out).exec_id = exec_id as u32;
        if fd::relay(parent.address(), out, ends) != 0 {
            (*header).flags |= FLAG_RELAY_TRUNCATED;
        }
    }
}

/// Room for the other ends of stdio and for the sockets that were seen: the last words of the scratch but for the fill of the
/// tail, where no record reaches. All zero.
#[inline(always)]
fn no_ends(scratch: *mut Scratch) -> *mut u64 {
    const WORDS: usize = STDIO + RELAY_SOCKETS;
    // SAFETY: inside the scratch.
    let ends = unsafe { scratch.cast::<u8>().add(SCRATCH - (WORDS + 1) * 8).cast::<u64>() };
    for word in 0..WORDS {
        // SAFETY: as above; volatile, so that the values go through memory (see `fd::relay`).
        unsafe { ends.add(word).write_volatile(0) };
    }
    ends
}

/// Fills `out` with the connected INET sockets that `task` itself holds.
///
/// # Safety
/// `out` must lie in `scratch`, and its bytes be zero.
#[inline(always)]
pub(crate) unsafe fn own_sockets(scratch: *mut Scratch, out: *mut Relay, task: u64) {
    fd::relay(task, out, no_ends(scratch));
}
