//! A store in memory: streams with memory storage, and the model that the log on disk is tested against.
//!
//! Kept simple on purpose: what it answers must be evident.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{Durable, Hint, Limits, Purge, Put, State, Store, StoreError, Stored};
use crate::error::ReadError;
use crate::pattern::Filter;

/// Messages in a map.
#[derive(Debug)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
    durable: watch::Sender<Durable>,
}

#[derive(Debug, Default)]
struct Inner {
    limits: Limits,
    messages: BTreeMap<u64, Stored>,
    subjects: BTreeMap<String, BTreeSet<u64>>,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
    last_time_ns: i64,
    removals: u64,
    closed: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        let inner = Inner { limits, first_seq: 1, ..Inner::default() };
        Self { inner: Mutex::new(inner), durable: watch::Sender::new(Durable { acked_seq: 0, ended: false }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn open(&self) -> Result<(), StoreError> {
        if self.closed { Err(StoreError::Closed) } else { Ok(()) }
    }

    fn remove(&mut self, seq: u64) -> bool {
        let Some(message) = self.messages.remove(&seq) else { return false };
        self.bytes -= message.size();
        self.removals += 1;
        if let Some(seqs) = self.subjects.get_mut(message.subject()) {
            seqs.remove(&seq);
            if seqs.is_empty() {
                self.subjects.remove(message.subject());
            }
        }
        self.first_seq = self.messages.first_key_value().map_or(self.last_seq + 1, |(seq, _)| *seq);
        true
    }

    fn over_limits(&self) -> bool {
        let Limits { max_msgs, max_bytes, .. } = self.limits;
        max_msgs.is_some_and(|max| self.messages.len() as u64 > max) || max_bytes.is_some_and(|max| self.bytes > max)
    }

    fn enforce(&mut self) {
        if let Some(max) = self.limits.max_msgs_per_subject {
            let beyond = |seqs: &BTreeSet<u64>| seqs.iter().copied().take(seqs.len().saturating_sub(max as usize)).collect::<Vec<_>>();
            let gone: Vec<u64> = self.subjects.values().flat_map(beyond).collect();
            gone.into_iter().for_each(|seq| {
                self.remove(seq);
            });
        }
        self.enforce_size();
    }

    fn enforce_size(&mut self) {
        while self.over_limits()
            && let Some((&oldest, _)) = self.messages.first_key_value()
        {
            self.remove(oldest);
        }
    }

    fn put(&mut self, put: &Put<'_>) {
        self.last_seq += 1;
        self.last_time_ns = put.time_ns;
        let message = Stored::copy_of(self.last_seq, put);
        self.bytes += message.size();
        let seqs = self.subjects.entry(put.subject.to_owned()).or_default();
        seqs.insert(self.last_seq);
        let beyond = self.limits.max_msgs_per_subject.filter(|max| seqs.len() as u64 > *max).and_then(|_| seqs.first().copied());
        self.messages.insert(self.last_seq, message);
        if let Some(oldest) = beyond {
            self.remove(oldest);
        }
        self.enforce_size();
    }

    fn matching<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = (&'a String, &'a BTreeSet<u64>)> {
        self.subjects.iter().filter(|(subject, _)| filter.matches(subject))
    }
}

impl Store for MemoryStore {
    fn append(&self, batch: &[Put<'_>]) -> Result<u64, StoreError> {
        let mut inner = self.lock();
        inner.open()?;
        let first = inner.last_seq + 1;
        batch.iter().for_each(|put| inner.put(put));
        Ok(first)
    }

    fn flush(&self) -> Result<(), StoreError> {
        let last_seq = self.lock().last_seq;
        self.durable.send_if_modified(|durable| std::mem::replace(&mut durable.acked_seq, last_seq) != last_seq);
        Ok(())
    }

    fn durable(&self) -> watch::Receiver<Durable> {
        self.durable.subscribe()
    }

    fn synced_seq(&self) -> u64 {
        self.lock().last_seq
    }

    fn state(&self) -> State {
        let inner = self.lock();
        State {
            messages: inner.messages.len() as u64,
            bytes: inner.bytes,
            first_seq: inner.first_seq,
            first_time_ns: inner.messages.first_key_value().map_or(0, |(_, message)| message.time_ns),
            last_seq: inner.last_seq,
            last_time_ns: inner.last_time_ns,
            deleted: (inner.last_seq + 1 - inner.first_seq) - inner.messages.len() as u64,
            subjects: inner.subjects.len() as u64,
            removals: inner.removals,
        }
    }

    fn get(&self, seq: u64) -> Result<Option<Stored>, ReadError> {
        Ok(self.lock().messages.get(&seq).cloned())
    }

    fn next(&self, from: u64, filter: &Filter, _: &mut Hint) -> Result<Option<Stored>, ReadError> {
        let inner = self.lock();
        Ok(inner.messages.range(from..).map(|(_, message)| message).find(|message| filter.matches(message.subject())).cloned())
    }

    fn last(&self, filter: &Filter, up_to: u64) -> Result<Option<Stored>, ReadError> {
        let inner = self.lock();
        Ok(inner.messages.range(..=up_to).rev().map(|(_, message)| message).find(|message| filter.matches(message.subject())).cloned())
    }

    fn last_per_subject(&self, filter: &Filter, up_to: u64) -> Result<Vec<u64>, ReadError> {
        let inner = self.lock();
        let mut seqs: Vec<u64> = inner.matching(filter).filter_map(|(_, seqs)| seqs.range(..=up_to).next_back().copied()).collect();
        seqs.sort_unstable();
        Ok(seqs)
    }

    fn count(&self, from: u64, filter: &Filter) -> Result<u64, ReadError> {
        let inner = self.lock();
        Ok(inner.matching(filter).map(|(_, seqs)| seqs.range(from..).count() as u64).sum())
    }

    fn subjects(&self, filter: &Filter) -> Vec<(String, u64)> {
        self.lock().matching(filter).map(|(subject, seqs)| (subject.clone(), seqs.len() as u64)).collect()
    }

    fn subject_count(&self, subject: &str) -> u64 {
        self.lock().subjects.get(subject).map_or(0, |seqs| seqs.len() as u64)
    }

    fn seq_at(&self, time_ns: i64) -> Result<u64, ReadError> {
        let inner = self.lock();
        Ok(inner.messages.values().find(|message| message.time_ns >= time_ns).map_or(inner.last_seq + 1, |message| message.seq))
    }

    fn deleted(&self) -> Vec<(u64, u64)> {
        let inner = self.lock();
        let mut gaps = Vec::new();
        let mut expected = inner.first_seq;
        for seq in inner.messages.keys().copied().chain([inner.last_seq + 1]) {
            if seq > expected {
                gaps.push((expected, seq - 1));
            }
            expected = seq + 1;
        }
        gaps
    }

    fn delete(&self, seqs: &[u64]) -> Result<u64, StoreError> {
        let mut inner = self.lock();
        inner.open()?;
        Ok(seqs.iter().filter(|seq| inner.remove(**seq)).count() as u64)
    }

    fn purge(&self, purge: &Purge) -> Result<u64, StoreError> {
        let mut inner = self.lock();
        inner.open()?;
        let Purge { filter, below, keep } = purge;
        let mut gone: Vec<u64> = inner
            .messages
            .range(..below.unwrap_or(u64::MAX))
            .filter(|(_, message)| filter.matches(message.subject()))
            .map(|(seq, _)| *seq)
            .collect();
        gone.truncate(gone.len().saturating_sub(usize::try_from(*keep).unwrap_or(usize::MAX)));
        Ok(gone.into_iter().filter(|seq| inner.remove(*seq)).count() as u64)
    }

    fn set_limits(&self, limits: Limits) -> Result<(), StoreError> {
        let mut inner = self.lock();
        inner.limits = limits;
        inner.enforce();
        Ok(())
    }

    fn expire(&self, now_ns: i64) -> Result<(), StoreError> {
        let mut inner = self.lock();
        let Some(max_age) = inner.limits.max_age else { return Ok(()) };
        let limit = now_ns.saturating_sub(i64::try_from(max_age.as_nanos()).unwrap_or(i64::MAX));
        while let Some((&oldest, _)) = inner.messages.first_key_value().filter(|(_, message)| message.time_ns < limit) {
            inner.remove(oldest);
        }
        Ok(())
    }

    fn close(&self) -> Result<(), StoreError> {
        self.lock().closed = true;
        self.flush()?;
        self.durable.send_modify(|durable| durable.ended = true);
        Ok(())
    }

    fn destroy(&self) -> Result<(), StoreError> {
        self.close()?;
        let mut inner = self.lock();
        *inner = Inner { first_seq: 1, closed: true, ..Inner::default() };
        Ok(())
    }
}
