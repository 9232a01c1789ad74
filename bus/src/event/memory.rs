//! Code that no file holds: the bodies of `process.memfd` and `process.memory_exec`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

/// Body of `process.memfd`: a file was made that lives in memory alone.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Memfd {
    /// Its name as the kernel keeps it, such as `memfd:x`.
    #[n(0)]
    pub name: String,
    /// `MFD_*`, include/uapi/linux/memfd.h: 1 closed at exec, 2 can be sealed, 4 huge pages, 8 never executable, 16 executable.
    #[n(1)]
    pub flags: u32,
    /// Descriptor in the process.
    #[n(2)]
    pub fd: u32,
    /// Inode, equal in an exec of it.
    #[n(3)]
    pub inode: u64,
    /// By `memfd_secret`: not even the kernel maps its pages.
    #[n(4)]
    pub secret: bool,
}

/// What may be done with memory, as letters: `rwx` and `s` for shared.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct MemoryExec {
    /// `mmap`, `mprotect` or another call that ends there.
    #[n(0)]
    pub call: String,
    /// First address. With `mmap` in the fallback tier what was asked for, mostly 0.
    #[n(1)]
    pub start: u64,
    /// Bytes.
    #[n(2)]
    pub len: u64,
    /// What could be done with it before, such as `rw-`; empty for new memory, or where it could not be looked up.
    #[n(3)]
    pub before: String,
    /// What can be done now.
    #[n(4)]
    pub after: String,
    /// Inode of the file behind it; `None` for anonymous memory.
    #[n(5)]
    pub inode: Option<u64>,
    /// Its device, the kernel's `MKDEV` form.
    #[n(6)]
    pub device: Option<u32>,
    /// No name leads to that file: a memfd, or deleted.
    #[n(7)]
    pub nameless: bool,
    /// How often this image did so by now. Told at its first time and at every power of two.
    #[n(8)]
    pub times: u32,
}
