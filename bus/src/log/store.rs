//! The log as a [`Store`].

use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::{Log, lock};
use crate::config::SyncPolicy;
use crate::error::ReadError;
use crate::pattern::Filter;
use crate::store::{Durable, Hint, Limits, Purge, Put, State, Store, StoreError, Stored};

impl Store for Log {
    fn append(&self, batch: &[Put<'_>]) -> Result<u64, StoreError> {
        self.append_batch(batch)
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.write_out()?;
        if !self.config.background && self.config.sync == SyncPolicy::Always {
            self.sync_once().map_err(|source| StoreError::Io { action: "sync", path: self.dir.clone(), source })?;
        }
        Ok(())
    }

    fn durable(&self) -> watch::Receiver<Durable> {
        self.durable.subscribe()
    }

    fn synced_seq(&self) -> u64 {
        self.synced.borrow().seq
    }

    fn lost(&self, seq: u64) -> bool {
        self.counters.lost.load(Ordering::Relaxed) > 0 && lock(&self.core).gaps.iter().any(|(first, last)| (*first..=*last).contains(&seq))
    }

    fn state(&self) -> State {
        let core = lock(&self.core);
        State {
            messages: core.messages,
            bytes: core.bytes,
            first_seq: core.first_seq,
            first_time_ns: if core.messages == 0 { 0 } else { core.first_time_ns },
            last_seq: core.next_seq - 1,
            last_time_ns: core.last_time_ns,
            deleted: (core.next_seq - core.first_seq) - core.messages,
            subjects: core.subjects.held(),
            removals: core.removals,
        }
    }

    fn get(&self, seq: u64) -> Result<Option<Stored>, ReadError> {
        self.read_one(seq)
    }

    fn next(&self, from: u64, filter: &Filter, _: &mut Hint) -> Result<Option<Stored>, ReadError> {
        self.read_next(from, filter)
    }

    fn last(&self, filter: &Filter, up_to: u64) -> Result<Option<Stored>, ReadError> {
        self.read_last(filter, up_to)
    }

    fn last_per_subject(&self, filter: &Filter, up_to: u64) -> Result<Vec<u64>, ReadError> {
        self.newest_of_each(filter, up_to)
    }

    fn count(&self, from: u64, filter: &Filter) -> Result<u64, ReadError> {
        self.count_passing(from, filter)
    }

    fn subjects(&self, filter: &Filter) -> Vec<(String, u64)> {
        let core = lock(&self.core);
        let mut subjects: Vec<(String, u64)> =
            core.subjects.matching(filter).map(|subject| (subject.name.to_string(), subject.count)).collect();
        subjects.sort_unstable();
        subjects
    }

    fn subject_count(&self, subject: &str) -> u64 {
        let core = lock(&self.core);
        core.subjects.find(subject).map_or(0, |slot| core.subjects.get(slot).count)
    }

    fn seq_at(&self, time_ns: i64) -> Result<u64, ReadError> {
        self.first_since(time_ns)
    }

    fn deleted(&self) -> Vec<(u64, u64)> {
        let core = lock(&self.core);
        let mut gaps: Vec<(u64, u64)> = Vec::new();
        let mut expected = core.first_seq;
        let mut seq = core.first_seq;
        while seq < core.next_seq {
            let Some(at) = core.segment_at(seq) else { break };
            let segment = &core.segments[at];
            let Some(live) = segment.next_live(seq) else {
                seq = segment.end_seq;
                continue;
            };
            if live > expected {
                gaps.push((expected, live - 1));
            }
            // To the end of the run of messages that are held.
            let place = segment.place(live);
            let end = segment
                .deleted
                .range(place..)
                .next()
                .map_or(segment.end_seq, |next| segment.first_seq + u64::from(next))
                .min(segment.end_seq);
            expected = end;
            seq = end;
        }
        if expected < core.next_seq {
            gaps.push((expected, core.next_seq - 1));
        }
        gaps
    }

    fn delete(&self, seqs: &[u64]) -> Result<u64, StoreError> {
        self.delete_messages(seqs)
    }

    fn purge(&self, purge: &Purge) -> Result<u64, StoreError> {
        self.purge_messages(purge)
    }

    fn set_limits(&self, limits: Limits) -> Result<(), StoreError> {
        self.change_limits(limits)
    }

    fn expire(&self, now_ns: i64) -> Result<(), StoreError> {
        self.expire_at(now_ns)
    }

    fn compact(&self) {
        self.rewrite_all();
    }

    fn close(&self) -> Result<(), StoreError> {
        self.shut()
    }

    fn destroy(&self) -> Result<(), StoreError> {
        let closed = self.shut();
        self.vfs.remove_dir_all(&self.dir).map_err(|source| StoreError::Io { action: "delete", path: self.dir.clone(), source })?;
        if let Some(parent) = self.dir.parent() {
            self.vfs.sync_dir(parent).map_err(|source| StoreError::Io { action: "sync", path: parent.to_owned(), source })?;
        }
        closed
    }
}
