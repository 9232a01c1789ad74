//! The failures of one source in order of time, bounded, and what stands out among them.
//!
//! Invariants worth naming:
//!
//! - **An attempt counts once**, whoever told it: PAM and sshd's log of the same attempt are one, and so are all keys that one
//!   connection offers.
//! - **What a window holds does not depend on the order in which its failures came**, as long as no more than
//!   [`MAX_PER_SOURCE`] are within the longest window.

use std::collections::BTreeMap;
use std::ops::Range;

use bartizan_bus::event::{AuthSource, EventId};
use minicbor::{Decode, Encode};

use super::attempt::{Attempt, Verdict};

/// Most failures remembered of one source: the upper limit of every threshold.
pub(super) const MAX_PER_SOURCE: usize = 128;

/// PAM and sshd's log tell one attempt at most so far apart: sshd writes its line when PAM has answered.
pub(super) const FOLD_NS: u64 = 2_000_000_000;

/// As long as sshd lets one connection try (its `LoginGraceTime`): keys that were offered for a user so long before the same source
/// tries a password for that user belong to it, also where the two were told under different logins.
const GRACE_NS: u64 = 120_000_000_000;

/// Who told a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
enum ToldBy {
    #[n(0)]
    Pam,
    #[n(1)]
    Log,
    #[n(2)]
    Both,
}

/// One failure.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Failure {
    /// Boot clock.
    #[n(0)]
    pub(super) time_ns: u64,
    #[n(1)]
    pub(super) event: EventId,
    #[n(2)]
    pub(super) login: EventId,
    #[n(3)]
    pub(super) user: String,
    /// Only keys were offered on this connection.
    #[n(4)]
    pub(super) keys_only: bool,
    #[n(5)]
    told_by: ToldBy,
    /// The user has shown to be the user since, from the same source.
    #[n(6)]
    answered: bool,
}

impl Failure {
    /// Only keys, and offered by the client that then made `attempt`.
    fn keys_of(&self, attempt: &Attempt) -> bool {
        let shortly_before = || self.user == attempt.user && self.time_ns.abs_diff(attempt.time_ns) <= GRACE_NS;
        self.keys_only && (self.login == attempt.login || shortly_before())
    }
}

/// What became of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    /// It counts; its index.
    Counted(usize),
    /// The other source had told the same attempt.
    Folded,
    /// The connection's offered keys count already, or became the password that was tried after them.
    SameConnection,
    /// The same event, or older than everything in a full list.
    Passed,
}

/// Failures of one source by time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(super) struct History(#[n(0)] Vec<Failure>);

