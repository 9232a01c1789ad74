//! Operations by io_uring: what sees only system calls is evaded by them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::libc;

/// include/uapi/linux/io_uring.h.
const IORING_OFF_SQ_RING: i64 = 0;
const IORING_OFF_SQES: i64 = 0x1000_0000;
const IORING_ENTER_GETEVENTS: u32 = 1;
const IORING_ENTER_SQ_WAKEUP: u32 = 2;
/// Bytes of `struct io_uring_params`, of a submission and of a completion.
const PARAMS: usize = 120;
const SQE: usize = 64;
/// Offsets in `struct io_uring_params`: `sq_off` and `cq_off`, and of their members `tail` and `array`, and `cqes`.
const SQ_OFF: usize = 40;
const CQ_OFF: usize = 80;

/// `IORING_SETUP_SQPOLL`: a thread of the kernel takes what is queued.
pub const URING_SQPOLL: u32 = 2;

/// `IORING_OP_OPENAT`: the bytes are a path with its NUL; opened to be read.
pub const URING_OPENAT: u8 = 18;

/// `IORING_OP_WRITE`.
pub const URING_WRITE: u8 = 23;

/// One submission: the members of `struct io_uring_sqe` that operations of these tests have. Addresses are those of values that outlive it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Submission {
    /// `IORING_OP_*`.
    pub opcode: u8,
    /// Descriptor.
    pub fd: i32,
    /// `off`, or a second address.
    pub off: u64,
    /// `addr`.
    pub addr: u64,
    /// `len`.
    pub len: u32,
    /// The flags of the operation.
    pub flags: u32,
}

/// One operation with a result, by a ring of its own.
///
/// # Errors
/// The kernel allows no ring. What the operation says is in the result: an errno below zero.
pub fn uring(opcode: u8, fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<i32> {
    let len = u32::try_from(bytes.len()).expect("few bytes");
    submit(0, Submission { opcode, fd: fd.as_raw_fd(), addr: bytes.as_ptr().addr() as u64, len, ..Submission::default() })
}

/// The same of any operation, by a ring with these `IORING_SETUP_*`.
///
/// # Errors
/// As [`uring`].
pub fn submit(setup: u32, submission: Submission) -> io::Result<i32> {
    let mut params = [0_u32; PARAMS / 4];
    params[2] = setup;
    // SAFETY: the kernel fills the parameters.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    if ring < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor of our own.
    let ring = unsafe { OwnedFd::from_raw_fd(i32::try_from(ring).expect("a descriptor")) };
    let (sq_tail, sq_array, cq_entries) = (params[SQ_OFF / 4 + 1], params[SQ_OFF / 4 + 6], params[CQ_OFF / 4 + 5]);
    let map = |len: usize, offset: i64| -> io::Result<*mut u8> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: new memory, at no place that anybody has.
        let at = unsafe { libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, ring.as_raw_fd(), offset) };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at.cast()) }
    };
    // Both queues of one entry fit a page, and lie in one mapping (IORING_FEAT_SINGLE_MMAP, Linux 5.4).
    let (queues, entries) = (map(4096, IORING_OFF_SQ_RING)?, map(SQE, IORING_OFF_SQES)?);
    let Submission { opcode, fd, off, addr, len, flags } = submission;
    let wake = if setup & URING_SQPOLL != 0 { IORING_ENTER_SQ_WAKEUP } else { 0 };
    // SAFETY: inside the mappings, by the offsets that the kernel gave.
    unsafe {
        entries.write(opcode);
        entries.add(4).cast::<i32>().write(fd);
        entries.add(8).cast::<u64>().write(off);
        entries.add(16).cast::<u64>().write(addr);
        entries.add(24).cast::<u32>().write(len);
        entries.add(28).cast::<u32>().write(flags);
        queues.add(sq_array as usize).cast::<u32>().write(0);
        AtomicU32::from_ptr(queues.add(sq_tail as usize).cast()).store(1, Ordering::Release);
        let done = libc::syscall(libc::SYS_io_uring_enter, ring.as_raw_fd(), 1, 1, IORING_ENTER_GETEVENTS | wake, 0, 0);
        let result =
            if done == 1 { Ok(queues.add(cq_entries as usize + 8).cast::<i32>().read_volatile()) } else { Err(io::Error::last_os_error()) };
        libc::munmap(queues.cast(), 4096);
        libc::munmap(entries.cast(), SQE);
        result
    }
}
