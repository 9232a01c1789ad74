//! A file that lives in memory alone was made: `memfd_create`, `memfd_secret`.
//!
//! Both tiers read its name from the file itself, which the kernel made.

use aya_ebpf::macros::{fexit, tracepoint};
use aya_ebpf::programs::{FExitContext, TracePointContext};
use bartizan_sensor_ebpf::abi::{ACT_NAME_MAX, Kind, Memfd, Ring};

use crate::kernel::call::{Call, at_exit};
use crate::kernel::{emit, fd, field, kernel_string, offset, task};

#[inline(always)]
fn report(result: i64) {
    if result < 0 {
        return;
    }
    let current = task::current();
    let file = fd::file_of(current, result as u32);
    if file == 0 {
        return;
    }
    let call = Call::now();
    let inode: u64 = field!(file, file_inode);
    let path = file + offset!(file_path);
    let dentry: u64 = field!(path, path_dentry);
    let name: u64 = field!(dentry, dentry_name);
    // memfd_secret(flags), memfd_create(name, flags)
    let flags = if call.number() == MEMFD_SECRET { call.argument::<0>() } else { call.argument::<1>() };
    // SAFETY: every field is written.
    unsafe {
        emit::fixed(Kind::Memfd, Ring::Priority, current, |record: *mut Memfd| {
            call.mark(&raw mut (*record).header);
            (*record).inode = field!(inode, inode_ino);
            (*record).flags = flags as u32;
            (*record).fd = result as u32;
            (*record).call = call.number();
            (*record).pad = 0;
            kernel_string::<ACT_NAME_MAX>((&raw mut (*record).name).cast(), name);
        });
    }
}

/// The same in both tables of arch/x86/entry/syscalls.
const MEMFD_SECRET: u32 = 447;

#[fexit]
fn fexit_memfd_create(ctx: FExitContext) -> i32 {
    report(ctx.arg::<u64>(1) as i64);
    0
}

#[fexit]
fn fexit_memfd_create_32(ctx: FExitContext) -> i32 {
    report(ctx.arg::<u64>(1) as i64);
    0
}

#[fexit]
fn fexit_memfd_secret(ctx: FExitContext) -> i32 {
    report(ctx.arg::<u64>(1) as i64);
    0
}

/// Attached at the exits of both calls.
#[tracepoint]
fn sys_exit_memfd(ctx: TracePointContext) -> u32 {
    let (_, result) = at_exit(&ctx);
    report(result);
    0
}
