//! What happened: one struct per kind, and the one list of kinds.

use std::net::IpAddr;
use std::sync::Arc;

use minicbor::{Decode, Encode};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use super::{
    Accept, Access, AccountChange, Auth, Bind, BpfAttach, BpfProgram, Capabilities, CgroupMove, Chroot, Credentials, Dns, ExeHash, ExecId,
    FileAttributes, FileCreate, FileLink, FileOpen, FileRename, FileUnlink, FileWrite, FileXattr, FlowEnd, Groups, Health, Helper, Http,
    IoUring, IoUringOp, KernelProbe, Kexec, Listen, Lockdown, Memfd, MemoryExec, Module, Mount, NamespaceKind, Namespaces, Prctl, Probe,
    Process, RawSocket, Rename, Seccomp, Signal, Ssh, Syn, Sysctl, Tls, UdpFlow, Umount, UnixConnect, VsockAccept, VsockConnect, shared,
};

/// A kernel error number, positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, JsonSchema)]
#[serde(transparent)]
#[cbor(transparent)]
pub struct Errno(#[n(0)] pub i32);

impl Errno {
    /// The symbolic name, such as `ECONNREFUSED`, or the number.
    pub fn name(self) -> String {
        match nix::errno::Errno::from_raw(self.0) {
            nix::errno::Errno::UnknownErrno => format!("errno {}", self.0),
            known => format!("{known:?}"),
        }
    }
}

/// One kind, for its documentation.
#[derive(Debug, Clone)]
pub struct KindDescription {
    /// Its name.
    pub name: &'static str,
    /// What it tells, a sentence.
    pub summary: &'static str,
    /// Its body's fields.
    pub body: Schema,
}

macro_rules! bodies {
    ($( $(#[doc = $doc:literal])* $index:literal $variant:ident($ty:ty) = $kind:literal; )*) => {
        /// The typed body of an event, one variant per kind.
        #[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize, JsonSchema)]
        #[serde(untagged)]
        pub enum Body {
            $( $(#[doc = $doc])* #[n($index)] $variant(#[n(0)] $ty), )*
        }

        impl Body {
            /// Every kind's name, in index order.
            pub const KINDS: &'static [&'static str] = &[$($kind),*];

            /// What there is to know of every kind, in index order. Types that bodies share go into `generator`.
            pub fn describe(generator: &mut SchemaGenerator) -> Vec<KindDescription> {
                vec![ $( KindDescription {
                    name: $kind,
                    summary: concat!($($doc),*).trim(),
                    body: <$ty as JsonSchema>::json_schema(generator),
                } ),* ]
            }

            /// The kind's name: `<category>.<action>`.
            pub fn kind(&self) -> &'static str {
                match self { $( Self::$variant(_) => $kind, )* }
            }
        }
    };
}

bodies! {
    /// A process replaced its image, or tried to.
    0 Exec(Exec) = "process.exec";
    /// A process was made.
    1 Fork(Fork) = "process.fork";
    /// A process ended (its last thread did).
    2 Exit(Exit) = "process.exit";
    /// A process that was already there when the sensor came up.
    3 Seed(Seed) = "process.seed";
    /// A socket was connected to a peer, or the attempt failed.
    4 Connect(Connect) = "network.connect";
    /// The sensor came up.
    5 Start(Start) = "sensor.start";
    /// The sensor went down in good order.
    6 Stop(Stop) = "sensor.stop";
    /// The sensor lives; carries event time forward on an idle host.
    7 Heartbeat(Heartbeat) = "sensor.heartbeat";
    /// Records were lost between the kernel hook and the stream.
    8 Loss(Loss) = "sensor.loss";
    /// A stretch of time or sequence that this stream cannot speak for.
    9 Gap(Gap) = "sensor.gap";
    /// A program took a connection that a peer made.
    10 Accept(Accept) = "network.accept";
    /// A TCP socket begins to take connections.
    11 Listen(Listen) = "network.listen";
    /// Packets of one source reached ports on which nothing listens.
    12 Probe(Probe) = "network.probe";
    /// A process changed its user or group ids.
    13 Credentials(Credentials) = "process.credentials";
    /// An authentication began (`pam_start`).
    14 AuthStart(Auth) = "auth.start";
    /// Somebody proved to be a user, or failed to.
    15 Authenticate(Auth) = "auth.authenticate";
    /// Whether the account may be used now (`pam_acct_mgmt`).
    16 Account(Auth) = "auth.account";
    /// A session began: the calling process and all below it belong to it.
    17 SessionOpen(Auth) = "auth.session_open";
    /// A session ended.
    18 SessionClose(Auth) = "auth.session_close";
    /// sshd was asked for a user that does not exist here. No attempt yet: that is told by what follows, if anything does.
    19 InvalidUser(Auth) = "auth.invalid_user";
    /// A process sent a signal to another one.
    20 Signal(Signal) = "process.signal";
    /// A process asked for another one's memory, registers or descriptors.
    21 Access(Access) = "process.access";
    /// A task went into other namespaces, or tried to.
    22 Namespaces(Namespaces) = "process.namespaces";
    /// A process got another name, other than by exec.
    23 Rename(Rename) = "process.rename";
    /// A process got another root folder, or tried to.
    24 Chroot(Chroot) = "process.chroot";
    /// A filter of system calls was put on a task, or an attempt failed.
    25 Seccomp(Seccomp) = "process.seccomp";
    /// A file that lives in memory alone was made.
    26 Memfd(Memfd) = "process.memfd";
    /// Memory that was or is written can be executed.
    27 MemoryExec(MemoryExec) = "process.memory_exec";
    /// `prctl` with an option that hides or rewrites.
    28 Prctl(Prctl) = "process.prctl";
    /// A ring for calls without system calls was made.
    29 IoUring(IoUring) = "process.io_uring";
    /// An operation was handed to the kernel by a ring.
    30 IoUringOp(IoUringOp) = "process.io_uring_op";
    /// A process was moved into another control group.
    31 CgroupMove(CgroupMove) = "process.cgroup_move";
    /// A task changed its capabilities.
    32 Capabilities(Capabilities) = "process.capabilities";
    /// The hash of a file that a process executed became known after its exec was told.
    33 ExeHash(ExeHash) = "process.hash";
    /// A task changed its supplementary groups.
    34 Groups(Groups) = "process.groups";
    /// A password was changed through PAM (`pam_chauthtok`), or was to be.
    35 PasswordChange(Auth) = "auth.password_change";
    /// The host's users, groups or passwords are others than before.
    36 AccountChange(AccountChange) = "auth.account_change";
    /// A socket was bound to an address of this host.
    60 Bind(Bind) = "network.bind";
    /// A TCP connection came to its end.
    61 FlowEnd(FlowEnd) = "network.flow_end";
    /// A process made a socket that sees or makes more than its own connections.
    62 RawSocket(RawSocket) = "network.raw_socket";
    /// A DNS message.
    63 Dns(Dns) = "network.dns";
    /// The hello of one side of a TLS connection.
    64 Tls(Tls) = "network.tls";
    /// The first request of an HTTP/1 connection in the clear.
    65 Http(Http) = "network.http";
    /// How one side of an SSH connection names itself.
    66 Ssh(Ssh) = "network.ssh";
    /// UDP packets between a process and a peer.
    67 UdpFlow(UdpFlow) = "network.udp_flow";
    /// Attempts of one source to connect to ports that listen came to no connection.
    68 Syn(Syn) = "network.syn";
    /// A UNIX stream socket was connected to who listens, or the attempt failed.
    69 UnixConnect(UnixConnect) = "network.unix_connect";
    /// A VM socket was connected, or the attempt failed.
    70 VsockConnect(VsockConnect) = "network.vsock_connect";
    /// A program took a connection to a VM socket.
    71 VsockAccept(VsockAccept) = "network.vsock_accept";
    /// A process writes a sysctl.
    80 Sysctl(Sysctl) = "kernel.sysctl";
    /// A BPF program was loaded.
    81 BpfLoad(BpfProgram) = "kernel.bpf_load";
    /// A BPF program is gone: nothing holds it any more.
    82 BpfUnload(BpfProgram) = "kernel.bpf_unload";
    /// A BPF program, or a classic filter, was put at its place.
    83 BpfAttach(BpfAttach) = "kernel.bpf_attach";
    /// A kernel module was loaded or unloaded, or the kernel asks for one.
    84 Module(Module) = "kernel.module";
    /// Another kernel is loaded to be booted by this one, or is booted.
    85 Kexec(Kexec) = "kernel.kexec";
    /// Lockdown refused something, or is in another mode.
    86 Lockdown(Lockdown) = "kernel.lockdown";
    /// A probe was put on a function of the kernel or on a file that programs run.
    87 KernelProbe(KernelProbe) = "kernel.probe";
    /// The kernel itself starts a program.
    88 Helper(Helper) = "kernel.helper";
    /// Something that the sensor needs of the kernel was taken away, or is there again.
    89 Health(Health) = "sensor.health";
    /// A file was opened: to be written, created, or one whose readers are told.
    40 FileOpen(FileOpen) = "file.open";
    /// A folder or a special file was made.
    41 FileCreate(FileCreate) = "file.create";
    /// A file got another name.
    42 FileRename(FileRename) = "file.rename";
    /// A name of a file was removed.
    43 FileUnlink(FileUnlink) = "file.unlink";
    /// A file got a further name, or a symbolic link was made.
    44 FileLink(FileLink) = "file.link";
    /// Permissions, owner, length or times of a file were set.
    45 FileAttributes(FileAttributes) = "file.attributes";
    /// An extended attribute of a file was set or removed.
    46 FileXattr(FileXattr) = "file.xattr";
    /// A file system was mounted, or a mount changed.
    47 Mount(Mount) = "file.mount";
    /// A file system was unmounted.
    48 Umount(Umount) = "file.umount";
    /// A process wrote to a file, gathered by the second.
    49 FileWrite(FileWrite) = "file.write";
}

/// Body of `process.exec`. The event's subject is the new image, or on failure the image that tried.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Exec {
    /// Path that the caller asked for, before links and interpreters are resolved. On failure this was read from the
    /// caller's memory after the call and could have been changed by another thread.
    #[n(0)]
    pub requested: Option<String>,
    /// Why the exec failed; `None` on success.
    #[n(1)]
    pub error: Option<Errno>,
    /// What file descriptors 0, 1 and 2 are in the new image. Empty when not read.
    #[n(2)]
    pub stdio: Vec<Stdio>,
    /// The parent holds the other end of this process's stdio together with connected INET sockets.
    #[n(3)]
    pub relay: Option<Relay>,
    /// `requested` was longer than what is kept.
    #[n(4)]
    #[cbor(default)]
    pub requested_truncated: bool,
    /// The program that the kernel runs in place of `requested`: the one behind `#!`, or that of binfmt_misc. Of scripts whose interpreters
    /// are scripts, the last one. `None` when `requested` itself is run.
    #[n(5)]
    pub interpreter: Option<String>,
    /// `interpreter` was longer than what is kept.
    #[n(6)]
    #[cbor(default)]
    pub interpreter_truncated: bool,
    /// The file that `interpreter` was given: `requested`, behind the working directory where it is relative; links are not resolved. One that
    /// was asked for by descriptor (`fexecve`) is `/dev/fd/N`, or `/dev/fd/N/name` with a folder's: the kernel knows no more of it either.
    #[n(7)]
    pub script: Option<String>,
    /// `NAME=value` of the variables whose names are listed in `sensor.environment`, in their order; secrets are redacted.
    #[n(8)]
    #[cbor(default)]
    pub environment: Vec<String>,
    /// The environment was longer than what is looked at (its first and last 4 KiB), or was not readable: listed variables may be missing, and
    /// one may be cut.
    #[n(9)]
    #[cbor(default)]
    pub environment_truncated: bool,
}

/// Body of `process.fork`. The subject is the parent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Fork {
    /// The new process, with its parent's image.
    #[n(0)]
    #[cbor(with = "shared::whole")]
    pub child: Arc<Process>,
    /// Namespaces that were made for it (`CLONE_NEW*`).
    #[n(1)]
    #[cbor(default)]
    pub namespaces: Vec<NamespaceKind>,
}

/// Body of `process.exit`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Exit {
    /// Exit status, when the process ended by `exit`.
    #[n(0)]
    pub code: Option<i32>,
    /// Signal that ended it.
    #[n(1)]
    pub signal: Option<i32>,
    /// It left a core dump.
    #[n(2)]
    pub core_dumped: bool,
}

