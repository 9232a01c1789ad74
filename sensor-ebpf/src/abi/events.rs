//! The one list of record kinds.

use super::{
    ACT_NAME_MAX, BPF_PLACE_MAX, BpfProgram, CapabilitySets, FAILED_NAME_MAX, FILE_SYSTEM_MAX, Fd, FileInfo, GroupList, HELPER_ARG_MAX,
    HELPER_ARGS, HELPER_PATH_MAX, Header, Image, KERNEL_PROBE_NAME_MAX, MODULE_ARGS_MAX, MODULE_NAME_MAX, NamespaceIds, PAM_ITEM_MAX,
    PAM_NAME_MAX, PROBE_PORTS, Piece, Relay, STDIO, SYSCTL_MAX, SYSLOG_MAX, Span, SynGathered, SynSource, Target, TaskIds, UNIX_NAME_MAX,
    UdpGathered, UdpPeer, Vsock, XATTR_NAME_MAX,
};

/// Which ring a kind travels in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ring {
    /// Small; for what must not be crowded out by bulk.
    Priority,
    /// Large; for what comes in masses.
    Bulk,
}

/// What the rest of the code may ask about a kind.
#[derive(Debug, Clone, Copy)]
pub struct KindInfo {
    /// The kind.
    pub kind: Kind,
    /// The event kind it becomes: its name in counters and status. Several record kinds may become one event kind.
    pub name: &'static str,
    /// Its ring.
    pub ring: Ring,
    /// Bytes of header and fixed part: the least a record of this kind can have.
    pub fixed: usize,
}

