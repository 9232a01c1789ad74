//! Maps and globals.

use super::flow::{Accepted, FlowMap};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use bartizan_sensor_ebpf::abi::{
    COUNTER_SLOTS, CapabilitySets, GroupList, IGNORE_CONDITIONS_MAX, IGNORE_FOLDERS_MAX, Ignore, NamespaceIds, Pending, ProbeGathered,
    ProbeSource, SynGathered, SynSource, TaskIds, UNIX_NAME_MAX, UdpGathered, UdpPeer, WATCH_BITS, WRITES_MAX, WatchKey, WriteGathered,
    WriteKey,
};
use bartizan_sensor_ebpf::layout::KernelOffsets;

/// Layout of the running kernel, set by user space before load.
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: KernelOffsets = KernelOffsets::UNRESOLVED;

/// Thread-group id of Bartizan itself, set by user space before load; 0 excludes nobody.
#[unsafe(no_mangle)]
pub(crate) static SELF_TGID: u32 = 0;

/// Bytes that wait in [`BULK`] before a record wakes user space where that is [`ASLEEP`], set by user space before load; 0 wakes with each.
#[unsafe(no_mangle)]
pub(crate) static BULK_WAKEUP: u64 = 2 << 20;

/// What is left out by configuration, set by user space before load.
#[unsafe(no_mangle)]
pub(crate) static IGNORE: Ignore = Ignore::NOTHING;

/// Executables of [`IGNORE`], with the entries that name them. User space keeps it.
#[map]
pub(crate) static IGNORE_EXES: HashMap<WatchKey, u64> = HashMap::with_max_entries(IGNORE_CONDITIONS_MAX, 0);

/// User ids, likewise.
#[map]
pub(crate) static IGNORE_UIDS: HashMap<u32, u64> = HashMap::with_max_entries(IGNORE_CONDITIONS_MAX, 0);

/// Ids of cgroups at the top of what is named, likewise.
#[map]
pub(crate) static IGNORE_CGROUPS: HashMap<u64, u64> = HashMap::with_max_entries(IGNORE_CONDITIONS_MAX, 0);

/// Prefixes of peers, likewise; each has the entries of the shorter ones that hold it too.
#[map]
pub(crate) static IGNORE_NETWORKS: LpmTrie<[u8; 16], u64> = LpmTrie::with_max_entries(IGNORE_CONDITIONS_MAX + 1, 0);

/// For what must not be lost. User space sets the size.
#[map]
pub(crate) static PRIORITY: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// For what comes in masses. User space sets the size.
#[map]
pub(crate) static BULK: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// `kind * COUNTS + Count`.
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_SLOTS as u32, 0);

/// One record counter per CPU.
#[map]
pub(crate) static SEQUENCE: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// Bytes of one scratch: a power of two, the largest record length that a mask can bound.
/// 32 KiB are the most that the kernel has in one per-CPU value.
pub(crate) const SCRATCH: usize = 32 << 10;

/// Room to build one record of variable length.
#[repr(C, align(8))]
pub(crate) struct Scratch(pub(crate) [u8; SCRATCH]);

/// Scratch of the exec hook.
#[map]
pub(crate) static EXEC_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Scratch of the task iterator.
#[map]
pub(crate) static SEED_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// The attempt is inside `connect()`.
pub(crate) const PENDING_CALLING: u64 = 0;
/// `connect()` returned; the handshake goes on.
pub(crate) const PENDING_SENT: u64 = 1;
/// The socket was closed inside `connect()`, with no error on the socket: the call's own result will say why.
pub(crate) const PENDING_CLOSED: u64 = 2;

/// Attempts by `struct sock` address. User space removes those whose result never came (its program run was skipped).
#[map]
pub(crate) static PENDING: HashMap<u64, Pending> = HashMap::with_max_entries(16384, 0);

/// Sockets whose failed attempt was reported, with its errno (0: not known). In the fallback tier the caller's connect(2) will
/// return, or a later one collect, the same failure: no second attempt.
#[map]
pub(crate) static REPORTED: LruHashMap<Reported, u32> = LruHashMap::with_max_entries(4096, 0);

/// Names a socket in [`REPORTED`]: the inode tells a new socket at an old address.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Reported {
    pub(crate) sk: u64,
    pub(crate) inode: u64,
}

