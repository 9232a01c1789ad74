//! The capture thread: rings → events → EVENTS, with everything that is lost on the way counted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{Array, MapData, PerCpuArray};
use bartizan_bus::event::{Body, ExecId, Gap, Heartbeat, KindLoss, Loss, SecurityEvent, Severity, Stop};
use bartizan_bus::{PublishError, Stream};
use bartizan_sensor_ebpf::abi::Ring;

use crate::capture::libraries::{Libraries, LibraryReport};
use crate::capture::load::{self, HookReport, PendingMap, PendingValue};
use crate::capture::loss::{self, KernelCounts, Losses};
use crate::capture::probes;
use crate::capture::rings::{Reading, Rings};
use crate::capture::seed::{self, Seeds};
use crate::delay::Delays;
use crate::enrich::{Enricher, clock};
use crate::governor::{Governor, GovernorReport};
use crate::logins::LoginsFile;
use crate::project::NO_CPU;
use crate::status::{RECENT_LOSS_SECONDS, SKIPPED};

/// Longest wait for the rings: how late the first bulk record after a while without any (it wakes nobody), a stop or a tick may be seen.
const WAIT: Duration = Duration::from_millis(50);
/// Between two readings of the kernel's counters.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks at the processor time that Bartizan uses.
const GOVERN: Duration = Duration::from_millis(200);
/// Between two comparisons of the process table with /proc, and two searches for libraries that processes have mapped.
const RECONCILE: Duration = Duration::from_secs(60);
/// Between two takings of seeds after losses, at least.
const RESEED: Duration = Duration::from_secs(10);
/// A connection attempt without a result for longer than this has lost it. The kernel gives up after about two minutes
/// (`net.ipv4.tcp_syn_retries` = 6).
const ATTEMPT_MAX: Duration = Duration::from_secs(30 * 60);
/// Events published at once, at most.
const PUBLISH_BATCH: usize = 1024;

/// Numbers that the capture thread shares with `status`.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Events made, by kind.
    pub received: BTreeMap<&'static str, u64>,
    /// Records that Bartizan itself caused and that were left out, by kind.
    pub filtered_self: BTreeMap<&'static str, u64>,
    /// Connection attempts that were told at once without their result, because too many were pending.
    pub pending_full: u64,
    /// Losses since start, of kernel and user space.
    pub lost: Losses,
    /// Losses in the last [`RECENT_LOSS_SECONDS`], skipped runs among them.
    pub recent_loss: u64,
    /// Of these, the runs that the kernel skipped, by program.
    pub recent_skipped: BTreeMap<String, u64>,
    /// Why the last publish that failed did. Kept after recovery.
    pub publish_error: Option<String>,
    /// The first record that could not be decoded.
    pub decode_error: Option<String>,
    /// Processes held, most, and living ones evicted.
    pub table: (usize, usize, u64),
    /// Files of libraries with programs on them.
    pub libraries: Vec<LibraryReport>,
    /// The CPU ceiling.
    pub governor: GovernorReport,
    /// Authentications under way, the most that are held, and those that made room.
    pub transactions: (usize, usize, u64),
    /// Lines of sshd's log that said what PAM had told, and were left out.
    pub said_again: u64,
    /// From the kernel's stamp of a record until its event was on the bus, of each ring.
    pub delays: RingDelays,
    /// Losses of user space alone.
    own: Losses,
    /// When how much was lost, within the window.
    recent: VecDeque<(Instant, Losses)>,
}

/// Delays of the two rings' records: a bulk record wakes nobody.
#[derive(Debug, Clone, Default)]
pub struct RingDelays {
    /// Of the small ring.
    pub priority: Delays,
    /// Of the large one.
    pub bulk: Delays,
}

impl RingDelays {
    /// Counts records that were on the bus at `now`, by their ring and the kernel's stamp (boot clock, nanoseconds).
    fn add(&mut self, stamps: &[(Ring, u64)], now: u64) {
        for (ring, stamp) in stamps {
            let delays = match ring {
                Ring::Priority => &mut self.priority,
                Ring::Bulk => &mut self.bulk,
            };
            delays.add(now.saturating_sub(*stamp));
        }
    }
}

/// The shared numbers and the stop flag.
pub struct Shared {
    counters: PerCpuArray<MapData, u64>,
    /// Every hook, with handles of the attached programs.
    pub hooks: Vec<HookReport>,
    counts: Mutex<Counts>,
    stop: AtomicBool,
}

