//! Records as they lie in the ring buffers.

mod bpf;
#[cfg(feature = "decode")]
mod decode;
mod events;
mod fd;
mod file;
mod ignore;
mod module;
mod packets;
mod peer;

pub use bpf::{BPF_NAME_MAX, BPF_PLACE_MAX, BpfProgram, BpfWay};
#[cfg(feature = "decode")]
pub use decode::{Bytes, DecodeError, decode};
#[cfg(feature = "decode")]
pub use events::Record;
pub use events::{
    Accept, Access, Bind, BpfAttach, BpfLoad, BpfUnload, Capabilities, CgroupMove, Chroot, Connect, Credentials, DnsBytes, Exec,
    ExecFailed, Exit, FileAttributes, FileCreate, FileLink, FileOpen, FileRename, FileUnlink, FileWrite, FileXattr, FlowEnd, Fork, Groups,
    Helper, HttpBytes, IoUring, IoUringOp, KINDS, KernelProbe, Kexec, Kind, KindInfo, Listen, Lockdown, Memfd, MemoryExec, Module, Mount,
    Namespaces, PamAccount, PamAuthenticate, PamEnd, PamItem, PamPassword, PamSessionClose, PamSessionOpen, PamStart, Prctl, Probe,
    RawSocket, Rename, Ring, Seccomp, Seed, Signal, SshBytes, SshdLog, Syn, Sysctl, TlsBytes, UdpFlow, Umount, UnixConnect, VsockAccept,
    VsockConnect,
};
pub use fd::{EXE_ALONE, EXE_INTERPRETER_TRUNCATED, EXE_UPPER, Fd, FdKind, Image, Relay, STDIO};
pub use file::{
    FILE_SYSTEM_MAX, FileInfo, IGNORE_FOLDERS_MAX, MOUNT_ATTACH, MOUNT_MOUNT, MOUNT_PIVOT, SAMPLE, WANT_CHANGE, WANT_ENTRIES, WANT_READ,
    WANT_TREE, WATCH_BITS, WRITES_MAX, WatchKey, WriteGathered, WriteKey, XATTR_NAME_MAX, watch_bit,
};
pub use ignore::{IGNORE_CGROUP_DEPTH, IGNORE_CONDITIONS_MAX, IGNORE_MAX, IGNORE_PREFIX_BITS, Ignore};
pub use module::{KexecAct, MODULE_ARGS_MAX, MODULE_FROM_MEMORY, MODULE_NAME_MAX, MODULE_SIGNED, MODULE_UNSIGNED, ModuleAct};
pub use packets::{PIECE_MAX, Piece, STREAM_MAX, STREAM_SEGMENTS, SYN_PORTS, SynGathered, SynSource, UDP_FLOW_NS, UdpGathered, UdpPeer};
pub use peer::{UNIX_NAME_MAX, VSOCK_ANY, Vsock};

/// Raised whenever a record's layout changes. Kernel object and user space are built together; a mismatch (a stale
/// object) is refused at load and counted at decode.
pub const ABI_VERSION: u16 = 6;

/// Bytes of the tail of one record, at most. A power of two, so that the verifier can bound an offset with a mask.
pub const TAIL_MAX: usize = 16384;
/// Longest argument vector that is kept, bytes.
pub const ARGV_MAX: usize = 4096;
/// Bytes that are kept of the beginning of an environment, and as many of its end.
pub const ENVIRONMENT_MAX: usize = ARGV_MAX;
/// Longest requested path that is kept, bytes with the NUL. `PATH_MAX` is 4096; longer ones are flagged as truncated.
pub const NAME_MAX: usize = 1024;
/// Longest requested path of a failed exec that is kept, bytes with the NUL: these come in masses from `PATH` look-ups.
pub const FAILED_NAME_MAX: usize = 256;
/// Path components that are walked from a file up to the root.
pub const PATH_COMPONENTS: usize = 24;
/// Longest path component with its NUL (the kernel's `NAME_MAX` is 255).
pub const COMPONENT_MAX: usize = 256;
/// cgroup path components that are kept, from the leaf up. Kubernetes in Docker has seven down to the container, a rootless podman's pod
/// six.
pub const CGROUP_COMPONENTS: usize = 8;
/// Descriptors of the parent that are searched for the other ends of a process's stdio.
pub const RELAY_FDS: usize = 4096;
/// INET sockets of a relaying parent that are kept.
pub const RELAY_SOCKETS: usize = 4;

