//! Loads the kernel object and attaches every hook in the best tier that this kernel carries.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray};
use aya::programs::iter::IterLink;
use aya::programs::{BtfTracePoint, FEntry, FExit, Iter, ProgramError, TracePoint, UProbe};
use aya::{Ebpf, EbpfLoader};
use bartizan_sensor_ebpf::abi::Pending;

use super::btf::{Btf, BtfError, VMLINUX};
use super::cgroup;
use super::files::{self, group::Group};
use super::hooks::{Attach, Hook, ProgramSpec, Tier, absent, hooks, refused_by_types};
use super::ignore::{self, Ignoring};
use super::libraries::Libraries;
use super::offsets::{self, OffsetsError};
use super::ring::Ring;
use super::{rings, syns};
use crate::config::ignore::IgnoreEntry;

/// The kernel object that `cargo xtask build` made; empty in a build without it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bartizan-ebpf.o"));

/// Why capture cannot start at all. A hook that fails alone is no error: it is named in the status.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No type information.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The programs need a helper that came with Linux 5.17.
    #[error("this kernel is too old: Bartizan needs Linux 5.17 or newer (its bpf_loop helper); 6.1 and 6.18 are tested")]
    OldKernel,
    /// Foreign layout.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// Built without the kernel object.
    #[error("this binary was built without its kernel object: build it with `cargo xtask build`")]
    NoObject,
    /// The object as a whole was refused.
    #[error("the kernel refused Bartizan's maps or object: {0}; run as root on Linux 5.17 or newer with CONFIG_BPF_SYSCALL=y")]
    Object(#[source] Box<aya::EbpfError>),
    /// aya's own reading of the BTF failed.
    #[error("the kernel's type information cannot be used to attach programs: {0}")]
    AyaBtf(#[from] aya::BtfError),
    /// The object lacks a map: it is not the one this binary was built with.
    #[error("the kernel object has no map {0}: it does not belong to this binary; build both with `cargo xtask build`")]
    NoMap(&'static str),
    /// A map cannot be used.
    #[error("cannot use the map {0}: {1}")]
    Map(&'static str, #[source] aya::maps::MapError),
    /// A ring cannot be mapped.
    #[error("cannot use the ring {0}: {1}; `sensor.ring_priority` and `sensor.ring_bulk` set their sizes")]
    Ring(&'static str, #[source] io::Error),
    /// Nothing could be attached.
    #[error("no hook could be attached, so nothing would be seen: {0}")]
    NoHook(String),
}

/// What the operator asked for.
#[derive(Debug, Clone)]
pub struct LoadConfig {
    /// Hooks or tiers (`hook:tier`) to leave out.
    pub disabled: Vec<String>,
    /// Bytes of the priority ring; a power of two.
    pub ring_priority: u32,
    /// Bytes of the bulk ring; a power of two.
    pub ring_bulk: u32,
    /// Percent of the bulk ring that waits before a record wakes user space, where that sleeps.
    pub bulk_wakeup: usize,
    /// What is left out before a record is made of it.
    pub ignore: Vec<IgnoreEntry>,
    /// Whether renames, removals and hard links of files that are not watched are told.
    pub files_everywhere: bool,
    /// Whether there are files of which nothing is told.
    pub files_ignored: bool,
    /// Type information to use instead of the kernel's own file.
    pub btf: Option<PathBuf>,
}

/// How a hook ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookState {
    /// Attached.
    Active,
    /// The operator left it out.
    Disabled,
    /// This kernel cannot carry it.
    Unavailable,
    /// This kernel has nothing that it would see.
    Absent,
    /// This kernel should carry it and did not.
    Failed,
}

/// One hook after start.
#[derive(Debug)]
pub struct HookReport {
    /// The hook.
    pub hook: &'static Hook,
    /// Its tier, when active.
    pub tier: Option<&'static Tier>,
    /// How it ended up.
    pub state: HookState,
    /// Why better tiers, or all, were passed over: one entry a tier.
    pub reasons: Vec<String>,
    /// A tier was left out by the operator though the kernel may carry it.
    pub held_back: bool,
    /// A tier that this kernel should carry was not taken (the verifier's no): Bartizan's fault, whatever tier came after.
    pub broken: bool,
    /// Attached programs: name and a handle for the kernel's counters.
    pub programs: Vec<(&'static str, OwnedFd)>,
}

impl HookReport {
    /// Whether ftrace calls programs of it, so that they are silent while that is turned off.
    pub fn is_called_by_ftrace(&self) -> bool {
        let by_ftrace = |spec: &ProgramSpec| matches!(spec.attach, Attach::Fexit(..) | Attach::Fentry(..));
        self.state == HookState::Active && self.tier.is_some_and(|tier| tier.programs.iter().any(by_ftrace))
    }
}

/// [`Pending`] as bytes that aya may read from a map.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct PendingValue(pub Pending);

// SAFETY: `Pending` is `#[repr(C)]`, made of integers without padding.
unsafe impl aya::Pod for PendingValue {}

/// Connection attempts without a result, by the address of their `struct sock`.
pub type PendingMap = HashMap<MapData, u64, PendingValue>;

/// Everything that is loaded.
pub struct Loaded {
    /// Programs and maps.
    pub kernel: Kernel,
    /// The task iterator, when the kernel has one.
    pub seeds: Option<IterLink>,
    /// Counters by kind.
    pub counters: PerCpuArray<MapData, u64>,
    /// Every hook, in the order of [`hooks`].
    pub hooks: Vec<HookReport>,
}

/// The programs, and what is shared with them while they run.
pub struct Kernel {
    /// Owns programs and links: dropping it detaches.
    pub ebpf: Ebpf,
    /// Where records come from.
    pub rings: rings::Maps,
    /// Connection attempts without a result.
    pub pending: PendingMap,
    /// Packets to closed ports, gathered by source.
    pub probes: MapData,
    /// UDP packets, gathered by process and peer.
    pub udp_flows: MapData,
    /// Attempts to connect, gathered by source.
    pub syns: syns::Maps,
    /// One word: not 0 while bulk kinds are to be left out.
    pub shed: Array<MapData, u32>,
    /// Files of libraries with programs on them.
    pub libraries: Libraries,
    /// Where the kernel looks up which files are watched.
    pub watch: files::Maps,
    /// Where some hook is carried by fanotify.
    pub fanotify: Option<Group>,
    /// What is left out before a record is made of it.
    pub ignoring: Ignoring,
}

/// Loads and attaches.
///
/// # Errors
/// [`LoadError`] when nothing can be captured at all.
pub fn load(config: &LoadConfig) -> Result<Loaded, LoadError> {
    if OBJECT.is_empty() {
        return Err(LoadError::NoObject);
    }
    let path = config.btf.as_deref().unwrap_or(Path::new(VMLINUX));
    let types = Btf::read(path)?;
    if !types.has_function("bpf_loop") {
        return Err(LoadError::OldKernel);
    }
    let offsets = offsets::resolve(&types)?;
    let own = std::process::id();
    let btf = aya::Btf::parse_file(path, aya::Endianness::default())?;
    let everywhere = u32::from(config.files_everywhere);
    let files_ignored = u32::from(config.files_ignored);
    let wakeup = wakeup_bytes(config.ring_bulk, config.bulk_wakeup);
    let left_out = ignore::global(&config.ignore);
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .override_global("OFFSETS", &offsets, true)
        .override_global("SELF_TGID", &own, true)
        .override_global("FILES_EVERYWHERE", &everywhere, true)
        .override_global("FILES_IGNORED", &files_ignored, true)
        .override_global("BULK_WAKEUP", &wakeup, true)
        .override_global("IGNORE", &left_out, true)
        .map_max_entries("PRIORITY", config.ring_priority)
        .map_max_entries("BULK", config.ring_bulk)
        .load(OBJECT)
        .map_err(|error| LoadError::Object(Box::new(error)))?;

    let asleep = Array::try_from(take(&mut ebpf, "ASLEEP")?).map_err(|error| LoadError::Map("ASLEEP", error))?;
    let parts = Array::try_from(take(&mut ebpf, "PARTS")?).map_err(|error| LoadError::Map("PARTS", error))?;
    let rings = rings::Maps { priority: ring(&mut ebpf, "PRIORITY")?, bulk: ring(&mut ebpf, "BULK")?, asleep };
    let counters = take(&mut ebpf, "COUNTERS")?;
    let counters = PerCpuArray::try_from(counters).map_err(|error| LoadError::Map("COUNTERS", error))?;
    let pending = HashMap::try_from(take(&mut ebpf, "PENDING")?).map_err(|error| LoadError::Map("PENDING", error))?;

    let Map::HashMap(probes) = take(&mut ebpf, "PROBES")? else { return Err(LoadError::NoMap("PROBES")) };
    let Map::HashMap(udp_flows) = take(&mut ebpf, "UDP_FLOWS")? else { return Err(LoadError::NoMap("UDP_FLOWS")) };
    let Map::HashMap(sources) = take(&mut ebpf, "SYNS")? else { return Err(LoadError::NoMap("SYNS")) };
    let Map::HashMap(others) = take(&mut ebpf, "SYN_OTHERS")? else { return Err(LoadError::NoMap("SYN_OTHERS")) };
    let syns = syns::Maps { sources, others };
    let shed = Array::try_from(take(&mut ebpf, "SHED")?).map_err(|error| LoadError::Map("SHED", error))?;

    let watch = HashMap::try_from(take(&mut ebpf, "WATCH")?).map_err(|error| LoadError::Map("WATCH", error))?;
    let bits = Array::try_from(take(&mut ebpf, "WATCH_MASK")?).map_err(|error| LoadError::Map("WATCH_MASK", error))?;
    let Map::HashMap(writes) = take(&mut ebpf, "WRITES")? else { return Err(LoadError::NoMap("WRITES")) };
    let ignored = HashMap::try_from(take(&mut ebpf, "IGNORE_FOLDERS")?).map_err(|error| LoadError::Map("IGNORE_FOLDERS", error))?;
    let watch = files::Maps { watch, bits, writes, ignored };
    // Before anything is attached, so that nothing that is left out slips through.
    let ignoring = ignoring(&mut ebpf, &config.ignore)?;

    let mut attacher = Attacher {
        ebpf: &mut ebpf,
        btf: &btf,
        types: &types,
        disabled: &config.disabled,
        seeds: None,
        libraries: Libraries::default(),
        fanotify: None,
        parts,
        shared: Vec::new(),
    };
    let hooks: Vec<HookReport> = hooks().map(|hook| attacher.attach(hook)).collect();
    let Attacher { seeds, libraries, fanotify, .. } = attacher;
    let carries_programs = |report: &HookReport| report.state == HookState::Active && !report.programs.is_empty();
    if !hooks.iter().any(carries_programs) && !hooks.iter().any(|report| report.state == HookState::Disabled) {
        let reasons: Vec<String> = hooks.iter().flat_map(|report| report.reasons.iter().cloned()).take(3).collect();
        return Err(LoadError::NoHook(reasons.join("; ")));
    }
    let kernel = Kernel { ebpf, rings, pending, probes, udp_flows, syns, shed, libraries, watch, fanotify, ignoring };
    Ok(Loaded { kernel, seeds, counters, hooks })
}

/// Bytes that `percent` of a ring of `ring` bytes are.
fn wakeup_bytes(ring: u32, percent: usize) -> u64 {
    u64::from(ring) * percent as u64 / 100
}

/// What is left out, with its maps filled.
fn ignoring(ebpf: &mut Ebpf, entries: &[IgnoreEntry]) -> Result<Ignoring, LoadError> {
    let maps = ignore::Maps {
        exes: HashMap::try_from(take(ebpf, "IGNORE_EXES")?).map_err(|error| LoadError::Map("IGNORE_EXES", error))?,
        uids: HashMap::try_from(take(ebpf, "IGNORE_UIDS")?).map_err(|error| LoadError::Map("IGNORE_UIDS", error))?,
        cgroups: HashMap::try_from(take(ebpf, "IGNORE_CGROUPS")?).map_err(|error| LoadError::Map("IGNORE_CGROUPS", error))?,
        networks: LpmTrie::try_from(take(ebpf, "IGNORE_NETWORKS")?).map_err(|error| LoadError::Map("IGNORE_NETWORKS", error))?,
    };
    Ignoring::new(entries, maps).map_err(|(map, error)| LoadError::Map(map, error))
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or(LoadError::NoMap(name))
}

fn ring(ebpf: &mut Ebpf, name: &'static str) -> Result<Ring, LoadError> {
    let Map::RingBuf(map) = take(ebpf, name)? else { return Err(LoadError::NoMap(name)) };
    Ring::of(map).map_err(|error| LoadError::Ring(name, error))
}

/// A new run of the task iterator; `None` where the kernel has none.
pub fn seed_iterator(ebpf: &mut Ebpf) -> Option<IterLink> {
    let program: &mut Iter = ebpf.program_mut("seed")?.try_into().ok()?;
    let link = program.attach().ok()?;
    program.take_link(link).ok()
}

struct Attacher<'a> {
    ebpf: &'a mut Ebpf,
    btf: &'a aya::Btf,
    types: &'a Btf,
    disabled: &'a [String],
    seeds: Option<IterLink>,
    libraries: Libraries,
    fanotify: Option<Group>,
    /// Which parts of shared programs are attached.
    parts: Array<MapData, u32>,
    /// Programs at tracepoints, with where they are: a shared one is attached once.
    shared: Vec<(&'static str, &'static str)>,
}

/// Why a tier could not be taken.
enum Refusal {
    /// The kernel lacks something or does not allow it.
    Kernel(String),
    /// The kernel should have taken it.
    Bug(String),
}

impl Attacher<'_> {
    fn attach(&mut self, hook: &'static Hook) -> HookReport {
        let mut report = HookReport {
            hook,
            tier: None,
            state: HookState::Unavailable,
            reasons: Vec::new(),
            held_back: false,
            broken: false,
            programs: Vec::new(),
        };
        if self.disabled.iter().any(|name| name == hook.name) {
            report.state = HookState::Disabled;
            report.reasons.push("disabled by the operator".to_owned());
            return report;
        }
        if let Some(why) = absent(hook, self.types) {
            report.state = HookState::Absent;
            report.reasons.push(why.to_owned());
            return report;
        }
        for tier in hook.tiers {
            if self.disabled.iter().any(|name| *name == format!("{}:{}", hook.name, tier.name)) {
                report.reasons.push(format!("{}: disabled by the operator", tier.name));
                report.held_back = true;
                continue;
            }
            let is_uprobe = tier.programs.iter().any(|spec| matches!(spec.attach, Attach::Uprobe { .. }));
            let attached = if is_uprobe { self.attach_uprobes(hook, tier) } else { self.attach_tier(tier) };
            match attached {
                Ok(programs) => {
                    report.tier = Some(tier);
                    report.state = HookState::Active;
                    report.programs = programs;
                    return report;
                }
                Err(Refusal::Kernel(reason)) => report.reasons.push(format!("{}: {reason}", tier.name)),
                Err(Refusal::Bug(reason)) => {
                    report.reasons.push(format!("{}: {reason}", tier.name));
                    report.state = HookState::Failed;
                    report.broken = true;
                }
            }
        }
        if report.held_back && report.state == HookState::Unavailable {
            report.state = HookState::Disabled;
        }
        report
    }

    /// Attaches all programs of a tier, or none.
    fn attach_tier(&mut self, tier: &Tier) -> Result<Vec<(&'static str, OwnedFd)>, Refusal> {
        let mut attached: Vec<(&'static str, OwnedFd)> = Vec::new();
        let mut passed_over = None;
        for spec in tier.programs {
            match self.attach_program(spec) {
                Ok(fd) => {
                    let verified = program_counters(&fd).map_or(0, |counters| counters.verified);
                    tracing::debug!(program = spec.program, tier = tier.name, verified, "attached");
                    // One program may be at several places.
                    if attached.iter().all(|(program, _)| *program != spec.program) {
                        attached.push((spec.program, fd));
                    }
                }
                Err(Refusal::Kernel(reason)) if spec.optional => {
                    // A kernel without 32-bit calls lacks their entry points.
                    tracing::info!(program = spec.program, reason, "not attached, and nothing is blind for that where the kernel lacks it");
                    passed_over.get_or_insert(reason);
                }
                Err(refusal) => {
                    for (name, _) in attached {
                        match tier.programs.iter().filter(|spec| spec.program == name).fold(0, |parts, spec| parts | spec.part) {
                            0 => self.detach(name),
                            // Others may go on with the program; without a part it does nothing.
                            parts => {
                                if let Err(Refusal::Kernel(error) | Refusal::Bug(error)) = self.set_parts(|word| word & !parts) {
                                    tracing::warn!(
                                        program = name,
                                        error,
                                        "a part of a shared program cannot be taken back: its kind may be told"
                                    );
                                }
                            }
                        }
                    }
                    return Err(refusal);
                }
            }
        }
        match passed_over {
            Some(reason) if attached.is_empty() => Err(Refusal::Kernel(reason)),
            _ => Ok(attached),
        }
    }

    /// Loads the programs of a tier and attaches them to every file of their library that is there. Where there is none yet, they wait
    /// for it.
    fn attach_uprobes(&mut self, hook: &'static Hook, tier: &'static Tier) -> Result<Vec<(&'static str, OwnedFd)>, Refusal> {
        let mut programs: Vec<(&'static str, OwnedFd)> = Vec::new();
        for spec in tier.programs {
            if programs.iter().any(|(program, _)| *program == spec.program) {
                continue;
            }
            let refuse = |error: ProgramError| refusal(spec.program, &error);
            let Some(program) = self.ebpf.program_mut(spec.program) else {
                return Err(Refusal::Bug(format!("the kernel object has no program {}", spec.program)));
            };
            let program: &mut UProbe = program.try_into().map_err(refuse)?;
            program.load().map_err(refuse)?;
            let fd = program.fd().map_err(refuse)?.as_fd().try_clone_to_owned();
            programs.push((spec.program, fd.map_err(|error| Refusal::Bug(format!("{}: cannot keep a handle: {error}", spec.program)))?));
        }
        self.libraries.want(hook.name, tier.programs);
        let changes = self.libraries.refresh(self.ebpf, true);
        changes.iter().for_each(|change| tracing::debug!("{change}"));
        if self.libraries.is_attached(hook.name) {
            return Ok(programs);
        }
        Err(Refusal::Kernel(match changes.first() {
            Some(change) => change.clone(),
            None => {
                let library = tier.programs.iter().find_map(|spec| match spec.attach {
                    Attach::Uprobe { library, .. } => Some(library.soname()),
                    _ => None,
                });
                format!("{} is not on this host; it is attached to when it appears", library.unwrap_or("the library"))
            }
        }))
    }

    fn attach_program(&mut self, spec: &ProgramSpec) -> Result<OwnedFd, Refusal> {
        if let Some(reason) = refused_by_types(spec.attach, self.types) {
            return Err(Refusal::Kernel(reason));
        }
        if let Attach::Fanotify(events) = spec.attach {
            return self.ask_fanotify(events);
        }
        let Some(program) = self.ebpf.program_mut(spec.program) else {
            return Err(Refusal::Bug(format!("the kernel object has no program {}", spec.program)));
        };
        let refuse = |error: ProgramError| refusal(spec.program, &error);
        let fd = match spec.attach {
            Attach::TpBtf(name, _) => {
                let program: &mut BtfTracePoint = program.try_into().map_err(refuse)?;
                // Another hook may have loaded it, and attached it or not.
                if program.fd().is_err() {
                    program.load(name, self.btf).map_err(refuse)?;
                }
                if spec.part == 0 || !self.shared.contains(&(spec.program, name)) {
                    program.attach().map_err(refuse)?;
                    self.shared.push((spec.program, name));
                }
                program.fd().map_err(refuse)?.as_fd().try_clone_to_owned()
            }
            Attach::Fexit(name, _) => {
                let program: &mut FExit = program.try_into().map_err(refuse)?;
                program.load(name, self.btf).map_err(refuse)?;
                program.attach().map_err(refuse)?;
                program.fd().map_err(refuse)?.as_fd().try_clone_to_owned()
            }
            Attach::Fentry(name, _) => {
                let program: &mut FEntry = program.try_into().map_err(refuse)?;
                program.load(name, self.btf).map_err(refuse)?;
                program.attach().map_err(refuse)?;
                program.fd().map_err(refuse)?.as_fd().try_clone_to_owned()
            }
            Attach::Cgroup(place) => {
                let root = cgroup::root().map_err(|error| Refusal::Kernel(error.to_string()))?;
                cgroup::attach(program, place, &root).map_err(refuse)?.try_clone_to_owned()
            }
            Attach::Uprobe { .. } | Attach::Fanotify(_) => {
                return Err(Refusal::Bug(format!("{} is not attached by name", spec.program)));
            }
            Attach::Tracepoint(category, name) => {
                let program: &mut TracePoint = program.try_into().map_err(refuse)?;
                // It may be at another place already.
                if program.fd().is_err() {
                    program.load().map_err(refuse)?;
                }
                // Attached twice it would run twice.
                if spec.part == 0 || !self.shared.contains(&(spec.program, name)) {
                    program.attach(category, name).map_err(refuse)?;
                    self.shared.push((spec.program, name));
                }
                program.fd().map_err(refuse)?.as_fd().try_clone_to_owned()
            }
            Attach::IterTask => {
                let program: &mut Iter = program.try_into().map_err(refuse)?;
                program.load("task", self.btf).map_err(refuse)?;
                let link = program.attach().map_err(refuse)?;
                self.seeds = Some(program.take_link(link).map_err(refuse)?);
                program.fd().map_err(refuse)?.as_fd().try_clone_to_owned()
            }
        };
        let fd = fd.map_err(|error| Refusal::Bug(format!("{}: cannot keep a handle: {error}", spec.program)))?;
        if spec.part != 0 {
            self.set_parts(|word| word | spec.part)?;
        }
        Ok(fd)
    }

    /// Tells shared programs which of their parts are attached.
    fn set_parts(&mut self, change: impl FnOnce(u32) -> u32) -> Result<(), Refusal> {
        let tell = |error: aya::maps::MapError| Refusal::Bug(format!("PARTS: {error}"));
        let word = self.parts.get(&0, 0).map_err(tell)?;
        self.parts.set(0, change(word), 0).map_err(tell)
    }

    /// Has the one fanotify group, made when the first hook needs it, ask for further events.
    fn ask_fanotify(&mut self, events: u64) -> Result<OwnedFd, Refusal> {
        let group = match self.fanotify.take() {
            Some(group) => Ok(group),
            None => Group::new(),
        };
        let mut group = group.map_err(|error| Refusal::Kernel(format!("this kernel refuses fanotify ({})", errno(&error))))?;
        group.want(events);
        let handle = group.as_fd().try_clone_to_owned();
        self.fanotify = Some(group);
        handle.map_err(|error| Refusal::Bug(format!("fanotify: cannot keep a handle: {error}")))
    }

    fn detach(&mut self, name: &str) {
        use aya::programs::Program;
        let unloaded = match self.ebpf.program_mut(name) {
            Some(Program::BtfTracePoint(program)) => program.unload(),
            Some(Program::FExit(program)) => program.unload(),
            Some(Program::FEntry(program)) => program.unload(),
            Some(Program::CgroupSysctl(program)) => program.unload(),
            Some(Program::CgroupSkb(program)) => program.unload(),
            Some(Program::CgroupSock(program)) => program.unload(),
            Some(Program::TracePoint(program)) => program.unload(),
            Some(Program::Iter(program)) => program.unload(),
            Some(Program::UProbe(program)) => program.unload(),
            _ => Ok(()),
        };
        if let Err(error) = unloaded {
            tracing::warn!(program = name, %error, "cannot detach a program of a tier that was given up");
        }
    }
}

/// Kernel-internal, include/linux/errno.h; bpf(2) lets it out.
const ENOTSUPP: i32 = 524;

/// Sorts a failure: the kernel's "no" is an answer, a verifier's rejection is our bug.
fn refusal(program: &str, error: &ProgramError) -> Refusal {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let tail = log.lines().rev().find(|line| !line.trim().is_empty() && !line.starts_with("processed ")).unwrap_or_default();
            match io_error.raw_os_error() {
                // A kernel that does not allow this type of program at all answers before its verifier has said a word.
                Some(libc::EPERM | libc::EINVAL | libc::EOPNOTSUPP | libc::ENOTSUP) if tail.is_empty() => {
                    Refusal::Kernel(format!("this kernel refuses {program} ({})", errno(io_error)))
                }
                _ => {
                    tracing::debug!(program, log, "verifier log");
                    Refusal::Bug(format!("the verifier rejects {program} ({}): {tail}", errno(io_error)))
                }
            }
        }
        ProgramError::SyscallError(error) => match error.io_error.raw_os_error() {
            Some(libc::EPERM | libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP) => {
                Refusal::Kernel(format!("this kernel does not attach {program} ({})", errno(&error.io_error)))
            }
            _ => Refusal::Bug(format!("{program}: {error}")),
        },
        ProgramError::TracePointError(error) => Refusal::Kernel(format!("{program}: {error} (is tracefs mounted?)")),
        other => Refusal::Bug(format!("{program}: {other}")),
    }
}

fn errno(error: &io::Error) -> String {
    match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::UnknownErrno) | None => error.to_string(),
        Some(errno) => format!("{errno:?}"),
    }
}

