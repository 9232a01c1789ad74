//! A process got another root folder by `chroot` or `pivot_root`, or tried to.
//!
//! Both tiers read the root that the task has afterwards from the kernel. What a failed call asked for is read from its memory, which
//! another thread could have changed: the record is flagged accordingly.

use aya_ebpf::macros::{fexit, tracepoint};
use aya_ebpf::programs::{FExitContext, TracePointContext};
use bartizan_sensor_ebpf::abi::{Chroot, Count, FLAG_EXE_TRUNCATED, FLAG_FROM_CALLER, FLAG_NAME_TRUNCATED, Kind, Ring};

use crate::kernel::call::{Call, at_exit};
use crate::kernel::maps::CHROOT_SCRATCH;
use crate::kernel::{emit, field, offset, path, tail, task};

#[inline(always)]
fn report(result: i64) {
    let current = task::current();
    let tgid: u32 = field!(current, task_tgid);
    if emit::is_self(Kind::Chroot, tgid) {
        return;
    }
    let Some(scratch) = CHROOT_SCRATCH.get_ptr_mut(0) else { return };
    if !tail::claim(scratch) {
        emit::count(Kind::Chroot, Count::TableFull);
        return;
    }
    let call = Call::now();
    let record = scratch.cast::<Chroot>();
    let fixed = size_of::<Chroot>();
    tail::begin(scratch);
    // SAFETY: the scratch is larger than the record and this program's own until it is released.
    unsafe {
        let header = &raw mut (*record).header;
        task::subject(header, current);
        call.mark(header);
        (*record).call = call.number();
        (*record).inode = 0;
        (*record).device = 0;
        if result >= 0 {
            (*record).error = 0;
            let fs: u64 = field!(current, task_fs);
            let root = fs + offset!(fs_root);
            let dentry: u64 = field!(root, path_dentry);
            let inode: u64 = field!(dentry, dentry_inode);
            let sb: u64 = field!(inode, inode_sb);
            (*record).inode = field!(inode, inode_ino);
            (*record).device = field!(sb, sb_dev);
            if path::walk(scratch, fixed as u64, root) != 0 {
                (*header).flags |= FLAG_EXE_TRUNCATED;
            }
        } else {
            (*record).error = (-result) as u32;
            (*header).flags |= FLAG_FROM_CALLER;
            if tail::user_string(scratch, fixed, call.argument::<0>()) {
                (*header).flags |= FLAG_NAME_TRUNCATED;
            }
        }
        (*record).path = tail::span(scratch, fixed, 0);
        let len = tail::total(scratch, fixed);
        emit::stamp(header, Kind::Chroot, len as u32);
        emit::send(Ring::Priority, scratch, Kind::Chroot, len);
    }
    tail::release(scratch);
}

/// Attached to the functions of both calls, 64 and 32 bit.
#[fexit]
fn fexit_chroot(ctx: FExitContext) -> i32 {
    report(ctx.arg::<u64>(1) as i64);
    0
}

#[fexit]
fn fexit_chroot_32(ctx: FExitContext) -> i32 {
    report(ctx.arg::<u64>(1) as i64);
    0
}

#[fexit]
fn fexit_pivot_root(ctx: FExitContext) -> i32 {
    report(ctx.arg::<u64>(1) as i64);
    0
}

#[fexit]
fn fexit_pivot_root_32(ctx: FExitContext) -> i32 {
    report(ctx.arg::<u64>(1) as i64);
    0
}

/// Attached at the exits of both calls.
#[tracepoint]
fn sys_exit_chroot(ctx: TracePointContext) -> u32 {
    let (_, result) = at_exit(&ctx);
    report(result);
    0
}
