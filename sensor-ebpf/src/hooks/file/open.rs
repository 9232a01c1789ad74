//! A file was opened: to be written, created, or one whose readers are told.
//!
//! Best tier: fexit on `security_file_open`, which is on the way of every open: the first tests throw out what is neither, at the price of two
//! looks at a bit map. Fallback: fanotify tells of watched files, and exits of the calls of what is telling by itself.

use aya_ebpf::macros::{fexit, tracepoint};
use aya_ebpf::programs::{FExitContext, TracePointContext};
use bartizan_sensor_ebpf::abi::{FLAG_NAME_TRUNCATED, FileOpen, Kind, WANT_CHANGE, WANT_ENTRIES, WANT_READ, WANT_TREE};

use super::{Program, scratch};
use crate::kernel::call::{Call, at_exit};
use crate::kernel::mode::{ANY_EXECUTE, S_IFBLK, S_IFCHR, S_IFMT, S_IFREG};
use crate::kernel::{emit, fd, field, offset, path, read, tail, task, watch};

/// include/linux/fs.h.
const FMODE_WRITE: u32 = 2;
const FMODE_CREATED: u32 = 0x10_0000;
/// include/linux/fs.h, `__FMODE_EXEC` in `f_flags`: the open of an exec, which is told by itself.
const FMODE_EXEC: u32 = 0x20;
/// Documentation/admin-guide/devices.txt: `/dev/mem`, `/dev/kmem`, `/dev/port`.
const MEMORY: [u32; 3] = [1 << 20 | 1, 1 << 20 | 2, 1 << 20 | 4];
/// include/uapi/linux/magic.h.
const PROC: u64 = 0x9fa0;
const TRACEFS: u64 = 0x7472_6163;
const DEBUGFS: u64 = 0x6462_6720;
const BPFFS: u64 = 0xcafe_4a11;
const EFIVARFS: u64 = 0xde5e_81e4;
const SECURITYFS: u64 = 0x7363_6673;
/// `mem` with its NUL, as a little-endian number.
const MEM: u32 = u32::from_le_bytes(*b"mem\0");

/// Whether a file that is opened to be written is worth telling whatever it is called: a block device, the memory, the memory of a process,
/// the kernel's own insides.
#[inline(always)]
fn is_telling(inode: u64, format: u16, dentry: u64) -> bool {
    if format == S_IFBLK {
        return true;
    }
    if format == S_IFCHR {
        let device: u32 = field!(inode, inode_rdev);
        return device == MEMORY[0] || device == MEMORY[1] || device == MEMORY[2];
    }
    let sb: u64 = field!(inode, inode_sb);
    let magic: u64 = field!(sb, sb_magic);
    if magic == PROC {
        let name: u64 = field!(dentry, dentry_name);
        return read::<u32>(name) == MEM;
    }
    magic == TRACEFS || magic == DEBUGFS || magic == BPFFS || magic == EFIVARFS || magic == SECURITYFS
}

/// (struct file *file), then the result.
#[fexit]
fn fexit_file_open(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(1) != 0 {
        return 0;
    }
    let file = ctx.arg::<*const u8>(0) as u64;
    let (mode, inode): (u32, u64) = (field!(file, file_mode), field!(file, file_inode));
    let dentry: u64 = read(file + offset!(file_path) + offset!(path_dentry));
    let (own, parent) = (watch::of(inode), watch::of_parent(dentry));
    let mut wanted = own;
    if parent & WANT_TREE != 0 {
        wanted |= parent;
    }
    let created = mode & FMODE_CREATED != 0;
    if mode & (FMODE_WRITE | FMODE_CREATED) == 0 {
        if wanted & WANT_READ == 0 {
            return 0;
        }
        let flags: u32 = field!(file, file_flags);
        if flags & FMODE_EXEC != 0 {
            return 0;
        }
    }
    let permissions: u16 = field!(inode, inode_mode);
    let format = permissions & S_IFMT;
    if format != S_IFREG && format != S_IFBLK && format != S_IFCHR {
        return 0;
    }
    if wanted & (WANT_CHANGE | WANT_READ) == 0 {
        let appears = created && parent & WANT_ENTRIES != 0;
        let executable = created && format == S_IFREG && permissions & ANY_EXECUTE != 0;
        if !appears && !executable && !is_telling(inode, format, dentry) {
            wanted |= watch::of_ancestors(dentry) as u32;
            if wanted & WANT_CHANGE == 0 {
                return 0;
            }
        }
    }
    if !watch::is_ignored(Kind::FileOpen, dentry) {
        tell(file, inode, wanted);
    }
    0
}

