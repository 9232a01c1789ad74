//! An attack that was told and goes on: what it has done so far, and when that is worth another revision.
//!
//! An attack is one alert as long as it goes on. Its revisions are bounded: one for the first, one for each step that its size
//! passes, one for each of the first [`MAX_HITS`] accounts that it got into.

use bartizan_bus::event::EventId;
use minicbor::{Decode, Encode};

use super::history::Failure;

/// Failures at which a brute force is told again.
pub(super) const FAILURE_STEPS: &[u64] = &[100, 1_000, 10_000, 100_000];
/// Accounts at which a spray is told again.
pub(super) const ACCOUNT_STEPS: &[u64] = &[16, 32, 64, 128];
/// Most accounts that are remembered of one attack. What goes beyond is in the count of failures only.
pub(super) const MAX_ACCOUNTS: usize = 128;
/// Most accounts for whose success an attack is told again.
pub(super) const MAX_HITS: u32 = 16;

/// How an attack was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum Pace {
    /// By the short window.
    #[n(0)]
    Fast,
    /// By the long window.
    #[n(1)]
    Slow,
}

/// One account that an attack tried.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Account {
    #[n(0)]
    pub(super) name: String,
    #[n(1)]
    pub(super) failures: u64,
    /// The source proved to be this user afterwards.
    #[n(2)]
    pub(super) hit: bool,
}

/// An attack that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Attack {
    /// The first failure of the window by which it was noticed: names the attack for ever.
    #[n(0)]
    pub(super) start: EventId,
    /// Boot clock.
    #[n(1)]
    pub(super) start_ns: u64,
    /// Time of the last failure or success.
    #[n(2)]
    pub(super) last_ns: u64,
    #[n(3)]
    pub(super) pace: Pace,
    #[n(4)]
    pub(super) failures: u64,
    #[n(5)]
    pub(super) accounts: Vec<Account>,
    #[n(6)]
    pub(super) revision: u32,
    #[n(7)]
    hits: u32,
}

impl Attack {
    /// An attack that these failures are, oldest first; `None` without any.
    pub(super) fn new(pace: Pace, failures: &[Failure]) -> Option<Self> {
        let (first, last) = (failures.first()?, failures.last()?);
        let mut attack = Self {
            start: first.event,
            start_ns: first.time_ns,
            last_ns: last.time_ns,
            pace,
            failures: 0,
            accounts: Vec::new(),
            revision: 1,
            hits: 0,
        };
        failures.iter().for_each(|failure| attack.add(&failure.user, failure.time_ns));
        Some(attack)
    }

    /// One more failure.
    pub(super) fn add(&mut self, user: &str, time_ns: u64) {
        self.failures += 1;
        self.last_ns = self.last_ns.max(time_ns);
        if let Some(account) = self.accounts.iter_mut().find(|account| account.name == user) {
            account.failures += 1;
        } else if self.accounts.len() < MAX_ACCOUNTS {
            self.accounts.push(Account { name: user.to_owned(), failures: 1, hit: false });
        }
    }

    /// Whether `before` was below one of `steps` and `now` is not: then the revision that tells it is the next one.
    pub(super) fn passed(&mut self, before: u64, now: u64, steps: &[u64]) -> bool {
        let passed = steps.iter().any(|step| before < *step && now >= *step);
        self.revision += u32::from(passed);
        passed
    }

    /// The account is one of those that were tried.
    pub(super) fn tries(&self, user: &str) -> bool {
        self.accounts.iter().any(|account| account.name == user)
    }

    /// The source proved to be `user`, whom it had tried before. Says whether that is told: as the next revision.
    pub(super) fn hit(&mut self, user: &str, time_ns: u64) -> bool {
        self.last_ns = self.last_ns.max(time_ns);
        let at = self.accounts.iter().position(|account| account.name == user);
        let Account { name, failures, hit } = match at {
            Some(at) => self.accounts.remove(at),
            None => Account { name: user.to_owned(), failures: 0, hit: false },
        };
        // Accounts that were hit stand first, where a list that is cut keeps them.
        self.accounts.truncate(MAX_ACCOUNTS - 1);
        self.accounts.insert(0, Account { name, failures, hit: true });
        let told = !hit && self.hits < MAX_HITS;
        self.hits += u32::from(told);
        self.revision += u32::from(told);
        told
    }

    /// Distinct accounts, as far as they are remembered.
    pub(super) fn distinct(&self) -> u64 {
        self.accounts.len() as u64
    }

    /// The source was quiet for `quiet_ns` before `now_ns`.
    pub(super) fn over(&self, now_ns: u64, quiet_ns: u64) -> bool {
        now_ns.saturating_sub(self.last_ns) > quiet_ns
    }
}
