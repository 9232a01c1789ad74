//! Ways to open a file that go past what watches system calls: 32-bit calls and io_uring, each by the bare interface of the kernel.

use std::arch::asm;
use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

fn path_of(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("a path without NUL")
}

/// A descriptor that a call returned, or its errno.
fn owned(result: i64) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(result).expect("a result");
    // SAFETY: a new descriptor that nobody else has.
    if fd < 0 { Err(io::Error::from_raw_os_error(-fd)) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd) }) }
}

/// `open` by `int 0x80`, as a 32-bit program calls it.
///
/// # Errors
/// The call's errno; ENOSYS where the kernel has no 32-bit calls.
///
/// # Panics
/// There is no memory below 4 GiB.
pub fn open_by_int80(path: &Path, flags: i32) -> io::Result<OwnedFd> {
    const OPEN: i32 = 5;
    let path = path_of(path);
    let bytes = path.as_bytes_with_nul();
    // SAFETY: a new mapping; 32-bit callers have 32-bit addresses.
    let low = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes.len(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
            -1,
            0,
        )
    };
    assert_ne!(low, libc::MAP_FAILED, "no memory below 4 GiB: {}", io::Error::last_os_error());
    let mut result = OPEN;
    // SAFETY: the mapping is as long as the path. The call reads it, and changes no other register than eax and r8 to r11 (the 32-bit entry
    // does not keep those); rbx, which LLVM keeps for itself, is put back.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), low.cast(), bytes.len());
        asm!(
            "xchg rbx, {path}",
            "int 0x80",
            "xchg rbx, {path}",
            path = inout(reg) low as u64 => _,
            inout("eax") result,
            in("ecx") flags,
            in("edx") 0,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
        libc::munmap(low, bytes.len());
    }
    owned(result.into())
}

/// `openat2`.
///
/// # Errors
/// The call's errno.
pub fn open_by_openat2(path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let path = path_of(path);
    // struct open_how: flags, mode, resolve.
    let how = [flags as u64, 0, 0];
    // SAFETY: both live across the call, and the size is told.
    let fd = unsafe { libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path.as_ptr(), how.as_ptr(), size_of_val(&how)) };
    if fd < 0 { Err(io::Error::last_os_error()) } else { owned(fd) }
}

/// `openat` as one request in a ring of io_uring.
///
/// # Errors
/// Those of io_uring_setup(2) and io_uring_enter(2), else the request's own.
pub fn open_by_io_uring(path: &Path, flags: i32) -> io::Result<OwnedFd> {
    const OPENAT: u8 = 18;
    const GETEVENTS: u32 = 1;
    const SQES: i64 = 0x1000_0000;
    let path = path_of(path);
    // struct io_uring_params, include/uapi/linux/io_uring.h: 120 bytes.
    let mut params = [0_u32; 30];
    // SAFETY: as large as the kernel's structure.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    if ring < 0 {
        return Err(io::Error::last_os_error());
    }
    let ring = owned(ring)?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&ring);
    // sq_off begins at word 10: head, tail, ring_mask, ring_entries, flags, dropped, array; cq_off at word 20: head, tail, ring_mask,
    // ring_entries, overflow, cqes.
    let (tail, array, cqes) = (params[11] as usize, params[16] as usize, params[25] as usize);
    let map = |offset: i64, len: usize| {
        // SAFETY: a new mapping of the ring's own memory.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE, fd, offset)
        };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at.cast::<u8>()) }
    };
    // Both rings lie in one mapping since Linux 5.4; a page holds those of one entry.
    let (rings, sqe) = (map(0, 4096)?, map(SQES, 4096)?);
    // SAFETY: offsets are the kernel's, inside the mappings; the request lies at the first place of its array, and its path lives until it
    // is done.
    unsafe {
        sqe.write(OPENAT);
        sqe.add(4).cast::<i32>().write(libc::AT_FDCWD);
        sqe.add(16).cast::<u64>().write(path.as_ptr() as u64);
        sqe.add(28).cast::<i32>().write(flags);
        rings.add(array).cast::<u32>().write(0);
        std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
        rings.add(tail).cast::<u32>().write_volatile(1);
        let done = libc::syscall(libc::SYS_io_uring_enter, fd, 1, 1, GETEVENTS, std::ptr::null::<u8>(), 0);
        let error = io::Error::last_os_error();
        let result = rings.add(cqes + 8).cast::<i32>().read_volatile();
        libc::munmap(rings.cast(), 4096);
        libc::munmap(sqe.cast(), 4096);
        if done < 0 { Err(error) } else { owned(result.into()) }
    }
}

/// `open_by_handle_at`, through the file system's own name of the file.
///
/// # Errors
/// The calls' errno; EOPNOTSUPP where the file system has no handles.
pub fn open_by_handle(path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let path = path_of(path);
    // struct file_handle: bytes of the handle, its type, the handle.
    let mut handle = [0_u32; 34];
    handle[0] = 128;
    let mut mount = 0_i32;
    // SAFETY: the first word says how much room there is.
    let named =
        unsafe { libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, path.as_ptr(), handle.as_mut_ptr(), &raw mut mount, 0) };
    if named < 0 {
        return Err(io::Error::last_os_error());
    }
    let folder = std::fs::File::open(Path::new(std::ffi::OsStr::from_bytes(path.as_bytes())).parent().expect("a folder"))?;
    // SAFETY: as the kernel filled it.
    let fd = unsafe { libc::syscall(libc::SYS_open_by_handle_at, std::os::fd::AsRawFd::as_raw_fd(&folder), handle.as_mut_ptr(), flags) };
    if fd < 0 { Err(io::Error::last_os_error()) } else { owned(fd) }
}
