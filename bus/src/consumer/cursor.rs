//! Where a consumer is: a state machine without files and clocks.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::log::meta::count_outside;

/// What of a cursor goes to disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) delivered_seq: u64,
    /// (sequence, deliveries) of what is not acknowledged.
    pub(crate) pending: Vec<(u64, u32)>,
    pub(crate) redelivered: u64,
    pub(crate) terminated: u64,
    pub(crate) fell_off_retention: u64,
    pub(crate) unreadable: u64,
}

/// A message that was delivered and not acknowledged.
#[derive(Debug, Clone, Copy)]
struct Pending {
    deliveries: u32,
    /// When it is delivered again; `None` while nobody has the consumer open, or while it is being delivered.
    due: Option<Instant>,
}

/// A consumer's place. Acknowledged is what is at or below `delivered_seq` and not pending.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    delivered_seq: u64,
    pending: BTreeMap<u64, Pending>,
    due: BTreeSet<(Instant, u64)>,
    redelivered: u64,
    terminated: u64,
    fell_off_retention: u64,
    unreadable: u64,
}

impl Cursor {
    pub(crate) fn starting_after(delivered_seq: u64) -> Self {
        Self { delivered_seq, ..Self::default() }
    }

    pub(crate) fn restore(saved: Saved) -> Self {
        let Saved { delivered_seq, pending, redelivered, terminated, fell_off_retention, unreadable } = saved;
        let pending = pending
            .into_iter()
            .filter(|(seq, _)| (1..=delivered_seq).contains(seq))
            .map(|(seq, deliveries)| (seq, Pending { deliveries, due: None }))
            .collect();
        Self { delivered_seq, pending, due: BTreeSet::new(), redelivered, terminated, fell_off_retention, unreadable }
    }

    pub(crate) fn save(&self) -> Saved {
        let Self { delivered_seq, pending, due: _, redelivered, terminated, fell_off_retention, unreadable } = self;
        Saved {
            delivered_seq: *delivered_seq,
            pending: pending.iter().map(|(seq, pending)| (*seq, pending.deliveries)).collect(),
            redelivered: *redelivered,
            terminated: *terminated,
            fell_off_retention: *fell_off_retention,
            unreadable: *unreadable,
        }
    }

    pub(crate) fn delivered_seq(&self) -> u64 {
        self.delivered_seq
    }

