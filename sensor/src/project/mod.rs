//! From a kernel record to owned values: what happened, and to whom, without looking anything up. One file per activity.

mod accept;
mod access;
mod bpf;
mod calls;
mod connect;
mod credentials;
mod disguise;
mod exec;
mod exit;
mod fd;
mod file;
mod filesystem;
mod flow;
mod fork;
mod hardening;
mod io_uring;
mod isolation;
mod memory;
mod module;
pub mod pam;
mod peer;
pub mod probe;
mod seed;
mod signal;
pub mod syn;
mod sysctl;
mod text;
pub mod wire;

use bartizan_bus::event::{
    AccountChange, Body, Errno, Exit, InetSocket, NamespaceKind, Outcome, Probe, ProcessNamespaces, Severity, Stdio, Syn,
};
use bartizan_sensor_ebpf::abi::{self, DecodeError, FLAG_KERNEL_THREAD, Header, Kind, Record, decode};
use minicbor::{Decode, Encode};

use crate::hash::FileId;
pub use pam::Pam;
pub use text::escape_bytes;

/// One record, projected.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Its kind.
    pub kind: Kind,
    /// Subject, time and source.
    pub subject: Subject,
    /// What happened.
    pub what: What,
}

/// Who acted, as far as the record itself says. A recording keeps it by its fields' numbers (docs/recording.md): they are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Subject {
    /// Boot clock, nanoseconds.
    #[n(0)]
    pub ktime: u64,
    /// CPU that made the record.
    #[n(1)]
    pub cpu: u16,
    /// That CPU's record counter.
    #[n(2)]
    pub seq: u32,
    /// Thread-group id.
    #[n(3)]
    pub tgid: u32,
    /// Thread id.
    #[n(4)]
    pub tid: u32,
    /// Start of the process, boot clock, nanoseconds.
    #[n(5)]
    pub start_boottime: u64,
    /// Image count.
    #[n(6)]
    pub exec_id: u32,
    /// Real user id.
    #[n(7)]
    pub uid: u32,
    /// Effective user id.
    #[n(8)]
    pub euid: u32,
    /// Thread-group id of the real parent.
    #[n(9)]
    pub ppid: u32,
    /// cgroup v2 id.
    #[n(10)]
    pub cgroup_id: u64,
    /// A thread of the kernel.
    #[n(11)]
    pub kernel_thread: bool,
}

/// [`Subject::cpu`] of an observation that no kernel record is behind.
pub const NO_CPU: u16 = u16::MAX;

impl Subject {
    /// Nobody, at this time of the boot clock.
    pub fn nobody(ktime: u64) -> Self {
        Self {
            ktime,
            cpu: NO_CPU,
            seq: 0,
            tgid: 0,
            tid: 0,
            start_boottime: 0,
            exec_id: 0,
            uid: 0,
            euid: 0,
            ppid: 0,
            cgroup_id: 0,
            kernel_thread: false,
        }
    }

    /// A process of which nothing but its number was told, by a source without a clock, at this time of the boot clock. `seq` tells it from
    /// others of that time.
    pub fn of_pid(pid: u32, ktime: u64, seq: u32) -> Self {
        Self { tgid: pid, tid: pid, seq, ..Self::nobody(ktime) }
    }

    /// Whether nothing but the number is known.
    pub fn is_number_only(&self) -> bool {
        self.cpu == NO_CPU && self.tgid != 0 && self.start_boottime == 0
    }
}

