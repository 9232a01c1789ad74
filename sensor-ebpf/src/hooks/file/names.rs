//! Names of files that come, go and change.

use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;
use bartizan_sensor_ebpf::abi::{FileCreate, FileLink, FileRename, FileUnlink, Kind, WANT_CHANGE, WANT_ENTRIES, WANT_TREE};

use super::{Program, path_of, scratch};
use crate::kernel::mode::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFMT};
use crate::kernel::{emit, field, tail, task, watch};

/// What makes a name in a folder worth telling.
const NAMES: u32 = WANT_TREE | WANT_ENTRIES;

/// What is wanted of a name: by its file, by the folder that holds it, or by one above.
#[inline(always)]
fn wanted(inode: u64, dentry: u64) -> u32 {
    let wanted = (watch::of(inode) & WANT_CHANGE) | (watch::of_parent(dentry) & NAMES);
    if wanted != 0 { wanted } else { watch::of_ancestors(dentry) as u32 & NAMES }
}

/// (struct inode *old_dir, struct dentry *old, struct inode *new_dir, struct dentry *new, unsigned int flags), then the result.
#[fexit]
fn fexit_inode_rename(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(5) != 0 {
        return 0;
    }
    let (old, new) = (ctx.arg::<*const u8>(1) as u64, ctx.arg::<*const u8>(3) as u64);
    let (inode, replaced): (u64, u64) = (field!(old, dentry_inode), field!(new, dentry_inode));
    let wanted = wanted(inode, old) | wanted(replaced, new);
    if inode == 0 || (wanted == 0 && !watch::everywhere()) {
        return 0;
    }
    // Out of what is ignored, or into it, is told.
    if watch::is_below_ignored(new) && watch::is_ignored(Kind::FileRename, old) {
        return 0;
    }
    let Some(scratch) = scratch(Program::Rename) else { return 0 };
    let record = scratch.cast::<FileRename>();
    let fixed = size_of::<FileRename>();
    // SAFETY: `record` is the beginning of the program's own scratch, which is larger; every offset into the tail is masked.
    unsafe {
        if !emit::begin::<FileRename>(scratch, Kind::FileRename, task::current(), wanted != 0) {
            return 0;
        }
        watch::describe(&raw mut (*record).file, inode, wanted);
        (*record).replaced = if replaced == 0 { 0 } else { field!(replaced, inode_ino) };
        (*record).flags = ctx.arg::<u32>(4);
        let header = &raw mut (*record).header;
        (*record).old = path_of(scratch, header, fixed, old);
        (*record).new = path_of(scratch, header, fixed, new);
        emit::send_bulk::<FileRename>(scratch, Kind::FileRename);
    }
    0
}

#[inline(always)]
fn removed(ctx: &FExitContext, program: Program, folder: u32) -> i32 {
    if ctx.arg::<i32>(2) != 0 {
        return 0;
    }
    let dentry = ctx.arg::<*const u8>(1) as u64;
    let inode: u64 = field!(dentry, dentry_inode);
    let wanted = wanted(inode, dentry);
    if inode == 0 || (wanted == 0 && !watch::everywhere()) || watch::is_ignored(Kind::FileUnlink, dentry) {
        return 0;
    }
    let Some(scratch) = scratch(program) else { return 0 };
    let record = scratch.cast::<FileUnlink>();
    // SAFETY: as in `fexit_inode_rename`.
    unsafe {
        if !emit::begin::<FileUnlink>(scratch, Kind::FileUnlink, task::current(), wanted != 0) {
            return 0;
        }
        watch::describe(&raw mut (*record).file, inode, wanted);
        (*record).folder = folder;
        (*record).path = path_of(scratch, &raw mut (*record).header, size_of::<FileUnlink>(), dentry);
        emit::send_bulk::<FileUnlink>(scratch, Kind::FileUnlink);
    }
    0
}

/// (struct inode *dir, struct dentry *dentry), then the result.
#[fexit]
fn fexit_inode_unlink(ctx: FExitContext) -> i32 {
    removed(&ctx, Program::Unlink, 0)
}

/// (struct inode *dir, struct dentry *dentry), then the result.
#[fexit]
fn fexit_inode_rmdir(ctx: FExitContext) -> i32 {
    removed(&ctx, Program::Rmdir, 1)
}

