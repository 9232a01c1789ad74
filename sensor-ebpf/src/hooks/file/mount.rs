//! Mounts that are made, changed and removed: all of them are told, wherever they are. What root did goes to the priority ring; attempts that
//! failed, and mounts in namespaces of a user's own, anybody can make by the million: they go to the bulk ring, and may be left out there.
//!
//! Fallback tier: the calls' exit tracepoints. Flags are values; paths are read from the caller's memory, which another thread could have
//! changed: the record is flagged accordingly.

use aya_ebpf::macros::{fexit, tracepoint};
use aya_ebpf::programs::{FExitContext, TracePointContext};
use bartizan_sensor_ebpf::abi::{
    FLAG_FROM_CALLER, FLAG_NAME_TRUNCATED, Kind, MOUNT_ATTACH, MOUNT_MOUNT, MOUNT_PIVOT, Mount, Ring, Span, Umount,
};

use super::{Program, scratch};
use crate::kernel::call::{at_exit, errno};
use crate::kernel::maps::Scratch;
use crate::kernel::{emit, field, path, tail, task};

const FIXED: usize = size_of::<Mount>();

/// Where the strings of a record come from.
#[derive(Clone, Copy)]
enum From {
    Kernel,
    Caller,
}

/// Appends a string; an absent one becomes an empty span.
#[inline(always)]
fn string(scratch: *mut Scratch, fixed: usize, address: u64, from: From) -> Span {
    let start = tail::used(scratch);
    if address != 0 {
        match from {
            From::Kernel => tail::kernel_string(scratch, fixed, address),
            From::Caller => tail::user_string(scratch, fixed, address),
        };
    }
    tail::span(scratch, fixed, start)
}

/// Appends the path of the `struct path` at this address.
///
/// # Safety
/// `scratch` must hold a record of `fixed` bytes.
#[inline(always)]
unsafe fn walked(scratch: *mut Scratch, fixed: usize, dentry: u64, vfsmount: u64) -> Span {
    let start = tail::used(scratch);
    if path::walk_from(scratch, fixed as u64, dentry, vfsmount) != 0 {
        // SAFETY: by contract; every record begins with its header.
        unsafe { (*scratch.cast::<Mount>()).header.flags |= FLAG_NAME_TRUNCATED };
    }
    tail::span(scratch, fixed, start)
}

/// Whether what ended with this errno must not be crowded out: root did it, and it was done.
#[inline(always)]
fn is_weighty(error: u32) -> bool {
    let cred = task::cred(task::current());
    let euid: u32 = field!(cred, cred_euid);
    error == 0 && euid == 0
}

/// Stamps and sends a record; `weighty`: to the priority ring.
///
/// # Safety
/// `scratch` must hold a record of type `T` and this kind.
#[inline(always)]
unsafe fn send<T: 'static>(scratch: *mut Scratch, kind: Kind, weighty: bool) {
    if !weighty {
        // SAFETY: by contract.
        unsafe { emit::send_bulk::<T>(scratch, kind) };
        return;
    }
    let total = tail::total(scratch, size_of::<T>());
    // SAFETY: by contract.
    unsafe { emit::stamp(scratch.cast(), kind, total as u32) };
    emit::send(Ring::Priority, scratch, kind, total);
}

/// (const char *source, struct path *target, const char *type, unsigned long flags, void *data), then the result.
#[fexit]
fn fexit_path_mount(ctx: FExitContext) -> i32 {
    let Some(scratch) = scratch(Program::Mount) else { return 0 };
    let record = scratch.cast::<Mount>();
    let target = ctx.arg::<*const u8>(1) as u64;
    let error = errno(i64::from(ctx.arg::<i32>(5)));
    let weighty = is_weighty(error);
    // SAFETY: `record` is the beginning of the program's own scratch, which is larger; every offset into the tail is masked.
    unsafe {
        if !emit::begin::<Mount>(scratch, Kind::Mount, task::current(), weighty) {
            return 0;
        }
        (*record).action = MOUNT_MOUNT;
        (*record).flags = ctx.arg::<u64>(3);
        (*record).error = error;
        (*record).source = string(scratch, FIXED, ctx.arg::<*const u8>(0) as u64, From::Kernel);
        (*record).file_system = string(scratch, FIXED, ctx.arg::<*const u8>(2) as u64, From::Kernel);
        // A new mount lies upon the target now: its path leads there.
        (*record).target = walked(scratch, FIXED, field!(target, path_dentry), field!(target, path_mnt));
        send::<Mount>(scratch, Kind::Mount, weighty);
    }
    0
}

#[inline(always)]
fn moved(program: Program, action: u32, target: u64) -> i32 {
    let Some(scratch) = scratch(program) else { return 0 };
    let record = scratch.cast::<Mount>();
    let weighty = is_weighty(0);
    // SAFETY: as above.
    unsafe {
        if !emit::begin::<Mount>(scratch, Kind::Mount, task::current(), weighty) {
            return 0;
        }
        (*record).action = action;
        (*record).target = walked(scratch, FIXED, field!(target, path_dentry), field!(target, path_mnt));
        send::<Mount>(scratch, Kind::Mount, weighty);
    }
    0
}