impl From<&Header> for Subject {
    fn from(header: &Header) -> Self {
        let Header { len: _, kind: _, flags, ktime, seq, cpu, abi: _, tgid, tid, start_boottime, exec_id, uid, cgroup_id, euid, ppid } =
            *header;
        Self {
            ktime,
            cpu,
            seq,
            tgid,
            tid,
            start_boottime,
            exec_id,
            uid,
            euid,
            ppid,
            cgroup_id,
            kernel_thread: flags & FLAG_KERNEL_THREAD != 0,
        }
    }
}

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// A new image.
    Exec {
        /// The image.
        image: Box<Image>,
        /// Path that was asked for.
        requested: Option<String>,
        /// It was cut.
        requested_truncated: bool,
        /// The program that runs it, where that is another one.
        interpreter: Option<String>,
        /// It was cut.
        interpreter_truncated: bool,
        /// The environment.
        environment: Environment,
    },
    /// An exec that failed.
    ExecFailed {
        /// Path that was asked for.
        requested: Option<String>,
        /// It was cut.
        requested_truncated: bool,
        /// Why.
        error: Errno,
    },
    /// A new process.
    Fork(Child),
    /// The end of one.
    Exit(Exit),
    /// A process that already ran.
    Seed(Box<Image>),
    /// Something that changes nothing of what is known about processes.
    Act(Box<Act>),
    /// Bytes of a packet; some more of them may become an act.
    Piece(Box<wire::Piece>),
    /// Packets to closed ports; without a subject.
    Probe(Probe),
    /// Attempts to connect to ports that listen; without a subject.
    Syn(Syn),
    /// An entry of the host's account files is another one, in the file with this inode number; who wrote it is to be found.
    Account(u64, AccountChange),
    /// A call into libpam.
    Pam(Pam),
    /// A message of sshd to syslog.
    SshdLog {
        /// The message.
        text: String,
        /// It was cut.
        truncated: bool,
    },
}

/// A deed of the subject, whole as the record tells it: all that is left to do is to name who did it to whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Act {
    /// What was done.
    pub body: Body,
    /// Whether it succeeded.
    pub outcome: Outcome,
    /// To whom, where it is done to a process.
    pub target: Option<Target>,
    /// How much it matters in itself, before any detector has judged it.
    pub severity: Severity,
    /// Paths in `body` begin at the root of their file system: where that is mounted stands before them.
    pub in_file_system: bool,
}

impl From<Act> for What {
    fn from(act: Act) -> Self {
        Self::Act(Box::new(act))
    }
}

impl Act {
    /// A deed that succeeded, or else would not be told.
    pub(crate) fn done(body: Body) -> Self {
        Self { body, outcome: Outcome::Success, target: None, severity: Severity::Info, in_file_system: false }
    }

    /// A deed that ended with `result`, a return value of the kernel: an errno below zero.
    fn ended(body: Body, result: i64) -> Self {
        let outcome = if result < 0 { Outcome::Failure } else { Outcome::Success };
        Self { outcome, ..Self::done(body) }
    }

    /// A deed whose result is not known.
    fn of_unknown_result(body: Body) -> Self {
        Self { outcome: Outcome::Unknown, ..Self::done(body) }
    }

    /// The same deed, done to the process that has `pid` now, where the record names none.
    fn or_pid(self, pid: u32) -> Self {
        let by_pid = || (pid != 0).then_some(Target { tgid: pid, tid: pid, start_boottime: 0, exec_id: 0, uid: 0 });
        Self { target: self.target.or_else(by_pid), ..self }
    }

    /// The same deed, done to `target`.
    fn to(self, target: &abi::Target) -> Self {
        Self { target: (target.tgid != 0).then(|| Target::from(target)), ..self }
    }
}

/// The process that something is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Thread-group id.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
    /// Start of the process, boot clock, nanoseconds; 0 where only its pid was told.
    pub start_boottime: u64,
    /// Image count.
    pub exec_id: u32,
    /// Real user id.
    pub uid: u32,
}

impl From<&abi::Target> for Target {
    fn from(target: &abi::Target) -> Self {
        let abi::Target { start_boottime, tgid, tid, exec_id, uid } = *target;
        Self { tgid, tid, start_boottime, exec_id, uid }
    }
}

/// The child of a fork.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Thread-group id.
    pub tgid: u32,
    /// Start, boot clock, nanoseconds.
    pub start_boottime: u64,
    /// Image count.
    pub exec_id: u32,
    /// `comm`.
    pub name: String,
    /// Namespaces that were made for it.
    pub namespaces: Vec<NamespaceKind>,
}

