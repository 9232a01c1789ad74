//! The subject of an event: one process with the image it runs.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

use super::{EventId, ExecId};

/// One process at the time of an event. Field terms follow ECS where ECS has one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Process {
    /// Names this image for ever.
    #[n(0)]
    pub exec_id: ExecId,
    /// The parent's image when this process was made or first seen.
    #[n(1)]
    pub parent: Option<ExecId>,
    /// Thread-group id, initial pid namespace.
    #[n(2)]
    pub pid: u32,
    /// Thread that acted.
    #[n(3)]
    pub tid: u32,
    /// Thread-group id of the real parent.
    #[n(4)]
    pub ppid: Option<u32>,
    /// Start of the process, Unix time in nanoseconds.
    #[n(5)]
    pub start_wall_ns: Option<i64>,
    /// `comm`: at most 15 bytes, chosen by the program itself.
    #[n(6)]
    pub name: String,
    /// The file that is executed, as the kernel resolved it.
    #[n(7)]
    pub exe: Option<ExeFile>,
    /// Argument vector; bytes that are not UTF-8 are written `\xNN`.
    #[n(8)]
    pub argv: Vec<String>,
    /// The argument vector was longer than what is kept.
    #[n(9)]
    pub argv_truncated: bool,
    /// Working directory at exec.
    #[n(10)]
    pub cwd: Option<String>,
    /// Real user id.
    #[n(11)]
    pub uid: u32,
    /// Effective user id.
    #[n(12)]
    pub euid: u32,
    /// Real group id.
    #[n(13)]
    pub gid: Option<u32>,
    /// Name of `uid` in this host's user database.
    #[n(14)]
    pub user: Option<String>,
    /// Audit login uid; `None` when never set.
    #[n(15)]
    pub loginuid: Option<u32>,
    /// Audit session id; `None` when never set.
    #[n(16)]
    pub audit_session: Option<u32>,
    /// Controlling terminal, such as `pts/3`.
    #[n(17)]
    pub tty: Option<String>,
    /// POSIX session id (`setsid`).
    #[n(18)]
    pub sid: Option<u32>,
    /// Effective capabilities, the kernel's bit mask.
    #[n(19)]
    pub cap_effective: Option<u64>,
    /// Control group.
    #[n(20)]
    pub cgroup: Option<Cgroup>,
    /// Container id (64 hex digits or the runtime's own form), read from the control group.
    #[n(21)]
    pub container: Option<String>,
    /// Mount namespace inode.
    #[n(22)]
    pub mnt_ns: Option<u32>,
    /// Pid namespace inode.
    #[n(23)]
    pub pid_ns: Option<u32>,
    /// A thread of the kernel: no exe, no argv.
    #[n(24)]
    pub kernel_thread: bool,
    /// Start time and image count come from `/proc` (10 ms ticks): `exec_id` is approximate.
    #[n(25)]
    pub approximate: bool,
    /// The login that this process belongs to: [`Auth::login`](super::Auth::login) of the innermost session that was opened at it or
    /// above it. `None` outside of every session that the sensor saw opening.
    #[n(26)]
    pub login: Option<EventId>,
}

/// The executed file.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct ExeFile {
    /// Resolved path in the process's mount tree. A deleted file keeps the path it had.
    #[n(0)]
    pub path: String,
    /// Inode number.
    #[n(1)]
    pub inode: Option<u64>,
    /// Device number, the kernel's `MKDEV` form.
    #[n(2)]
    pub device: Option<u32>,
    /// Mode bits, with file type and setuid/setgid.
    #[n(3)]
    pub mode: Option<u32>,
    /// Owner of the file.
    #[n(4)]
    pub owner: Option<u32>,
    /// No link was left at exec: deleted, or a memfd.
    #[n(5)]
    pub deleted: bool,
    /// `path` was longer than what is kept.
    #[n(6)]
    pub path_truncated: bool,
}

/// The control group of a process.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Cgroup {
    /// cgroup v2 id (the kernfs inode of the unified hierarchy).
    #[n(0)]
    pub id: u64,
    /// Path from the hierarchy's root, at most its last four components; the v1 path where v2 says only "root".
    #[n(1)]
    pub path: Option<String>,
}

impl Process {
    /// A process of which only the id is known.
    pub fn of(exec_id: ExecId) -> Self {
        Self {
            exec_id,
            parent: None,
            pid: exec_id.pid,
            tid: exec_id.pid,
            ppid: None,
            start_wall_ns: None,
            name: String::new(),
            exe: None,
            argv: Vec::new(),
            argv_truncated: false,
            cwd: None,
            uid: 0,
            euid: 0,
            gid: None,
            user: None,
            loginuid: None,
            audit_session: None,
            tty: None,
            sid: None,
            cap_effective: None,
            cgroup: None,
            container: None,
            mnt_ns: None,
            pid_ns: None,
            kernel_thread: false,
            approximate: false,
            login: None,
        }
    }

    /// Path of the executed file, if known.
    pub fn exe_path(&self) -> Option<&str> {
        self.exe.as_ref().map(|exe| exe.path.as_str())
    }
}