macro_rules! events {
    ($(
        $(#[$doc:meta])*
        $number:literal => $name:ident as $text:literal in $ring:ident {
            $( $(#[$field_doc:meta])* $field:ident: $ty:ty, )*
        }
    )*) => {
        /// The record kinds. Numbers are never reused.
        #[repr(u16)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind { $( $(#[$doc])* $name = $number, )* }

        impl Kind {
            /// The kind with this number; `None` for one that this build does not know.
            pub const fn from_raw(raw: u16) -> Option<Self> {
                match raw { $( $number => Some(Self::$name), )* _ => None }
            }

            /// The ring that it travels in.
            pub const fn ring(self) -> Ring {
                match self { $( Self::$name => Ring::$ring, )* }
            }
        }

        /// Every kind, in the order of the list.
        pub const KINDS: &[KindInfo] = &[ $( KindInfo {
            kind: Kind::$name, name: $text, ring: Ring::$ring, fixed: size_of::<$name>(),
        }, )* ];

        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Debug, Clone, Copy)]
            #[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
            pub struct $name {
                /// Subject, time and length.
                pub header: Header,
                $( $(#[$field_doc])* pub $field: $ty, )*
            }

            const _: () = assert!(
                size_of::<$name>() == size_of::<Header>() $( + size_of::<$ty>() )*,
                concat!(stringify!($name), " has implicit padding: order its fields by size or pad it by name"),
            );
            const _: () = assert!(size_of::<$name>() % 8 == 0, "ring records are 8-aligned");
            const _: () = assert!(($number as usize) < super::KINDS_MAX, "raise KINDS_MAX");
        )*

        /// A decoded record: its fixed part, borrowed from the ring, and the whole record's bytes for its spans.
        #[cfg(feature = "decode")]
        #[derive(Debug, Clone, Copy)]
        pub enum Record<'a> {
            $( $(#[$doc])* $name(&'a $name, super::decode::Bytes<'a>), )*
        }

        #[cfg(feature = "decode")]
        impl<'a> Record<'a> {
            pub(super) fn with_kind(kind: Kind, bytes: &'a [u8]) -> Option<Self> {
                match kind {
                    $( Kind::$name => {
                        let (fixed, _) = <$name as zerocopy::FromBytes>::ref_from_prefix(bytes).ok()?;
                        Some(Self::$name(fixed, super::decode::Bytes(bytes)))
                    } )*
                }
            }

            /// The record's header.
            pub fn header(&self) -> &'a Header {
                match self { $( Self::$name(fixed, _) => &fixed.header, )* }
            }

            /// The record's kind.
            pub fn kind(&self) -> Kind {
                match self { $( Self::$name(..) => Kind::$name, )* }
            }
        }
    };
}

events! {
    /// A process replaced its image.
    1 => Exec as "process.exec" in Priority {
        /// The new image.
        image: Image,
        /// Descriptors 0, 1, 2.
        stdio: [Fd; STDIO],
        /// What the parent holds of their other ends.
        relay: Relay,
        /// Path as the caller asked for it (`linux_binprm.filename`).
        requested: Span,
        /// Argument vector, NUL-separated.
        argv: Span,
        /// Program that runs what was asked for (`linux_binprm.interp`), where that is another one: a script's or binfmt_misc's.
        interpreter: Span,
        /// The first [`super::ENVIRONMENT_MAX`] bytes of the environment, NUL-separated.
        environment: Span,
        /// What follows, or of longer ones the last [`super::ENVIRONMENT_MAX`] bytes.
        environment_end: Span,
        /// Bytes of the whole environment.
        environment_len: u32,
    }

    /// An exec failed. The header names the image that tried. In the bulk ring: anybody can make these by the million, and
    /// they must not crowd out what must not be lost.
    2 => ExecFailed as "process.exec" in Bulk {
        /// Errno, positive.
        error: u32,
        /// Path as the caller asked for it, read from its memory: a span of `name`.
        requested: Span,
        /// Room for the path. Bytes behind the span are stale.
        name: [u8; FAILED_NAME_MAX],
    }

    /// A process was made. The header names its parent.
    3 => Fork as "process.fork" in Priority {
        /// `start_boottime` of the child, nanoseconds.
        child_start_boottime: u64,
        /// `CLONE_*` that it was made with, without the signal at its end.
        flags: u64,
        /// Its thread-group id.
        child_tgid: u32,
        /// Its `self_exec_id`, low half.
        child_exec_id: u32,
        /// `comm`, NUL-terminated; bytes after the NUL are stale.
        comm: [u8; 16],
    }

    /// The last thread of a process ended.
    4 => Exit as "process.exit" in Priority {
        /// Wait status, as `waitpid` gives it.
        status: u32,
        /// Zero.
        pad: u32,
    }

    /// A process that the task iterator found.
    5 => Seed as "process.seed" in Priority {
        /// Its image.
        image: Image,
        /// Descriptors 0, 1, 2.
        stdio: [Fd; STDIO],
        /// What the parent holds of their other ends.
        relay: Relay,
        /// Connected INET sockets that the process itself holds; nothing else is filled.
        own: Relay,
    }

    /// A connection attempt came to its result.
    6 => Connect as "network.connect" in Bulk {
        /// The socket.
        socket: Fd,
        /// Boot clock at the attempt, nanoseconds.
        started: u64,
        /// Errno, positive; 0 is success.
        error: u32,
        /// Zero.
        pad: u32,
    }

    /// A program took a connection that a peer made.
    7 => Accept as "network.accept" in Bulk {
        /// The new socket.
        socket: Fd,
    }

    /// A TCP socket begins to take connections.
    8 => Listen as "network.listen" in Bulk {
        /// The socket.
        socket: Fd,
        /// Connections that may wait.
        backlog: u32,
        /// Zero.
        pad: u32,
    }

    /// Packets of one source that reached ports on which nothing listens. Without a subject: the header's process is zero.
    9 => Probe as "network.probe" in Bulk {
        /// Source address, network order; IPv4 in the first four bytes.
        source: [u8; 16],
        /// Address of this host that the first packet went to, likewise.
        local: [u8; 16],
        /// Boot clock of the first packet, nanoseconds.
        first: u64,
        /// Packets.
        packets: u64,
        /// `IPPROTO_TCP` or `IPPROTO_UDP`.
        protocol: u16,
        /// `AF_INET` or `AF_INET6`.
        family: u16,
        /// Ports in `ports`.
        found: u16,
        /// TCP flags, the same of all packets.
        flags: u16,
        /// Ports, each once, host order.
        ports: [u16; PROBE_PORTS],
    }

    /// A task changed its user or group ids.
    10 => Credentials as "process.credentials" in Priority {
        /// System call number on x86-64 of the family member: 105 `setuid`, 106 `setgid`, 113 `setreuid`, 114 `setregid`, 117
        /// `setresuid`, 119 `setresgid`, 122 `setfsuid`, 123 `setfsgid`, whichever entry was used.
        call: u32,
        /// Zero.
        pad: u32,
        /// Before.
        old: TaskIds,
        /// After.
        new: TaskIds,
    }

    /// `pam_start` returned.
    11 => PamStart as "auth.start" in Priority {
        /// The handle: an address of the caller.
        handle: u64,
        /// What it returned.
        result: u32,
        /// Bytes of `service` with its NUL, 0 for none.
        service_len: u16,
        /// Bytes of `user`, likewise.
        user_len: u16,
        /// Service name.
        service: [u8; PAM_NAME_MAX],
        /// User name.
        user: [u8; PAM_NAME_MAX],
    }

    /// `pam_set_item` is called for an item that is no secret.
    12 => PamItem as "auth.start" in Priority {
        /// The handle.
        handle: u64,
        /// `PAM_SERVICE` ..., security/_pam_types.h.
        item: u32,
        /// Bytes of `value` with its NUL, 0 for none.
        len: u32,
        /// The item.
        value: [u8; PAM_ITEM_MAX],
    }

    /// `pam_authenticate` returned.
    13 => PamAuthenticate as "auth.authenticate" in Priority {
        /// The handle.
        handle: u64,
        /// What it returned.
        result: u32,
        /// Zero.
        pad: u32,
    }

    /// `pam_acct_mgmt` returned.
    14 => PamAccount as "auth.account" in Priority {
        /// The handle.
        handle: u64,
        /// What it returned.
        result: u32,
        /// Zero.
        pad: u32,
    }

    /// `pam_open_session` returned.
    15 => PamSessionOpen as "auth.session_open" in Priority {
        /// The handle.
        handle: u64,
        /// What it returned.
        result: u32,
        /// Zero.
        pad: u32,
    }

    /// `pam_close_session` returned.
    16 => PamSessionClose as "auth.session_close" in Priority {
        /// The handle.
        handle: u64,
        /// What it returned.
        result: u32,
        /// Zero.
        pad: u32,
    }

    /// `pam_end` is called: the handle names nothing any more.
    17 => PamEnd as "auth.start" in Priority {
        /// The handle.
        handle: u64,
    }

    /// sshd hands a message to syslog.
    18 => SshdLog as "auth.authenticate" in Priority {
        /// Bytes of `text` with its NUL.
        len: u32,
        /// Zero.
        pad: u32,
        /// The message.
        text: [u8; SYSLOG_MAX],
    }

    /// A process sent a signal to another one.
    19 => Signal as "process.signal" in Bulk {
        /// To whom.
        target: Target,
        /// The signal's number.
        signal: u32,
        /// `si_code`, as the kernel has it: 0 `kill`, -1 `sigqueue`, -6 `tkill`; what the sender claims with `rt_sigqueueinfo`.
        code: i32,
        /// What became of it: `TRACE_SIGNAL_*`, include/trace/events/signal.h.
        result: u32,
        /// 1 for the whole process, 0 for one thread.
        group: u32,
    }

    /// A process asked for another one's memory, registers or descriptors.
    20 => Access as "process.access" in Priority {
        /// Whose.
        target: Target,
        /// `ptrace`'s request; 0 with other calls.
        request: u64,
        /// Number of the system call.
        call: u32,
        /// Errno, positive; 0 is success.
        error: u32,
        /// `PTRACE_MODE_*` of the kernel's check, include/linux/ptrace.h; 0 where it was not seen.
        mode: u32,
        /// Pid as the caller gave it, where the kernel's own word was not to be had.
        pid: u32,
    }

    /// A task went into other namespaces, or tried to.
    21 => Namespaces as "process.namespaces" in Priority {
        /// Before.
        before: NamespaceIds,
        /// After.
        after: NamespaceIds,
        /// `CLONE_NEW*` that were asked for; 0 with `setns` leaves it to the descriptor.
        asked: u64,
        /// Number of the system call.
        call: u32,
        /// Errno, positive; 0 is success.
        error: u32,
    }

    /// A process got another name (`comm`), other than by exec.
    22 => Rename as "process.rename" in Bulk {
        /// Whose name, where another process wrote it; zero when its own.
        target: Target,
        /// Before, NUL-terminated; bytes after the NUL are stale.
        before: [u8; 16],
        /// After, likewise.
        after: [u8; 16],
    }

    /// A process got another root folder, or tried to.
    23 => Chroot as "process.chroot" in Priority {
        /// Inode of the new root.
        inode: u64,
        /// Its device.
        device: u32,
        /// Number of the system call.
        call: u32,
        /// Errno, positive; 0 is success.
        error: u32,
        /// The new root, or on failure what was asked for.
        path: Span,
    }

    /// A filter of system calls was put on a task, or an attempt failed.
    24 => Seccomp as "process.seccomp" in Bulk {
        /// Number of the system call.
        call: u32,
        /// `SECCOMP_SET_MODE_*`, include/uapi/linux/seccomp.h.
        operation: u32,
        /// `SECCOMP_FILTER_FLAG_*`.
        flags: u32,
        /// Errno, positive; 0 is success.
        error: u32,
        /// Mode of the task afterwards: 0 none, 1 strict, 2 filter.
        mode: u32,
        /// Filters on the task afterwards.
        filters: u32,
        /// Instructions of the newest.
        instructions: u32,
        /// The descriptor that supervises it; 0 without.
        listener: u32,
    }

    /// A file that lives in memory alone was made.
    25 => Memfd as "process.memfd" in Priority {
        /// Inode.
        inode: u64,
        /// `MFD_*`, include/uapi/linux/memfd.h.
        flags: u32,
        /// Descriptor.
        fd: u32,
        /// Number of the system call.
        call: u32,
        /// Zero.
        pad: u32,
        /// Its name, NUL-terminated; bytes after the NUL are stale.
        name: [u8; ACT_NAME_MAX],
    }

    /// Memory that was or is written can be executed.
    26 => MemoryExec as "process.memory_exec" in Bulk {
        /// First address.
        start: u64,
        /// Bytes.
        len: u64,
        /// Inode of the file behind it; 0 for anonymous memory.
        inode: u64,
        /// Its device.
        device: u32,
        /// Links it has left.
        nlink: u32,
        /// `VM_READ`, `VM_WRITE`, `VM_EXEC`, `VM_SHARED` (1, 2, 4, 8) before.
        before: u32,
        /// The same now.
        after: u32,
        /// Number of the system call.
        call: u32,
        /// How many times this image did so by now; told at the first and at every power of two.
        times: u32,
    }

    /// A task changed its capabilities.
    27 => Capabilities as "process.capabilities" in Priority {
        /// Before.
        before: CapabilitySets,
        /// After.
        after: CapabilitySets,
        /// Number of the system call.
        call: u32,
        /// Zero.
        pad: u32,
    }

    /// `prctl` with an option that hides or rewrites.
    28 => Prctl as "process.prctl" in Bulk {
        /// `PR_*`, include/uapi/linux/prctl.h.
        option: u32,
        /// Errno, positive; 0 is success.
        error: u32,
        /// The arguments behind the option.
        arguments: [u64; 3],
    }

    /// A ring for calls without system calls was made.
    29 => IoUring as "process.io_uring" in Priority {
        /// Entries of the submission queue.
        entries: u32,
        /// `IORING_SETUP_*`, include/uapi/linux/io_uring.h.
        flags: u32,
    }

    /// An operation was handed to the kernel by a ring.
    30 => IoUringOp as "process.io_uring_op" in Bulk {
        /// `IORING_OP_*`.
        opcode: u32,
        /// Descriptor that it works on or from.
        fd: u32,
        /// The kernel's copy of its path, NUL-terminated; bytes after the NUL are stale.
        path: [u8; ACT_NAME_MAX],
        /// Of its second path, likewise.
        other: [u8; ACT_NAME_MAX],
    }

    /// A process was moved into another control group.
    31 => CgroupMove as "process.cgroup_move" in Priority {
        /// Which.
        target: Target,
        /// Id of the control group.
        cgroup: u64,
        /// Its path, NUL-terminated; bytes after the NUL are stale.
        path: [u8; ACT_NAME_MAX],
    }

    /// A task changed its supplementary groups.
    32 => Groups as "process.groups" in Priority {
        /// Before.
        old: GroupList,
        /// After.
        new: GroupList,
    }

    /// `pam_chauthtok` returned.
    33 => PamPassword as "auth.password_change" in Priority {
        /// The handle.
        handle: u64,
        /// What it returned.
        result: u32,
        /// Zero.
        pad: u32,
    }

    /// A file was opened: to be written, created, or one whose readers are told.
    40 => FileOpen as "file.open" in Bulk {
        /// The file.
        file: FileInfo,
        /// `struct file.f_flags`: `O_*`.
        flags: u32,
        /// `struct file.f_mode`: `FMODE_*`.
        mode: u32,
        /// Type of the file system, NUL-terminated.
        file_system: [u8; FILE_SYSTEM_MAX],
        /// Path, leaf first.
        path: Span,
        /// Zero.
        pad: u32,
    }

    /// A folder, device node, pipe or socket is made: only the file system itself can still fail.
    41 => FileCreate as "file.create" in Bulk {
        /// The folder that it is made in.
        folder: FileInfo,
        /// Type and permission bits.
        mode: u32,
        /// Device number of a node.
        node: u32,
        /// Path, leaf first.
        path: Span,
        /// Zero.
        pad: u32,
    }

    /// A file gets another name: only the file system itself can still fail.
    42 => FileRename as "file.rename" in Bulk {
        /// The file.
        file: FileInfo,
        /// Inode that has the new name now; 0 for none.
        replaced: u64,
        /// `RENAME_*`.
        flags: u32,
        /// Old path, leaf first.
        old: Span,
        /// New path, leaf first.
        new: Span,
        /// Zero.
        pad: u32,
    }

    /// A name is removed: only the file system itself can still fail.
    43 => FileUnlink as "file.unlink" in Bulk {
        /// The file.
        file: FileInfo,
        /// Path, leaf first.
        path: Span,
        /// 1 for a folder.
        folder: u32,
    }

    /// A file gets a further name, or a symbolic link is made: only the file system itself can still fail.
    44 => FileLink as "file.link" in Bulk {
        /// The file, for a hard link; else the folder.
        file: FileInfo,
        /// New path, leaf first.
        path: Span,
        /// Hard link: the old path, leaf first. Symbolic: its text.
        to: Span,
        /// 1 for a symbolic link.
        symbolic: u32,
        /// Zero.
        pad: u32,
    }

    /// Attributes of a file are set: only the file system itself can still fail.
    45 => FileAttributes as "file.attributes" in Bulk {
        /// The file, before.
        file: FileInfo,
        /// New length.
        size: u64,
        /// `ATTR_*`: which of the others are meant.
        valid: u32,
        /// New mode.
        mode: u32,
        /// New owner.
        owner: u32,
        /// New group.
        group: u32,
        /// Path, leaf first.
        path: Span,
        /// Zero.
        pad: u32,
    }

    /// An extended attribute was set or removed.
    46 => FileXattr as "file.xattr" in Bulk {
        /// The file.
        file: FileInfo,
        /// Bytes of the value.
        size: u64,
        /// Name, NUL-terminated.
        name: [u8; XATTR_NAME_MAX],
        /// Path, leaf first.
        path: Span,
        /// 1 when it was removed.
        removed: u32,
    }

    /// A mount was made or changed.
    47 => Mount as "file.mount" in Priority {
        /// `MS_*`, or `MOVE_MOUNT_*`.
        flags: u64,
        /// `MOUNT_*` of this ABI.
        action: u32,
        /// Errno, positive; 0 is success.
        error: u32,
        /// As the caller named it.
        source: Span,
        /// Leaf first; with `FLAG_FROM_CALLER` as the caller named it.
        target: Span,
        /// Type of the file system.
        file_system: Span,
        /// Zero.
        pad: u32,
    }

    /// A mount is removed: the kernel may still refuse because it is in use.
    48 => Umount as "file.umount" in Priority {
        /// Leaf first; with `FLAG_FROM_CALLER` as the caller named it.
        target: Span,
        /// `MNT_*` and `UMOUNT_*`.
        flags: u32,
        /// Errno, positive; 0 is success.
        error: u32,
        /// 1 when the result is known.
        done: u32,
    }

    /// A process begins to write to a file: what it writes is gathered in the map `WRITES`.
    49 => FileWrite as "file.write" in Bulk {
        /// The file.
        file: FileInfo,
        /// Path, leaf first.
        path: Span,
        /// Zero.
        pad: u32,
    }

    /// A socket was bound to an address of this host.
    60 => Bind as "network.bind" in Bulk {
        /// The socket; its port is the one that the kernel chose where none was asked for.
        socket: Fd,
        /// `sk_type`: 1 stream, 2 datagram, 3 raw, 5 seqpacket.
        socket_type: u32,
        /// Zero.
        pad: u32,
    }

    /// A TCP connection came to its end. The header names who connected or accepted it; the process is zero where that is not known.
    61 => FlowEnd as "network.flow_end" in Bulk {
        /// The socket.
        socket: Fd,
        /// Boot clock when it was established, nanoseconds; 0 when that is not known.
        started: u64,
        /// Payload bytes, each once.
        bytes_sent: u64,
        /// Payload bytes, each once.
        bytes_received: u64,
        /// Segments, with and without payload.
        segments_sent: u32,
        /// Segments, with and without payload.
        segments_received: u32,
        /// Segments that were sent again.
        retransmitted: u32,
        /// Errno that it ended with, positive; 0 for none.
        error: u32,
        /// [`FLOW_OUT`](super::FLOW_OUT), [`FLOW_IN`](super::FLOW_IN), or 0 when not known.
        direction: u32,
        /// Zero.
        pad: u32,
    }

    /// A socket that sees or makes more than its own connections.
    62 => RawSocket as "network.raw_socket" in Bulk {
        /// Inode of its file; 0 where it has none yet.
        inode: u64,
        /// `AF_*`.
        family: u32,
        /// `SOCK_*`, without flags.
        socket_type: u32,
        /// Protocol as the caller asked for it.
        protocol: u32,
        /// Zero.
        pad: u32,
    }

    /// A DNS message over UDP, or bytes of a TCP connection to port 53.
    63 => DnsBytes as "network.dns" in Bulk {
        /// The bytes and where they belong.
        piece: Piece,
    }

    /// First bytes of one direction of a TCP connection that begins as TLS does.
    64 => TlsBytes as "network.tls" in Bulk {
        /// The bytes and where they belong.
        piece: Piece,
    }

    /// First bytes of one direction of a TCP connection that begins as an HTTP/1 request does.
    65 => HttpBytes as "network.http" in Bulk {
        /// The bytes and where they belong.
        piece: Piece,
    }

    /// First bytes of one direction of a TCP connection that begins as SSH does.
    66 => SshBytes as "network.ssh" in Bulk {
        /// The bytes and where they belong.
        piece: Piece,
    }

    /// UDP packets of one process and one peer that went on for [`UDP_FLOW_NS`](super::UDP_FLOW_NS). (Those that end before are taken out of the map.)
    67 => UdpFlow as "network.udp_flow" in Bulk {
        /// Whose packets.
        key: UdpPeer,
        /// What they were.
        gathered: UdpGathered,
    }

    /// Attempts of one source to connect to ports that listen. (The kernel sends none: they are taken out of the map.)
    68 => Syn as "network.syn" in Bulk {
        /// Whose attempts.
        source: SynSource,
        /// What they were.
        gathered: SynGathered,
    }

    /// A process connected a UNIX stream or sequenced-packet socket, or tried to.
    69 => UnixConnect as "network.unix_connect" in Bulk {
        /// Who listens there, where that process lives.
        target: Target,
        /// Inode of the socket's file.
        inode: u64,
        /// How often by now, this time included.
        times: u64,
        /// `sk_type`.
        socket_type: u32,
        /// Errno, positive; 0 is success.
        error: u32,
        /// Thread-group id of who listens, initial pid namespace; 0 where there is nobody.
        peer_pid: u32,
        /// Its effective user id when it began to listen.
        peer_uid: u32,
        /// Its effective group id then.
        peer_gid: u32,
        /// 1 when it is in another pid namespace.
        other_pid_ns: u32,
        /// Bytes of `name`.
        name_len: u32,
        /// Zero.
        pad: u32,
        /// The address: a path, or a name behind a NUL.
        name: [u8; UNIX_NAME_MAX],
    }

    /// A process connected a VM socket, or tried to.
    70 => VsockConnect as "network.vsock_connect" in Bulk {
        /// The socket.
        socket: Vsock,
        /// `sk_type`.
        socket_type: u32,
        /// Errno, positive; 0 is success.
        error: u32,
    }

    /// A process took a connection to a VM socket.
    71 => VsockAccept as "network.vsock_accept" in Bulk {
        /// The new socket.
        socket: Vsock,
        /// `sk_type`.
        socket_type: u32,
        /// Zero.
        pad: u32,
    }

    /// A process writes a sysctl. Those that the owner of a user or network namespace may write (`net.*`, `user.*`) go to the bulk ring.
    80 => Sysctl as "kernel.sysctl" in Priority {
        /// Bytes of `name`, or an errno below zero: -7 (`E2BIG`) when it was cut.
        name_len: i32,
        /// The same of `old`; -22 (`EINVAL`) when it cannot be read.
        old_len: i32,
        /// The same of `new`.
        new_len: i32,
        /// Where in the file it is written.
        position: u32,
        /// Path below `/proc/sys`.
        name: [u8; SYSCTL_MAX],
        /// Value before.
        old: [u8; SYSCTL_MAX],
        /// Value that is written.
        new: [u8; SYSCTL_MAX],
    }

    /// A BPF program was loaded.
    81 => BpfLoad as "kernel.bpf_load" in Priority {
        /// The program.
        program: BpfProgram,
    }

    /// A BPF program is gone: nothing holds it any more.
    82 => BpfUnload as "kernel.bpf_unload" in Priority {
        /// The program.
        program: BpfProgram,
    }

    /// A BPF program, or a classic filter, was put at its place.
    83 => BpfAttach as "kernel.bpf_attach" in Priority {
        /// The program.
        program: BpfProgram,
        /// [`BpfWay`](super::BpfWay) as a number.
        way: u32,
        /// `enum bpf_link_type`; 0 without a link.
        link_type: u32,
        /// Id of the link; 0 without one.
        link_id: u32,
        /// `enum bpf_attach_type` of an attachment that names one for itself; `u32::MAX` where none does.
        attach_type: u32,
        /// The cgroup's id; 0 where it is none.
        cgroup: u64,
        /// `perf_event_attr.config`.
        perf_config: u64,
        /// `perf_event_attr.type`; `u32::MAX` where it is none.
        perf_type: u32,
        /// The network device; 0 where it is none.
        ifindex: u32,
        /// Inode of the socket's file; 0 where it is none.
        socket_inode: u64,
        /// `sk_family` of the socket.
        family: u16,
        /// `sk_type`.
        socket_type: u16,
        /// `sk_protocol`.
        protocol: u16,
        /// Zero.
        pad: u16,
        /// Tracepoint.
        place: [u8; BPF_PLACE_MAX],
    }

    /// A kernel module was loaded or unloaded, or the kernel asks for one. What any user can provoke, a request, goes to the bulk ring.
    84 => Module as "kernel.module" in Priority {
        /// Taints that the module brings, by bit: include/linux/panic.h.
        taints: u64,
        /// Inode of its file; 0 where that is not known.
        inode: u64,
        /// Device of its file.
        device: u32,
        /// [`ModuleAct`](super::ModuleAct) as a number.
        act: u32,
        /// Errno of a load that failed, positive.
        error: u32,
        /// `MODULE_*` bits.
        known: u32,
        /// Path of its file, the leaf first.
        path: Span,
        /// Zero.
        pad: u32,
        /// Its name.
        name: [u8; MODULE_NAME_MAX],
        /// Its parameters.
        args: [u8; MODULE_ARGS_MAX],
    }

    /// A kernel is loaded to be booted by this one, or is booted.
    85 => Kexec as "kernel.kexec" in Priority {
        /// Flags of the call.
        flags: u64,
        /// Inode of the kernel's file; 0 where that is not known.
        inode: u64,
        /// Device of its file.
        device: u32,
        /// [`KexecAct`](super::KexecAct) as a number.
        act: u32,
        /// Errno, positive; 0 is success.
        error: u32,
        /// Segments that `kexec_load` was given.
        segments: u32,
        /// Path of its file, the leaf first.
        path: Span,
        /// Zero.
        pad: u32,
    }

    /// Lockdown refused something.
    86 => Lockdown as "kernel.lockdown" in Priority {
        /// `enum lockdown_reason`, include/linux/security.h.
        reason: u32,
        /// Errno, positive.
        error: u32,
    }

    /// A probe was put on a function of the kernel or of a program.
    87 => KernelProbe as "kernel.probe" in Priority {
        /// Address of a probe in the kernel.
        address: u64,
        /// Behind the symbol, or in the file.
        offset: u64,
        /// Inode of the file; 0 where it is none or not known.
        inode: u64,
        /// Its device.
        device: u32,
        /// [`ProbeAct`](super::ProbeAct) as a number.
        act: u32,
        /// Errno, positive; 0 is success.
        error: u32,
        /// Zero.
        pad: u32,
        /// The symbol, or the file's name.
        name: [u8; KERNEL_PROBE_NAME_MAX],
    }

    /// The kernel itself starts a program.
    88 => Helper as "kernel.helper" in Priority {
        /// The program's path.
        path: [u8; HELPER_PATH_MAX],
        /// Its first arguments, each with its NUL; an empty one ends them where there are fewer.
        args: [[u8; HELPER_ARG_MAX]; HELPER_ARGS],
        /// Arguments in `args`.
        count: u32,
        /// 1 when there are more than these.
        more: u32,
    }
}
