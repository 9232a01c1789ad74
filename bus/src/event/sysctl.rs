//! Settings of the running kernel: the body of `kernel.sysctl`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

/// Body of `kernel.sysctl`: a process writes below `/proc/sys`. Told before the kernel takes the value, which it may still refuse as no
/// value of that setting: so the event's outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Sysctl {
    /// As sysctl(8) spells it: `kernel.core_pattern`, `net.ipv4.conf.eth0/1.forwarding`.
    #[n(0)]
    pub name: String,
    /// Value before, without the line feed at its end; `None` when it cannot be read.
    #[n(1)]
    pub old: Option<String>,
    /// What is written, likewise.
    #[n(2)]
    pub new: Option<String>,
    /// `name` was longer than what is kept.
    #[n(3)]
    pub name_truncated: bool,
    /// `old` likewise.
    #[n(4)]
    pub old_truncated: bool,
    /// `new` likewise.
    #[n(5)]
    pub new_truncated: bool,
    /// Byte of the file where the write begins: 0, or the kernel takes it for the rest of an earlier one or for nothing
    /// (`kernel.sysctl_writes_strict`).
    #[n(6)]
    pub position: u32,
}