/// Ports in one probe record.
pub const PROBE_PORTS: usize = 32;
/// Longest PAM service or user name that is kept at `pam_start`, bytes with the NUL. Linux user names have 32 at most.
pub const PAM_NAME_MAX: usize = 128;
/// Longest PAM item that is kept, bytes with the NUL: a DNS name has 253 at most.
pub const PAM_ITEM_MAX: usize = 256;
/// Supplementary groups that are kept of one task. The kernel allows 65,536 (`NGROUPS_MAX`).
pub const GROUPS_MAX: usize = 32;
/// Longest message to syslog that is kept, bytes with the NUL: sshd itself cuts at 500.
pub const SYSLOG_MAX: usize = 512;
/// Longest name of a kernel symbol or path of a probed file that is kept, bytes with the NUL.
pub const KERNEL_PROBE_NAME_MAX: usize = 128;
/// Longest path of a program that the kernel starts, bytes with the NUL: `CORENAME_MAX_SIZE` and `KMOD_PATH_LEN` are 128 and 256.
pub const HELPER_PATH_MAX: usize = 256;
/// Longest argument of such a program that is kept, bytes with the NUL.
pub const HELPER_ARG_MAX: usize = 64;
/// Arguments of such a program that are kept.
pub const HELPER_ARGS: usize = 6;

/// How a probe was put.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeAct {
    /// On a function of the kernel.
    Kernel = 1,
    /// On a file that programs run.
    User = 2,
    /// As [`ProbeAct::User`], by perf_event_open, as the caller said it.
    UserByPerf = 3,
    /// As [`ProbeAct::Kernel`], likewise.
    KernelByPerf = 4,
}

impl ProbeAct {
    /// The act with this number; `None` for one that this build does not know.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::Kernel),
            2 => Some(Self::User),
            3 => Some(Self::UserByPerf),
            4 => Some(Self::KernelByPerf),
            _ => None,
        }
    }
}

/// Longest name or value of a sysctl that is kept, bytes with the NUL.
pub const SYSCTL_MAX: usize = 256;

/// Longest name of a memfd with its prefix `memfd:` and NUL, mm/memfd.c; also of what else is kept of names in fixed records.
pub const ACT_NAME_MAX: usize = 256;

/// `Header::flags`: the argument vector was cut at [`ARGV_MAX`].
pub const FLAG_ARGV_TRUNCATED: u16 = 1 << 0;
/// `Header::flags`: the requested path was cut at [`NAME_MAX`].
pub const FLAG_NAME_TRUNCATED: u16 = 1 << 1;
/// `Header::flags`: the executable's path had more components than [`PATH_COMPONENTS`], or did not fit.
pub const FLAG_EXE_TRUNCATED: u16 = 1 << 2;
/// `Header::flags`: as above, for the working directory.
pub const FLAG_CWD_TRUNCATED: u16 = 1 << 3;
/// `Header::flags`: a user-space address of the caller was read (could have been changed by another thread).
pub const FLAG_FROM_CALLER: u16 = 1 << 4;
/// `Header::flags`: the result is not known yet (the table of pending attempts was full).
pub const FLAG_RESULT_UNKNOWN: u16 = 1 << 5;
/// `Header::flags`: a kernel thread.
pub const FLAG_KERNEL_THREAD: u16 = 1 << 6;
/// `Header::flags`: the parent had more than [`RELAY_FDS`] descriptors.
pub const FLAG_RELAY_TRUNCATED: u16 = 1 << 7;

/// `Header::flags`: the system call came in by the 32-bit table, and its number is one of that table.
pub const FLAG_32_BIT: u16 = 1 << 8;
/// `FlowEnd::direction` and the like: the host connected.
pub const FLOW_OUT: u32 = 1;
/// Likewise: the host was connected to.
pub const FLOW_IN: u32 = 2;
/// `Header::flags`: paths of the record begin at the root of their file system, not at that of the mount namespace.
pub const FLAG_PATH_IN_FILE_SYSTEM: u16 = 1 << 9;

/// What every record begins with.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct Header {
    /// Length of the whole record in bytes, this header included.
    pub len: u32,
    /// [`Kind`] as a number.
    pub kind: u16,
    /// `FLAG_*`.
    pub flags: u16,
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub ktime: u64,
    /// Counts the records made on this CPU; wraps.
    pub seq: u32,
    /// CPU that made the record.
    pub cpu: u16,
    /// [`ABI_VERSION`].
    pub abi: u16,
    /// Thread-group id of the subject, initial pid namespace.
    pub tgid: u32,
    /// Its thread.
    pub tid: u32,
    /// `start_boottime` of its thread-group leader, nanoseconds.
    pub start_boottime: u64,
    /// Low half of `self_exec_id`.
    pub exec_id: u32,
    /// Real user id.
    pub uid: u32,
    /// cgroup v2 id.
    pub cgroup_id: u64,
    /// Effective user id.
    pub euid: u32,
    /// Thread-group id of the real parent.
    pub ppid: u32,
}

const _: () = assert!(size_of::<Header>() == 64, "the header is 64 bytes: decoders and docs say so");
const _: () = assert!(core::mem::offset_of!(Header, ktime) == 8 && core::mem::offset_of!(Header, start_boottime) == 32);

/// Bytes of the tail: offset from the start of the record, and length.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct Span {
    /// From the start of the record.
    pub offset: u16,
    /// In bytes.
    pub len: u16,
}

/// Supplementary groups of a task.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct GroupList {
    /// How many it has; more than [`GROUPS_MAX`] when not all are kept.
    pub count: u32,
    /// The first of them, ascending; zero beyond `count`.
    pub gids: [u32; GROUPS_MAX],
}

