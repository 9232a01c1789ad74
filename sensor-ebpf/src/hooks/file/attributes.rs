//! Attributes of files that are set: of watched ones all, of others what makes a program run as somebody else or run at all.

use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;
use bartizan_sensor_ebpf::abi::{FileAttributes, FileXattr, Kind, WANT_CHANGE, WANT_TREE};

use super::{Program, path_of, scratch};
use crate::kernel::mode::{ANY_EXECUTE, S_IFMT, S_IFREG};
use crate::kernel::{emit, field, read, tail, task, watch};

/// include/linux/fs.h.
const ATTR_MODE: u32 = 1;
const ATTR_UID: u32 = 2;
const ATTR_GID: u32 = 4;
const ATTR_SIZE: u32 = 8;
const ATTR_ATIME_SET: u32 = 0x80;
const ATTR_MTIME_SET: u32 = 0x100;
/// By an open with `O_TRUNC`, which is told as such.
const ATTR_OPEN: u32 = 0x8000;
const TOLD: u32 = ATTR_MODE | ATTR_UID | ATTR_GID | ATTR_SIZE | ATTR_ATIME_SET | ATTR_MTIME_SET;
const SET_ID: u16 = 0o6000;

/// What is wanted of the file by itself or by the folder that holds it.
#[inline(always)]
fn wanted(inode: u64, dentry: u64) -> u32 {
    let parent = watch::of_parent(dentry);
    (watch::of(inode) | if parent & WANT_TREE != 0 { parent } else { 0 }) & WANT_CHANGE
}

/// (struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr), then the result.
#[fexit]
fn fexit_inode_setattr(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(3) != 0 {
        return 0;
    }
    let (dentry, attr) = (ctx.arg::<*const u8>(1) as u64, ctx.arg::<*const u8>(2) as u64);
    let valid: u32 = field!(attr, iattr_valid);
    if valid & TOLD == 0 || valid & ATTR_OPEN != 0 {
        return 0;
    }
    let inode: u64 = field!(dentry, dentry_inode);
    let (before, mode): (u16, u16) = (field!(inode, inode_mode), field!(attr, iattr_mode));
    let wanted = wanted(inode, dentry);
    let gains = mode & !before & (SET_ID | ANY_EXECUTE);
    if wanted == 0 && (valid & ATTR_MODE == 0 || before & S_IFMT != S_IFREG || gains == 0) {
        return 0;
    }
    if watch::is_ignored(Kind::FileAttributes, dentry) {
        return 0;
    }
    let Some(scratch) = scratch(Program::Attributes) else { return 0 };
    let record = scratch.cast::<FileAttributes>();
    // SAFETY: `record` is the beginning of the program's own scratch, which is larger; every offset into the tail is masked.
    unsafe {
        if !emit::begin::<FileAttributes>(scratch, Kind::FileAttributes, task::current(), wanted != 0 || gains & SET_ID != 0) {
            return 0;
        }
        watch::describe(&raw mut (*record).file, inode, wanted);
        (*record).valid = valid;
        (*record).mode = u32::from(mode);
        (*record).size = field!(attr, iattr_size);
        (*record).owner = field!(attr, iattr_uid);
        (*record).group = field!(attr, iattr_gid);
        (*record).path = path_of(scratch, &raw mut (*record).header, size_of::<FileAttributes>(), dentry);
        emit::send_bulk::<FileAttributes>(scratch, Kind::FileAttributes);
    }
    0
}

#[inline(always)]
fn xattr(program: Program, dentry: u64, name: u64, size: u64, removed: u32) {
    let inode: u64 = field!(dentry, dentry_inode);
    let wanted = wanted(inode, dentry);
    // Capabilities, labels and signatures; ACLs; what only root may see.
    let begins: u64 = read(name);
    let telling = begins == u64::from_le_bytes(*b"security")
        || begins == u64::from_le_bytes(*b"system.p")
        || begins == u64::from_le_bytes(*b"trusted.");
    if (wanted == 0 && !telling) || watch::is_ignored(Kind::FileXattr, dentry) {
        return;
    }
    let Some(scratch) = scratch(program) else { return };
    let record = scratch.cast::<FileXattr>();
    // SAFETY: as above.
    unsafe {
        if !emit::begin::<FileXattr>(scratch, Kind::FileXattr, task::current(), true) {
            return;
        }
        watch::describe(&raw mut (*record).file, inode, wanted);
        (*record).size = size;
        (*record).removed = removed;
        tail::short_string((&raw mut (*record).name).cast(), size_of_val(&(*record).name) as u32, name);
        (*record).path = path_of(scratch, &raw mut (*record).header, size_of::<FileXattr>(), dentry);
        emit::send_bulk::<FileXattr>(scratch, Kind::FileXattr);
    }
}

/// (struct dentry *dentry, const char *name, const void *value, size_t size, int flags): after it was set.
#[fexit]
fn fexit_inode_post_setxattr(ctx: FExitContext) -> i32 {
    xattr(Program::Xattr, ctx.arg::<*const u8>(0) as u64, ctx.arg::<*const u8>(1) as u64, ctx.arg::<u64>(3), 0);
    0
}

/// (struct mnt_idmap *idmap, struct dentry *dentry, const char *name), then the result.
#[fexit]
fn fexit_vfs_removexattr(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(3) == 0 {
        xattr(Program::RemoveXattr, ctx.arg::<*const u8>(1) as u64, ctx.arg::<*const u8>(2) as u64, 0, 1);
    }
    0
}
