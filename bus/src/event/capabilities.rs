//! What a task may do without being root: the body of `process.capabilities`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

/// Capability sets of a task, one bit a capability (include/uapi/linux/capability.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct CapabilitySets {
    /// What counts now.
    #[n(0)]
    pub effective: u64,
    /// What may be made effective.
    #[n(1)]
    pub permitted: u64,
    /// What may be kept over an exec.
    #[n(2)]
    pub inheritable: u64,
    /// What an exec may give at most.
    #[n(3)]
    pub bounding: u64,
    /// What an exec keeps without the file's say.
    #[n(4)]
    pub ambient: u64,
    /// `SECBIT_*`, include/uapi/linux/securebits.h.
    #[n(5)]
    pub securebits: u64,
}

/// Body of `process.capabilities`: a system call other than those for user and group ids changed the capabilities of the calling thread.
/// What goes with a change of ids is in `process.credentials`, what a file gives at exec in `process.exec`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Capabilities {
    /// `capset`, `prctl`, `unshare`, `setns`, or another by its number.
    #[n(0)]
    pub call: String,
    /// Before.
    #[n(1)]
    pub old: CapabilitySets,
    /// After.
    #[n(2)]
    pub new: CapabilitySets,
}