impl Shared {
    /// Nothing counted yet.
    pub fn new(counters: PerCpuArray<MapData, u64>, hooks: Vec<HookReport>) -> Self {
        Self { counters, hooks, counts: Mutex::default(), stop: AtomicBool::new(false) }
    }

    /// The numbers now: the kernel is asked, so that a loss is in them the moment it happened.
    pub fn counts(&self) -> Counts {
        let mut counts = self.lock();
        match loss::read(&self.counters, &self.hooks) {
            Ok(kernel) => counts.take(kernel),
            Err(error) => tracing::error!(%error, "cannot read the kernel's loss counters"),
        }
        counts.clone()
    }

    /// Asks the thread to drain the rings and end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // The counts are plain numbers: a panic in between leaves none of them wrong.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// Brings the sums up to date with the kernel's counters.
    fn take(&mut self, kernel: KernelCounts) {
        let KernelCounts { emitted: _, filtered_self, pending_full, mut lost } = kernel;
        for (key, count) in &self.own {
            *lost.entry(key.clone()).or_default() += count;
        }
        let new = loss::since(&self.lost, &lost);
        if !new.is_empty() {
            self.recent.push_back((Instant::now(), new));
        }
        while self.recent.front().is_some_and(|(at, _)| at.elapsed().as_secs() >= RECENT_LOSS_SECONDS) {
            self.recent.pop_front();
        }
        (self.recent_loss, self.recent_skipped) = (0, BTreeMap::new());
        for ((kind, reason), count) in self.recent.iter().flat_map(|(_, losses)| losses) {
            self.recent_loss += count;
            if *reason == SKIPPED {
                *self.recent_skipped.entry(kind.clone()).or_default() += count;
            }
        }
        (self.filtered_self, self.pending_full, self.lost) = (filtered_self, pending_full, lost);
    }
}

/// What the thread needs.
pub struct Pipeline {
    /// Reader of the rings.
    pub rings: Rings,
    /// Makes events.
    pub enricher: Enricher,
    /// Where they go.
    pub events: Stream,
    /// Shared numbers.
    pub shared: Arc<Shared>,
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// Losses that an event has told.
    pub told: Losses,
    /// Connection attempts without a result.
    pub pending: PendingMap,
    /// The programs and their links: dropping them detaches.
    pub programs: Option<Ebpf>,
    /// When to take seeds again.
    pub reseed: Reseed,
    /// Packets to closed ports, gathered by source.
    pub probes: MapData,
    /// Files of libraries with programs on them.
    pub libraries: Libraries,
    /// The CPU ceiling.
    pub governor: Governor,
    /// Where the kernel is told to leave bulk kinds out.
    pub shed: Array<MapData, u32>,
    /// Logins for the next run.
    pub logins: LoginsFile,
}

/// When seeds are taken again after records of identity were lost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reseed {
    /// The operator has not turned seeds off.
    pub wanted: bool,
    /// Something was lost since the last time.
    pub due: bool,
    /// The last time.
    pub last: Option<Instant>,
}

impl Pipeline {
    /// Publishes what is known at the beginning: a gap since the last run, the start, the seeds.
    pub fn begin(&mut self, start: Body, gap: Option<Gap>, seeds: Seeds) {
        let now = clock::boot_now();
        let mut events = Vec::new();
        if let Some(gap) = gap {
            events.push(Arc::new(self.enricher.own(now, Severity::Low, Body::Gap(gap))));
        }
        events.push(Arc::new(self.enricher.own(now, Severity::Info, start)));
        let Seeds { found, problem: _ } = seeds;
        self.shared.lock().libraries = self.libraries.report();
        match self.logins.load() {
            Ok(logins) => self.enricher.remember_logins(logins),
            Err(problem) => tracing::warn!("{problem}"),
        }
        events.extend(found.into_iter().filter_map(|seed| self.enricher.event(seed.observation, seed.approximate)).map(Arc::new));
        self.publish(&events);
        self.account();
    }