/// Body of `process.seed`: the state that an exec event would have told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Seed {
    /// File descriptors 0, 1 and 2 now.
    #[n(0)]
    pub stdio: Vec<Stdio>,
    /// As in [`Exec::relay`], now.
    #[n(1)]
    pub relay: Option<Relay>,
    /// Connected INET sockets that the process holds at any descriptor, at most four.
    #[n(2)]
    #[cbor(default)]
    pub sockets: Vec<InetSocket>,
}

/// Body of `network.connect`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Connect {
    /// The socket after the attempt. The local side is `None` when the attempt failed before the kernel chose one.
    #[n(0)]
    pub socket: InetSocket,
    /// Why it failed; `None` on success.
    #[n(1)]
    pub error: Option<Errno>,
    /// From the attempt to its result, nanoseconds.
    #[n(2)]
    pub duration_ns: Option<u64>,
    /// The destination was read from the caller's memory (it failed before the kernel kept a copy) and could have been
    /// changed by another thread.
    #[n(3)]
    pub peer_from_caller: bool,
    /// The name that led to the peer's address, as far as DNS answers tell: what this process was told last for the address, or else any process
    /// of this host.
    #[n(4)]
    pub domain: Option<String>,
}

/// Transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum Transport {
    /// TCP (and MPTCP subflows).
    #[n(0)]
    Tcp,
    /// UDP and UDP-Lite.
    #[n(1)]
    Udp,
    /// Another INET protocol (SCTP, ICMP, raw).
    #[n(2)]
    Other,
}

