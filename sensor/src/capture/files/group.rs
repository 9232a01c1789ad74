//! One fanotify group: the kernel's own filter by inode, whose price an open of an unwatched file does not notice.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that one read(2) takes: some thousands of events.
const BUFFER: usize = 256 << 10;

/// The group. Closing it removes its marks.
#[derive(Debug)]
pub struct Group {
    fd: OwnedFd,
    /// Events that the attached hooks make theirs, `FAN_*`.
    wanted: u64,
    buffer: Vec<u8>,
}

impl Group {
    /// A new group without marks. Its queue is the kernel's default (`fs.fanotify.max_queued_events`, 16,384): an overflow is an event.
    ///
    /// # Errors
    /// The errno of fanotify_init(2): EPERM without `CAP_SYS_ADMIN`, ENOSYS where the kernel has none, EINVAL before Linux 5.17.
    pub fn new() -> io::Result<Self> {
        let flags =
            libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | libc::FAN_UNLIMITED_MARKS | libc::FAN_REPORT_DFID_NAME_TARGET;
        // SAFETY: no pointers.
        let fd = unsafe { libc::fanotify_init(flags, (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE) as u32) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else has.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, wanted: 0, buffer: Vec::new() })
    }

    /// Adds events to those that marks ask for.
    pub fn want(&mut self, events: u64) {
        self.wanted |= events;
    }

    /// Events that marks ask for.
    pub fn wanted(&self) -> u64 {
        self.wanted
    }

    /// Marks the inode behind `path`, links followed. A mark that is there already gets the events besides.
    ///
    /// # Errors
    /// The errno of fanotify_mark(2).
    pub(super) fn mark(&self, path: &Path, events: u64) -> io::Result<()> {
        self.add(path, events, 0)
    }

    /// Marks the whole file system that `path` lies in.
    ///
    /// # Errors
    /// As above.
    pub(super) fn mark_file_system(&self, path: &Path, events: u64) -> io::Result<()> {
        self.add(path, events, libc::FAN_MARK_FILESYSTEM)
    }

    fn add(&self, path: &Path, events: u64, flags: u32) -> io::Result<()> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: the path is NUL-terminated and lives across the call.
        let result = unsafe { libc::fanotify_mark(self.fd.as_raw_fd(), libc::FAN_MARK_ADD | flags, events, libc::AT_FDCWD, path.as_ptr()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes what waits, at most one buffer; empty when nothing does.
    ///
    /// # Errors
    /// The errno of read(2).
    pub(super) fn read(&mut self) -> io::Result<&[u8]> {
        self.buffer.resize(BUFFER, 0);
        match nix::unistd::read(&self.fd, &mut self.buffer) {
            Ok(read) => Ok(self.buffer.get(..read).unwrap_or_default()),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(&[]),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