    /// Runs until [`Shared::stop`], then drains.
    pub fn run(mut self, started: Instant) {
        let (mut ticked, mut beaten, mut reconciled, mut governed) = (Instant::now(), Instant::now(), Instant::now(), Instant::now());
        while !self.shared.stop.load(Ordering::Acquire) {
            self.rings.wait(WAIT);
            let reading = self.rings.read(clock::boot_now());
            self.take(reading);
            if governed.elapsed() >= GOVERN {
                governed = Instant::now();
                self.govern();
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.tick();
            }
            if beaten.elapsed() >= self.heartbeat {
                beaten = Instant::now();
                let body = Body::Heartbeat(Heartbeat { uptime_s: started.elapsed().as_secs() });
                let event = self.enricher.own(clock::boot_now(), Severity::Info, body);
                self.publish(&[Arc::new(event)]);
            }
            if reconciled.elapsed() >= RECONCILE {
                reconciled = Instant::now();
                let gone = gone(self.enricher.table().living());
                self.enricher.forget(&gone);
                self.expire_attempts();
                self.look_for_libraries(true);
            }
        }
        // Nothing new from here on, so the rings come to an end.
        self.programs = None;
        self.take_probes();
        loop {
            let reading = self.rings.drain();
            if reading.is_empty() {
                break;
            }
            self.take(reading);
        }
        self.tick();
        let stop = self.enricher.own(clock::boot_now(), Severity::Info, Body::Stop(Stop { reason: "asked to stop".to_owned() }));
        self.publish(&[Arc::new(stop)]);
        self.account();
    }

    fn take(&mut self, reading: Reading) {
        let Reading { records, undecodable } = reading;
        if let Some((count, error)) = undecodable {
            let mut counts = self.shared.lock();
            *counts.own.entry(("unknown".to_owned(), "decode")).or_default() += count;
            if counts.decode_error.is_none() {
                tracing::error!("a record could not be decoded and is lost; others like it are only counted: {error}");
                counts.decode_error = Some(error);
            }
        }
        if records.is_empty() {
            return;
        }
        // What was gathered in a map has the stamp of its first packet, which says nothing of a ring.
        let ringed = records.iter().filter(|record| record.subject.cpu != NO_CPU);
        let stamps: Vec<(Ring, u64)> = ringed.map(|record| (record.kind.ring(), record.subject.ktime)).collect();
        // An event is large: it is put where it stays at once, and only pointers are gathered.
        let mut events = Vec::with_capacity(records.len());
        events.extend(records.into_iter().filter_map(|record| self.enricher.event(record, false)).map(Arc::new));
        if self.publish(&events) {
            self.shared.lock().delays.add(&stamps, clock::boot_now());
        }
    }

    /// Appends `events` in order. What the stream does not take is counted by kind. Returns whether it took all.
    fn publish(&mut self, events: &[Arc<SecurityEvent>]) -> bool {
        let mut stored = true;
        let mut events = events;
        while !events.is_empty() {
            let (batch, rest) = events.split_at(events.len().min(PUBLISH_BATCH));
            events = rest;
            match self.events.append_typed(batch) {
                Ok(_) => {
                    let mut counts = self.shared.lock();
                    for event in batch {
                        *counts.received.entry(event.kind()).or_default() += 1;
                    }
                }
                Err(error) => {
                    stored = false;
                    let reason = if matches!(error, PublishError::Full { .. }) { "disk_full" } else { "bus_error" };
                    let error = error.to_string();
                    let mut counts = self.shared.lock();
                    for event in batch {
                        *counts.own.entry((event.kind().to_owned(), reason)).or_default() += 1;
                    }
                    if counts.publish_error.as_ref() != Some(&error) {
                        tracing::error!("events are lost: {error}");
                        counts.publish_error = Some(error);
                    }
                }
            }
        }
        stored
    }

