//! All sources of attempts, each with its history, bounded in number and in what they hold together.

use std::collections::BTreeMap;
use std::net::IpAddr;

use minicbor::{Decode, Encode};

use super::attack::Attack;
use super::attempt::Source;
use super::history::History;
use super::hits::Hits;
use crate::detector::TableInfo;

/// One source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct State {
    #[n(0)]
    pub(super) history: History,
    /// Times of the newest successes, oldest first.
    #[n(1)]
    pub(super) successes: Vec<u64>,
    #[n(2)]
    pub(super) brute_force: Option<Attack>,
    /// Failures up to here belong to a brute force that is over.
    #[n(3)]
    pub(super) brute_force_done_ns: u64,
    #[n(4)]
    pub(super) spray: Option<Attack>,
    /// Failures up to here belong to a spray that is over.
    #[n(5)]
    pub(super) spray_done_ns: u64,
    /// The address of the last attempt.
    #[n(6)]
    pub(super) address: Option<IpAddr>,
    #[n(7)]
    pub(super) hits: Hits,
    /// Order of use.
    #[n(8)]
    stamp: u64,
}

impl State {
    /// What counts against the bound on entries.
    fn weight(&self) -> usize {
        let accounts = |attack: &Option<Attack>| attack.as_ref().map_or(0, |attack| attack.accounts.len());
        1 + self.history.len() + self.hits.len() + accounts(&self.brute_force) + accounts(&self.spray)
    }

    fn idle(&self) -> bool {
        self.history.is_empty() && self.brute_force.is_none() && self.spray.is_none()
    }
}

/// Saved form of the table.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub(super) struct SavedSources {
    #[n(0)]
    states: Vec<(Source, State)>,
    #[n(1)]
    stamp: u64,
    #[n(2)]
    evicted: u64,
}

/// The table.
#[derive(Debug)]
pub(super) struct Sources {
    max_sources: usize,
    max_entries: usize,
    states: BTreeMap<Source, State>,
    /// Least recently used first.
    order: BTreeMap<u64, Source>,
    entries: usize,
    stamp: u64,
    evicted: u64,
}

impl Sources {
    pub(super) fn new(max_sources: usize, max_entries: usize) -> Self {
        Self { max_sources, max_entries, states: BTreeMap::new(), order: BTreeMap::new(), entries: 0, stamp: 0, evicted: 0 }
    }

    pub(super) fn knows(&self, source: &Source) -> bool {
        self.states.contains_key(source)
    }

    /// Takes the state of `source` out, to be [put back](Self::put); a new one when there is none.
    pub(super) fn take(&mut self, source: &Source) -> State {
        let Some(state) = self.states.remove(source) else { return State::default() };
        self.order.remove(&state.stamp);
        self.entries -= state.weight();
        state
    }

    /// Puts a state in, as the one that was used last, and makes room.
    pub(super) fn put(&mut self, source: Source, mut state: State) {
        if state.idle() {
            return;
        }
        self.stamp += 1;
        state.stamp = self.stamp;
        self.insert(source, state);
        self.make_room();
    }

    /// Lets `change` look at every state, and forgets those that hold nothing any more.
    pub(super) fn sweep(&mut self, mut change: impl FnMut(&mut State)) {
        for (source, mut state) in std::mem::take(&mut self.states) {
            self.entries -= state.weight();
            self.order.remove(&state.stamp);
            change(&mut state);
            if !state.idle() {
                self.insert(source, state);
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.states.clear();
        self.order.clear();
        self.entries = 0;
    }

    pub(super) fn tables(&self) -> Vec<TableInfo> {
        vec![
            TableInfo { name: "sources", entries: self.states.len(), bound: self.max_sources, evicted: self.evicted },
            TableInfo { name: "entries", entries: self.entries, bound: self.max_entries, evicted: 0 },
        ]
    }

    pub(super) fn save(&self) -> SavedSources {
        let states = self.states.iter().map(|(source, state)| (source.clone(), state.clone())).collect();
        SavedSources { states, stamp: self.stamp, evicted: self.evicted }
    }

    pub(super) fn restore(saved: SavedSources, max_sources: usize, max_entries: usize) -> Self {
        let SavedSources { states, stamp, evicted } = saved;
        let mut table = Self { stamp, evicted, ..Self::new(max_sources, max_entries) };
        states.into_iter().for_each(|(source, state)| table.insert(source, state));
        table.make_room();
        table
    }

    fn insert(&mut self, source: Source, state: State) {
        self.entries += state.weight();
        self.order.insert(state.stamp, source.clone());
        self.states.insert(source, state);
    }

    fn make_room(&mut self) {
        while self.states.len() > self.max_sources || (self.entries > self.max_entries && self.states.len() > 1) {
            let Some((_, oldest)) = self.order.first_key_value() else { return };
            let oldest = oldest.clone();
            self.take(&oldest);
            self.evicted += 1;
        }
    }
}