/// (struct dentry *old, struct inode *dir, struct dentry *new), then the result.
#[fexit]
fn fexit_inode_link(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(3) != 0 {
        return 0;
    }
    let (old, new) = (ctx.arg::<*const u8>(0) as u64, ctx.arg::<*const u8>(2) as u64);
    let inode: u64 = field!(old, dentry_inode);
    let wanted = wanted(inode, old) | wanted(0, new);
    if inode == 0 || (wanted == 0 && !watch::everywhere()) {
        return 0;
    }
    if watch::is_below_ignored(old) && watch::is_ignored(Kind::FileLink, new) {
        return 0;
    }
    let Some(scratch) = scratch(Program::Link) else { return 0 };
    let record = scratch.cast::<FileLink>();
    let fixed = size_of::<FileLink>();
    // SAFETY: as in `fexit_inode_rename`.
    unsafe {
        if !emit::begin::<FileLink>(scratch, Kind::FileLink, task::current(), wanted != 0) {
            return 0;
        }
        watch::describe(&raw mut (*record).file, inode, wanted);
        let header = &raw mut (*record).header;
        (*record).path = path_of(scratch, header, fixed, new);
        (*record).to = path_of(scratch, header, fixed, old);
        emit::send_bulk::<FileLink>(scratch, Kind::FileLink);
    }
    0
}

/// (struct inode *dir, struct dentry *dentry, const char *text), then the result.
#[fexit]
fn fexit_inode_symlink(ctx: FExitContext) -> i32 {
    let dentry = ctx.arg::<*const u8>(1) as u64;
    let wanted = if ctx.arg::<i32>(3) == 0 { wanted(0, dentry) } else { 0 };
    if wanted == 0 || watch::is_ignored(Kind::FileLink, dentry) {
        return 0;
    }
    let Some(scratch) = scratch(Program::Symlink) else { return 0 };
    let record = scratch.cast::<FileLink>();
    let fixed = size_of::<FileLink>();
    // SAFETY: as in `fexit_inode_rename`.
    unsafe {
        if !emit::begin::<FileLink>(scratch, Kind::FileLink, task::current(), true) {
            return 0;
        }
        watch::describe(&raw mut (*record).file, ctx.arg::<*const u8>(0) as u64, wanted);
        (*record).symbolic = 1;
        (*record).path = path_of(scratch, &raw mut (*record).header, fixed, dentry);
        let from = tail::used(scratch);
        tail::kernel_string(scratch, fixed, ctx.arg::<*const u8>(2) as u64);
        (*record).to = tail::span(scratch, fixed, from);
        emit::send_bulk::<FileLink>(scratch, Kind::FileLink);
    }
    0
}

#[inline(always)]
fn made(folder: u64, dentry: u64, program: Program, mode: u32, node: u32) -> i32 {
    let wanted = wanted(0, dentry);
    let format = mode as u16 & S_IFMT;
    if (wanted == 0 && format != S_IFBLK && format != S_IFCHR) || watch::is_ignored(Kind::FileCreate, dentry) {
        return 0;
    }
    let Some(scratch) = scratch(program) else { return 0 };
    let record = scratch.cast::<FileCreate>();
    // SAFETY: as in `fexit_inode_rename`.
    unsafe {
        if !emit::begin::<FileCreate>(scratch, Kind::FileCreate, task::current(), true) {
            return 0;
        }
        watch::describe(&raw mut (*record).folder, folder, wanted);
        (*record).mode = mode;
        (*record).node = node;
        (*record).path = path_of(scratch, &raw mut (*record).header, size_of::<FileCreate>(), dentry);
        emit::send_bulk::<FileCreate>(scratch, Kind::FileCreate);
    }
    0
}

/// (struct inode *dir, struct dentry *dentry, umode_t mode), then the result.
#[fexit]
fn fexit_inode_mkdir(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(3) != 0 {
        return 0;
    }
    let (folder, dentry) = (ctx.arg::<*const u8>(0) as u64, ctx.arg::<*const u8>(1) as u64);
    made(folder, dentry, Program::Mkdir, u32::from(S_IFDIR | ctx.arg::<u16>(2)), 0)
}

/// (struct inode *dir, struct dentry *dentry, umode_t mode, dev_t dev), then the result.
#[fexit]
fn fexit_inode_mknod(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(4) != 0 {
        return 0;
    }
    let (folder, dentry) = (ctx.arg::<*const u8>(0) as u64, ctx.arg::<*const u8>(1) as u64);
    made(folder, dentry, Program::Mknod, u32::from(ctx.arg::<u16>(2)), ctx.arg::<u32>(3))
}