/// The environment of a new image, as it lies in its memory: `NAME=value`, each with its NUL. Whose names are not listed is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment {
    /// The first bytes.
    pub head: Vec<u8>,
    /// What follows, or of a longer one the last bytes.
    pub end: Vec<u8>,
    /// Bytes there were.
    pub len: u32,
}

/// An image with what the kernel says of its process. A recording keeps it as it does a [`Subject`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Image {
    /// `comm`.
    #[n(0)]
    pub name: String,
    /// Executable path.
    #[n(1)]
    pub exe: Option<String>,
    /// The path was cut.
    #[n(2)]
    pub exe_truncated: bool,
    /// Inode, device, mode, owner and link count of the executable; `None` without one (kernel threads).
    #[n(3)]
    pub exe_file: Option<ExeInode>,
    /// Argument vector.
    #[n(4)]
    pub argv: Vec<String>,
    /// It was cut.
    #[n(5)]
    pub argv_truncated: bool,
    /// Working directory.
    #[n(6)]
    pub cwd: Option<String>,
    /// cgroup path, at most its last components.
    #[n(7)]
    pub cgroup: Option<String>,
    /// Real group id.
    #[n(8)]
    pub gid: u32,
    /// Audit login uid.
    #[n(9)]
    pub loginuid: Option<u32>,
    /// Audit session.
    #[n(10)]
    pub audit_session: Option<u32>,
    /// POSIX session.
    #[n(11)]
    pub sid: u32,
    /// Controlling terminal.
    #[n(12)]
    pub tty: Option<String>,
    /// Effective capabilities.
    #[n(13)]
    pub cap_effective: u64,
    /// Mount namespace.
    #[n(14)]
    pub mnt_ns: u32,
    /// Pid namespace.
    #[n(15)]
    pub pid_ns: u32,
    /// The other namespaces.
    #[n(21)]
    #[cbor(default)]
    pub namespaces: ProcessNamespaces,
    /// Start of the real parent, boot clock, nanoseconds.
    #[n(16)]
    pub parent_start_boottime: u64,
    /// Image count of the real parent.
    #[n(17)]
    pub parent_exec_id: u32,
    /// Descriptors 0-2.
    #[n(18)]
    pub stdio: Vec<Stdio>,
    /// What the parent holds of their other ends.
    #[n(19)]
    pub relay: Option<Relay>,
    /// Connected INET sockets that the process itself holds; told of seeds only.
    #[n(20)]
    pub sockets: Vec<InetSocket>,
}

/// The executable's inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ExeInode {
    /// Inode number.
    #[n(0)]
    pub inode: u64,
    /// Device.
    #[n(1)]
    pub device: u32,
    /// Mode bits.
    #[n(2)]
    pub mode: u32,
    /// Owner.
    #[n(3)]
    pub owner: u32,
    /// Links left.
    #[n(4)]
    pub nlink: u32,
    /// Bytes.
    #[n(5)]
    #[cbor(default)]
    pub size: u64,
    /// Change time: seconds since 1970, nanoseconds.
    #[n(6)]
    #[cbor(default)]
    pub changed: (i64, u32),
    /// `s_magic` of the file system; 0 where it is not known.
    #[n(7)]
    #[cbor(default)]
    pub magic: u32,
    /// It lies in the writable layer of an overlay.
    #[n(8)]
    #[cbor(default)]
    pub upper: bool,
    /// It is in no folder and never was.
    #[n(9)]
    #[cbor(default)]
    pub alone: bool,
}

impl ExeInode {
    /// Kind of its file system.
    pub fn filesystem(&self) -> Option<String> {
        filesystem::name(self.magic)
    }

    /// What names its contents.
    pub fn file_id(&self) -> FileId {
        FileId { device: self.device, inode: self.inode, changed: self.changed, size: self.size }
    }
}

/// The parent between stdio and the network.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Relay {
    /// Its thread-group id.
    #[n(0)]
    pub tgid: u32,
    /// Its start, boot clock, nanoseconds.
    #[n(1)]
    pub start_boottime: u64,
    /// Its image count.
    #[n(2)]
    pub exec_id: u32,
    /// Descriptors whose other end it holds.
    #[n(3)]
    pub fds: Vec<u8>,
    /// Connected INET sockets that it holds.
    #[n(4)]
    pub sockets: Vec<InetSocket>,
    /// There were more descriptors or sockets than are told.
    #[n(5)]
    pub truncated: bool,
}

