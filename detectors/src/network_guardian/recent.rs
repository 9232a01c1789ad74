//! Distinct keys of a sliding window.

use minicbor::{Decode, Encode};

/// Distinct keys, each with the time at which it was last seen, the newest of them.
///
/// With room for `n` the question "were there at least `n` within the window" has the exact answer, because only the oldest make room.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Recent<K> {
    /// Oldest first.
    #[n(0)]
    seen: Vec<(K, u64)>,
}

impl<K: Copy + Eq> Recent<K> {
    pub(super) fn new() -> Self {
        Self { seen: Vec::new() }
    }

    /// Notes `key` at boot time `now`; the oldest beyond `max` are forgotten.
    pub(super) fn note(&mut self, key: K, now: u64, max: usize) {
        // Events of one second may come in another order than they happened in.
        let now = self.remove(&key).map_or(now, |before| before.max(now));
        let place = self.seen.partition_point(|(_, time)| *time <= now);
        self.seen.insert(place, (key, now));
        if self.seen.len() > max {
            self.seen.drain(..self.seen.len() - max);
        }
    }

    /// Forgets `key`; when it was last seen, if it was.
    pub(super) fn remove(&mut self, key: &K) -> Option<u64> {
        let place = self.seen.iter().position(|(known, _)| known == key)?;
        Some(self.seen.remove(place).1)
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.seen.iter().any(|(known, _)| known == key)
    }

    /// Keys seen at or after `from`, oldest first.
    pub(super) fn since(&self, from: u64) -> impl Iterator<Item = K> + '_ {
        let first = self.seen.partition_point(|(_, time)| *time < from);
        self.seen[first..].iter().map(|(key, _)| *key)
    }

    /// How many keys were seen at or after `from`.
    pub(super) fn count_since(&self, from: u64) -> usize {
        self.seen.len() - self.seen.partition_point(|(_, time)| *time < from)
    }

    /// Time of the oldest key seen at or after `from`.
    pub(super) fn first_since(&self, from: u64) -> Option<u64> {
        self.seen.iter().map(|(_, time)| *time).find(|time| *time >= from)
    }

    /// Forgets what was last seen before `from`.
    pub(super) fn prune(&mut self, from: u64) {
        self.seen.retain(|(_, time)| *time >= from);
    }

    pub(super) fn clear(&mut self) {
        self.seen.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_counts_once_and_at_its_last_time() {
        let mut recent = Recent::new();
        for (key, now) in [(1, 10), (2, 20), (1, 30), (3, 25)] {
            recent.note(key, now, 10);
        }
        assert_eq!(recent.since(0).collect::<Vec<_>>(), [2, 3, 1]);
        assert_eq!((recent.count_since(21), recent.count_since(31), recent.first_since(21)), (2, 0, Some(25)));
    }

    proptest! {
        #[test]
        fn the_window_is_exact_up_to_the_bound(steps in proptest::collection::vec((0u16..30, 0u64..9), 0..120), max in 1usize..12, back in 0u64..60) {
            let (mut recent, mut now, mut all) = (Recent::new(), 100, std::collections::BTreeMap::new());
            for (key, step) in steps {
                now += step;
                recent.note(key, now, max);
                all.insert(key, now);
            }
            let exact = all.values().filter(|time| **time >= now - back).count();
            prop_assert_eq!(recent.count_since(now - back), exact.min(max));
            prop_assert_eq!(recent.since(now - back).count(), exact.min(max));
        }
    }
}
