//! Accounts that one source got into, and how many of its logins were told: whoever guessed a password comes back with it.

use bartizan_bus::event::{AuthSource, EventId};
use minicbor::{Decode, Encode};

use super::attempt::Attempt;
use super::history::FOLD_NS;

/// Most accounts remembered of one source.
const MAX_HITS: usize = 16;
/// Most logins told for one account of one source, until it was quiet for a whole window.
const MAX_TOLD: u32 = 8;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Hit {
    #[n(0)]
    user: String,
    /// The last login that was told.
    #[n(1)]
    login: EventId,
    #[n(2)]
    by_log: bool,
    #[n(3)]
    last_ns: u64,
    #[n(4)]
    told: u32,
}

/// What a success after failures is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Login {
    /// To be told.
    New,
    /// Told already: of the same login, or by PAM when sshd's log tells it too.
    Same,
    /// One more of an account of which enough were told.
    OneMore,
}

/// The accounts that one source got into, newest last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub(super) struct Hits(#[n(0)] Vec<Hit>);

impl Hits {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes a success after failures.
    pub(super) fn note(&mut self, success: &Attempt, window_ns: u64) -> Login {
        let now = success.time_ns;
        self.forget(now, window_ns);
        let by_log = success.told_by == AuthSource::SshdLog;
        let Some(at) = self.0.iter().position(|hit| hit.user == success.user) else {
            if self.0.len() == MAX_HITS {
                self.0.remove(0);
            }
            self.0.push(Hit { user: success.user.clone(), login: success.login, by_log, last_ns: now, told: 1 });
            return Login::New;
        };
        let hit = &mut self.0[at];
        if hit.login == success.login || (hit.by_log != by_log && hit.last_ns.abs_diff(now) <= FOLD_NS) {
            return Login::Same;
        }
        (hit.login, hit.by_log, hit.last_ns) = (success.login, by_log, hit.last_ns.max(now));
        if hit.told == MAX_TOLD {
            return Login::OneMore;
        }
        hit.told += 1;
        Login::New
    }

    /// Forgets accounts that were quiet for a window.
    pub(super) fn forget(&mut self, now_ns: u64, window_ns: u64) {
        self.0.retain(|hit| now_ns.saturating_sub(hit.last_ns) <= window_ns);
    }
}
