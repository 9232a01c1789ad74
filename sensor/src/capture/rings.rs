//! Reads the two rings, and brings their records into the order of kernel time.
//!
//! Each ring is in the order of its reservations. Between the two, a record is due once the other ring is known to hold nothing earlier:
//! a ring that was read until it was empty, and is so after both were read, has given everything up to the time at which the reading began, but
//! for what a program stamped and was interrupted with before it reserved (records with a tail take the clock first). A ring that is not empty (it goes on filling, or a record in it is not finished) is trusted up to the last
//! record it gave; behind an unfinished one, records are held for at most [`HOLD`].
//!
//! Records that come close together are taken together (`sensor.ring_gather`): a wake-up and an append cost more than what one record needs.
//! Nor does the kernel wake anybody then: it does so only while this says that it sleeps.

use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use aya::maps::{Array, MapData};
use bartizan_sensor_ebpf::abi::Header;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::ring::{Ring, Taken};
use crate::project::Observation;

/// How long a record waits, at most, for earlier ones of the other ring.
pub const HOLD: Duration = Duration::from_millis(2);

/// Longest time between a program's reservation and its clock that is reckoned with where a ring goes on filling.
const RESERVED: Duration = Duration::from_micros(100);

/// Between two looks for bulk records at least, where nothing else wakes: without it, gathering for no time would be a loop without a rest.
const LOOK_AT_LEAST: Duration = Duration::from_millis(1);

/// For so long after a bulk record, which wakes nobody, others are looked for as often as records are gathered.
const BUSY: Duration = Duration::from_millis(250);

/// The same after a record of the priority ring, which wakes where nobody looks.
const BUSY_PRIORITY: Duration = Duration::from_millis(10);

/// Records taken from one ring before the other gets its turn.
pub const BATCH: usize = 4096;

/// What is shared with the kernel's programs.
pub struct Maps {
    /// Ring for what must not be lost.
    pub priority: Ring,
    /// Ring for bulk.
    pub bulk: Ring,
    /// One word: not 0 while the reader sleeps, so that it is to be woken.
    pub asleep: Array<MapData, u32>,
}

/// The reader of both rings.
pub struct Rings {
    maps: Maps,
    /// The kernel knows that it sleeps. It is told before the last look, and wakes until it is told otherwise.
    asleep: bool,
    /// After something was found, how long the next records are gathered before they are looked for.
    gather: Duration,
    /// The last reading found something.
    found: bool,
    /// It found nothing that was finished, though something was there: a poll would say so at once, again and again.
    blocked: bool,
    /// Until when more records are expected.
    busy: Option<Instant>,
}

/// What one reading found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Records.
    pub taken: usize,
    /// Boot clock, nanoseconds: nothing that is still to come is older, so that what was read up to here has its place.
    pub due: u64,
}

impl Rings {
    /// A reader of both, that gathers for so long.
    pub fn new(maps: Maps, gather: Duration) -> Self {
        Self { maps, asleep: false, gather, found: false, blocked: false, busy: None }
    }

    /// How long records are gathered.
    pub fn gather(&self) -> Duration {
        self.gather
    }