/// (const struct path *from, const struct path *to), then the result.
#[fexit]
fn fexit_move_mount(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(2) == 0 { moved(Program::MoveMount, MOUNT_ATTACH, ctx.arg::<*const u8>(1) as u64) } else { 0 }
}

/// (const struct path *old, const struct path *new), then the result: the new root.
#[fexit]
fn fexit_sb_pivotroot(ctx: FExitContext) -> i32 {
    if ctx.arg::<i32>(2) == 0 { moved(Program::Pivot, MOUNT_PIVOT, ctx.arg::<*const u8>(1) as u64) } else { 0 }
}

/// (struct vfsmount *mount, int flags), then the result.
#[fexit]
fn fexit_sb_umount(ctx: FExitContext) -> i32 {
    const FIXED: usize = size_of::<Umount>();
    if ctx.arg::<i32>(2) != 0 {
        return 0;
    }
    let Some(scratch) = scratch(Program::Umount) else { return 0 };
    let record = scratch.cast::<Umount>();
    let mount = ctx.arg::<*const u8>(0) as u64;
    let weighty = is_weighty(0);
    // SAFETY: as above.
    unsafe {
        if !emit::begin::<Umount>(scratch, Kind::Umount, task::current(), weighty) {
            return 0;
        }
        (*record).flags = ctx.arg::<u32>(1);
        (*record).target = walked(scratch, FIXED, field!(mount, vfsmount_root), mount);
        send::<Umount>(scratch, Kind::Umount, weighty);
    }
    0
}

/// A call that mounts returned `result`: its strings stand at these addresses of the caller.
#[inline(always)]
fn called(program: Program, action: u32, source: u64, target: u64, file_system: u64, flags: u64, result: i64) -> u32 {
    let Some(scratch) = scratch(program) else { return 0 };
    let record = scratch.cast::<Mount>();
    let error = errno(result);
    let weighty = is_weighty(error);
    // SAFETY: as above.
    unsafe {
        if !emit::begin::<Mount>(scratch, Kind::Mount, task::current(), weighty) {
            return 0;
        }
        (*record).header.flags |= FLAG_FROM_CALLER;
        (*record).action = action;
        (*record).flags = flags;
        (*record).error = error;
        (*record).source = string(scratch, FIXED, source, From::Caller);
        (*record).file_system = string(scratch, FIXED, file_system, From::Caller);
        (*record).target = string(scratch, FIXED, target, From::Caller);
        send::<Mount>(scratch, Kind::Mount, weighty);
    }
    0
}

/// mount(source, target, type, flags, data)
#[tracepoint]
fn sys_exit_mount(ctx: TracePointContext) -> u32 {
    let (regs, result) = at_exit(&ctx);
    let (source, target, kind): (u64, u64, u64) = (field!(regs, regs_di), field!(regs, regs_si), field!(regs, regs_dx));
    called(Program::Mount, MOUNT_MOUNT, source, target, kind, field!(regs, regs_r10), result)
}

/// move_mount(from_fd, from_path, to_fd, to_path, flags)
#[tracepoint]
fn sys_exit_move_mount(ctx: TracePointContext) -> u32 {
    let (regs, result) = at_exit(&ctx);
    called(Program::MoveMount, MOUNT_ATTACH, field!(regs, regs_si), field!(regs, regs_r10), 0, field!(regs, regs_r8), result)
}

/// pivot_root(new_root, put_old)
#[tracepoint]
fn sys_exit_pivot_root(ctx: TracePointContext) -> u32 {
    let (regs, result) = at_exit(&ctx);
    called(Program::Pivot, MOUNT_PIVOT, field!(regs, regs_si), field!(regs, regs_di), 0, 0, result)
}

/// umount2(target, flags)
#[tracepoint]
fn sys_exit_umount(ctx: TracePointContext) -> u32 {
    const FIXED: usize = size_of::<Umount>();
    let (regs, result) = at_exit(&ctx);
    let Some(scratch) = scratch(Program::Umount) else { return 0 };
    let record = scratch.cast::<Umount>();
    let error = errno(result);
    let weighty = is_weighty(error);
    // SAFETY: as above.
    unsafe {
        if !emit::begin::<Umount>(scratch, Kind::Umount, task::current(), weighty) {
            return 0;
        }
        (*record).header.flags |= FLAG_FROM_CALLER;
        let flags: u64 = field!(regs, regs_si);
        (*record).flags = flags as u32;
        (*record).error = error;
        (*record).done = 1;
        (*record).target = string(scratch, FIXED, field!(regs, regs_di), From::Caller);
        send::<Umount>(scratch, Kind::Umount, weighty);
    }
    0
}