    /// Once a second: clocks, names, counters, and an event for what was lost.
    fn tick(&mut self) {
        self.enricher.set_wall_offset(clock::wall_offset());
        self.enricher.refresh_users();
        self.take_probes();
        self.look_for_libraries(false);
        self.remember_logins();
        self.account();
        let all = self.shared.counts().lost;
        let new = loss::since(&self.told, &all);
        if !new.is_empty() {
            let lost =
                new.iter().map(|((kind, reason), count)| KindLoss { kind: kind.clone(), reason: (*reason).to_owned(), count: *count });
            let body = Body::Loss(Loss { lost: lost.collect() });
            tracing::warn!(?new, "records were lost, or runs of a program were skipped");
            let event = self.enricher.own(clock::boot_now(), Severity::Medium, body);
            // What could not be told is told with the next loss that can.
            if self.publish(&[Arc::new(event)]) {
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
        let Seeds { found, problem } = seed::take(iterator, clock::boot_now());
        if let Some(problem) = problem {
            tracing::warn!("{problem}; running processes were read from /proc instead");
        }
        let seeds = found.into_iter().filter_map(|seed| self.enricher.event(seed.observation, seed.approximate));
        let events: Vec<Arc<SecurityEvent>> = seeds.map(Arc::new).collect();
        self.publish(&events);
    }

    /// Removes attempts whose result will not come any more: the program run that would have told it was skipped.
    fn expire_attempts(&mut self) {
        let now = clock::boot_now();
        let old = |pending: &PendingValue| now.saturating_sub(pending.0.header.ktime) > ATTEMPT_MAX.as_nanos() as u64;
        let expired: Vec<u64> = self.pending.iter().flatten().filter(|(_, pending)| old(pending)).map(|(sk, _)| sk).collect();
        // One that is gone by now has got its result after all.
        let removed = expired.iter().filter(|sk| self.pending.remove(sk).is_ok()).count() as u64;
        if removed > 0 {
            *self.shared.lock().own.entry(("network.connect".to_owned(), "no_result")).or_default() += removed;
        }
    }

    /// Puts what the kernel gathered of packets to closed ports among the records.
    fn take_probes(&mut self) {
        match probes::take(&self.probes) {
            Ok(gathered) => gathered.into_iter().for_each(|record| self.rings.add(record)),
            Err(error) => {
                *self.shared.lock().own.entry(("network.probe".to_owned(), "map")).or_default() += 1;
                tracing::error!(%error, "packets to closed ports cannot be taken from the kernel; they are lost");
            }
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

    /// Keeps what the next run would not know.
    fn remember_logins(&mut self) {
        if let Some(logins) = self.enricher.logins()
            && let Err(error) = self.logins.store(logins)
        {
            tracing::warn!(%error, "which process belongs to which login is not saved; after a restart of Bartizan open sessions are not known");
        }
    }

    /// Keeps Bartizan below its CPU ceiling.
    fn govern(&mut self) {
        let Some(shed) = self.governor.step(clock::boot_now(), clock::own_cpu()) else { return };
        match self.shed.set(0, u32::from(shed), 0) {
            Ok(()) if shed => tracing::warn!(
                "Bartizan is at its CPU ceiling (sensor.cpu_limit): connects, accepts and failed execs are left out and counted"
            ),
            Ok(()) => tracing::info!("Bartizan is below its CPU ceiling again: everything is taken"),
            Err(error) => tracing::error!(%error, "the kernel cannot be told to leave bulk kinds out"),
        }
    }

    /// Shares the size of the tables.
    fn account(&mut self) {
        let (table, transactions) = (self.enricher.table(), self.enricher.transactions());
        let mut counts = self.shared.lock();
        counts.table = (table.len(), table.max(), table.evicted());
        counts.transactions = transactions.table();
        counts.said_again = transactions.said_again();
        counts.governor = self.governor.report();
    }
}

/// Kinds that tell who a process is.
fn is_identity(kind: &str) -> bool {
    matches!(kind, "process.exec" | "process.fork" | "process.seed")
}

/// Those of `ids` whose process is no more.
fn gone(ids: Vec<ExecId>) -> Vec<ExecId> {
    let alive = |id: &ExecId| {
        let stat = procfs::process::Process::new(id.pid as i32).and_then(|process| process.stat());
        stat.is_ok_and(|stat| stat.starttime == id.start_ticks())
    };
    ids.into_iter().filter(|id| !alive(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost<const N: usize>(counts: [(&str, &'static str, u64); N]) -> Losses {
        counts.into_iter().map(|(kind, reason, count)| ((kind.to_owned(), reason), count)).collect()
    }

    #[test]
    fn a_skipped_run_is_a_recent_loss_and_told_apart() {
        let mut counts = Counts { own: lost([("unknown", "decode", 2)]), ..Counts::default() };
        let kernel =
            KernelCounts { lost: lost([("process.exec", "ring_full", 5), ("sched_process_exec", SKIPPED, 3)]), ..Default::default() };
        counts.take(kernel.clone());
        assert_eq!((counts.recent_loss, counts.recent_skipped.clone()), (10, BTreeMap::from([("sched_process_exec".to_owned(), 3)])));
        counts.take(KernelCounts { pending_full: 4, ..kernel });
        assert_eq!((counts.recent_loss, counts.pending_full), (10, 4), "nothing was lost since");
    }
}