    /// Waits until something is there (in `other` too), or `timeout` has passed, or bulk records may have come, or what is `held` may be due.
    pub fn wait(&mut self, timeout: Duration, held: bool, other: Option<BorrowedFd<'_>>) {
        if self.found {
            self.sleeps(false);
            std::thread::sleep(self.gather.min(timeout));
            return;
        }
        if self.blocked {
            std::thread::sleep(self.gather.max(LOOK_AT_LEAST).min(HOLD).min(timeout));
            return;
        }
        let busy = self.busy.is_some_and(|until| Instant::now() < until);
        // Where it gathers for long, the mark of the bulk ring ends the wait between two bursts.
        let wakes = !busy || self.gather > LOOK_AT_LEAST;
        // A program that asked just before the kernel was told has not handed over its record yet: one short wait more.
        let settling = wakes && self.sleeps(true);
        let timeout = rest(self.gather, busy || settling, held).map_or(timeout, |rest| rest.min(timeout));
        self.poll(PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO), other);
    }

    /// Tells the kernel whether records are to wake; whether that is new to it.
    fn sleeps(&mut self, asleep: bool) -> bool {
        if self.asleep == asleep {
            return false;
        }
        // Where it cannot be told it goes on as before: then every record wakes, or the next wait ends by its timeout.
        if self.maps.asleep.set(0, u32::from(asleep), 0).is_ok() {
            self.asleep = asleep;
        }
        true
    }

    /// Waits for one of the rings, or for `other`.
    fn poll(&self, timeout: PollTimeout, other: Option<BorrowedFd<'_>>) {
        let (priority, bulk) = (self.maps.priority.as_fd(), self.maps.bulk.as_fd());
        // Where there is no other, a ring stands twice.
        let mut fds = [priority, bulk, other.unwrap_or(priority)].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        // An interrupted wait is as good as an ended one.
        let _ = poll(&mut fds, timeout);
    }

    /// Takes what is there and hands it to `each`, ring by ring, as the kernel wrote it. `now`: boot clock, nanoseconds, read before the
    /// call; [`u64::MAX`] holds nothing back, for the end, again and again until nothing is found.
    pub fn read(&mut self, now: u64, mut each: impl FnMut(&[u8])) -> Reading {
        let mut taken = [&mut self.maps.priority, &mut self.maps.bulk].map(|ring| ring.read(BATCH, &mut each));
        // Some programs take the clock first and hand their record over then, so that it may come while the rings are read.
        for (taken, ring) in taken.iter_mut().zip([&self.maps.priority, &self.maps.bulk]) {
            taken.left |= ring.holds();
        }
        let records = taken.iter().map(|taken| taken.records).sum();
        self.found = records > 0;
        self.blocked = !self.found && taken.iter().any(|taken| taken.left);
        if self.found {
            let busy = if taken[1].records > 0 { BUSY } else { BUSY_PRIORITY };
            self.busy = self.busy.max(Some(Instant::now() + busy));
        }
        Reading { taken: records, due: limit(now, &taken) }
    }
}

/// How long is waited at most where nothing was found: not at all limited where nothing is expected. `busy`: records may come; `held`:
/// some wait for their turn.
fn rest(gather: Duration, busy: bool, held: bool) -> Option<Duration> {
    let looks = gather.max(LOOK_AT_LEAST);
    if held { Some(looks.min(HOLD)) } else { busy.then_some(looks) }
}

/// Boot clock of a record, nanoseconds; `None` where the bytes are too short for it.
pub fn record_time(record: &[u8]) -> Option<u64> {
    let bytes = record.get(offset_of!(Header, ktime)..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*bytes))
}

/// Memory for one record at the alignment that decoding asks for: a ring gives it, a file does not.
#[derive(Debug, Default)]
pub struct Aligned(Vec<u64>);

impl Aligned {
    /// `record`, aligned to eight bytes; valid until the next call.
    pub fn copy(&mut self, record: &[u8]) -> &[u8] {
        let words = record.len().div_ceil(8);
        if self.0.len() < words {
            self.0.resize(words, 0);
        }
        let bytes = zerocopy::IntoBytes::as_mut_bytes(self.0.as_mut_slice());
        bytes[..record.len()].copy_from_slice(record);
        &bytes[..record.len()]
    }

    /// Both parts, one after the other, aligned to eight bytes; valid until the next call.
    pub fn join(&mut self, parts: [&[u8]; 2]) -> &[u8] {
        self.copy(&parts.concat())
    }
}

/// Up to which time both rings have given everything, for a reading that began at `now`.
fn limit(now: u64, taken: &[Taken; 2]) -> u64 {
    let of = |taken: &Taken| {
        let Taken { records, last, left } = *taken;
        if !left {
            return now;
        }
        let trusted = last.map_or(0, |last| last.saturating_sub(RESERVED.as_nanos() as u64));
        let held = now.saturating_sub(HOLD.as_nanos() as u64).max(trusted).min(now);
        match last {
            // There may be much more behind a full batch: nothing later than its last record is due yet.
            Some(_) if records == BATCH => held.min(trusted),
            Some(_) | None => held,
        }
    };
    of(&taken[0]).min(of(&taken[1]))
}

