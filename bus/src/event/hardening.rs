//! The kernel's own defences, and what is put into its way: the bodies of `kernel.lockdown`, `kernel.probe`, `kernel.helper` and
//! `sensor.health`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

use super::Errno;

/// What is told of lockdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum LockdownAct {
    /// It refused something to the subject.
    #[n(0)]
    Refused,
    /// Its mode is another one than when it was last looked at. Such an event has no subject.
    #[n(1)]
    Mode,
}

/// Body of `kernel.lockdown`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Lockdown {
    /// What is told.
    #[n(0)]
    pub act: LockdownAct,
    /// What was refused, in the kernel's words: `module_signature`, `dev_mem`, `kexec`, or a number.
    #[n(1)]
    pub reason: Option<String>,
    /// The mode now: `none`, `integrity`, `confidentiality`.
    #[n(2)]
    pub mode: Option<String>,
    /// The mode before.
    #[n(3)]
    pub old_mode: Option<String>,
}

/// Where a probe was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum ProbeAct {
    /// On an instruction of the kernel (kprobe).
    #[n(0)]
    Kernel,
    /// On an instruction of a file that programs run (uprobe).
    #[n(1)]
    User,
    /// Something that this build does not know.
    #[n(2)]
    Other,
}

/// Body of `kernel.probe`. Probes of Bartizan itself are not told.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct KernelProbe {
    /// Where.
    #[n(0)]
    pub act: ProbeAct,
    /// Symbol of the kernel, name of the file, or its path where that comes from the caller.
    #[n(1)]
    pub name: Option<String>,
    /// Bytes behind the symbol, or in the file.
    #[n(2)]
    pub offset: u64,
    /// Address in the kernel.
    #[n(3)]
    pub address: Option<u64>,
    /// Inode of the file.
    #[n(4)]
    pub inode: Option<u64>,
    /// Its device.
    #[n(5)]
    pub device: Option<u32>,
    /// Why it failed.
    #[n(6)]
    pub error: Option<Errno>,
    /// `name` was read from the caller's memory after the call, and could have been changed by another thread.
    #[n(7)]
    pub from_caller: bool,
}

/// Body of `kernel.helper`: the kernel itself starts a program as root, for the subject: modprobe, a core dump's handler, a cgroup's release
/// agent. What it then does is in the events of that process, whose parent is a thread of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Helper {
    /// Its path.
    #[n(0)]
    pub path: String,
    /// Its first arguments, each cut at 63 bytes.
    #[n(1)]
    pub argv: Vec<String>,
    /// There are more, or one was cut.
    #[n(2)]
    pub argv_truncated: bool,
}

/// Body of `sensor.health`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Health {
    /// What was looked at: `ftrace`.
    #[n(0)]
    pub check: String,
    /// It works again.
    #[n(1)]
    pub works: bool,
    /// What happened and what to do, a sentence.
    #[n(2)]
    pub text: String,
    /// Hooks that see nothing meanwhile.
    #[n(3)]
    pub hooks: Vec<String>,
}
