//! What /proc says of a process, as CBOR: the one input that is no bytes of the kernel.

use bartizan_bus::event::{InetSocket, ProcessNamespaces, Stdio};
use minicbor::{Decode, Encode};

use crate::project::{ExeInode, Image, Relay, Subject};

/// A [`Subject`].
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct SavedSubject {
    #[n(0)]
    ktime: u64,
    #[n(1)]
    cpu: u16,
    #[n(2)]
    seq: u32,
    #[n(3)]
    tgid: u32,
    #[n(4)]
    tid: u32,
    #[n(5)]
    start_boottime: u64,
    #[n(6)]
    exec_id: u32,
    #[n(7)]
    uid: u32,
    #[n(8)]
    euid: u32,
    #[n(9)]
    ppid: u32,
    #[n(10)]
    cgroup_id: u64,
    #[n(11)]
    kernel_thread: bool,
}

impl From<&Subject> for SavedSubject {
    fn from(subject: &Subject) -> Self {
        let Subject { ktime, cpu, seq, tgid, tid, start_boottime, exec_id, uid, euid, ppid, cgroup_id, kernel_thread } = *subject;
        Self { ktime, cpu, seq, tgid, tid, start_boottime, exec_id, uid, euid, ppid, cgroup_id, kernel_thread }
    }
}

impl From<SavedSubject> for Subject {
    fn from(saved: SavedSubject) -> Self {
        let SavedSubject { ktime, cpu, seq, tgid, tid, start_boottime, exec_id, uid, euid, ppid, cgroup_id, kernel_thread } = saved;
        Self { ktime, cpu, seq, tgid, tid, start_boottime, exec_id, uid, euid, ppid, cgroup_id, kernel_thread }
    }
}

/// An [`ExeInode`].
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct SavedExe {
    #[n(0)]
    inode: u64,
    #[n(1)]
    device: u32,
    #[n(2)]
    mode: u32,
    #[n(3)]
    owner: u32,
    #[n(4)]
    nlink: u32,
    #[n(5)]
    #[cbor(default)]
    size: u64,
    #[n(6)]
    #[cbor(default)]
    changed: (i64, u32),
    #[n(7)]
    #[cbor(default)]
    magic: u32,
    #[n(8)]
    #[cbor(default)]
    upper: bool,
    #[n(9)]
    #[cbor(default)]
    alone: bool,
}

impl From<ExeInode> for SavedExe {
    fn from(file: ExeInode) -> Self {
        let ExeInode { inode, device, mode, owner, nlink, size, changed, magic, upper, alone } = file;
        Self { inode, device, mode, owner, nlink, size, changed, magic, upper, alone }
    }
}

impl From<SavedExe> for ExeInode {
    fn from(saved: SavedExe) -> Self {
        let SavedExe { inode, device, mode, owner, nlink, size, changed, magic, upper, alone } = saved;
        Self { inode, device, mode, owner, nlink, size, changed, magic, upper, alone }
    }
}

/// A [`Relay`].
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct SavedRelay {
    #[n(0)]
    tgid: u32,
    #[n(1)]
    start_boottime: u64,
    #[n(2)]
    exec_id: u32,
    #[n(3)]
    fds: Vec<u8>,
    #[n(4)]
    sockets: Vec<InetSocket>,
    #[n(5)]
    truncated: bool,
}

/// An [`Image`].
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct SavedImage {
    #[n(0)]
    name: String,
    #[n(1)]
    exe: Option<String>,
    #[n(2)]
    exe_truncated: bool,
    #[n(3)]
    exe_file: Option<SavedExe>,
    #[n(4)]
    argv: Vec<String>,
    #[n(5)]
    argv_truncated: bool,
    #[n(6)]
    cwd: Option<String>,
    #[n(7)]
    cgroup: Option<String>,
    #[n(8)]
    gid: u32,
    #[n(9)]
    loginuid: Option<u32>,
    #[n(10)]
    audit_session: Option<u32>,
    #[n(11)]
    sid: u32,
    #[n(12)]
    tty: Option<String>,
    #[n(13)]
    cap_effective: u64,
    #[n(14)]
    mnt_ns: u32,
    #[n(15)]
    pid_ns: u32,
    #[n(16)]
    parent_start_boottime: u64,
    #[n(17)]
    parent_exec_id: u32,
    #[n(18)]
    stdio: Vec<Stdio>,
    #[n(19)]
    relay: Option<SavedRelay>,
    #[n(20)]
    sockets: Vec<InetSocket>,
    #[n(21)]
    #[cbor(default)]
    namespaces: ProcessNamespaces,
}

impl From<&Image> for SavedImage {
    fn from(image: &Image) -> Self {
        let Image {
            name,
            exe,
            exe_truncated,
            exe_file,
            argv,
            argv_truncated,
            cwd,
            cgroup,
            gid,
            loginuid,
            audit_session,
            sid,
            tty,
            cap_effective,
            mnt_ns,
            pid_ns,
            namespaces,
            parent_start_boottime,
            parent_exec_id,
            stdio,
            relay,
            sockets,
        } = image.clone();
        Self {
            name,
            exe,
            exe_truncated,
            exe_file: exe_file.map(SavedExe::from),
            argv,
            argv_truncated,
            cwd,
            cgroup,
            gid,
            loginuid,
            audit_session,
            sid,
            tty,
            cap_effective,
            mnt_ns,
            pid_ns,
            namespaces,
            parent_start_boottime,
            parent_exec_id,
            stdio,
            relay: relay.map(|Relay { tgid, start_boottime, exec_id, fds, sockets, truncated }| SavedRelay {
                tgid,
                start_boottime,
                exec_id,
                fds,
                sockets,
                truncated,
            }),
            sockets,
        }
    }
}

impl From<SavedImage> for Image {
    fn from(saved: SavedImage) -> Self {
        let SavedImage {
            name,
            exe,
            exe_truncated,
            exe_file,
            argv,
            argv_truncated,
            cwd,
            cgroup,
            gid,
            loginuid,
            audit_session,
            sid,
            tty,
            cap_effective,
            mnt_ns,
            pid_ns,
            namespaces,
            parent_start_boottime,
            parent_exec_id,
            stdio,
            relay,
            sockets,
        } = saved;
        Self {
            name,
            exe,
            exe_truncated,
            exe_file: exe_file.map(ExeInode::from),
            argv,
            argv_truncated,
            cwd,
            cgroup,
            gid,
            loginuid,
            audit_session,
            sid,
            tty,
            cap_effective,
            mnt_ns,
            pid_ns,
            namespaces,
            parent_start_boottime,
            parent_exec_id,
            stdio,
            relay: relay.map(|SavedRelay { tgid, start_boottime, exec_id, fds, sockets, truncated }| Relay {
                tgid,
                start_boottime,
                exec_id,
                fds,
                sockets,
                truncated,
            }),
            sockets,
        }
    }
}
