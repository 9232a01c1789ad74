//! What is done to files.
//!
//! Best tier: fexit on the `security_*` functions that every way to a file ends in, be it a system call of 64 or 32 bits, io_uring or a
//! server in the kernel. They run when permission is granted: only the file system itself can still fail. Paths are walked from the dentry,
//! which the caller holds; where the mount is not at hand they begin at the root of the file system, and user space puts the mount before.

mod attributes;
mod mount;
mod names;
mod open;
mod write;

use bartizan_sensor_ebpf::abi::{FLAG_NAME_TRUNCATED, FLAG_PATH_IN_FILE_SYSTEM, Header, Span};

use crate::kernel::maps::{FILE_SCRATCH, Scratch};
use crate::kernel::{path, tail};

/// Numbers of the programs in [`FILE_SCRATCH`]: a program never runs twice at once on a CPU, two programs may.
#[repr(u32)]
#[derive(Clone, Copy)]
enum Program {
    Open = 0,
    Rename = 1,
    Unlink = 2,
    Rmdir = 3,
    Link = 4,
    Symlink = 5,
    Mkdir = 6,
    Mknod = 7,
    Attributes = 8,
    Xattr = 9,
    RemoveXattr = 10,
    Mount = 11,
    MoveMount = 12,
    Pivot = 13,
    Umount = 14,
    Write = 15,
}

#[inline(always)]
fn scratch(program: Program) -> Option<*mut Scratch> {
    FILE_SCRATCH.get_ptr_mut(program as u32)
}

/// Appends the path of the dentry at this address, from the root of its file system.
///
/// # Safety
/// `header` must lie in `scratch`, whose record has `fixed` bytes.
#[inline(always)]
unsafe fn path_of(scratch: *mut Scratch, header: *mut Header, fixed: usize, dentry: u64) -> Span {
    let from = tail::used(scratch);
    let cut = path::walk_in_file_system(scratch, fixed as u64, dentry) != 0;
    // SAFETY: by contract.
    unsafe {
        (*header).flags |= FLAG_PATH_IN_FILE_SYSTEM | if cut { FLAG_NAME_TRUNCATED } else { 0 };
    }
    tail::span(scratch, fixed, from)
}