/// The eight ids of a task's credentials.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct TaskIds {
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Saved user id.
    pub suid: u32,
    /// File-system user id.
    pub fsuid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective group id.
    pub egid: u32,
    /// Saved group id.
    pub sgid: u32,
    /// File-system group id.
    pub fsgid: u32,
}

/// The process that something is done to.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct Target {
    /// `start_boottime` of its thread-group leader, nanoseconds.
    pub start_boottime: u64,
    /// Thread-group id, initial pid namespace.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// Low half of `self_exec_id`.
    pub exec_id: u32,
    /// Real user id.
    pub uid: u32,
}

/// Inode numbers of a task's namespaces, as `/proc/<pid>/ns` shows them. 0 where the kernel has no such namespaces.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct NamespaceIds {
    /// Mounts.
    pub mnt: u32,
    /// Pids that children get.
    pub pid: u32,
    /// Network.
    pub net: u32,
    /// Host name.
    pub uts: u32,
    /// System V and POSIX IPC.
    pub ipc: u32,
    /// Control groups.
    pub cgroup: u32,
    /// Users.
    pub user: u32,
    /// Clocks that children get.
    pub time: u32,
}

/// Capability sets of a task, one bit a capability.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct CapabilitySets {
    /// What counts now.
    pub effective: u64,
    /// What may be made effective.
    pub permitted: u64,
    /// What may be kept over an exec.
    pub inheritable: u64,
    /// What an exec may give at most.
    pub bounding: u64,
    /// What an exec keeps without the file's say.
    pub ambient: u64,
    /// `SECBIT_*`, include/uapi/linux/securebits.h.
    pub securebits: u64,
}

/// Whose packets are gathered: the key of the map `PROBES`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct ProbeSource {
    /// Source address, network order; IPv4 in the first four bytes.
    pub source: [u8; 16],
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// TCP flags: a scan's packets and a peer's answers are two things. 0 for UDP.
    pub flags: u32,
}

/// What was gathered: the value of the map `PROBES`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct ProbeGathered {
    /// Boot clock of the first packet, nanoseconds.
    pub first: u64,
    /// Boot clock of the last packet, nanoseconds.
    pub last: u64,
    /// Packets.
    pub packets: u64,
    /// Address of this host that the first packet went to.
    pub local: [u8; 16],
    /// Ports in `ports`.
    pub found: u32,
    /// Zero.
    pub pad: u32,
    /// Ports, each once, host order.
    pub ports: [u16; PROBE_PORTS],
}

/// A TCP connection attempt that has no result yet: the value of the map `PENDING`, whose key is the `struct sock`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Pending {
    /// Who tried: taken at the attempt, because the result comes in softirq, where `current` is somebody else. Its `ktime`
    /// is the attempt's.
    pub header: Header,
    /// The kernel side's own state of the attempt.
    pub state: u64,
    /// Inode of the socket's file: tells another socket at the same address.
    pub inode: u64,
}

/// Why a record never reached a ring.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// It did: records handed to a ring.
    Emitted = 0,
    /// The ring had no room.
    RingFull = 1,
    /// The acting process is Bartizan itself.
    FilteredSelf = 2,
    /// The table of pending attempts was full: the record went out at once, with an unknown result.
    PendingFull = 3,
    /// Another socket took the address of one whose attempt never got a result: that attempt's record is lost.
    NoResult = 4,
    /// A table that the record needs was full.
    TableFull = 5,
    /// Left out because Bartizan is at its CPU ceiling (`sensor.cpu_limit`).
    Shed = 6,
    /// Left out because the configuration says so (`sensor.ignore`, `sensor.only`, `files.ignore`).
    Filtered = 7,
}

// Parts of a program that several hooks share, because finding the socket costs as much as what each does with it: bits of the word that user
// space sets for those that are attached.

/// TCP attempts at the exit of connect(2).
pub const PART_CONNECT_TCP: u32 = 1 << 0;
/// UDP sockets, likewise.
pub const PART_CONNECT_UDP: u32 = 1 << 1;
/// UNIX sockets, likewise.
pub const PART_CONNECT_UNIX: u32 = 1 << 2;
/// VM sockets, likewise.
pub const PART_CONNECT_VSOCK: u32 = 1 << 3;
/// INET sockets at the exit of accept(2).
pub const PART_ACCEPT_INET: u32 = 1 << 4;
/// VM sockets, likewise.
pub const PART_ACCEPT_VSOCK: u32 = 1 << 5;
/// Attempts, results and ends of connections at the socket's state changes.
pub const PART_STATE_CONNECT: u32 = 1 << 6;
/// Sockets that begin to listen, likewise.
pub const PART_STATE_LISTEN: u32 = 1 << 7;

/// Counters per kind.
pub const COUNTS: usize = 8;
/// Kinds that the counter array has room for.
pub const KINDS_MAX: usize = 128;
/// Entries of the counter array: `kind * COUNTS + count`.
pub const COUNTER_SLOTS: usize = KINDS_MAX * COUNTS;