/// The kernel's own counters of one program.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProgramCounters {
    /// Runs; counted only while `kernel.bpf_stats_enabled` is 1.
    pub runs: u64,
    /// Time in the program, nanoseconds; counted likewise.
    pub run_ns: u64,
    /// Runs skipped because the program already ran on that CPU. Always counted.
    pub recursion_misses: u64,
    /// Instructions that the verifier walked: what the program costs at start.
    pub verified: u32,
}

/// Asks the kernel for the counters of a program.
///
/// # Errors
/// The errno of `BPF_OBJ_GET_INFO_BY_FD`.
pub fn program_counters(program: &impl AsFd) -> io::Result<ProgramCounters> {
    use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_prog_info};
    // SAFETY: both are plain C structures for which zero bytes are valid.
    let (mut info, mut attr): (bpf_prog_info, bpf_attr) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    attr.info.bpf_fd = program.as_fd().as_raw_fd() as u32;
    attr.info.info_len = size_of::<bpf_prog_info>() as u32;
    attr.info.info = (&raw mut info) as u64;
    // SAFETY: the attribute names `info` with its own size; the kernel writes no more than that.
    let result = unsafe { libc::syscall(libc::SYS_bpf, bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &raw mut attr, size_of::<bpf_attr>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ProgramCounters {
        runs: info.run_cnt,
        run_ns: info.run_time_ns,
        recursion_misses: info.recursion_misses,
        verified: info.verified_insns,
    })
}