/// An IPv4 or IPv6 socket with its two ends. IPv4-mapped IPv6 addresses are given as IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct InetSocket {
    /// Transport protocol.
    #[n(0)]
    pub transport: Transport,
    /// Local address.
    #[n(1)]
    pub local_ip: Option<IpAddr>,
    /// Local port.
    #[n(2)]
    pub local_port: Option<u16>,
    /// Peer address; `None` when the socket is not connected.
    #[n(3)]
    pub peer_ip: Option<IpAddr>,
    /// Peer port.
    #[n(4)]
    pub peer_port: Option<u16>,
    /// Established (TCP), or connected (UDP).
    #[n(5)]
    pub connected: bool,
    /// Inode of the socket, as in `/proc/<pid>/fd`.
    #[n(6)]
    pub inode: Option<u64>,
}

/// One standard stream of a process.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Stdio {
    /// Descriptor number: 0, 1 or 2.
    #[n(0)]
    pub fd: u8,
    /// What it is.
    #[n(1)]
    pub end: StdioEnd,
}

/// What a file descriptor refers to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StdioEnd {
    /// Not open.
    #[n(0)]
    Closed,
    /// An INET or INET6 socket.
    #[n(1)]
    Inet {
        /// The socket.
        #[n(0)]
        socket: InetSocket,
    },
    /// A pipe or FIFO.
    #[n(2)]
    Pipe {
        /// Inode of the pipe: equal at both ends.
        #[n(0)]
        inode: u64,
    },
    /// A terminal slave.
    #[n(3)]
    Tty {
        /// Name, such as `pts/3` or `tty1`.
        #[n(0)]
        name: String,
    },
    /// A UNIX socket.
    #[n(4)]
    Unix {
        /// Inode of this end.
        #[n(0)]
        inode: u64,
        /// Inode of the connected peer, if any.
        #[n(1)]
        peer_inode: Option<u64>,
    },
    /// A regular file or directory.
    #[n(5)]
    File {
        /// Inode number.
        #[n(0)]
        inode: u64,
    },
    /// A character or block device other than a terminal (`/dev/null`).
    #[n(6)]
    Device {
        /// Device number, the kernel's `MKDEV` form.
        #[n(0)]
        device: u32,
    },
    /// Something else (eventfd, a socket of another family, ...).
    #[n(7)]
    Other,
}