/// Processes whose end was told: the last two threads of a group may both find themselves the last.
#[map]
pub(crate) static ENDED: LruHashMap<Ended, u32> = LruHashMap::with_max_entries(4096, 0);

/// Names a process in [`ENDED`].
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) start_boottime: u64,
    pub(crate) tgid: u64,
}

/// include/uapi/linux/bpf.h: insert only what is not there.
pub(crate) const BPF_NOEXIST: u64 = 1;

/// One word that user space sets: not 0 while Bartizan is at its CPU ceiling and leaves bulk kinds out.
#[map]
pub(crate) static SHED: Array<u32> = Array::with_max_entries(1, 0);

/// One word that user space sets: the parts of shared programs whose hooks are attached (`PART_*`).
#[map]
pub(crate) static PARTS: Array<u32> = Array::with_max_entries(1, 0);

/// One word that user space sets: not 0 while it waits for the rings; else it looks at them by itself, and a wake-up would be for nothing.
#[map]
pub(crate) static ASLEEP: Array<u32> = Array::with_max_entries(1, 0);

/// Packets to closed ports, by source. User space empties it once a second: so many sources in a second have room.
#[map]
pub(crate) static PROBES: HashMap<ProbeSource, ProbeGathered> = HashMap::with_max_entries(8192, 0);

/// What is known of a socket: kept by the kernel with the socket itself, so it is exact and ends with it. A connection that a listening
/// socket takes begins with a copy of what is known of that.
#[btf_map]
pub(crate) static FLOWS: FlowMap = FlowMap::new();

/// Who accepted a connection, by `struct sock` address: in the fallback tier, whose programs cannot reach [`FLOWS`]. LRU: what is accepted
/// with `network_flow` left out stays behind.
#[map]
pub(crate) static ACCEPTED: LruHashMap<u64, Accepted> = LruHashMap::with_max_entries(16384, 0);

/// UDP packets, by process and peer. User space empties it of those that have ended.
#[map]
pub(crate) static UDP_FLOWS: HashMap<UdpPeer, UdpGathered> = HashMap::with_max_entries(16384, 0);

/// Attempts to connect to ports that listen, by source. User space empties it of those that are over.
#[map]
pub(crate) static SYNS: HashMap<SynSource, SynGathered> = HashMap::with_max_entries(4096, 0);

/// The attempts of all sources for whom [`SYNS`] has no room, under a key of zeros.
#[map]
pub(crate) static SYN_OTHERS: HashMap<SynSource, SynGathered> = HashMap::with_max_entries(1, 0);

/// How often a process image or a program has connected to a UNIX address, with which outcome. LRU: what is forgotten is told again.
#[map]
pub(crate) static UNIX_TOLD: LruHashMap<UnixTold, u64> = LruHashMap::with_max_entries(8192, 0);

/// Names what is told once in [`UNIX_TOLD`].
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct UnixTold {
    /// Start of the process, or inode of the program.
    pub(crate) who: u64,
    /// Thread-group id and image count, or the program's device and the user.
    pub(crate) which: u64,
    /// 1 for an image, 2 for a program.
    pub(crate) of: u32,
    pub(crate) error: u32,
    /// The address; zeros for all of them.
    pub(crate) name: [u64; UNIX_NAME_MAX / 8],
}

/// Room for what is too large for the stack there.
#[repr(C)]
pub(crate) struct UnixScratch {
    pub(crate) key: UnixTold,
    pub(crate) name: [u64; UNIX_NAME_MAX / 8],
}

/// Scratch of the hook of UNIX connections.
#[map]
pub(crate) static UNIX_SCRATCH: PerCpuArray<UnixScratch> = PerCpuArray::with_max_entries(1, 0);

/// Ids of threads inside a call of the setuid family. LRU: a thread that is killed in it leaves its entry behind.
#[map]
pub(crate) static SETID: LruHashMap<u64, TaskIds> = LruHashMap::with_max_entries(4096, 0);

/// Supplementary groups of threads inside `setgroups`. LRU likewise.
#[map]
pub(crate) static SETGROUPS: LruHashMap<u64, GroupList> = LruHashMap::with_max_entries(512, 0);

