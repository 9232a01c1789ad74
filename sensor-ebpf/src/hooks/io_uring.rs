//! Rings for calls without system calls, and the operations that go through them: those that open, connect, and change names.
//!
//! tp_btf on every kernel. An operation is told when it is handed over; its paths are the kernel's own copies, its result is not known.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use bartizan_sensor_ebpf::abi::{ACT_NAME_MAX, IoUring, IoUringOp, Kind, Ring};
use bartizan_sensor_ebpf::layout::ABSENT;

use crate::kernel::{emit, field, kernel_string, offset, task};

#[btf_tracepoint(function = "io_uring_create")]
fn io_uring_create(ctx: BtfTracePointContext) -> u32 {
    // (int fd, void *ctx, u32 sq_entries, u32 cq_entries, u32 flags)
    // SAFETY: every field is written.
    unsafe {
        emit::fixed(Kind::IoUring, Ring::Priority, task::current(), |record: *mut IoUring| {
            (*record).entries = ctx.arg::<u32>(2);
            (*record).flags = ctx.arg::<u32>(4);
        });
    }
    0
}

/// include/uapi/linux/io_uring.h.
const CONNECT: u32 = 16;
const OPENAT: u32 = 18;
const OPENAT2: u32 = 28;
const RENAMEAT: u32 = 35;
const UNLINKAT: u32 = 36;
const MKDIRAT: u32 = 37;
const SYMLINKAT: u32 = 38;
const LINKAT: u32 = 39;
/// ACCEPT, FSETXATTR, SETXATTR, SOCKET, URING_CMD, FTRUNCATE, BIND, LISTEN: told without a path.
const PLAIN: u64 = 1 << 13 | 1 << 41 | 1 << 42 | 1 << 45 | 1 << 46 | 1 << 55 | 1 << 56 | 1 << 57;
/// All that is told.
const TOLD: u64 =
    PLAIN | 1 << CONNECT | 1 << OPENAT | 1 << OPENAT2 | 1 << RENAMEAT | 1 << UNLINKAT | 1 << MKDIRAT | 1 << SYMLINKAT | 1 << LINKAT;

/// Copies what a `struct filename *` at `request + member` names.
///
/// # Safety
/// `to` has room for [`ACT_NAME_MAX`] bytes.
#[inline(always)]
unsafe fn name(to: *mut u8, request: u64, member: u64) {
    let filename: u64 = if member == u64::from(ABSENT) { 0 } else { crate::kernel::read(request + member) };
    // SAFETY: by contract.
    unsafe {
        to.write(0);
        if filename != 0 {
            kernel_string::<ACT_NAME_MAX>(to, field!(filename, filename_name));
        }
    }
}

#[inline(always)]
fn submitted(request: u64) {
    if offset!(req_opcode) == u64::from(ABSENT) || offset!(req_fd) == u64::from(ABSENT) {
        return;
    }
    let opcode: u8 = field!(request, req_opcode);
    let opcode = u32::from(opcode);
    if opcode >= 64 || TOLD & 1 << opcode == 0 {
        return;
    }
    // SAFETY: every field is written, of the names as much as counts.
    unsafe {
        emit::fixed(Kind::IoUringOp, Ring::Bulk, task::current(), |record: *mut IoUringOp| {
            (*record).opcode = opcode;
            let (path, other) = ((&raw mut (*record).path).cast(), (&raw mut (*record).other).cast());
            let none = u64::from(ABSENT);
            let (fd, first, second) = match opcode {
                OPENAT | OPENAT2 => (offset!(io_open_dfd), offset!(io_open_filename), none),
                UNLINKAT => (offset!(io_unlink_dfd), offset!(io_unlink_filename), none),
                MKDIRAT => (offset!(io_mkdir_dfd), offset!(io_mkdir_filename), none),
                RENAMEAT => (offset!(io_rename_dfd), offset!(io_rename_oldpath), offset!(io_rename_newpath)),
                LINKAT => (offset!(io_link_dfd), offset!(io_link_oldpath), offset!(io_link_newpath)),
                // The first path of a symbolic link is but a text; the descriptor belongs to the second.
                SYMLINKAT => (offset!(io_link_new_dfd), offset!(io_link_oldpath), offset!(io_link_newpath)),
                _ => (offset!(req_fd), none, none),
            };
            (*record).fd = if fd == none { 0 } else { crate::kernel::read(request + fd) };
            name(path, request, first);
            name(other, request, second);
        });
    }
}

/// Linux 6.4 and newer.
#[btf_tracepoint(function = "io_uring_submit_req")]
fn io_uring_submit_req(ctx: BtfTracePointContext) -> u32 {
    // (struct io_kiocb *req)
    submitted(ctx.arg::<*const u8>(0) as u64);
    0
}

/// Older ones.
#[btf_tracepoint(function = "io_uring_submit_sqe")]
fn io_uring_submit_sqe(ctx: BtfTracePointContext) -> u32 {
    // (struct io_kiocb *req, bool force_nonblock)
    submitted(ctx.arg::<*const u8>(0) as u64);
    0
}
