//! What of a consumer goes to disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::super::config::ConsumerConfig;
use super::super::error::ApiError;
use super::{Consumer, Pending, Time};
use crate::store::Store;

/// A consumer's place. Bounded by `max_ack_pending`, and by the number of subjects while a `last_per_subject` consumer begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) created_ns: i64,
    pub(crate) next_seq: u64,
    pub(crate) first: Vec<u64>,
    pub(crate) delivered: (u64, u64),
    pub(crate) ack_floor: (u64, u64),
    /// (stream sequence, consumer sequence, deliveries).
    pub(crate) pending: Vec<(u64, u64, u64)>,
    pub(crate) redelivered: u64,
}

impl Consumer {
    pub(crate) fn save(&self) -> Saved {
        Saved {
            created_ns: self.created_ns,
            next_seq: self.next_seq,
            first: self.first.iter().copied().collect(),
            delivered: self.delivered,
            ack_floor: self.ack_floor,
            pending: self.pending.iter().map(|(seq, pending)| (*seq, pending.cseq, pending.deliveries)).collect(),
            redelivered: self.redelivered,
        }
    }

    /// At the place it had. What was not acknowledged comes again after its wait, which begins anew.
    pub(crate) fn restore(
        stream: &str,
        name: &str,
        config: ConsumerConfig,
        saved: &Saved,
        store: &dyn Store,
        time: Time,
    ) -> Result<Self, ApiError> {
        let mut consumer = Self::new(stream, name, config, store, time)?;
        // After a power cut the stream may end before this place: its sequences went on behind.
        let end = store.state().last_seq;
        consumer.created_ns = saved.created_ns;
        consumer.next_seq = saved.next_seq.clamp(1, end + 1);
        consumer.first = saved.first.iter().copied().filter(|seq| *seq <= end).collect::<VecDeque<u64>>();
        consumer.delivered = (saved.delivered.0, saved.delivered.1.min(end));
        consumer.ack_floor = (saved.ack_floor.0, saved.ack_floor.1.min(end));
        consumer.redelivered = saved.redelivered;
        consumer.pending = BTreeMap::new();
        consumer.due = BTreeSet::new();
        // What a power cut took with it cannot come again.
        for &(seq, cseq, deliveries) in saved.pending.iter().filter(|(seq, ..)| *seq <= end) {
            let due_ns = time.ns.saturating_add(consumer.wait_ns(deliveries));
            consumer.pending.insert(seq, Pending { cseq: cseq.max(1), deliveries, due_ns });
            consumer.due.insert((due_ns, seq));
        }
        consumer.advance_floor();
        consumer.recount(store);
        consumer.dirty = false;
        Ok(consumer)
    }
}