/// Threads inside `unshare` or `setns`. LRU likewise.
#[map]
pub(crate) static NAMESPACES: LruHashMap<u64, NamespaceIds> = LruHashMap::with_max_entries(4096, 0);

/// Threads inside a call that may change capabilities. LRU likewise.
#[map]
pub(crate) static CAPABILITIES: LruHashMap<u64, CapabilitySets> = LruHashMap::with_max_entries(4096, 0);

/// Scratch of the chroot hook.
#[map]
pub(crate) static CHROOT_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// How often an image made memory executable. LRU: an image that is forgotten is told again.
#[map]
pub(crate) static MADE_EXECUTABLE: LruHashMap<MadeExecutable, u64> = LruHashMap::with_max_entries(8192, 0);

/// Names an image in [`MADE_EXECUTABLE`].
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct MadeExecutable {
    pub(crate) start_boottime: u64,
    pub(crate) tgid: u32,
    pub(crate) exec_id: u32,
}

/// Arguments of threads inside `pam_start`. LRU likewise.
#[map]
pub(crate) static PAM_STARTS: LruHashMap<u64, PamStarting> = LruHashMap::with_max_entries(1024, 0);

/// Addresses in the caller's memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PamStarting {
    pub(crate) service: u64,
    pub(crate) user: u64,
    /// Where the handle will be put.
    pub(crate) out: u64,
}

/// Handles of threads inside a call into libpam. LRU likewise: a login may wait in there for its user.
#[map]
pub(crate) static PAM_CALLS: LruHashMap<PamCall, u64> = LruHashMap::with_max_entries(8192, 0);

/// Names a call in [`PAM_CALLS`].
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PamCall {
    pub(crate) thread: u64,
    /// Kind of the record that it becomes.
    pub(crate) kind: u64,
}

/// Scratches of the programs that tell of modules and kernels, one each.
#[map]
pub(crate) static KERNEL_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(6, 0);

/// Files that threads have had the kernel read as a module or a kernel, and what came of it so far. LRU: a thread that is refused before
/// the load leaves its entry behind.
#[map]
pub(crate) static KERNEL_READS: LruHashMap<u64, KernelRead> = LruHashMap::with_max_entries(1024, 0);

/// What the kernel reads.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct KernelRead {
    /// Address of the `struct file`; 0 for memory of the caller.
    pub(crate) file: u64,
    /// Its inode: tells another file at the same address.
    pub(crate) inode: u64,
    /// Its device.
    pub(crate) device: u64,
    /// The module's name, once it has one.
    pub(crate) name: [u64; 7],
}

/// Watched files and folders, with what is wanted of them (`WANT_*`). User space keeps it.
#[map]
pub(crate) static WATCH: HashMap<WatchKey, u32> = HashMap::with_max_entries(16384, 0);

/// A bit for every inode number (`watch_bit`) that may be in [`WATCH`]: what is not watched costs one look here.
#[map]
pub(crate) static WATCH_MASK: Array<u64> = Array::with_max_entries(WATCH_BITS, 0);

/// Scratches of the file hooks, one a program, by its number in hooks/file.
#[map]
pub(crate) static FILE_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(FILE_PROGRAMS, 0);

/// Programs that have a scratch in [`FILE_SCRATCH`].
pub(crate) const FILE_PROGRAMS: u32 = 16;

/// Whether renames, removals and hard links of files that are not watched are told, set by user space before load.
#[unsafe(no_mangle)]
pub(crate) static FILES_EVERYWHERE: u32 = 0;

/// Whether there is anything in [`IGNORE_FOLDERS`], set by user space before load.
#[unsafe(no_mangle)]
pub(crate) static FILES_IGNORED: u32 = 0;

/// Files and folders of which nothing is told, nor of what is below them. User space keeps it.
#[map]
pub(crate) static IGNORE_FOLDERS: HashMap<WatchKey, u32> = HashMap::with_max_entries(IGNORE_FOLDERS_MAX, 0);

/// What processes write, by process and file. User space empties it once a second.
#[map]
pub(crate) static WRITES: HashMap<WriteKey, WriteGathered> = HashMap::with_max_entries(WRITES_MAX, 0);