/// arch/x86/entry/syscalls/syscall_64.tbl.
const OPEN: u32 = 2;
const OPENAT: u32 = 257;
/// include/uapi/asm-generic/fcntl.h: `O_WRONLY`, `O_RDWR` and `O_CREAT`.
const O_CHANGING: u64 = 0o103;

/// Whether the call can have opened a file to be written. `creat` does, and `openat2` keeps its flags in the caller's memory.
#[inline(always)]
fn may_change(call: Call) -> bool {
    let flags = match call.number() {
        OPEN => call.argument::<1>(),
        OPENAT => call.argument::<2>(),
        _ => O_CHANGING,
    };
    flags & O_CHANGING != 0
}

/// Attached at the exits of `open`, `openat`, `openat2` and `creat` where fanotify tells of watched files.
#[tracepoint]
fn sys_exit_open(ctx: TracePointContext) -> u32 {
    let call = Call::now();
    if !may_change(call) {
        return 0;
    }
    let (_, descriptor) = at_exit(&ctx);
    let file = if descriptor < 0 { 0 } else { fd::file_of(task::current(), descriptor as u32) };
    if file == 0 {
        return 0;
    }
    let (mode, inode): (u32, u64) = (field!(file, file_mode), field!(file, file_inode));
    if mode & (FMODE_WRITE | FMODE_CREATED) == 0 {
        return 0;
    }
    let permissions: u16 = field!(inode, inode_mode);
    let format = permissions & S_IFMT;
    if format != S_IFREG && format != S_IFBLK && format != S_IFCHR {
        return 0;
    }
    let dentry: u64 = read(file + offset!(file_path) + offset!(path_dentry));
    let executable = mode & FMODE_CREATED != 0 && format == S_IFREG && permissions & ANY_EXECUTE != 0;
    if !executable && !is_telling(inode, format, dentry) {
        return 0;
    }
    let by_fanotify = watch::of(inode) & (WANT_CHANGE | WANT_READ) | watch::of_parent(dentry) & (WANT_TREE | WANT_ENTRIES);
    if by_fanotify == 0 && !watch::is_ignored(Kind::FileOpen, dentry) {
        tell(file, inode, 0);
    }
    0
}

#[inline(always)]
fn tell(file: u64, inode: u64, wanted: u32) {
    let Some(scratch) = scratch(Program::Open) else { return };
    let record = scratch.cast::<FileOpen>();
    let fixed = size_of::<FileOpen>();
    let sb: u64 = field!(inode, inode_sb);
    let kind: u64 = field!(sb, sb_type);
    let name: u64 = field!(kind, fs_type_name);
    // SAFETY: `record` is the beginning of the program's own scratch, which is larger; every offset into the tail is masked.
    unsafe {
        if !emit::begin::<FileOpen>(scratch, Kind::FileOpen, task::current(), wanted & WANT_CHANGE != 0) {
            return;
        }
        watch::describe(&raw mut (*record).file, inode, wanted);
        (*record).flags = field!(file, file_flags);
        (*record).mode = field!(file, file_mode);
        tail::short_string((&raw mut (*record).file_system).cast(), size_of_val(&(*record).file_system) as u32, name);
        if path::walk(scratch, fixed as u64, file + offset!(file_path)) != 0 {
            (*record).header.flags |= FLAG_NAME_TRUNCATED;
        }
        (*record).path = tail::span(scratch, fixed, 0);
        emit::send_bulk::<FileOpen>(scratch, Kind::FileOpen);
    }
}
