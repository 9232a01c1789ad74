//! A bounded table in which the least telling entry makes room.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use crate::detector::TableInfo;

/// What an entry is worth: evidence first, then how recent it is. It follows from the entry alone, so that a restored table makes room in
/// the same order.
pub(super) trait Ranked {
    /// (evidence, last time).
    fn rank(&self) -> (u8, u64);
}

/// Evidence for [`Ranked::rank`]: grows with each doubling, so that of two entries with nearly as much the older goes.
pub(super) fn weight(count: u64) -> u8 {
    u8::try_from(u64::BITS - count.leading_zeros()).unwrap_or(u8::MAX)
}

/// Saved form of a table.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct SavedTable<K, V> {
    #[n(0)]
    entries: Vec<(K, V)>,
    #[n(1)]
    evicted: u64,
}

/// The table.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    name: &'static str,
    max: usize,
    entries: BTreeMap<K, V>,
    order: BTreeSet<((u8, u64), K)>,
    evicted: u64,
}

impl<K: Clone + Ord, V: Ranked + Clone> Table<K, V> {
    pub(super) fn new(name: &'static str, max: usize) -> Self {
        Self { name, max: max.max(1), entries: BTreeMap::new(), order: BTreeSet::new(), evicted: 0 }
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter()
    }

    /// Changes the entry of `key`, if there is one.
    pub(super) fn change<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        let value = self.entries.get_mut(key)?;
        let before = value.rank();
        let result = change(value);
        let after = value.rank();
        if before != after {
            self.order.remove(&(before, key.clone()));
            self.order.insert((after, key.clone()));
        }
        Some(result)
    }

    /// Puts an entry. When that is one too many, the one of lowest rank besides it goes, and is returned.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<(K, V)> {
        self.remove(&key);
        self.order.insert((value.rank(), key.clone()));
        self.entries.insert(key.clone(), value);
        if self.entries.len() <= self.max {
            return None;
        }
        // Whoever comes last stays: else a full table would never let a new one grow.
        let lowest = self.order.iter().map(|(_, other)| other).find(|other| **other != key).or(Some(&key)).cloned()?;
        self.evicted += 1;
        let value = self.remove(&lowest)?;
        Some((lowest, value))
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let value = self.entries.remove(key)?;
        self.order.remove(&(value.rank(), key.clone()));
        Some(value)
    }

    /// Takes out what `over` says.
    pub(super) fn take_if(&mut self, over: impl Fn(&V) -> bool) -> Vec<(K, V)> {
        let keys: Vec<K> = self.entries.iter().filter(|(_, value)| over(value)).map(|(key, _)| key.clone()).collect();
        keys.into_iter().filter_map(|key| self.remove(&key).map(|value| (key, value))).collect()
    }

    /// Forgets all but the count of what made room.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
    }

    pub(super) fn info(&self) -> TableInfo {
        TableInfo { name: self.name, entries: self.entries.len(), bound: self.max, evicted: self.evicted }
    }

    pub(super) fn save(&self) -> SavedTable<K, V> {
        let entries = self.entries.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        SavedTable { entries, evicted: self.evicted }
    }

    /// Takes over a saved table; with less room than it had, the lowest go.
    pub(super) fn restore(&mut self, saved: SavedTable<K, V>) {
        let SavedTable { entries, evicted } = saved;
        self.clear();
        self.order.extend(entries.iter().map(|(key, value)| (value.rank(), key.clone())));
        self.entries.extend(entries);
        self.evicted = evicted;
        while self.entries.len() > self.max
            && let Some((_, lowest)) = self.order.pop_first()
        {
            self.entries.remove(&lowest);
            self.evicted += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Entry(u64, u64);

    impl Ranked for Entry {
        fn rank(&self) -> (u8, u64) {
            (weight(self.0), self.1)
        }
    }

    #[test]
    fn evidence_stays_before_recency_and_the_newest_always_enters() {
        let mut table = Table::new("t", 3);
        for (key, entry) in [(1, Entry(19, 1)), (2, Entry(1, 2)), (3, Entry(1, 3)), (4, Entry(1, 4)), (5, Entry(1, 5))] {
            table.insert(key, entry);
        }
        assert_eq!(table.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [1, 4, 5]);
        assert_eq!(table.info().evicted, 2);
        table.change(&4, |entry| entry.0 = 40);
        assert_eq!(table.insert(6, Entry(0, 0)), Some((5, Entry(1, 5))));
        assert_eq!(table.insert(7, Entry(0, 1)).map(|(key, _)| key), Some(6));
    }

    #[test]
    fn a_restored_table_makes_room_in_the_same_order() {
        let mut table = Table::new("t", 4);
        for key in 0..4 {
            table.insert(key, Entry(u64::from(key) % 2 * 8, 10 - u64::from(key)));
        }
        let mut again = Table::new("t", 4);
        again.restore(table.save());
        for key in 10u32..14 {
            assert_eq!(table.insert(key, Entry(2, 50)), again.insert(key, Entry(2, 50)));
        }
        let mut smaller = Table::new("t", 2);
        smaller.restore(table.save());
        assert_eq!((smaller.info().entries, smaller.info().evicted), (2, table.info().evicted + 2));
    }

    #[test]
    fn weight_doubles() {
        assert_eq!([0, 1, 2, 3, 4, 7, 8, u64::MAX].map(weight), [0, 1, 2, 2, 3, 3, 4, 64]);
    }
}
