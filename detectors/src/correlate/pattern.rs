//! The patterns, as declarations. A pattern is an ordered list of steps; each names the rules whose alerts can be that step and how
//! it hangs together with the step before.

use bartizan_bus::event::{Entity, Severity};

use super::seen::Seen;
use crate::auth_fortress::attempt::network_of;
use crate::{auth_fortress, runtime_watcher};

/// How a step hangs together with the one before: whether the second alert follows from the first. Order and window are looked at
/// elsewhere.
pub(super) type Link = fn(before: &Seen, after: &Seen) -> bool;

/// One step.
pub(super) struct Step {
    /// For people and for [`bartizan_bus::event::MatchStep::name`].
    pub(super) name: &'static str,
    /// Rules whose alerts are this step.
    pub(super) rules: &'static [&'static str],
    /// To the step before; of no meaning for the first.
    pub(super) link: Link,
}

/// A pattern.
pub(super) struct Pattern {
    /// Its id.
    pub(super) id: &'static str,
    /// Said of the login's account and source.
    pub(super) title: &'static str,
    pub(super) severity: Severity,
    pub(super) steps: &'static [Step],
    /// Index of the step whose alert has the login that names the match.
    pub(super) key: usize,
    /// What holds the steps together, in a sentence.
    pub(super) joined_by: &'static str,
    pub(super) next_steps: &'static [&'static str],
}

/// Every pattern.
pub(super) const PATTERNS: &[Pattern] = &[Pattern {
    id: "correlate.brute_force_to_shell",
    title: "Guessed password, login, reverse shell",
    severity: Severity::Critical,
    steps: &[
        Step { name: "guessing", rules: &[auth_fortress::BRUTE_FORCE, auth_fortress::SPRAY], link: first },
        Step { name: "success", rules: &[auth_fortress::SUCCESS], link: same_source_and_account },
        Step { name: "shell", rules: &[runtime_watcher::REVERSE_SHELL], link: in_the_login },
    ],
    key: 1,
    joined_by: "The guessing and the success have source and account in common; the shell runs within that very login.",
    next_steps: &[
        "Treat this host as taken over: isolate it before you look further, and keep its memory.",
        "End the login's session and everything below it; lock the account and change its password and keys.",
        "Look through the events of the login for what was read, left behind and reached from here.",
        "Cut off the source of the guesses and the peer of the shell at every host.",
    ],
}];

fn first(_: &Seen, _: &Seen) -> bool {
    true
}

/// Both name the same source, and the account of the second is one that the first tried.
fn same_source_and_account(before: &Seen, after: &Seen) -> bool {
    before.entities.iter().any(|one| after.entities.iter().any(|other| same_source(one, other)))
        && after.accounts().any(|account| before.accounts().any(|tried| tried == account))
}

fn same_source(one: &Entity, other: &Entity) -> bool {
    match (one, other) {
        (Entity::Host { ip: one }, Entity::Host { ip: other }) => network_of(*one) == network_of(*other),
        (Entity::User { .. }, Entity::User { .. }) => one == other,
        _ => false,
    }
}

/// The second happened in the login of the first, or below the process that owns its session (in a login within the login: `sudo`).
fn in_the_login(before: &Seen, after: &Seen) -> bool {
    let within = before.login.is_some() && after.login == before.login;
    within || before.owners.iter().any(|owner| after.lineage.iter().any(|process| process.same_process(owner)))
}
