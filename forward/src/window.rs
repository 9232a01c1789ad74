//! The items between the cursor and what was fetched: which are settled, which must be sent (again).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sink::Item;

/// Items in stream order. The front is always unsettled, so the cursor is the sequence before it.
#[derive(Debug, Default)]
pub(crate) struct Window {
    entries: VecDeque<Entry>,
    bytes: usize,
    open: usize,
    last: u64,
    settled_through: Option<u64>,
}

#[derive(Debug)]
struct Entry {
    seq: u64,
    /// `None` once settled, or if there never was anything to send.
    item: Option<Arc<Item>>,
}

impl Window {
    /// Whether `seq` was already taken in; the stream may deliver a message again that is still in the window.
    pub(crate) fn has_seen(&self, seq: u64) -> bool {
        seq <= self.last
    }

    /// Takes an item in. Items come in stream order.
    pub(crate) fn push(&mut self, item: Arc<Item>) {
        self.bytes += item.stored_bytes;
        self.open += 1;
        self.last = item.seq;
        self.entries.push_back(Entry { seq: item.seq, item: Some(item) });
    }

    /// Takes in a message that is settled without being sent. It moves the cursor once everything before it is settled.
    pub(crate) fn push_settled(&mut self, seq: u64) {
        self.last = seq;
        self.entries.push_back(Entry { seq, item: None });
        self.advance();
    }

    /// Settles `seq`. False if it is not here or was settled before.
    pub(crate) fn settle(&mut self, seq: u64) -> bool {
        let Ok(index) = self.entries.binary_search_by_key(&seq, |entry| entry.seq) else { return false };
        let Some(item) = self.entries[index].item.take() else { return false };
        self.bytes -= item.stored_bytes;
        self.open -= 1;
        self.advance();
        true
    }

    fn advance(&mut self) {
        while let Some(entry) = self.entries.front() {
            if entry.item.is_some() {
                break;
            }
            self.settled_through = Some(entry.seq);
            self.entries.pop_front();
        }
    }

    /// Everything up to and with this sequence is settled; given once per advance.
    pub(crate) fn take_settled(&mut self) -> Option<u64> {
        self.settled_through.take()
    }

    /// What is not settled, oldest first.
    pub(crate) fn unsettled(&self) -> Vec<Arc<Item>> {
        self.entries.iter().filter_map(|entry| entry.item.clone()).collect()
    }

    /// The unsettled item with this sequence.
    pub(crate) fn get(&self, seq: u64) -> Option<&Arc<Item>> {
        let index = self.entries.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
        self.entries[index].item.as_ref()
    }

    /// Number of unsettled items.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Number of entries, settled ones behind an unsettled one included: what the window's bound counts.
    pub(crate) fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Stored bytes of the unsettled items.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shrink::tests::plain_alert;
    use proptest::prelude::*;

    fn item(seq: u64) -> Arc<Item> {
        Arc::new(Item { seq, alert: plain_alert(seq), stored_bytes: 10 })
    }

    #[test]
    fn the_cursor_waits_for_the_oldest() {
        let mut window = Window::default();
        window.push(item(3));
        window.push_settled(4);
        window.push(item(7));
        assert!(window.settle(7));
        assert_eq!(window.take_settled(), None);
        assert_eq!(window.unsettled(), vec![item(3)]);
        assert!(window.settle(3));
        assert!(!window.settle(3));
        assert_eq!(window.take_settled(), Some(7));
        assert_eq!(window.take_settled(), None);
        assert_eq!((window.entries(), window.open(), window.bytes()), (0, 0, 0));
        assert!(window.has_seen(7) && !window.has_seen(8));
    }

    proptest! {
        /// Settling in any order moves the cursor to exactly the longest settled prefix.
        #[test]
        fn the_cursor_is_the_settled_prefix(skip in prop::collection::vec(any::<bool>(), 1..40), order in prop::collection::vec(any::<prop::sample::Index>(), 0..60)) {
            let mut window = Window::default();
            let mut settled = vec![false; skip.len()];
            let mut cursor = 0;
            for (index, skip) in skip.iter().enumerate() {
                let seq = index as u64 + 1;
                if *skip { window.push_settled(seq); settled[index] = true; } else { window.push(item(seq)); }
            }
            for pick in order {
                let index = pick.index(skip.len());
                prop_assert_eq!(window.settle(index as u64 + 1), !settled[index]);
                settled[index] = true;
                cursor = window.take_settled().unwrap_or(cursor);
                prop_assert_eq!(cursor, settled.iter().take_while(|settled| **settled).count() as u64);
                prop_assert_eq!(window.open(), settled.iter().filter(|settled| !**settled).count());
                prop_assert_eq!(window.bytes(), window.open() * 10);
            }
        }
    }
}