impl History {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, range: Range<usize>) -> &[Failure] {
        self.0.get(range).unwrap_or_default()
    }

    /// Takes a failed attempt.
    pub(super) fn note(&mut self, attempt: &Attempt) -> Noted {
        let keys_only = attempt.verdict == Verdict::KeyOffer;
        if self.0.iter().any(|failure| failure.event == attempt.event) {
            return Noted::Passed;
        }
        if keys_only {
            if self.0.iter().any(|failure| failure.login == attempt.login) {
                return Noted::SameConnection;
            }
        } else {
            let told_by = match attempt.told_by {
                AuthSource::Pam => ToldBy::Log,
                AuthSource::SshdLog => ToldBy::Pam,
            };
            let same = |failure: &&mut Failure| {
                failure.told_by == told_by
                    && !failure.keys_only
                    && failure.user == attempt.user
                    && failure.time_ns.abs_diff(attempt.time_ns) <= FOLD_NS
            };
            if let Some(other) = self.0.iter_mut().find(same) {
                other.told_by = ToldBy::Both;
                return Noted::Folded;
            }
            // A client that tries its keys and then a password made one guess.
            if let Some(keys) = self.0.iter_mut().find(|failure| failure.keys_of(attempt)) {
                keys.keys_only = false;
                return Noted::SameConnection;
            }
        }
        let told_by = match attempt.told_by {
            AuthSource::Pam => ToldBy::Pam,
            AuthSource::SshdLog => ToldBy::Log,
        };
        let failure = Failure {
            time_ns: attempt.time_ns,
            event: attempt.event,
            login: attempt.login,
            user: attempt.user.clone(),
            keys_only,
            told_by,
            answered: false,
        };
        let mut at = self.0.partition_point(|known| (known.time_ns, known.event) < (failure.time_ns, failure.event));
        if self.0.len() == MAX_PER_SOURCE {
            let Some(before) = at.checked_sub(1) else { return Noted::Passed };
            self.0.remove(0);
            at = before;
        }
        self.0.insert(at, failure);
        Noted::Counted(at)
    }

    /// The client was accepted after all: the keys that it offered before were no guesses. Returns how many were taken back.
    pub(super) fn take_back_keys(&mut self, success: &Attempt) -> usize {
        let before = self.0.len();
        self.0.retain(|failure| !failure.keys_of(success));
        before - self.0.len()
    }

    /// Password failures for `user` from `since_ns` on that no success has answered, oldest first.
    pub(super) fn unanswered<'a>(&'a self, user: &'a str, since_ns: u64) -> impl Iterator<Item = &'a Failure> {
        let open = move |failure: &&Failure| failure.user == user && !failure.answered && !failure.keys_only && failure.time_ns >= since_ns;
        self.0.iter().filter(open)
    }

    /// `user` has shown to be the user: what was tried before for that name is answered.
    pub(super) fn answer(&mut self, user: &str) {
        self.0.iter_mut().filter(|failure| failure.user == user).for_each(|failure| failure.answered = true);
    }

    /// Forgets what is older than `before_ns`.
    pub(super) fn forget(&mut self, before_ns: u64) {
        let old = self.0.partition_point(|failure| failure.time_ns < before_ns);
        self.0.drain(..old);
    }

    /// A window around the failure at `index` in which at least `count` lie, all younger than `after_ns`: from the first of them
    /// to the last that is within the window of it.
    pub(super) fn burst(&self, index: usize, count: usize, window_ns: u64, after_ns: u64) -> Option<Range<usize>> {
        let from = index.saturating_sub(count - 1).max(self.0.partition_point(|failure| failure.time_ns <= after_ns));
        (from..=index).find_map(|start| {
            let first = self.0.get(start)?.time_ns;
            let last = self.0.get(start + count - 1)?;
            (last.time_ns - first <= window_ns).then(|| start..self.end(first.saturating_add(window_ns)))
        })
    }

    /// A window around the failure at `index` in which at least `users` users were tried and not answered, each at most `most`
    /// times.
    pub(super) fn spread(&self, index: usize, users: usize, most: usize, window_ns: u64, after_ns: u64) -> Option<Range<usize>> {
        let here = self.0.get(index)?.time_ns;
        let from = self.0.partition_point(|failure| failure.time_ns <= after_ns || failure.time_ns < here.saturating_sub(window_ns));
        let counts = |failure: &Failure| !failure.answered && !failure.user.is_empty();
        let mut tries: BTreeMap<&str, usize> = BTreeMap::new();
        let mut few = 0_usize;
        let mut end = from;
        for start in from..=index {
            let limit = self.0.get(start)?.time_ns.saturating_add(window_ns);
            while let Some(next) = self.0.get(end).filter(|next| next.time_ns <= limit) {
                if counts(next) {
                    let tried = tries.entry(&next.user).or_default();
                    *tried += 1;
                    few = if *tried == 1 {
                        few + 1
                    } else if *tried == most + 1 {
                        few - 1
                    } else {
                        few
                    };
                }
                end += 1;
            }
            if few >= users {
                return Some(start..end);
            }
            // The window moves on: the first leaves it.
            let first = self.0.get(start)?;
            if counts(first)
                && let Some(tried) = tries.get_mut(first.user.as_str())
            {
                *tried -= 1;
                few = if *tried == 0 {
                    few - 1
                } else if *tried == most {
                    few + 1
                } else {
                    few
                };
            }
        }
        None
    }

    /// Index behind the last failure up to `limit_ns`.
    fn end(&self, limit_ns: u64) -> usize {
        self.0.partition_point(|failure| failure.time_ns <= limit_ns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth_fortress::attempt::Source;

    const SECOND: u64 = 1_000_000_000;

    fn attempt(number: u8, seconds: u64, user: &str) -> Attempt {
        Attempt {
            source: Source::Name("x".into()),
            address: None,
            user: user.to_owned(),
            service: None,
            verdict: Verdict::Guess,
            told_by: AuthSource::Pam,
            login: EventId([number; 20]),
            event: EventId([number; 20]),
            time_ns: seconds * SECOND,
        }
    }

    #[test]
    fn pam_and_the_log_tell_one_attempt_once_and_two_attempts_twice() {
        let mut history = History::default();
        let log = |number, seconds| Attempt { told_by: AuthSource::SshdLog, ..attempt(number, seconds, "root") };
        assert_eq!(history.note(&attempt(1, 10, "root")), Noted::Counted(0));
        assert_eq!(history.note(&log(2, 11)), Noted::Folded);
        assert_eq!(history.note(&log(3, 11)), Noted::Counted(1), "PAM told one attempt, the log tells two");
        assert_eq!(history.note(&attempt(4, 12, "root")), Noted::Folded, "whoever comes first");
        assert_eq!(history.note(&log(5, 20)), Noted::Counted(2), "too far apart");
        assert_eq!(history.note(&attempt(5, 20, "root")), Noted::Passed, "the same event");
        assert_eq!(history.len(), 3);
    }

    #[test]
    fn the_keys_of_one_connection_are_one_failure_and_none_when_it_is_accepted() {
        let mut history = History::default();
        let key = |number, login| Attempt { verdict: Verdict::KeyOffer, login: EventId([login; 20]), ..attempt(number, 10, "root") };
        assert_eq!(history.note(&key(1, 9)), Noted::Counted(0));
        assert_eq!(history.note(&key(2, 9)), Noted::SameConnection);
        assert_eq!(history.note(&key(3, 8)), Noted::Counted(1));
        assert_eq!(history.unanswered("root", 0).count(), 0);
        // A password after the keys: one guess.
        let password = Attempt { login: EventId([8; 20]), ..attempt(4, 200, "root") };
        assert_eq!(history.note(&password), Noted::SameConnection);
        assert_eq!(history.unanswered("root", 0).count(), 1);
        assert_eq!((history.take_back_keys(&Attempt { login: EventId([9; 20]), ..password.clone() }), history.len()), (1, 1));
        assert_eq!(history.take_back_keys(&password), 0, "a password is not taken back");
        // The log's login is another one than PAM's: known by user and time.
        assert_eq!(history.note(&key(5, 7)), Noted::Counted(1));
        assert_eq!(history.take_back_keys(&attempt(6, 60, "alice")), 0);
        assert_eq!(history.take_back_keys(&attempt(6, 131, "root")), 0);
        assert_eq!(history.take_back_keys(&attempt(6, 130, "root")), 1);
    }

    #[test]
    fn a_full_list_keeps_the_newest() {
        let mut history = History::default();
        for number in 0..=u8::try_from(MAX_PER_SOURCE).expect("small") {
            history.note(&attempt(number, 100 + u64::from(number), "root"));
        }
        assert_eq!(history.len(), MAX_PER_SOURCE);
        assert_eq!(history.get(0..1)[0].time_ns, 101 * SECOND);
        assert_eq!(history.note(&attempt(200, 5, "root")), Noted::Passed);
    }

    /// Attempts (second, user), whose numbers make the event ids.
    fn attempts() -> impl Strategy<Value = Vec<(u64, u8)>> {
        prop::collection::vec((0u64..100, 0u8..6), 1..40)
    }

    fn filled(attempts: &[(usize, (u64, u8))], mut each: impl FnMut(&History, usize)) -> History {
        let mut history = History::default();
        for (number, (second, user)) in attempts {
            let number = u8::try_from(*number).expect("few");
            if let Noted::Counted(index) = history.note(&attempt(number, *second, &format!("u{user}"))) {
                each(&history, index);
            }
        }
        history
    }

    proptest! {
        /// What is found at any of the failures is found in any order, and is what a search over all windows finds.
        #[test]
        fn windows_are_found_in_any_order(
            times in attempts(), order in any::<u64>(), count in 2usize..8, users in 2usize..6, most in 1usize..4
        ) {
            let numbered: Vec<_> = times.iter().copied().enumerate().collect();
            let mut shuffled = numbered.clone();
            shuffled.sort_by_key(|(number, _)| (*number as u64 + 1).wrapping_mul(order | 1).rotate_left(17));
            let window = 10 * SECOND;
            let run = |attempts: &[(usize, (u64, u8))]| {
                let (mut burst, mut spread) = (false, false);
                filled(attempts, |history, index| {
                    if let Some(range) = history.burst(index, count, window, 0) {
                        assert!(range.len() >= count && range.contains(&index));
                        burst = true;
                    }
                    spread |= history.spread(index, users, most, window, 0).is_some();
                });
                (burst, spread)
            };
            let (burst, spread) = run(&numbered);
            prop_assert_eq!(burst, run(&shuffled).0);
            // Few tries each can become many with what comes later: a spread is found at least when the whole has one.
            let history = filled(&numbered, |_, _| {});
            let all = history.get(0..history.len());
            let within = |start: &Failure| all.iter().filter(|f| f.time_ns >= start.time_ns && f.time_ns - start.time_ns <= window).collect::<Vec<_>>();
            prop_assert_eq!(burst, all.iter().any(|start| start.time_ns > 0 && within(start).len() >= count));
            let spread_at = |start: &Failure| {
                let mut tries: BTreeMap<&str, usize> = BTreeMap::new();
                within(start).into_iter().for_each(|f| *tries.entry(&f.user).or_default() += 1);
                tries.values().filter(|tried| **tried <= most).count() >= users
            };
            let whole = all.iter().any(|start| start.time_ns > 0 && spread_at(start));
            prop_assert!(!whole || (spread && run(&shuffled).1));
        }
    }
}
