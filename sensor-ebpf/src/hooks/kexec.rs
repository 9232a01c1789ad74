//! Another kernel is loaded to be booted by this one, or is booted.
//!
//! Best tier: fexit on `do_kexec_load` and on `kexec_file_load` with the file that the kernel itself read for it, 32-bit calls too, and the
//! entry of `kernel_kexec`, which does not return. Fallback: the calls' tracepoints, with the file at the caller's descriptor.

use aya_ebpf::macros::{fentry, fexit, tracepoint};
use aya_ebpf::programs::{FEntryContext, FExitContext, TracePointContext};
use bartizan_sensor_ebpf::abi::{FLAG_FROM_CALLER, FLAG_NAME_TRUNCATED, Kexec, KexecAct, Kind, Ring};

use super::module::{KEXEC, KEXEC_FILE, KEXEC_FILE_32, path_of, remember};
use crate::kernel::call::{at_exit, errno, registers, thread};
use crate::kernel::maps::{KERNEL_READS, KERNEL_SCRATCH};
use crate::kernel::{emit, fd, field, offset, tail, task, zero};

/// include/uapi/linux/reboot.h, `LINUX_REBOOT_CMD_KEXEC`.
const REBOOT_KEXEC: u32 = 0x4558_4543;

/// One call without a file.
#[inline(always)]
fn report(act: KexecAct, error: u32, flags: u64, segments: u32) {
    // SAFETY: every field is written.
    unsafe {
        emit::fixed(Kind::Kexec, Ring::Priority, task::current(), |record: *mut Kexec| {
            (*record).flags = flags;
            (*record).inode = 0;
            (*record).device = 0;
            (*record).act = act as u32;
            (*record).error = error;
            (*record).segments = segments;
            (*record).path = bartizan_sensor_ebpf::abi::Span { offset: 0, len: 0 };
            (*record).pad = 0;
        });
    }
}

/// The file of one `kexec_file_load`; all zero where there was none.
///
/// `<VERIFIER>` No `Option`: what its `None` leaves unwritten would be copied, and that is refused.
#[derive(Clone, Copy)]
struct ImageFile {
    file: u64,
    inode: u64,
    device: u64,
}

/// One `kexec_file_load`, with the file that was read, if any was.
#[inline(always)]
fn report_file(index: u32, error: u32, flags: u64, image: ImageFile, from_caller: u16) {
    let Some(scratch) = KERNEL_SCRATCH.get_ptr_mut(index) else { return };
    let record = scratch.cast::<Kexec>();
    let fixed = size_of::<Kexec>();
    // SAFETY: `record` is the beginning of the scratch, which is larger; every offset into the tail is masked.
    unsafe {
        zero(record);
        task::subject(&raw mut (*record).header, task::current());
        if emit::is_self(Kind::Kexec, (*record).header.tgid) {
            return;
        }
        (*record).header.flags |= from_caller;
        (*record).act = KexecAct::LoadFile as u32;
        (*record).error = error;
        (*record).flags = flags;
        tail::begin(scratch);
        let ImageFile { file, inode, device } = image;
        if file != 0 {
            (*record).inode = inode;
            (*record).device = device as u32;
            if path_of(scratch, fixed, file, inode) {
                (*record).header.flags |= FLAG_NAME_TRUNCATED;
            }
            (*record).path = tail::span(scratch, fixed, 0);
        }
        let total = tail::total(scratch, fixed);
        emit::stamp(&raw mut (*record).header, Kind::Kexec, total as u32);
        emit::send(Ring::Priority, scratch, Kind::Kexec, total);
    }
}

/// What the running thread had the kernel read; it is forgotten then.
#[inline(always)]
fn taken() -> ImageFile {
    let mut image = ImageFile { file: 0, inode: 0, device: 0 };
    if let Some(known) = KERNEL_READS.get_ptr(&thread()) {
        // SAFETY: the map is preallocated: a reused entry is a wrong number at worst.
        let known = unsafe { &*known };
        image = ImageFile { file: known.file, inode: known.inode, device: known.device };
        let _ = KERNEL_READS.remove(&thread());
    }
    image
}

#[fexit]
fn fexit_kexec_image(ctx: FExitContext) -> i32 {
    // (struct file *file, enum kernel_read_file_id id, bool contents), then the result
    if u64::from(ctx.arg::<u32>(1)) == offset!(reading_kexec) {
        remember(ctx.arg::<*const u8>(0) as u64);
    }
    0
}

#[fexit]
fn fexit_kexec_load(ctx: FExitContext) -> i32 {
    // (unsigned long entry, unsigned long nr_segments, struct kexec_segment *segments, unsigned long flags), then the result
    report(KexecAct::Load, errno(i64::from(ctx.arg::<i32>(4))), ctx.arg::<u64>(3), ctx.arg::<u64>(1) as u32);
    0
}

#[fexit]
fn fexit_kexec_file_load(ctx: FExitContext) -> i32 {
    // (const struct pt_regs *regs), then the result
    let regs = ctx.arg::<*const u8>(0) as u64;
    report_file(KEXEC_FILE, errno(ctx.arg::<u64>(1) as i64), field!(regs, regs_r8), taken(), 0);
    0
}

#[fexit]
fn fexit_compat_kexec_file_load(ctx: FExitContext) -> i32 {
    let regs = ctx.arg::<*const u8>(0) as u64;
    // The fifth argument of a 32-bit caller is in edi.
    report_file(KEXEC_FILE_32, errno(ctx.arg::<u64>(1) as i64), field!(regs, regs_di), taken(), 0);
    0
}

#[fentry]
fn fentry_kernel_kexec(_ctx: FEntryContext) -> i32 {
    report(KexecAct::Execute, 0, 0, 0);
    0
}

#[tracepoint]
fn sys_exit_kexec_load(ctx: TracePointContext) -> u32 {
    let (regs, result) = at_exit(&ctx);
    let segments: u64 = field!(regs, regs_si);
    report(KexecAct::Load, errno(result), field!(regs, regs_r10), segments as u32);
    0
}

#[tracepoint]
fn sys_exit_kexec_file_load(ctx: TracePointContext) -> u32 {
    let (regs, result) = at_exit(&ctx);
    let number: u64 = field!(regs, regs_di);
    let file = fd::file_of(task::current(), number as u32);
    let mut image = ImageFile { file, inode: 0, device: 0 };
    if file != 0 {
        let node: u64 = field!(file, file_inode);
        let sb: u64 = field!(node, inode_sb);
        let device: u32 = field!(sb, sb_dev);
        image.inode = field!(node, inode_ino);
        image.device = device.into();
    }
    report_file(KEXEC, errno(result), field!(regs, regs_r8), image, FLAG_FROM_CALLER);
    0
}

#[tracepoint]
fn sys_enter_reboot(_ctx: TracePointContext) -> u32 {
    let command: u64 = field!(registers(), regs_dx);
    if command as u32 == REBOOT_KEXEC {
        report(KexecAct::Execute, 0, 0, 0);
    }
    0
}
