//! Calls without system calls: the bodies of `process.io_uring` and `process.io_uring_op`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

/// Body of `process.io_uring`: a ring was made.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct IoUring {
    /// Entries of the submission queue.
    #[n(0)]
    pub entries: u32,
    /// `IORING_SETUP_*`, include/uapi/linux/io_uring.h: 2 a thread of the kernel takes what is queued, without any call.
    #[n(1)]
    pub flags: u32,
}

/// Body of `process.io_uring_op`: an operation that opens, connects or changes names was handed to the kernel by a ring. Its result is not
/// known here; what it does to files and connections is told by their kinds where the tier sees it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct IoUringOp {
    /// `IORING_OP_*` without the prefix, such as `OPENAT`.
    #[n(0)]
    pub op: String,
    /// Descriptor that it works on, or where a relative path begins: -100 is the working directory.
    #[n(1)]
    pub fd: i32,
    /// The kernel's copy of the path, at most 255 bytes.
    #[n(2)]
    pub path: Option<String>,
    /// Of the second path: where a rename or link goes.
    #[n(3)]
    pub to: Option<String>,
}
