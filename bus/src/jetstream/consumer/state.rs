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
    /// The module that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<String>,
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
            owner: self.owner.clone(),
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
        // Not by its deliver policy, which is done with: what does not read back in the stream keeps no consumer from its place.
        let mut consumer = Self::at(stream, name, config, 1, VecDeque::new(), time)?;
        // After a power cut the stream may end before this place: its sequences went on behind.
        let end = store.state().last_seq;
        consumer.created_ns = saved.created_ns;
        consumer.next_seq = saved.next_seq.clamp(1, end + 1);
        consumer.first = saved.first.iter().copied().filter(|seq| *seq <= end).collect::<VecDeque<u64>>();
        consumer.delivered = (saved.delivered.0, saved.delivered.1.min(end));
        consumer.ack_floor = (saved.ack_floor.0, saved.ack_floor.1.min(end));
        consumer.redelivered = saved.redelivered;
        consumer.owner.clone_from(&saved.owner);
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

#[cfg(test)]
mod tests {
    use super::super::super::config::{AckPolicy, StreamConfig};
    use super::*;
    use crate::store::{Limits, MemoryStore, Put};

    #[test]
    fn a_place_behind_the_end_of_its_stream_comes_back_to_the_end() {
        let store = MemoryStore::new(Limits::default());
        for _ in 0..10 {
            store.append(&[Put { subject: "s", headers: b"", payload: b"x", time_ns: 1 }]).expect("append");
        }
        let config = ConsumerConfig { durable_name: "c".to_owned(), ack_policy: AckPolicy::Explicit, ..Default::default() };
        let stream = StreamConfig { name: "S".to_owned(), ..Default::default() }.checked().expect("a stream");
        let config = config.checked(&stream).expect("a consumer");
        // As after a power cut that took 11 to 20 out of the stream and left the place.
        let saved = Saved {
            next_seq: 21,
            first: vec![3, 15],
            delivered: (20, 20),
            ack_floor: (7, 7),
            pending: vec![(8, 8, 1), (12, 12, 2), (20, 20, 1)],
            owner: Some("scanner".to_owned()),
            ..Saved::default()
        };
        let time = Time { ns: 1, wall_ns: 1 };
        let mut consumer = Consumer::restore("S", "c", config.clone(), &saved, &store, time).expect("restored");
        assert_eq!((consumer.delivered, consumer.ack_floor, consumer.num_ack_pending()), ((20, 10), (7, 7), 1));
        assert_eq!(consumer.num_pending(&store), 1, "3 is to come, 15 is gone");
        assert_eq!(["scanner", "probe"].map(|module| consumer.is_for(Some(module))), [true, false]);
        assert_eq!(consumer.save().owner, saved.owner);
        let all_gone = Saved { pending: vec![(12, 12, 2)], ack_floor: (11, 11), ..saved };
        let consumer = Consumer::restore("S", "c", config, &all_gone, &store, time).expect("restored");
        assert_eq!((consumer.delivered, consumer.ack_floor), ((20, 10), (20, 10)));
    }
}
