//! The capture thread: kernel → [`Input`]s → a [`Sink`], with everything that is lost on the way counted.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{Array, MapData};
use bartizan_bus::event::{EventId, ExecId, Gap, KindLoss, Start};

use crate::accounts::{Accounts, Look};
use crate::capture::files::{FileWatch, Told};
use crate::capture::ignore::Ignoring;
use crate::capture::libraries::Libraries;
use crate::capture::load::{self, Kernel, PendingMap, PendingValue};
use crate::capture::loss::{self, Losses};
use crate::capture::probes;
use crate::capture::rings::{self, Rings};
use crate::capture::seed::{self, Seeds};
use crate::capture::{syns, udp_flows};
use crate::config::Config;
use crate::counts::Shared;
use crate::enrich::clock;
use crate::enrich::container::known::Answer;
use crate::enrich::container::reader::Lookups;
use crate::enrich::users::Users;
use crate::governor::Governor;
use crate::hash::worker::Worker;
use crate::hash::{self, Unhashed};
use crate::intake::{Input, Sink};
use crate::status::{KernelStatus, SKIPPED};
use crate::watch::{Reading as KernelReading, Watch};

/// The host's user names.
const USERS: &str = "/etc/passwd";

/// Nice value of the capture thread.
const CAPTURE_NICE: i32 = -5;

/// Longest wait for the rings: how late the first bulk record after a while without any (it wakes nobody), a stop or a tick may be seen.
const WAIT: Duration = Duration::from_millis(50);
/// After events of fanotify it is not waited for at once: what comes meanwhile is merged by the kernel.
const FILES_REST: Duration = Duration::from_millis(2);
/// Readings, at most, that empty a ring after it lost something: as many batches as the largest ring holds of small records.
const EMPTYING: usize = 16;
/// Between two readings of the kernel's counters.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks at the processor time that Bartizan uses.
const GOVERN: Duration = Duration::from_millis(200);
/// Between two looks at what Bartizan needs of the kernel.
const LOOK: Duration = Duration::from_secs(2);
/// Between two comparisons of the process table with /proc, and two searches for libraries that processes have mapped.
const RECONCILE: Duration = Duration::from_secs(60);
/// Between two takings of seeds after losses, at least.
const RESEED: Duration = Duration::from_secs(10);
/// A connection attempt without a result for longer than this has lost it. The kernel gives up after about two minutes
/// (`net.ipv4.tcp_syn_retries` = 6).
const ATTEMPT_MAX: Duration = Duration::from_secs(30 * 60);

/// What the thread needs.
pub struct Pipeline<S> {
    /// Reader of the rings.
    rings: Rings,
    /// Where everything goes.
    sink: S,
    /// The host's user names.
    users: Users,
    /// Shared numbers.
    shared: Arc<Shared>,
    /// Between two heartbeats.
    heartbeat: Duration,
    /// Losses that an event has told.
    told: Losses,
    /// Connection attempts without a result.
    pending: PendingMap,
    /// The programs and their links: dropping them detaches.
    programs: Option<Ebpf>,
    /// When to take seeds again.
    reseed: Reseed,
    /// Packets to closed ports, gathered by source.
    probes: MapData,
    /// UDP packets, gathered by process and peer.
    udp_flows: MapData,
    /// Attempts to connect, gathered by source.
    syns: syns::Maps,
    /// Files of libraries with programs on them.
    libraries: Libraries,
    /// Watched files.
    files: FileWatch,
    /// The host's users, groups and passwords.
    accounts: Accounts,
    /// What is left out before a record is made of it.
    ignoring: Ignoring,
    /// Bulk kinds are left out now.
    shedding: bool,
    /// When fanotify was last asked.
    files_read: Option<Instant>,
    /// The CPU ceiling.
    governor: Governor,
    /// Where the kernel is told to leave bulk kinds out.
    shed: Array<MapData, u32>,
    /// What Bartizan needs of the kernel.
    watch: Watch,
    /// Who reads the container runtimes' files.
    lookups: Lookups,
    /// Reads executables; `None` when they are not hashed.
    hasher: Option<Worker>,
}

