//! Reads the two rings and gives their records in the order of kernel time.
//!
//! Each ring is in the order of its reservations; between the two, a record is held for at most [`HOLD`], so that the other
//! ring's earlier records can overtake it.

use std::os::fd::AsFd;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::project::{Observation, project};

/// How long a record waits for earlier ones of the other ring.
pub const HOLD: Duration = Duration::from_millis(2);

impl Reading {
    /// Nothing was found.
    pub fn is_empty(&self) -> bool {
        let Self { records, undecodable } = self;
        records.is_empty() && undecodable.is_none()
    }
}

/// Records taken from one ring before the other gets its turn.
const BATCH: usize = 4096;

/// The reader of both rings.
pub struct Rings {
    priority: RingBuf<MapData>,
    bulk: RingBuf<MapData>,
    merge: Merge,
}

/// What one reading found.
#[derive(Debug, Default)]
pub struct Reading {
    /// Records, in the order of their time.
    pub records: Vec<Observation>,
    /// Records that could not be decoded, with the first error.
    pub undecodable: Option<(u64, String)>,
}

impl Rings {
    /// A reader of both.
    pub fn new(priority: RingBuf<MapData>, bulk: RingBuf<MapData>) -> Self {
        Self { priority, bulk, merge: Merge::default() }
    }

    /// Waits until something is there, or `timeout` has passed, or held records are due.
    pub fn wait(&self, timeout: Duration) {
        let timeout = if self.merge.is_empty() { timeout } else { HOLD.min(timeout) };
        let mut fds = [PollFd::new(self.priority.as_fd(), PollFlags::POLLIN), PollFd::new(self.bulk.as_fd(), PollFlags::POLLIN)];
        // An interrupted wait is as good as an ended one.
        let _ = poll(&mut fds, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO));
    }

    /// Adds a record that did not come through a ring, in its place by time: it must not overtake what still waits in the rings.
    pub fn add(&mut self, record: Observation) {
        self.merge.push(record);
    }

    /// Takes what is there and gives what is due at `now` (boot clock, nanoseconds, read before the call).
    pub fn read(&mut self, now: u64) -> Reading {
        let mut reading = Reading::default();
        let mut limit = now.saturating_sub(HOLD.as_nanos() as u64);
        for ring in [&mut self.priority, &mut self.bulk] {
            let mut taken = 0;
            let mut last = None;
            while taken < BATCH {
                let Some(item) = ring.next() else { break };
                taken += 1;
                match project(&item) {
                    Ok(record) => {
                        last = Some(record.subject.ktime);
                        self.merge.push(record);
                    }
                    Err(error) => reading.undecodable.get_or_insert_with(|| (0, error.to_string())).0 += 1,
                }
            }
            // There may be more behind a full batch: nothing later than its last record is due yet.
            if let (BATCH, Some(last)) = (taken, last) {
                limit = limit.min(last);
            }
        }
        reading.records = self.merge.due(limit);
        reading
    }

    /// Takes what is there without holding anything back: for the end, again and again until nothing is found.
    pub fn drain(&mut self) -> Reading {
        self.read(u64::MAX)
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