/// The parent stands between this process's stdio and the network.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Relay {
    /// Image of the process that holds the other ends: the parent.
    #[n(0)]
    pub by: Option<ExecId>,
    /// Its pid.
    #[n(1)]
    pub pid: u32,
    /// Which of this process's descriptors 0, 1, 2 have their other end (pty master, pipe, UNIX peer) in the relay.
    #[n(2)]
    pub fds: Vec<u8>,
    /// Connected INET sockets that the relay holds, at most four.
    #[n(3)]
    pub sockets: Vec<InetSocket>,
    /// The relay had more descriptors than were looked at.
    #[n(4)]
    pub truncated: bool,
}

/// Body of `sensor.start`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Start {
    /// Version of the binary.
    #[n(0)]
    pub version: String,
    /// Kernel release.
    #[n(1)]
    pub kernel: String,
    /// Active hooks, `name (tier)`.
    #[n(2)]
    pub hooks: Vec<String>,
    /// What this start is blind to, one sentence each.
    #[n(3)]
    pub blind: Vec<String>,
}

/// Body of `sensor.stop`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Stop {
    /// Why, in words.
    #[n(0)]
    pub reason: String,
}

/// Body of `sensor.heartbeat`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Heartbeat {
    /// Seconds since this start of the sensor.
    #[n(0)]
    pub uptime_s: u64,
}

/// Losses of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct KindLoss {
    /// Kind of the lost records, or the hook whose runs were skipped.
    #[n(0)]
    pub kind: String,
    /// Where: `ring_full` (no room in the kernel's ring), `recursion` (the kernel skipped a run of the program), `no_result`
    /// (the result of an attempt never came), `decode` (not readable), `disk_full`, `bus_error` (not stored).
    #[n(1)]
    pub reason: String,
    /// Records lost since the last report.
    #[n(2)]
    pub count: u64,
}

/// Body of `sensor.loss`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Loss {
    /// What was lost since the last report.
    #[n(0)]
    pub lost: Vec<KindLoss>,
}

/// Body of `sensor.gap`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Gap {
    /// What happened, such as `sensor was not running`.
    #[n(0)]
    pub reason: String,
    /// Unix time in nanoseconds where the gap begins, if known.
    #[n(1)]
    pub from_wall_ns: Option<i64>,
    /// Unix time in nanoseconds where it ends.
    #[n(2)]
    pub to_wall_ns: Option<i64>,
    /// Sequences that no reader will ever see, when the gap is one of sequence.
    #[n(3)]
    pub missing_sequences: Option<u64>,
}