    pub(crate) fn ack_pending(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn ack_floor(&self) -> u64 {
        self.pending.first_key_value().map_or(self.delivered_seq, |(seq, _)| seq - 1)
    }

    /// When the next redelivery is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// A new handle owes every unacknowledged message again.
    pub(crate) fn make_all_due(&mut self, now: Instant) {
        self.due = self.pending.keys().map(|seq| (now, *seq)).collect();
        self.pending.values_mut().for_each(|pending| pending.due = Some(now));
    }

    /// The next message to deliver again, and how often it was delivered. Gives up what was delivered often enough.
    pub(crate) fn take_due(&mut self, now: Instant, max_deliver: Option<u32>) -> Option<(u64, u32)> {
        loop {
            let (due, seq) = *self.due.first()?;
            if due > now {
                return None;
            }
            self.due.pop_first();
            let Some(pending) = self.pending.get_mut(&seq) else { continue };
            pending.due = None;
            if max_deliver.is_some_and(|max| pending.deliveries >= max) {
                self.term(seq);
                continue;
            }
            return Some((seq, pending.deliveries));
        }
    }

    /// A message was handed out; it comes again at `due` unless it is acknowledged.
    pub(crate) fn delivered(&mut self, seq: u64, due: Instant) {
        self.delivered_seq = self.delivered_seq.max(seq);
        let pending = self.pending.entry(seq).or_insert(Pending { deliveries: 0, due: None });
        if pending.deliveries > 0 {
            self.redelivered += 1;
        }
        pending.deliveries = pending.deliveries.saturating_add(1);
        self.wait_until(seq, due);
    }

    /// Sets when a pending message comes again.
    pub(crate) fn wait_until(&mut self, seq: u64, due: Instant) {
        if let Some(pending) = self.pending.get_mut(&seq) {
            if let Some(before) = pending.due.replace(due) {
                self.due.remove(&(before, seq));
            }
            self.due.insert((due, seq));
        }
    }

    fn remove(&mut self, seq: u64) -> bool {
        match self.pending.remove(&seq) {
            Some(Pending { deliveries: _, due }) => {
                if let Some(due) = due {
                    self.due.remove(&(due, seq));
                }
                true
            }
            None => false,
        }
    }

    pub(crate) fn ack(&mut self, seq: u64) {
        self.remove(seq);
    }

    pub(crate) fn ack_through(&mut self, seq: u64) {
        self.remove_below(seq.saturating_add(1));
        self.delivered_seq = self.delivered_seq.max(seq);
    }

    /// Removes what is pending below `seq`; gives how many that were.
    fn remove_below(&mut self, seq: u64) -> u64 {
        let mut removed = 0;
        while let Some((&oldest, _)) = self.pending.first_key_value().filter(|(oldest, _)| **oldest < seq) {
            self.remove(oldest);
            removed += 1;
        }
        removed
    }

    pub(crate) fn term(&mut self, seq: u64) {
        self.terminated += u64::from(self.remove(seq));
    }

    /// A pending message is no longer in the stream.
    pub(crate) fn lost(&mut self, seq: u64) {
        self.fell_off_retention += u64::from(self.remove(seq));
    }

    /// A pending message cannot be read.
    pub(crate) fn unreadable(&mut self, seq: u64) {
        self.unreadable += u64::from(self.remove(seq));
    }

    /// `missing` messages up to `seq` cannot be read.
    pub(crate) fn pass_unreadable(&mut self, seq: u64, missing: u64) {
        self.delivered_seq = self.delivered_seq.max(seq);
        self.unreadable += missing;
    }

    /// Retention deleted everything before `first_seq`, except for sequences in `gaps`, which never were.
    pub(crate) fn pass_deleted(&mut self, first_seq: u64, gaps: &[(u64, u64)]) {
        self.fell_off_retention += self.remove_below(first_seq);
        if self.delivered_seq + 1 < first_seq {
            self.fell_off_retention += count_outside(gaps, self.delivered_seq + 1, first_seq - 1);
            self.delivered_seq = first_seq - 1;
        }
    }

    /// The stream ends at `last_seq`: forgets what lies behind.
    pub(crate) fn clamp(&mut self, last_seq: u64) {
        self.delivered_seq = self.delivered_seq.min(last_seq);
        let behind: Vec<u64> = self.pending.range(last_seq.saturating_add(1)..).map(|(seq, _)| *seq).collect();
        for seq in behind {
            self.remove(seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WAIT: Duration = Duration::from_secs(30);

    fn delivered(upto: u64, now: Instant) -> Cursor {
        let mut cursor = Cursor::default();
        for seq in 1..=upto {
            cursor.delivered(seq, now + WAIT);
        }
        cursor
    }

    #[test]
    fn the_floor_waits_for_the_oldest_unacknowledged() {
        let mut cursor = delivered(5, Instant::now());
        assert_eq!(cursor.ack_floor(), 0);
        cursor.ack(1);
        cursor.ack(3);
        assert_eq!(cursor.ack_floor(), 1);
        cursor.ack(2);
        assert_eq!(cursor.ack_floor(), 3);
        cursor.ack_through(5);
        assert_eq!((cursor.ack_floor(), cursor.ack_pending(), cursor.next_due()), (5, 0, None));
        cursor.ack_through(9);
        assert_eq!(cursor.delivered_seq(), 9);
        cursor.ack_through(2);
        assert_eq!(cursor.ack_floor(), 9);
    }

    #[test]
    fn unacknowledged_messages_come_again_until_given_up() {
        let start = Instant::now();
        let mut cursor = delivered(2, start);
        assert_eq!(cursor.take_due(start, Some(2)), None);
        cursor.wait_until(2, start);
        assert_eq!(cursor.take_due(start, Some(2)), Some((2, 1)));
        cursor.delivered(2, start + 2 * WAIT);
        assert_eq!(cursor.take_due(start + WAIT, Some(2)), Some((1, 1)));
        cursor.delivered(1, start + 3 * WAIT);
        assert_eq!(cursor.take_due(start + 9 * WAIT, Some(2)), None);
        let saved = cursor.save();
        assert_eq!((saved.terminated, saved.redelivered, saved.pending), (2, 2, vec![]));
        assert_eq!(cursor.ack_floor(), 2);
    }

    #[test]
    fn a_restored_cursor_owes_what_was_unacknowledged() {
        let now = Instant::now();
        let mut cursor = delivered(4, now);
        cursor.ack(2);
        let saved = cursor.save();
        let mut restored = Cursor::restore(saved.clone());
        assert_eq!(restored.save(), saved);
        assert_eq!(restored.next_due(), None);
        restored.make_all_due(now);
        let due: Vec<_> = std::iter::from_fn(|| restored.take_due(now, None)).collect();
        assert_eq!(due, [(1, 1), (3, 1), (4, 1)]);
    }

    #[test]
    fn what_retention_takes_is_counted_without_the_gaps() {
        let mut cursor = delivered(3, Instant::now());
        cursor.ack(1);
        cursor.pass_deleted(21, &[(10, 19)]);
        // 2 and 3 were unacknowledged; 4 to 9 and 20 were never seen.
        assert_eq!(cursor.save().fell_off_retention, 2 + 6 + 1);
        assert_eq!((cursor.ack_floor(), cursor.delivered_seq()), (20, 20));
        cursor.pass_deleted(21, &[(10, 19)]);
        assert_eq!(cursor.save().fell_off_retention, 9);
    }

    #[test]
    fn clamping_forgets_what_a_power_cut_took() {
        let mut cursor = delivered(9, Instant::now());
        cursor.ack_through(4);
        cursor.clamp(6);
        assert_eq!((cursor.ack_floor(), cursor.delivered_seq(), cursor.ack_pending()), (4, 6, 2));
        cursor.clamp(2);
        assert_eq!((cursor.ack_floor(), cursor.delivered_seq(), cursor.ack_pending()), (2, 2, 0));
    }
}