/// An errno of a record, where 0 is success.
fn errno(error: u32) -> Option<Errno> {
    (error != 0).then_some(Errno(error as i32))
}

/// Reads one ring record.
///
/// # Errors
/// [`DecodeError`] when the bytes are no record of this ABI.
pub fn project(bytes: &[u8]) -> Result<Observation, DecodeError> {
    let record = decode(bytes)?;
    let header = record.header();
    let kind = record.kind();
    let what = match record {
        Record::Exec(fixed, bytes) => exec::project(fixed, bytes),
        Record::ExecFailed(fixed, bytes) => exec::project_failed(fixed, bytes),
        Record::Fork(fixed, _) => fork::project(fixed),
        Record::Exit(fixed, _) => exit::project(fixed),
        Record::Seed(fixed, bytes) => seed::project(fixed, bytes),
        Record::Connect(fixed, _) => connect::project(fixed),
        Record::Accept(fixed, _) => accept::project(fixed),
        Record::Listen(fixed, _) => accept::project_listen(fixed),
        Record::Probe(fixed, _) => probe::project(fixed),
        Record::Credentials(fixed, _) => credentials::project(fixed),
        Record::Groups(fixed, _) => credentials::project_groups(fixed),
        Record::PamStart(fixed, _) => pam::project_start(fixed),
        Record::PamItem(fixed, _) => pam::project_item(fixed),
        Record::PamAuthenticate(fixed, _) => pam::project_verdict(header, kind, fixed.handle, fixed.result),
        Record::PamAccount(fixed, _) => pam::project_verdict(header, kind, fixed.handle, fixed.result),
        Record::PamSessionOpen(fixed, _) => pam::project_verdict(header, kind, fixed.handle, fixed.result),
        Record::PamSessionClose(fixed, _) => pam::project_verdict(header, kind, fixed.handle, fixed.result),
        Record::PamPassword(fixed, _) => pam::project_verdict(header, kind, fixed.handle, fixed.result),
        Record::PamEnd(fixed, _) => pam::project_end(header, fixed.handle),
        Record::SshdLog(fixed, _) => pam::project_log(fixed),
        Record::Signal(fixed, _) => signal::project(fixed),
        Record::Access(fixed, _) => access::project(fixed),
        Record::Namespaces(fixed, _) => isolation::project_namespaces(fixed),
        Record::Rename(fixed, _) => disguise::project_rename(fixed),
        Record::Chroot(fixed, bytes) => isolation::project_chroot(fixed, bytes),
        Record::Seccomp(fixed, _) => isolation::project_seccomp(fixed),
        Record::Memfd(fixed, _) => memory::project_memfd(fixed),
        Record::MemoryExec(fixed, _) => memory::project_memory_exec(fixed),
        Record::Capabilities(fixed, _) => isolation::project_capabilities(fixed),
        Record::Prctl(fixed, _) => disguise::project_prctl(fixed),
        Record::IoUring(fixed, _) => io_uring::project(fixed),
        Record::IoUringOp(fixed, _) => io_uring::project_op(fixed),
        Record::CgroupMove(fixed, _) => isolation::project_cgroup_move(fixed),
        Record::Bind(fixed, _) => flow::bind(fixed),
        Record::FlowEnd(fixed, _) => flow::end(fixed),
        Record::RawSocket(fixed, _) => flow::raw_socket(fixed),
        Record::DnsBytes(fixed, bytes) => wire::piece(&fixed.piece, bytes),
        Record::TlsBytes(fixed, bytes) => wire::piece(&fixed.piece, bytes),
        Record::HttpBytes(fixed, bytes) => wire::piece(&fixed.piece, bytes),
        Record::SshBytes(fixed, bytes) => wire::piece(&fixed.piece, bytes),
        Record::UdpFlow(fixed, _) => wire::udp_flow(&fixed.key, &fixed.gathered).into(),
        Record::Syn(fixed, _) => What::Syn(syn::gather(&fixed.source, &fixed.gathered)),
        Record::UnixConnect(fixed, _) => peer::unix_connect(fixed),
        Record::VsockConnect(fixed, _) => peer::vsock_connect(fixed),
        Record::VsockAccept(fixed, _) => peer::vsock_accept(fixed),
        Record::Sysctl(fixed, _) => sysctl::project(fixed),
        Record::BpfLoad(fixed, _) => bpf::project_load(fixed),
        Record::BpfUnload(fixed, _) => bpf::project_unload(fixed),
        Record::BpfAttach(fixed, _) => bpf::project_attach(fixed),
        Record::Module(fixed, bytes) => module::project(fixed, bytes),
        Record::Kexec(fixed, bytes) => module::project_kexec(fixed, bytes),
        Record::Lockdown(fixed, _) => hardening::project_lockdown(fixed),
        Record::KernelProbe(fixed, _) => hardening::project_probe(fixed),
        Record::Helper(fixed, _) => hardening::project_helper(fixed),
        Record::FileOpen(fixed, bytes) => file::open(fixed, bytes),
        Record::FileCreate(fixed, bytes) => file::create(fixed, bytes),
        Record::FileRename(fixed, bytes) => file::rename(fixed, bytes),
        Record::FileUnlink(fixed, bytes) => file::unlink(fixed, bytes),
        Record::FileLink(fixed, bytes) => file::link(fixed, bytes),
        Record::FileAttributes(fixed, bytes) => file::attributes(fixed, bytes),
        Record::FileXattr(fixed, bytes) => file::xattr(fixed, bytes),
        Record::FileWrite(fixed, bytes) => file::write(fixed, bytes),
        Record::Mount(fixed, bytes) => file::mount(fixed, bytes),
        Record::Umount(fixed, bytes) => file::umount(fixed, bytes),
    };
    Ok(Observation { kind, subject: Subject::from(header), what })
}

