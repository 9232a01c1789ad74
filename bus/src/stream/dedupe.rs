//! Message ids seen within the duplicate window, by message time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::error::ReadError;
use crate::headers;
use crate::pattern::Filter;
use crate::store::{Hint, Store};

/// Bounds on remembered ids, whichever comes first: about 20 MB with ids of ordinary length, 30 at most. Forgetting earlier than the window
/// demands is counted.
const MAX_IDS: usize = 128 * 1024;
const MAX_ID_BYTES: usize = 16 * 1024 * 1024;

/// Tells the message id, sequence and time of every message that is at most a window older than `newest_ns`, in order. What does not read
/// back is reported to whoever reads it; here it only means some ids less.
pub(crate) fn ids_of_window(store: &dyn Store, newest_ns: i64, window: Duration, mut each: impl FnMut(Option<&str>, u64, i64)) {
    let since = newest_ns.saturating_sub(i64::try_from(window.as_nanos()).unwrap_or(i64::MAX));
    let Ok(mut from) = store.seq_at(since) else { return };
    let (all, mut hint) = (Filter::all(), Hint::default());
    loop {
        match store.next(from, &all, &mut hint) {
            Ok(Some(message)) => {
                from = message.seq + 1;
                each(headers::get(message.headers(), headers::MSG_ID), message.seq, message.time_ns);
            }
            Err(ReadError::Damaged { .. }) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

/// The ids of a stream's newest messages.
#[derive(Debug)]
pub(crate) struct Dedupe {
    window_ns: i64,
    max_ids: usize,
    seen: HashMap<Arc<str>, Seen>,
    order: VecDeque<(Arc<str>, Seen)>,
    /// Of the ids in `order`.
    id_bytes: usize,
    forgotten_early: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    seq: u64,
    time_ns: i64,
}

impl Dedupe {
    pub(crate) fn new(window: Duration) -> Self {
        Self::with_max_ids(window, MAX_IDS)
    }

    fn with_max_ids(window: Duration, max_ids: usize) -> Self {
        let window_ns = i64::try_from(window.as_nanos()).unwrap_or(i64::MAX);
        Self { window_ns, max_ids, seen: HashMap::new(), order: VecDeque::new(), id_bytes: 0, forgotten_early: 0 }
    }

    /// The sequence of the message with this id, when it is not older than the window at `time_ns`.
    pub(crate) fn find(&self, msg_id: &str, time_ns: i64) -> Option<u64> {
        let seen = self.seen.get(msg_id)?;
        (time_ns.saturating_sub(seen.time_ns) <= self.window_ns).then_some(seen.seq)
    }

    /// Remembers an appended message.
    pub(crate) fn insert(&mut self, msg_id: &str, seq: u64, time_ns: i64) {
        let seen = Seen { seq, time_ns };
        let id: Arc<str> = msg_id.into();
        self.seen.insert(Arc::clone(&id), seen);
        self.id_bytes += id.len();
        self.order.push_back((id, seen));
        while let Some((_, oldest)) = self.order.front() {
            let expired = time_ns.saturating_sub(oldest.time_ns) > self.window_ns;
            if !expired && self.order.len() <= self.max_ids && self.id_bytes <= MAX_ID_BYTES {
                break;
            }
            let Some((id, oldest)) = self.order.pop_front() else { break };
            self.id_bytes -= id.len();
            if self.seen.get(&id) == Some(&oldest) {
                self.seen.remove(&id);
                self.forgotten_early += u64::from(!expired);
            }
        }
    }

    /// How many ids were forgotten within their window because there were too many.
    pub(crate) fn forgotten_early(&self) -> u64 {
        self.forgotten_early
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_duplicate_within_the_window_only() {
        let mut ids = Dedupe::new(Duration::from_nanos(100));
        ids.insert("a", 1, 1_000);
        assert_eq!(ids.find("a", 1_100), Some(1));
        assert_eq!(ids.find("a", 900), Some(1));
        assert_eq!(ids.find("a", 1_101), None);
        assert_eq!(ids.find("b", 1_000), None);
        ids.insert("a", 2, 1_200);
        ids.insert("c", 3, 1_250);
        assert_eq!(ids.find("a", 1_260), Some(2), "the older entry of the same id must not take the newer one with it");
        assert_eq!(ids.forgotten_early(), 0);
    }

    #[test]
    fn too_many_ids_are_forgotten_and_counted() {
        let mut ids = Dedupe::with_max_ids(Duration::from_secs(1), 2);
        for (seq, id) in [(1, "a"), (2, "b"), (3, "c")] {
            ids.insert(id, seq, 0);
        }
        assert_eq!((ids.find("a", 0), ids.find("b", 0), ids.find("c", 0)), (None, Some(2), Some(3)));
        assert_eq!(ids.forgotten_early(), 1);
    }

    #[test]
    fn long_ids_are_bounded_by_their_bytes() {
        let mut ids = Dedupe::new(Duration::from_secs(1));
        let id = |seq: u64| format!("{seq:0>60000}");
        (1..=300).for_each(|seq| ids.insert(&id(seq), seq, 0));
        assert!(ids.id_bytes <= MAX_ID_BYTES && ids.forgotten_early() == 300 - ids.order.len() as u64);
        assert_eq!((ids.find(&id(1), 0), ids.find(&id(300), 0)), (None, Some(300)));
    }
}
