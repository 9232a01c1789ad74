//! Reads the two rings, and brings their records into the order of kernel time.
//!
//! Each ring is in the order of its reservations; between the two, a record is held for at most [`HOLD`], so that the other
//! ring's earlier records can overtake it.

use std::mem::offset_of;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use bartizan_sensor_ebpf::abi::Header;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::project::Observation;

/// How long a record waits for earlier ones of the other ring.
pub const HOLD: Duration = Duration::from_millis(2);

/// Records taken from one ring before the other gets its turn.
const BATCH: usize = 4096;

/// The reader of both rings.
pub struct Rings {
    priority: RingBuf<MapData>,
    bulk: RingBuf<MapData>,
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
    /// A reader of both.
    pub fn new(priority: RingBuf<MapData>, bulk: RingBuf<MapData>) -> Self {
        Self { priority, bulk }
    }

    /// Waits until something is there (in `other` too), or `timeout` has passed.
    pub fn wait(&self, timeout: Duration, other: Option<BorrowedFd<'_>>) {
        let sources = [Some(self.priority.as_fd()), Some(self.bulk.as_fd()), other];
        let mut fds: Vec<PollFd<'_>> = sources.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // An interrupted wait is as good as an ended one.
        let _ = poll(&mut fds, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO));
    }

    /// Takes what is there and hands it to `each`, ring by ring, as the kernel wrote it. `now`: boot clock, nanoseconds, read before the
    /// call; [`u64::MAX`] holds nothing back, for the end, again and again until nothing is found.
    pub fn read(&mut self, now: u64, mut each: impl FnMut(&[u8])) -> Reading {
        let mut reading = Reading { taken: 0, due: now.saturating_sub(HOLD.as_nanos() as u64) };
        if now == u64::MAX {
            reading.due = u64::MAX;
        }
        for ring in [&mut self.priority, &mut self.bulk] {
            let mut taken = 0;
            let mut last = None;
            while taken < BATCH {
                let Some(item) = ring.next() else { break };
                taken += 1;
                last = record_time(&item).or(last);
                each(&item);
            }
            // There may be more behind a full batch: nothing later than its last record is due yet.
            if let (BATCH, Some(last)) = (taken, last) {
                reading.due = reading.due.min(last);
            }
            reading.taken += taken;
        }
        reading
    }
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
