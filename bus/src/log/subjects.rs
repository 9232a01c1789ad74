//! What is held of each subject.

use std::collections::{HashMap, VecDeque};

use crate::pattern::Filter;

/// A subject's place in the table.
pub(crate) type Slot = u32;

/// What is held of one subject.
#[derive(Debug, Default)]
pub(crate) struct Subject {
    pub(crate) name: Box<str>,
    /// Messages held.
    pub(crate) count: u64,
    /// Newest sequence ever held; that message may be deleted since.
    pub(crate) last_seq: u64,
    /// (sequence, size) of every message held, where the stream limits messages per subject.
    pub(crate) messages: VecDeque<(u64, u32)>,
    /// Entries of raw segments' indexes that name this slot.
    references: u64,
}

/// All subjects. A slot is given to another subject only when nothing names it any more.
#[derive(Debug, Default)]
pub(crate) struct Subjects {
    by_name: HashMap<Box<str>, Slot, foldhash::fast::RandomState>,
    slots: Vec<Subject>,
    free: Vec<Slot>,
    /// Subjects with messages.
    held: u64,
    /// The slot asked for last: publishers tend to stay with one.
    latest: Slot,
    track: bool,
}

impl Subjects {
    /// `track`: whether every subject's sequences are kept.
    pub(crate) fn new(track: bool) -> Self {
        Self { track, ..Self::default() }
    }

    /// Whether every subject's sequences are kept.
    pub(crate) fn tracks(&self) -> bool {
        self.track
    }

    /// From now on they are.
    pub(crate) fn start_tracking(&mut self) {
        self.track = true;
    }

    /// Subjects with messages.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    pub(crate) fn find(&self, name: &str) -> Option<Slot> {
        match self.slots.get(self.latest as usize) {
            Some(latest) if &*latest.name == name && !name.is_empty() => Some(self.latest),
            _ => self.by_name.get(name).copied(),
        }
    }

    pub(crate) fn get(&self, slot: Slot) -> &Subject {
        &self.slots[slot as usize]
    }

    fn enter(&mut self, name: &str) -> Slot {
        if let Some(slot) = self.find(name) {
            self.latest = slot;
            return slot;
        }
        let subject = Subject { name: name.into(), ..Subject::default() };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = subject;
                slot
            }
            None => {
                self.slots.push(subject);
                (self.slots.len() - 1) as Slot
            }
        };
        self.by_name.insert(name.into(), slot);
        self.latest = slot;
        slot
    }

    /// A message of this subject is held; a raw index names the slot from now on.
    pub(crate) fn add(&mut self, name: &str, seq: u64, size: u64) -> Slot {
        let slot = self.enter(name);
        self.count_in(slot, 1, seq);
        let subject = &mut self.slots[slot as usize];
        subject.references += 1;
        if self.track {
            subject.messages.push_back((seq, u32::try_from(size).unwrap_or(u32::MAX)));
        }
        slot
    }

    fn count_in(&mut self, slot: Slot, count: u64, last_seq: u64) {
        let subject = &mut self.slots[slot as usize];
        self.held += u64::from(subject.count == 0 && count > 0);
        subject.count += count;
        subject.last_seq = subject.last_seq.max(last_seq);
    }

    /// Messages of a sealed segment, which no raw index names.
    pub(crate) fn add_sealed(&mut self, name: &str, count: u64, last_seq: u64) {
        let slot = self.enter(name);
        self.count_in(slot, count, last_seq);
    }

    /// One of them, where sequences are tracked.
    pub(crate) fn track_sealed(&mut self, name: &str, seq: u64, size: u64) {
        let slot = self.enter(name);
        self.slots[slot as usize].messages.push_back((seq, u32::try_from(size).unwrap_or(u32::MAX)));
    }

    /// A message of this subject is gone.
    pub(crate) fn remove(&mut self, name: &str, seq: u64) {
        let Some(slot) = self.find(name) else { return };
        let subject = &mut self.slots[slot as usize];
        if subject.messages.front().is_some_and(|(first, _)| *first == seq) {
            subject.messages.pop_front();
        } else if let Ok(at) = subject.messages.binary_search_by_key(&seq, |(seq, _)| *seq) {
            subject.messages.remove(at);
        }
        self.remove_many(name, 1);
    }

    /// So many messages of this subject are gone, none of them tracked.
    pub(crate) fn remove_many(&mut self, name: &str, count: u64) {
        let Some(slot) = self.find(name) else { return };
        let subject = &mut self.slots[slot as usize];
        let before = subject.count;
        subject.count = before.saturating_sub(count);
        self.held -= u64::from(before > 0 && subject.count == 0);
        self.release(slot);
    }

    /// A raw index does not name this slot any more, so many times.
    pub(crate) fn unreference(&mut self, slot: Slot, times: u64) {
        let subject = &mut self.slots[slot as usize];
        subject.references = subject.references.saturating_sub(times);
        self.release(slot);
    }

    fn release(&mut self, slot: Slot) {
        let subject = &mut self.slots[slot as usize];
        if subject.count == 0 && subject.references == 0 && !subject.name.is_empty() {
            let name = std::mem::take(&mut subject.name);
            subject.messages = VecDeque::new();
            self.by_name.remove(&name);
            self.free.push(slot);
        }
    }

    /// Subjects with messages that pass the filter, in no order.
    pub(crate) fn matching<'a>(&'a self, filter: &'a Filter) -> Box<dyn Iterator<Item = &'a Subject> + 'a> {
        let held = |subject: &&Subject| subject.count > 0;
        let literal = !filter.is_all() && filter.patterns().iter().all(|pattern| pattern.is_literal());
        if literal {
            let mut names: Vec<&str> = filter.patterns().iter().map(|pattern| pattern.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            return Box::new(names.into_iter().filter_map(|name| self.find(name)).map(|slot| self.get(slot)).filter(held));
        }
        Box::new(self.slots.iter().filter(held).filter(|subject| filter.matches(&subject.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_used_again_only_when_nothing_names_it() {
        let mut subjects = Subjects::new(true);
        let a = subjects.add("a", 1, 40);
        assert_eq!(subjects.add("a", 2, 41), a);
        let b = subjects.add("b", 3, 42);
        assert_eq!((subjects.held(), subjects.get(a).count, subjects.get(a).last_seq), (2, 2, 2));
        subjects.remove("a", 2);
        subjects.remove("a", 1);
        assert_eq!((subjects.held(), subjects.get(a).messages.len()), (1, 0));
        let c = subjects.add("c", 4, 43);
        assert!(c != a && c != b, "a raw index still names the slot of a");
        assert_eq!(subjects.find("a"), Some(a));
        subjects.unreference(a, 2);
        assert_eq!(subjects.find("a"), None);
        assert_eq!(subjects.add("d", 5, 44), a);
        assert_eq!(subjects.find("d"), Some(a));
    }
}
