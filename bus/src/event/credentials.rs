//! Changes of identity: the bodies of `process.credentials` and `process.groups`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

/// The eight ids of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Ids {
    /// Real user id.
    #[n(0)]
    pub uid: u32,
    /// Effective user id.
    #[n(1)]
    pub euid: u32,
    /// Saved user id.
    #[n(2)]
    pub suid: u32,
    /// File-system user id.
    #[n(3)]
    pub fsuid: u32,
    /// Real group id.
    #[n(4)]
    pub gid: u32,
    /// Effective group id.
    #[n(5)]
    pub egid: u32,
    /// Saved group id.
    #[n(6)]
    pub sgid: u32,
    /// File-system group id.
    #[n(7)]
    pub fsgid: u32,
}

/// Body of `process.credentials`: a system call of the setuid or setgid family changed at least one id of the calling thread. What a
/// setuid file gives at exec is in `process.exec`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Credentials {
    /// `setuid`, `setreuid`, `setresuid`, `setfsuid`, or the same with `gid`.
    #[n(0)]
    pub call: String,
    /// Before.
    #[n(1)]
    pub old: Ids,
    /// After.
    #[n(2)]
    pub new: Ids,
}

/// Body of `process.groups`: the calling thread changed its supplementary groups (`setgroups`). Calls that change nothing are not told, but
/// for those of tasks with more groups than are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Groups {
    /// Before: the first 32, ascending.
    #[n(0)]
    pub old: Vec<u32>,
    /// After, likewise.
    #[n(1)]
    pub new: Vec<u32>,
    /// How many there were.
    #[n(2)]
    pub old_count: u32,
    /// How many there are.
    #[n(3)]
    pub new_count: u32,
}
