//! A set of ports, 8 KiB at most.

use minicbor::{Decode, Encode};

/// A set of port numbers as a bit map that is as long as its highest port needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct PortSet {
    #[n(0)]
    words: Vec<u64>,
}

impl PortSet {
    /// Adds `port`; whether it is new.
    pub(super) fn insert(&mut self, port: u16) -> bool {
        let (word, bit) = (usize::from(port / 64), 1 << (port % 64));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }

    pub(super) fn contains(&self, port: u16) -> bool {
        self.words.get(usize::from(port / 64)).is_some_and(|word| word & (1 << (port % 64)) != 0)
    }

    pub(super) fn len(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// In rising order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        let numbered = (0u16..1024).zip(&self.words);
        numbered.flat_map(|(index, word)| (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| index * 64 + bit))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(ports in proptest::collection::vec(any::<u16>(), 0..200), other: u16) {
            let (mut set, mut model) = (PortSet::default(), std::collections::BTreeSet::new());
            for port in ports.iter().chain([&0, &65_535]) {
                prop_assert_eq!(set.insert(*port), model.insert(*port));
            }
            prop_assert_eq!(set.len(), model.len() as u64);
            prop_assert_eq!(set.contains(other), model.contains(&other));
            prop_assert!(set.iter().eq(model));
        }
    }
}
