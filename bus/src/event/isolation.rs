//! The world that a process sees, and what it may do in it: the bodies of `process.namespaces`, `process.chroot`, `process.seccomp` and
//! `process.cgroup_move`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

use super::Errno;

/// A kind of namespace, by the name that `/proc/<pid>/ns` has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum NamespaceKind {
    /// Mounts.
    #[n(0)]
    Mnt,
    /// Pids, those that children get.
    #[n(1)]
    Pid,
    /// Network.
    #[n(2)]
    Net,
    /// Host name.
    #[n(3)]
    Uts,
    /// System V and POSIX IPC.
    #[n(4)]
    Ipc,
    /// Control groups.
    #[n(5)]
    Cgroup,
    /// Users.
    #[n(6)]
    User,
    /// Clocks, those that children get.
    #[n(7)]
    Time,
}

/// One namespace that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct NamespaceChange {
    /// Its kind.
    #[n(0)]
    pub namespace: NamespaceKind,
    /// Inode number of the one before, as in `/proc/<pid>/ns`.
    #[n(1)]
    pub from: u32,
    /// Of the one now.
    #[n(2)]
    pub to: u32,
}

/// Body of `process.namespaces`: a task went into other namespaces by `unshare` or `setns`, or was refused.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Namespaces {
    /// `unshare` or `setns`.
    #[n(0)]
    pub call: String,
    /// What was asked for. Empty with a `setns` that leaves it to the descriptor.
    #[n(1)]
    pub asked: Vec<NamespaceKind>,
    /// What changed.
    #[n(2)]
    pub changed: Vec<NamespaceChange>,
    /// Why it was refused.
    #[n(3)]
    pub error: Option<Errno>,
}

/// Body of `process.chroot`: a process got another root folder by `chroot` or `pivot_root`, or was refused.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Chroot {
    /// `chroot` or `pivot_root`.
    #[n(0)]
    pub call: String,
    /// The new root as the kernel sees it, from its mount namespace's root. When it was refused: what the caller asked for, read from its
    /// memory, which another thread could have changed.
    #[n(1)]
    pub path: Option<String>,
    /// The path was longer than what is kept.
    #[n(2)]
    pub path_truncated: bool,
    /// Inode of the new root.
    #[n(3)]
    pub inode: Option<u64>,
    /// Its device, the kernel's `MKDEV` form.
    #[n(4)]
    pub device: Option<u32>,
    /// Why it was refused.
    #[n(5)]
    pub error: Option<Errno>,
}

/// What a filter of system calls does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum SeccompMode {
    /// Nothing is filtered.
    #[n(0)]
    None,
    /// `read`, `write`, `exit`, `sigreturn` alone.
    #[n(1)]
    Strict,
    /// By programs.
    #[n(2)]
    Filter,
    /// One that this version does not know.
    #[n(3)]
    Unknown,
}

/// Body of `process.seccomp`: a filter of system calls was put on a task, or refused.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Seccomp {
    /// Mode of the task now.
    #[n(0)]
    pub mode: SeccompMode,
    /// Filters on the task now.
    #[n(1)]
    pub filters: u32,
    /// Instructions of the newest one, as the kernel has converted it: more than a classic program had.
    #[n(2)]
    pub instructions: u32,
    /// `SECCOMP_FILTER_FLAG_*`, include/uapi/linux/seccomp.h: 1 all threads, 2 log, 4 no mitigation of speculation, 8 a listener.
    #[n(3)]
    pub flags: u32,
    /// Descriptor by which another program answers the filter's questions, and so can make up results.
    #[n(4)]
    pub listener: Option<u32>,
    /// Why it was refused.
    #[n(5)]
    pub error: Option<Errno>,
}

/// Body of `process.cgroup_move`: a process, the target, was moved into another control group.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct CgroupMove {
    /// Id of the control group.
    #[n(0)]
    pub cgroup: u64,
    /// Its path in its hierarchy.
    #[n(1)]
    pub path: Option<String>,
}
