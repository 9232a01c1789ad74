//! Code that is put into the kernel, or in its place: the bodies of `kernel.module` and `kernel.kexec`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

use super::Errno;

/// What is done with a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum ModuleAct {
    /// It is in its place; its own code runs next. That may still say no: [`ModuleAct::LoadFailed`] follows then.
    #[n(0)]
    Load,
    /// The kernel refused it, or its own code said no.
    #[n(1)]
    LoadFailed,
    /// It is taken out, also after its own code said no.
    #[n(2)]
    Unload,
    /// The kernel asks user space to load one: something that it does not know was asked of it, by anybody.
    #[n(3)]
    Request,
    /// Something that this build does not know.
    #[n(4)]
    Other,
}

/// Body of `kernel.module`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Module {
    /// What is done.
    #[n(0)]
    pub act: ModuleAct,
    /// Its name; of a request the name or alias that is asked for (`net-pf-9`). `None` when it was refused before it had one.
    #[n(1)]
    pub name: Option<String>,
    /// The file that it is loaded from; `None` where that is not known.
    #[n(2)]
    pub file: Option<String>,
    /// `file` had more components than are kept.
    #[n(3)]
    pub file_truncated: bool,
    /// Inode of that file.
    #[n(4)]
    pub inode: Option<u64>,
    /// Its device.
    #[n(5)]
    pub device: Option<u32>,
    /// It is loaded from the caller's memory (`init_module`) and from no file.
    #[n(6)]
    pub from_memory: bool,
    /// Its parameters, told of loads; `None` without any. From the memory of the caller, who could have changed them meanwhile.
    #[n(7)]
    pub args: Option<String>,
    /// `args` were longer than what is kept.
    #[n(8)]
    pub args_truncated: bool,
    /// What the kernel holds against it: `proprietary`, `out_of_tree`, `unsigned`, `forced`, `staging`, `live_patch`, or a number.
    #[n(9)]
    pub taints: Vec<String>,
    /// Whether the kernel has found a good signature; `None` where it looks for none.
    #[n(10)]
    pub signed: Option<bool>,
    /// Why a load failed: 129 `EKEYREJECTED` for a signature that is missing or bad.
    #[n(11)]
    pub error: Option<Errno>,
}

/// What is done with another kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum KexecAct {
    /// It is loaded from the caller's memory (`kexec_load`); with no segments it is taken out.
    #[n(0)]
    Load,
    /// It is loaded from a file (`kexec_file_load`).
    #[n(1)]
    LoadFile,
    /// It is booted now.
    #[n(2)]
    Execute,
    /// Something that this build does not know.
    #[n(3)]
    Other,
}

/// Body of `kernel.kexec`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Kexec {
    /// What is done.
    #[n(0)]
    pub act: KexecAct,
    /// The kernel's file; `None` where it is none or not known.
    #[n(1)]
    pub file: Option<String>,
    /// `file` had more components than are kept.
    #[n(2)]
    pub file_truncated: bool,
    /// Inode of that file.
    #[n(3)]
    pub inode: Option<u64>,
    /// Its device.
    #[n(4)]
    pub device: Option<u32>,
    /// Flags of the call: 1 is for a crash (of `kexec_load`) or takes it out (of `kexec_file_load`).
    #[n(5)]
    pub flags: u64,
    /// Segments of `kexec_load`.
    #[n(6)]
    pub segments: Option<u32>,
    /// Why it failed.
    #[n(7)]
    pub error: Option<Errno>,
    /// The file was looked up at the caller's descriptor after the call, where another thread could have put another one.
    #[n(8)]
    pub from_caller: bool,
}
