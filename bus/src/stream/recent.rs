//! The last messages of a stream in memory, so that whoever keeps up shares them and reads nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use super::read::{MAX_READ_BYTES, Read};
use crate::message::Delivery;
use crate::pattern::Filter;

/// At most so many are held: several batches of the capture thread, which a module works off in some milliseconds.
const MAX_HELD: usize = 2048;
/// Nor more than so many bytes of payload, but for one message.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Messages with consecutive sequences up to the newest one.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    held: VecDeque<Arc<Delivery>>,
    bytes: usize,
}

impl Recent {
    pub(super) fn push(&mut self, delivery: Arc<Delivery>) {
        if self.held.back().is_some_and(|newest| newest.seq + 1 != delivery.seq) {
            self.clear();
        }
        self.bytes += delivery.payload.len();
        self.held.push_back(delivery);
        while self.held.len() > MAX_HELD || (self.bytes > MAX_BYTES && self.held.len() > 1) {
            if let Some(oldest) = self.held.pop_front() {
                self.bytes -= oldest.payload.len();
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What [`super::Inner::read`] gives, if it can be told without the log. What is newer than `last_seq` is not told yet.
    pub(super) fn read(&self, from: u64, max: usize, filter: &Filter, last_seq: u64) -> Option<Read> {
        let oldest = self.held.front()?.seq;
        let at = usize::try_from(from.checked_sub(oldest)?).ok().filter(|at| *at < self.held.len())?;
        let mut read = Read { found: Vec::new(), next_seq: from, from_log: false };
        let mut bytes = 0;
        for delivery in self.held.range(at..).take_while(|delivery| delivery.seq <= last_seq) {
            if filter.matches(delivery.subject.as_str()) {
                if read.found.len() >= max || bytes > MAX_READ_BYTES {
                    break;
                }
                bytes += delivery.payload.len();
                read.found.push(Arc::clone(delivery));
            }
            read.next_seq = delivery.seq + 1;
        }
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, Value};

    fn delivery(seq: u64, bytes: usize) -> Arc<Delivery> {
        let subject = if seq.is_multiple_of(2) { "a.even" } else { "a.odd" };
        let message = Message { subject: subject.parse().expect("subject"), msg_id: None, time_ns: 0, payload: vec![0; bytes].into() };
        Arc::new(Delivery::published(seq, &message, Value::default()))
    }

    fn seqs(read: &Read) -> Vec<u64> {
        read.found.iter().map(|delivery| delivery.seq).collect()
    }

    #[test]
    fn it_tells_only_what_it_knows_whole() {
        let mut recent = Recent::default();
        assert!(recent.read(1, 9, &Filter::all(), 99).is_none());
        (5..=9).for_each(|seq| recent.push(delivery(seq, 1)));
        assert!(recent.read(4, 9, &Filter::all(), 99).is_none(), "older than what is held");
        assert!(recent.read(10, 9, &Filter::all(), 99).is_none(), "not there yet");
        assert_eq!(recent.read(5, 9, &Filter::all(), 6).map(|read| (seqs(&read), read.next_seq)), Some((vec![5, 6], 7)));
        let read = recent.read(6, 2, &Filter::all(), 99).expect("held");
        assert_eq!((seqs(&read), read.next_seq), (vec![6, 7], 8));
        let even = Filter::from("a.even".parse::<crate::pattern::Pattern>().expect("pattern"));
        let read = recent.read(5, 2, &even, 99).expect("held");
        assert_eq!((seqs(&read), read.next_seq), (vec![6, 8], 10), "9 does not match, so it is passed too");
        let read = recent.read(9, 2, &even, 99).expect("held");
        assert_eq!((seqs(&read), read.next_seq), (vec![], 10));
    }

    #[test]
    fn behind_a_gap_it_begins_anew() {
        let mut recent = Recent::default();
        [1, 2, 5].into_iter().for_each(|seq| recent.push(delivery(seq, 1)));
        assert!(recent.read(2, 9, &Filter::all(), 99).is_none() && recent.read(5, 9, &Filter::all(), 99).is_some());
    }

    #[test]
    fn it_is_bounded_in_messages_and_bytes() {
        let mut recent = Recent::default();
        (1..=10_000).for_each(|seq| recent.push(delivery(seq, 1)));
        assert_eq!((recent.held.len(), recent.bytes), (MAX_HELD, MAX_HELD));
        (10_001..=10_010).for_each(|seq| recent.push(delivery(seq, 1024 * 1024)));
        assert_eq!((recent.held.len(), recent.bytes), (4, MAX_BYTES));
        recent.push(delivery(10_011, 2 * MAX_BYTES));
        assert_eq!(recent.held.len(), 1, "the newest is always there");
    }
}
