//! What is counted on the way from the kernel to the bus, and shared with `status`: nothing is lost, left out or put off without a number here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use aya::maps::{MapData, PerCpuArray};
use bartizan_sensor_ebpf::abi::Ring;

use crate::capture::files::FilesReport;
use crate::capture::ignore::IgnoreReport;
use crate::capture::libraries::LibraryReport;
use crate::capture::load::HookReport;
use crate::capture::loss::{self, KernelCounts, Losses};
use crate::delay::Delays;
use crate::enrich::auth::Transactions;
use crate::enrich::clock;
use crate::enrich::container::known::{Known, KnownReport};
use crate::enrich::table::Table;
use crate::governor::GovernorReport;
use crate::hash::HashCounts;
use crate::status::{KernelStatus, RECENT_LOSS_SECONDS, SKIPPED};

/// Numbers that the capture thread shares with `status`.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Events made, by kind.
    pub received: BTreeMap<&'static str, u64>,
    /// Records that Bartizan itself caused and that were left out, by kind.
    pub filtered_self: BTreeMap<&'static str, u64>,
    /// Records that were left out as the configuration says (`sensor.ignore`, `sensor.only`, `files.ignore`), by kind.
    pub filtered: BTreeMap<&'static str, u64>,
    /// What the configuration leaves out.
    pub ignore: Vec<IgnoreReport>,
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
    /// Watched files.
    pub files: FilesReport,
    /// Account files that cannot be read now, with the reason.
    pub accounts: Vec<String>,
    /// The CPU ceiling.
    pub governor: GovernorReport,
    /// What Bartizan needs of the kernel.
    pub kernel: KernelStatus,
    /// Authentications under way, the most that are held, and those that made room.
    pub transactions: (usize, usize, u64),
    /// Lines of sshd's log that said what PAM had told, and were left out.
    pub said_again: u64,
    /// From the kernel's stamp of a record until its event was on the bus, of each ring.
    pub delays: RingDelays,
    /// Containers.
    pub containers: KnownReport,
    /// Hashes of executables.
    pub hashes: HashCounts,
    /// Of [`Self::filtered`], those that user space left out: the kernel's programs do not see what fanotify tells.
    own_filtered: BTreeMap<&'static str, u64>,
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
    /// What else is counted.
    pub tally: Arc<Tally>,
    stop: AtomicBool,
}

impl Shared {
    /// Nothing counted yet.
    pub fn new(counters: PerCpuArray<MapData, u64>, hooks: Vec<HookReport>) -> Self {
        Self { counters, hooks, tally: Arc::default(), stop: AtomicBool::new(false) }
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

    /// Whether that was asked.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// So many records of this kind are lost, for this reason.
    pub(crate) fn lose(&self, kind: &str, reason: &'static str, count: u64) {
        if count > 0 {
            *self.lock().own.entry((kind.to_owned(), reason)).or_default() += count;
        }
    }

    /// User space leaves out so many events of this kind, as the configuration says.
    pub(crate) fn leave_out(&self, kind: &'static str, count: u64) {
        *self.lock().own_filtered.entry(kind).or_default() += count;
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Counts> {
        self.tally.lock()
    }
}

/// [`Counts`] that several may add to.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

impl Tally {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        // The counts are plain numbers: a panic in between leaves none of them wrong.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The numbers as far as user space knows them.
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// Events of these kinds are stored.
    pub(crate) fn received(&self, kinds: impl Iterator<Item = &'static str>) {
        let mut counts = self.lock();
        kinds.for_each(|kind| *counts.received.entry(kind).or_default() += 1);
    }

    /// Records with these stamps (boot clock, nanoseconds) are on the bus now. Of a replay this says nothing.
    pub(crate) fn arrived(&self, stamps: &[(Ring, u64)]) {
        let now = clock::boot_now();
        self.lock().delays.add(stamps, now);
    }

    /// Events of these kinds are lost, because the stream did not take them.
    pub(crate) fn unpublished(&self, kinds: impl Iterator<Item = &'static str>, reason: &'static str, error: String) {
        let mut counts = self.lock();
        kinds.for_each(|kind| *counts.own.entry((kind.to_owned(), reason)).or_default() += 1);
        if counts.publish_error.as_ref() != Some(&error) {
            tracing::error!("events are lost: {error}");
            counts.publish_error = Some(error);
        }
    }

    /// So many records are no records of this build, and lost.
    pub(crate) fn undecodable(&self, count: u64, error: String) {
        let mut counts = self.lock();
        *counts.own.entry(("unknown".to_owned(), "decode")).or_default() += count;
        if counts.decode_error.is_none() {
            tracing::error!("a record could not be decoded and is lost; others like it are only counted: {error}");
            counts.decode_error = Some(error);
        }
    }

    /// Sizes of the tables.
    pub(crate) fn sizes(&self, table: &Table, transactions: &Transactions, containers: &Known, hashes: HashCounts) {
        let containers = containers.report();
        let mut counts = self.lock();
        counts.containers = containers;
        counts.table = (table.len(), table.max(), table.evicted());
        counts.transactions = transactions.table();
        counts.said_again = transactions.said_again();
        counts.hashes = hashes;
    }
}

impl Counts {
    /// Losses of user space: what could not be decoded, or not be stored.
    pub fn own_losses(&self) -> &Losses {
        &self.own
    }

    /// Brings the sums up to date with the kernel's counters.
    fn take(&mut self, kernel: KernelCounts) {
        let KernelCounts { emitted: _, filtered_self, mut filtered, pending_full, mut lost } = kernel;
        for (key, count) in &self.own {
            *lost.entry(key.clone()).or_default() += count;
        }
        for (kind, count) in &self.own_filtered {
            *filtered.entry(kind).or_default() += count;
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
        (self.filtered_self, self.filtered, self.pending_full, self.lost) = (filtered_self, filtered, pending_full, lost);
    }
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
