//! Parts that several kinds share.

use super::{RELAY_SOCKETS, Span};

/// Descriptors 0, 1 and 2.
pub const STDIO: usize = 3;

/// What a descriptor refers to, as a number in [`Fd::kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FdKind {
    /// Not open, or not read.
    Closed = 0,
    /// AF_INET socket.
    Inet4 = 1,
    /// AF_INET6 socket.
    Inet6 = 2,
    /// Pipe or FIFO.
    Pipe = 3,
    /// Terminal.
    Tty = 4,
    /// AF_UNIX socket.
    Unix = 5,
    /// Regular file or directory.
    File = 6,
    /// Device other than a terminal.
    Device = 7,
    /// Anything else.
    Other = 8,
}

impl FdKind {
    /// The kind with this number; unknown ones are [`FdKind::Other`].
    pub const fn from_raw(raw: u8) -> Self {
        match raw {
            0 => Self::Closed,
            1 => Self::Inet4,
            2 => Self::Inet6,
            3 => Self::Pipe,
            4 => Self::Tty,
            5 => Self::Unix,
            6 => Self::File,
            7 => Self::Device,
            _ => Self::Other,
        }
    }
}

/// One open file, as far as detectors ask.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct Fd {
    /// [`FdKind`] as a number.
    pub kind: u8,
    /// INET: `sk_state` (1 is established, also for a connected UDP socket).
    pub state: u8,
    /// INET: `sk_protocol`.
    pub protocol: u16,
    /// INET: local port, host order.
    pub local_port: u16,
    /// INET: peer port, host order.
    pub peer_port: u16,
    /// Inode number.
    pub inode: u64,
    /// UNIX: inode of the peer, 0 if none. Device and terminal: `i_rdev`.
    pub other: u64,
    /// INET: local address, network order; IPv4 in the first four bytes.
    pub local: [u8; 16],
    /// INET: peer address, likewise.
    pub peer: [u8; 16],
}

/// What the parent holds of the other ends of stdio.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct Relay {
    /// `start_boottime` of the parent's leader, nanoseconds.
    pub start_boottime: u64,
    /// Its thread-group id.
    pub tgid: u32,
    /// Its `self_exec_id`, low half.
    pub exec_id: u32,
    /// Bit n: the parent holds the other end of descriptor n.
    pub held: u32,
    /// INET sockets found, at most [`RELAY_SOCKETS`] of them in `sockets`.
    pub sockets_found: u32,
    /// The first INET sockets that the parent holds.
    pub sockets: [Fd; RELAY_SOCKETS],
}

/// `Image::exe_flags`: the file lies in the writable layer of an overlay.
pub const EXE_UPPER: u32 = 1 << 0;
/// `Image::exe_flags`: the file is in no folder and never was, as memfds are.
pub const EXE_ALONE: u32 = 1 << 1;
/// `Image::exe_flags`: the interpreter's path was cut at [`super::NAME_MAX`].
pub const EXE_INTERPRETER_TRUNCATED: u32 = 1 << 2;

/// The image and credentials of a process.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct Image {
    /// `start_boottime` of the real parent's leader, nanoseconds.
    pub parent_start_boottime: u64,
    /// Effective capabilities.
    pub cap_effective: u64,
    /// Inode of the executable.
    pub exe_inode: u64,
    /// `i_size`, bytes.
    pub exe_size: u64,
    /// Change time of the inode, seconds.
    pub exe_ctime_sec: u64,
    /// Its nanoseconds.
    pub exe_ctime_nsec: u32,
    /// `s_magic` of its file system, low half: all of include/uapi/linux/magic.h fits.
    pub exe_magic: u32,
    /// `EXE_*`.
    pub exe_flags: u32,
    /// Device of its file system (`s_dev`).
    pub exe_device: u32,
    /// `i_mode`.
    pub exe_mode: u32,
    /// `i_uid`.
    pub exe_owner: u32,
    /// `i_nlink`: 0 is deleted or a memfd.
    pub exe_nlink: u32,
    /// Real parent's `self_exec_id`, low half.
    pub parent_exec_id: u32,
    /// Real group id.
    pub gid: u32,
    /// Audit login uid; `u32::MAX` is unset.
    pub loginuid: u32,
    /// Audit session id; `u32::MAX` is unset.
    pub audit_session: u32,
    /// POSIX session id.
    pub sid: u32,
    /// Mount namespace inode.
    pub mnt_ns: u32,
    /// Pid namespace inode.
    pub pid_ns: u32,
    /// Control group namespace inode.
    pub cgroup_ns: u32,
    /// IPC namespace inode.
    pub ipc_ns: u32,
    /// Network namespace inode.
    pub net_ns: u32,
    /// Time namespace inode; 0 where the kernel has none.
    pub time_ns: u32,
    /// Inode of the user namespace of the credentials.
    pub user_ns: u32,
    /// UTS namespace inode.
    pub uts_ns: u32,
    /// `comm`, NUL-terminated; bytes after the NUL are stale.
    pub comm: [u8; 16],
    /// Name of the controlling terminal, NUL-terminated.
    pub tty: [u8; 16],
    /// Executable's path: components from the file up to the root, NUL-separated.
    pub exe: Span,
    /// Working directory, likewise.
    pub cwd: Span,
    /// cgroup path, likewise: the leaf first.
    pub cgroup: Span,
    /// Zero.
    pub pad_tail: Span,
}

const _: () = assert!(size_of::<Fd>() == 56);
const _: () = assert!(size_of::<Relay>() == 24 + RELAY_SOCKETS * 56);
const _: () = assert!(size_of::<Image>() == 40 + 20 * 4 + 32 + 16);