/// Gives the running thread a larger share of a processor than programs have that fill the rings: on two processors that were busy with
/// connections, 8 MiB of ring lost up to one record in ten without it and none with it. `sensor.cpu_limit` bounds what it takes.
fn take_precedence() {
    // SAFETY: only numbers are passed; 0 is the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, CAPTURE_NICE) } != 0 {
        let error = std::io::Error::last_os_error();
        tracing::warn!("the capture thread runs without precedence ({error}): more may be lost while all processors are busy");
    }
}

/// When seeds are taken again after records of identity were lost.
#[derive(Debug, Clone, Copy, Default)]
struct Reseed {
    /// The operator has not turned seeds off.
    wanted: bool,
    /// Something was lost since the last time.
    due: bool,
    /// The last time.
    last: Option<Instant>,
}

impl<S: Sink> Pipeline<S> {
    /// What brings everything that `kernel` tells to `sink`. `hasher` reads executables; `None` when they are not hashed.
    pub fn new(
        kernel: Kernel,
        config: &Config,
        shared: Arc<Shared>,
        sink: S,
        lookups: Lookups,
        hasher: Option<Worker>,
        accounts: Accounts,
    ) -> Self {
        let Kernel { ebpf, rings, pending, probes, udp_flows, syns, shed, libraries, watch, fanotify, ignoring } = kernel;
        let wanted = seed::is_active(&shared.hooks);
        Self {
            rings: Rings::new(rings, config.sensor.ring_gather),
            sink,
            users: Users::new(USERS),
            shared,
            heartbeat: config.sensor.heartbeat,
            told: Losses::new(),
            pending,
            programs: Some(ebpf),
            reseed: Reseed { wanted, ..Reseed::default() },
            probes,
            udp_flows,
            syns,
            libraries,
            files: FileWatch::new(&config.files, fanotify, watch),
            accounts,
            ignoring,
            shedding: false,
            files_read: None,
            governor: Governor::new(config.sensor.cpu_limit),
            shed,
            watch: Watch::default(),
            lookups,
            hasher,
        }
    }

    /// Tells what is known at the beginning: a gap since the last run, the start, logins that an earlier run left, the seeds.
    pub fn begin(&mut self, start: Start, gap: Option<Gap>, logins: Vec<(ExecId, EventId)>, seeds: Seeds) {
        {
            let mut counts = self.shared.lock();
            counts.libraries = self.libraries.report();
            counts.ignore = self.ignoring.report().to_vec();
        }
        self.sink.take(Input::Begin { now: clock::boot_now(), start, gap });
        self.refresh_users();
        self.sink.take(Input::Logins(logins));
        self.refresh_files();
        self.take_accounts();
        self.take_seeds(seeds);
        self.look_at_kernel();
        self.look_up_containers();
        self.second();
    }