/// Records that wait for their turn.
#[derive(Debug, Default)]
pub struct Merge {
    held: Vec<Observation>,
}

impl Merge {
    /// Adds a record.
    pub fn push(&mut self, record: Observation) {
        self.held.push(record);
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Takes the records up to `limit`, oldest first; equal times keep the order in which they came.
    pub fn due(&mut self, limit: u64) -> Vec<Observation> {
        self.held.sort_by_key(|record| record.subject.ktime);
        let split = self.held.partition_point(|record| record.subject.ktime <= limit);
        let rest = self.held.split_off(split);
        std::mem::replace(&mut self.held, rest)
    }
}

#[cfg(test)]
mod tests {
    use bartizan_bus::event::Exit;
    use bartizan_sensor_ebpf::abi::Kind;
    use proptest::prelude::*;

    use super::*;
    use crate::project::{Subject, What};

    fn at(ktime: u64, seq: u32) -> Observation {
        let subject = Subject {
            ktime,
            cpu: 0,
            seq,
            tgid: 1,
            tid: 1,
            start_boottime: 0,
            exec_id: 0,
            uid: 0,
            euid: 0,
            ppid: 0,
            cgroup_id: 1,
            kernel_thread: false,
        };
        Observation { kind: Kind::Exit, subject, what: What::Exit(Exit::default()) }
    }

    #[test]
    fn an_empty_ring_holds_nothing_up_and_a_blocked_one_for_a_while() {
        const NOW: u64 = 1_000_000_000;
        let [hold, reserved] = [HOLD, RESERVED].map(|time| time.as_nanos() as u64);
        let (empty, blocked) = (Taken::default(), Taken { left: true, ..Taken::default() });
        let filling = |last| Taken { records: 3, last: Some(last), left: true };
        assert_eq!(limit(NOW, &[empty, empty]), NOW);
        assert_eq!(limit(NOW, &[empty, blocked]), NOW - hold, "blocked since before");
        assert_eq!(limit(NOW, &[filling(NOW + 5_000), empty]), NOW + 5_000 - reserved, "it goes on filling");
        assert_eq!(limit(NOW, &[empty, filling(NOW + 2 * reserved)]), NOW, "later records of the other ring are not read yet");
        assert_eq!(limit(NOW, &[empty, filling(NOW - 9 * hold)]), NOW - hold);
        let full = Taken { records: BATCH, ..filling(NOW - 9 * hold) };
        assert_eq!(limit(NOW, &[full, empty]), NOW - 9 * hold - reserved, "more of it waits, and may have been stamped before");
        assert_eq!(limit(u64::MAX, &[filling(NOW), empty]), u64::MAX - hold, "at the end all is due");
    }

    #[test]
    fn it_rests_as_long_as_it_gathers_and_never_spins() {
        let ms = Duration::from_millis;
        assert_eq!(rest(ms(10), false, false), None, "nothing is expected");
        assert_eq!(rest(ms(10), true, false), Some(ms(10)));
        assert_eq!(rest(ms(0), true, false), Some(LOOK_AT_LEAST));
        assert_eq!(rest(ms(100), true, true), Some(HOLD), "what is held may be due");
        assert_eq!(rest(ms(1), false, true), Some(ms(1)));
    }

    proptest! {
        #[test]
        fn merging_orders_by_time_and_loses_nothing(times in proptest::collection::vec(0_u64..1000, 0..200), limits in proptest::collection::vec(0_u64..1000, 0..10)) {
            let mut merge = Merge::default();
            for (seq, time) in times.iter().enumerate() {
                merge.push(at(*time, seq as u32));
            }
            let mut limits = limits;
            limits.sort_unstable();
            limits.push(u64::MAX);
            let out: Vec<Observation> = limits.into_iter().flat_map(|limit| merge.due(limit)).collect();
            prop_assert_eq!(out.len(), times.len());
            prop_assert!(out.windows(2).all(|pair| (pair[0].subject.ktime, pair[0].subject.seq) < (pair[1].subject.ktime, pair[1].subject.seq)));
            prop_assert!(merge.is_empty());
        }
    }
}
