//! A process changes what others see of it: the bodies of `process.rename` and `process.prctl`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

use super::Errno;

/// Body of `process.rename`: a process got another name, other than by exec. The target is whose name it is where another task wrote it, which
/// the kernel allows within one process only.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Rename {
    /// Before.
    #[n(0)]
    pub from: String,
    /// Now.
    #[n(1)]
    pub to: String,
}

/// Body of `process.prctl`: an option that hides or rewrites what a process is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Prctl {
    /// `PR_SET_DUMPABLE`, `PR_SET_MM`, `PR_SET_CHILD_SUBREAPER` or `PR_SET_PTRACER`.
    #[n(0)]
    pub option: String,
    /// What of the memory map is rewritten, such as `PR_SET_MM_EXE_FILE`; with `PR_SET_MM` alone.
    #[n(1)]
    pub part: Option<String>,
    /// The arguments behind the option.
    #[n(2)]
    pub arguments: Vec<u64>,
    /// Why it was refused.
    #[n(3)]
    pub error: Option<Errno>,
}