#[cfg(test)]
mod tests {
    use bartizan_bus::event::{decode_event, encode_event};
    use bartizan_sensor_ebpf::abi::{ABI_VERSION, KINDS};
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    use super::*;
    use crate::cli::samples;

    /// A record of `kind`, as long as one at least is, whose bytes behind the header are `body` over and over.
    fn record(kind: &abi::KindInfo, (begin, end): ([u8; 16], [u8; 32]), body: &[u8], more: usize) -> Vec<u64> {
        let len = (kind.fixed + more).next_multiple_of(8);
        let mut bytes = vec![0; len];
        bytes.iter_mut().zip(body.iter().cycle()).for_each(|(to, from)| *to = *from);
        // Length, kind and flags; time; sequence, processor and ABI; the rest.
        bytes[..4].copy_from_slice(&u32::try_from(len).expect("small").to_le_bytes());
        bytes[4..6].copy_from_slice(&(kind.kind as u16).to_le_bytes());
        bytes[6..22].copy_from_slice(&begin);
        bytes[22..24].copy_from_slice(&ABI_VERSION.to_le_bytes());
        bytes[24..56].copy_from_slice(&end);
        bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))).collect()
    }

    proptest! {
        #[test]
        fn whatever_a_record_holds_it_becomes_an_event_that_is_stored_and_read_back(
            header: ([u8; 16], [u8; 32]),
            body in proptest::collection::vec(any::<u8>(), 1..200),
            more in 0_usize..300,
        ) {
            for kind in KINDS {
                let words = record(kind, header, &body, more);
                let observation = project(words.as_bytes());
                prop_assert!(observation.is_ok(), "{}: {observation:?}", kind.name);
                if let Ok(Observation { what: What::Act(act), .. }) = observation {
                    let event = samples::event(samples::process(7, "x", &[]), act.body);
                    prop_assert_eq!(decode_event(&encode_event(&event)).ok(), Some(event), "{}", kind.name);
                }
            }
        }
    }
}
