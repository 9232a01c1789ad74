//! Logins that were told and whose session has not opened yet, bounded.

use std::collections::VecDeque;

use bartizan_bus::event::EventId;
use minicbor::{Decode, Encode};

use super::attempt::Source;
use crate::detector::TableInfo;

/// Most of them. A session opens within seconds of its success, or never.
const MAX_LOGINS: usize = 256;

/// A success that was told.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Reported {
    #[n(0)]
    pub(super) login: EventId,
    /// The success.
    #[n(1)]
    pub(super) event: EventId,
    #[n(2)]
    pub(super) failures: u64,
    #[n(3)]
    pub(super) sprayed: bool,
    #[n(4)]
    pub(super) source: Source,
    #[n(5)]
    pub(super) user: String,
}

/// The newest of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Logins {
    #[n(0)]
    waiting: VecDeque<Reported>,
    #[n(1)]
    evicted: u64,
}

impl Logins {
    pub(super) fn add(&mut self, reported: Reported) {
        if self.waiting.len() == MAX_LOGINS {
            self.waiting.pop_front();
            self.evicted += 1;
        }
        self.waiting.push_back(reported);
    }

    /// The success that this login was told for, once.
    pub(super) fn take(&mut self, login: EventId) -> Option<Reported> {
        let at = self.waiting.iter().position(|reported| reported.login == login)?;
        self.waiting.remove(at)
    }

    pub(super) fn table(&self) -> TableInfo {
        TableInfo { name: "logins", entries: self.waiting.len(), bound: MAX_LOGINS, evicted: self.evicted }
    }
}