    /// Runs until [`Shared::stop`], or until the sink can take nothing any more, then drains. Gives the sink back.
    pub fn run(mut self, started: Instant) -> S {
        take_precedence();
        let (mut ticked, mut beaten, mut reconciled, mut governed) = (Instant::now(), Instant::now(), Instant::now(), Instant::now());
        let mut looked = Instant::now();
        while !self.shared.is_stopped() && !self.sink.is_broken() {
            // In a storm of events the kernel merges those that wait.
            let patient = self.files_read.is_none_or(|read| read.elapsed() >= FILES_REST);
            let wait = if patient { WAIT.max(self.rings.gather()) } else { FILES_REST };
            self.rings.wait(wait, self.sink.waits(), self.files.wakes_by().filter(|_| patient));
            self.take_files();
            self.read(clock::boot_now());
            if self.files.accounts_touched() {
                // At once, so that of two programs each is told with what it did.
                self.take_accounts();
            }
            self.hash();
            if governed.elapsed() >= GOVERN {
                governed = Instant::now();
                self.govern();
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.tick();
            }
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                self.look_at_kernel();
            }
            if beaten.elapsed() >= self.heartbeat {
                beaten = Instant::now();
                self.sink.take(Input::Heartbeat { now: clock::boot_now(), uptime_s: started.elapsed().as_secs() });
            }
            if reconciled.elapsed() >= RECONCILE {
                reconciled = Instant::now();
                self.reconcile();
                self.expire_attempts();
                self.look_for_libraries(true);
            }
        }
        // Nothing new from here on, so the rings come to an end.
        self.programs = None;
        self.take_gathered(true);
        self.take_files();
        while self.read(u64::MAX) > 0 {}
        self.take_writes(true);
        self.read(u64::MAX);
        self.tick();
        // What the last look at the accounts found has its place now.
        self.read(u64::MAX);
        self.sink.take(Input::Stop { now: clock::boot_now() });
        self.second();
        self.sink
    }

    /// Hands on what the rings hold; how many records that were.
    fn read(&mut self, now: u64) -> usize {
        let Self { rings, sink, lookups, files, .. } = self;
        for (request, answer) in lookups.answers() {
            sink.take(Input::Container { now: clock::boot_now(), request, answer });
        }
        let reading = rings.read(now, |record| {
            files.notice(record);
            sink.take(Input::Record(record));
        });
        sink.take(Input::Due(reading.due));
        self.look_up_containers();
        reading.taken
    }

    /// Hands over which containers are to be looked up.
    fn look_up_containers(&mut self) {
        while let Some(request) = self.sink.next_container() {
            if let Err(request) = self.lookups.send(request) {
                self.sink.take(Input::Container { now: clock::boot_now(), request, answer: Answer::NoRoom });
            }
        }
    }

    /// Hands on what was hashed, and asks for what is wanted.
    fn hash(&mut self) {
        let Self { hasher, sink, .. } = self;
        let Some(hasher) = hasher else { return };
        let mut answers = hasher.answers();
        for wanted in sink.wanted() {
            let file = wanted.file;
            if !hasher.ask(wanted) {
                // Its queue has room for all that can wait, so the thread is gone; the next exec may try again.
                answers.push(hash::Answer { file, result: Err(Unhashed::Unreachable) });
            }
        }
        for answer in answers {
            sink.take(Input::Hashed { now: clock::boot_now(), answer });
        }
    }

    /// Once a second: clocks, names, counters, and an event for what was lost.
    fn tick(&mut self) {
        self.sink.take(Input::WallOffset(clock::wall_offset()));
        self.refresh_users();
        self.refresh_ignored();
        self.take_gathered(false);
        self.take_writes(false);
        self.take_accounts();
        self.look_for_libraries(false);
        self.second();
        let all = self.shared.counts().lost;
        let new = loss::since(&self.told, &all);
        if !new.is_empty() {
            // What follows takes its time, and the ring that had no room has none yet where this thread did not run for a while.
            for _ in 0..EMPTYING {
                if self.read(clock::boot_now()) < rings::BATCH {
                    break;
                }
            }
            let lost =
                new.iter().map(|((kind, reason), count)| KindLoss { kind: kind.clone(), reason: (*reason).to_owned(), count: *count });
            tracing::warn!(?new, "records were lost, or runs of a program were skipped");
            // What could not be told is told with the next loss that can.
            if self.sink.take(Input::Lost { now: clock::boot_now(), lost: lost.collect() }) {
                self.told = all;
            }
            self.reseed.due |= new.keys().any(|(kind, reason)| *reason != SKIPPED && is_identity(kind));
        }
        if self.reseed.due && self.told == self.shared.lock().lost && self.reseed.last.is_none_or(|last| last.elapsed() >= RESEED) {
            self.seed_again();
        }
    }

    /// Takes the seeds once more: an exec or fork that was lost may have been one that matters and still runs.
    fn seed_again(&mut self) {
        self.reseed = Reseed { wanted: self.reseed.wanted, due: false, last: Some(Instant::now()) };
        if !self.reseed.wanted {
            return;
        }
        let iterator = self.programs.as_mut().and_then(load::seed_iterator);
        self.take_seeds(seed::take(iterator, clock::boot_now()));
    }

    fn take_seeds(&mut self, seeds: Seeds) {
        let Seeds { found, problem } = seeds;
        if let Some(problem) = problem {
            tracing::warn!("{problem}; running processes were read from /proc instead");
        }
        for seed in found {
            self.sink.take(Input::Seed(seed));
        }
    }

    fn refresh_users(&mut self) {
        if let Some(names) = self.users.refresh() {
            self.sink.take(Input::Users(names));
        }
    }

    /// Follows executables and cgroups that were replaced.
    fn refresh_ignored(&mut self) {
        if let Err((map, error)) = self.ignoring.refresh() {
            tracing::error!(map, %error, "what sensor.ignore and sensor.only name cannot be brought up to date");
        }
        let mut counts = self.shared.lock();
        if counts.ignore != self.ignoring.report() {
            counts.ignore = self.ignoring.report().to_vec();
        }
    }

    /// Tells which processes there are, so that those whose exit was not seen can be given up.
    fn reconcile(&mut self) {
        match alive() {
            Ok(alive) => {
                self.sink.take(Input::Alive(alive));
            }
            Err(error) => tracing::warn!(%error, "/proc does not say which processes there are; ended ones are kept until the next look"),
        }
    }

    /// Removes attempts whose result will not come any more: the program run that would have told it was skipped.
    fn expire_attempts(&mut self) {
        let now = clock::boot_now();
        let old = |pending: &PendingValue| now.saturating_sub(pending.0.header.ktime) > ATTEMPT_MAX.as_nanos() as u64;
        let expired: Vec<u64> = self.pending.iter().flatten().filter(|(_, pending)| old(pending)).map(|(sk, _)| sk).collect();
        // One that is gone by now has got its result after all.
        let removed = expired.iter().filter(|sk| self.pending.remove(sk).is_ok()).count() as u64;
        self.shared.lose("network.connect", "no_result", removed);
    }

    /// Keeps the list of watched files, and tells it when it is another one.
    fn refresh_files(&mut self) {
        if self.files.refresh() {
            self.shared.lock().files = self.files.report().clone();
            if let Some(list) = self.files.changed_list() {
                self.sink.take(Input::Watched(list));
            }
        }
    }

    /// Tells what is another in the host's account files. Whoever wrote them is told before: by what the kernel and fanotify say up to now.
    fn take_accounts(&mut self) {
        let Look { changes, beyond } = self.accounts.look(Instant::now());
        self.shared.lock().accounts = self.accounts.problems();
        self.shared.lose("auth.account_change", "too_many", beyond);
        if !changes.is_empty() {
            self.take_deeds();
            self.sink.take(Input::Accounts { now: clock::boot_now(), changes });
        }
    }

    /// Puts what fanotify says among the records, and keeps the list of watched files.
    fn take_files(&mut self) {
        self.refresh_files();
        self.take_deeds();
    }

    /// Puts what fanotify says among the records.
    fn take_deeds(&mut self) {
        let Told { deeds, ignored, overflows, shed, unreadable } = self.files.take(clock::boot_now(), self.shedding);
        if !deeds.is_empty() {
            self.files_read = Some(Instant::now());
        }
        for deed in deeds {
            if self.ignoring.leaves_out(deed.body.kind(), deed.pid) {
                self.shared.leave_out(deed.body.kind(), 1);
                continue;
            }
            self.sink.take(Input::FileDeed(Box::new(deed)));
        }
        for (kind, count) in ignored {
            self.shared.leave_out(kind, count);
        }
        for (reason, count) in [("queue_full", overflows), ("shed", shed), ("decode", unreadable)] {
            self.shared.lose("file", reason, count);
        }
    }

    /// What was taken out of a map of the kernel; nothing, counted, where that failed.
    fn taken<T>(&self, kind: &str, taken: io::Result<Vec<T>>) -> Vec<T> {
        taken.unwrap_or_else(|error| {
            self.shared.lose(kind, "map", 1);
            tracing::error!(kind, %error, "what the kernel gathered cannot be taken from it; it is lost");
            Vec::new()
        })
    }

    /// Puts what was written among the records: what is due, or all.
    fn take_writes(&mut self, all: bool) {
        let now = clock::boot_now();
        let written = self.files.written(now, all);
        let gathered = self.taken("file.write", written);
        self.sink.take(Input::Writes { now, all, gathered });
    }

    /// Puts what the kernel gathered of packets among the records: flows that have ended, or all.
    fn take_gathered(&mut self, all: bool) {
        let now = clock::boot_now();
        for (key, value) in self.taken("network.udp_flow", udp_flows::take(&self.udp_flows, now, all)) {
            self.sink.take(Input::UdpFlow(key, Box::new(value)));
        }
        for (key, value) in self.taken("network.syn", syns::take(&self.syns, now, all)) {
            self.sink.take(Input::Syn(key, Box::new(value)));
        }
        for (key, value) in self.taken("network.probe", probes::take(&self.probes)) {
            self.sink.take(Input::Probe(key, value));
        }
    }

    /// Attaches to library files that are new: at once to those in the usual places, with `processes` also to what is mapped.
    fn look_for_libraries(&mut self, processes: bool) {
        let Some(ebpf) = &mut self.programs else { return };
        for change in self.libraries.refresh(ebpf, processes) {
            tracing::info!("{change}");
        }
        self.shared.lock().libraries = self.libraries.report();
    }

    /// Keeps Bartizan below its CPU ceiling.
    fn govern(&mut self) {
        let Some(shed) = self.governor.step(clock::boot_now(), clock::own_cpu()) else { return };
        if let Some(hasher) = &self.hasher {
            hasher.pause(shed);
        }
        self.shedding = shed;
        match self.shed.set(0, u32::from(shed), 0) {
            Ok(()) if shed => tracing::warn!(
                "Bartizan is at its CPU ceiling (sensor.cpu_limit): bulk kinds (connections, failed execs, writes of files) are left out and counted"
            ),
            Ok(()) => tracing::info!("Bartizan is below its CPU ceiling again: everything is taken"),
            Err(error) => tracing::error!(%error, "the kernel cannot be told to leave bulk kinds out"),
        }
    }

    /// Whether the kernel still calls the programs, and what it allows.
    fn look_at_kernel(&mut self) {
        let shared = Arc::clone(&self.shared);
        let traced: Vec<&'static str> =
            shared.hooks.iter().filter(|report| report.is_called_by_ftrace()).map(|report| report.hook.name).collect();
        let now = clock::boot_now();
        for (severity, body) in self.watch.look(KernelReading::now(), &traced) {
            self.sink.take(Input::Own { now, severity, body: Box::new(body) });
        }
        let silenced = if self.watch.silent() { traced.into_iter().map(str::to_owned).collect() } else { Vec::new() };
        shared.lock().kernel = KernelStatus { lockdown: self.watch.lockdown().map(str::to_owned), silenced };
    }

    /// A second is over, or the first one begins.
    fn second(&mut self) {
        self.sink.take(Input::Second);
        self.shared.lock().governor = self.governor.report();
    }
}

/// Kinds that tell who a process is.
fn is_identity(kind: &str) -> bool {
    matches!(kind, "process.exec" | "process.fork" | "process.seed")
}

/// Every process that there is: its pid and its start in ticks.
///
/// # Errors
/// /proc cannot be read.
fn alive() -> Result<Vec<(u32, u64)>, procfs::ProcError> {
    let mut alive = Vec::new();
    for process in procfs::process::all_processes()? {
        match process.and_then(|process| process.stat()) {
            Ok(stat) => alive.push((stat.pid.cast_unsigned(), stat.starttime)),
            // It has ended meanwhile.
            Err(procfs::ProcError::NotFound(_)) => {}
            Err(procfs::ProcError::Io(error, _)) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(alive)
}
