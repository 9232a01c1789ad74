//! A process reaches into another one: the body of `process.access`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

use super::Errno;

/// How a process reaches into another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum AccessHow {
    /// `ptrace(PTRACE_ATTACH)`: it becomes the tracer.
    #[n(0)]
    PtraceAttach,
    /// `ptrace(PTRACE_SEIZE)`: it becomes the tracer without a stop.
    #[n(1)]
    PtraceSeize,
    /// `ptrace(PTRACE_TRACEME)`: it lets its parent, the target, trace it.
    #[n(2)]
    PtraceTraceme,
    /// Another request of `ptrace` that asks for the right to trace.
    #[n(3)]
    Ptrace,
    /// `process_vm_readv`: reads its memory.
    #[n(4)]
    VmRead,
    /// `process_vm_writev`: writes its memory.
    #[n(5)]
    VmWrite,
    /// Opens `/proc/<pid>/mem` or another file that gives its memory.
    #[n(6)]
    Open,
    /// `pidfd_getfd`: takes one of its descriptors.
    #[n(7)]
    GetFd,
    /// Another call that needs the right to trace (`kcmp`, `set_robust_list` ...).
    #[n(8)]
    Other,
}

/// Body of `process.access`: a process asked for the memory, the registers or the descriptors of another one, the target.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Access {
    /// How.
    #[n(0)]
    pub how: AccessHow,
    /// Why it was refused; `None` when it was not. In the best tier this is the answer of the kernel's access check, after which the call
    /// can still fail for another reason.
    #[n(1)]
    pub error: Option<Errno>,
    /// Pid of the target as the caller gave it, where the kernel's own word was not to be had; it counts in the caller's pid namespace.
    #[n(2)]
    pub asked_pid: Option<u32>,
    /// The call came in by the 32-bit table.
    #[n(3)]
    #[cbor(default)]
    pub is_32_bit: bool,
}
