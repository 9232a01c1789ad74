//! What the three rules say.

use std::net::IpAddr;

use bartizan_bus::event::{Attack as Technique, Confidence, Entity, EventId, Process, Severity};

use super::attack::{Account, Attack, Pace};
use super::attempt::{Attempt, Source};
use super::history::History;
use super::{BRUTE_FORCE, SPRAY, SUCCESS};
use crate::detector::{EntityKey, Finding};
use crate::lineage::entry;
use crate::period::duration_text;

/// Most accounts that an alert names as entities.
const MAX_ENTITIES: usize = 32;
/// Most accounts that a sentence names.
const MAX_WORDS: usize = 6;
/// Most events that an alert names as its evidence.
const MAX_EVIDENCE: usize = 32;

/// The attempt that made a rule speak.
pub(super) struct Case<'a> {
    pub(super) attempt: &'a Attempt,
    pub(super) process: Option<&'a Process>,
    /// The source's very address.
    pub(super) address: Option<IpAddr>,
}

/// What makes a success worth telling.
pub(super) struct Proof {
    /// The success.
    pub(super) event: EventId,
    /// Failures of the same source for the same user before.
    pub(super) failures: u64,
    /// The user is one of those that the source sprayed.
    pub(super) sprayed: bool,
    pub(super) window_ns: u64,
    /// A session was opened by it.
    pub(super) session: bool,
}

impl Case<'_> {
    fn source(&self) -> String {
        let there = match (&self.attempt.source, self.address) {
            (Source::Net(_), Some(ip)) => format!("from {ip}"),
            (source, _) => source.text(),
        };
        match &self.attempt.service {
            Some(service) => format!("{there} at {service}"),
            None => there,
        }
    }

    /// For the next steps: who is to be stopped.
    fn block(&self) -> String {
        match &self.attempt.source {
            Source::Net(ip) => format!("Cut {} off at the firewall if it has no business here.", self.address.unwrap_or(*ip)),
            Source::Name(name) => format!("Find out the address of {name} and cut it off at the firewall if it has no business here."),
            Source::Local { who, tty } => {
                let tty = tty.as_deref().map(|tty| format!(" on {tty}")).unwrap_or_default();
                format!("Look at what {who} runs{tty}: somebody inside of this host is guessing.")
            }
        }
    }

    fn entities<'n>(&self, accounts: impl Iterator<Item = &'n str>) -> Vec<Entity> {
        let mut entities = Vec::new();
        match (&self.attempt.source, self.process) {
            (Source::Net(ip), _) => entities.push(Entity::Host { ip: self.address.unwrap_or(*ip) }),
            (Source::Local { who, .. }, Some(process)) => {
                // The real user id of a setuid program is its caller's; where the names differ, it is not that program's.
                let name = process.user.clone().filter(|user| user == who);
                if name.is_some() || *who == format!("uid {}", process.uid) {
                    entities.push(Entity::User { uid: process.uid, name });
                }
            }
            (Source::Name(_) | Source::Local { .. }, _) => {}
        }
        entities.extend(accounts.filter(|name| !name.is_empty()).take(MAX_ENTITIES).map(|name| Entity::Account { name: name.to_owned() }));
        entities
    }

    fn attack_severity(&self, attack: &Attack) -> (Severity, &'static str) {
        let inside =
            matches!(&self.attempt.source, Source::Local { who, .. } if attack.accounts.iter().any(|account| account.name != *who));
        if attack.accounts.iter().any(|account| account.hit) {
            (Severity::High, " High: it got into at least one of the accounts.")
        } else if inside {
            (Severity::High, " High: it comes from inside of this host.")
        } else {
            (Severity::Medium, "")
        }
    }

    fn attack(&self, rule: &'static str, attack: &Attack, history: &History, title: String, technique: Technique, count: &str) -> Finding {
        let (severity, reason) = self.attack_severity(attack);
        let span = duration_text(attack.last_ns - attack.start_ns);
        let got_in: Vec<&str> = attack.accounts.iter().filter(|account| account.hit).map(|account| name(&account.name)).collect();
        let hits = if got_in.is_empty() { String::new() } else { format!(" It got into {}.", got_in.join(", ")) };
        Finding {
            rule,
            entity: EntityKey::parts(&[&source_bytes(&self.attempt.source), &attack.start.0]),
            revision: attack.revision,
            title,
            severity,
            confidence: match attack.pace {
                Pace::Fast => Confidence::High,
                Pace::Slow => Confidence::Medium,
            },
            attack: vec![technique],
            entities: self.entities(ranked(&attack.accounts).into_iter().map(|account| account.name.as_str())),
            evidence: evidence(self.attempt.event, history.get(0..history.len()).iter().rev().map(|failure| failure.event)),
            process: self.process.map(|process| entry(process, false)),
            login: None,
            explanation: format!("{count} in {span}, {}, for {}.{hits}{reason}", self.source(), accounts(&attack.accounts)),
            next_steps: vec![
                self.block(),
                "Look for a success of the same source: bartizan alerts --rule auth_fortress.success_after_failures.".to_owned(),
                "Leave password logins off where keys will do (sshd: PasswordAuthentication no).".to_owned(),
                "If this source may do so, name it in [[detectors.auth_fortress.exceptions]].".to_owned(),
            ],
        }
    }

    /// Many failures.
    pub(super) fn brute_force(&self, attack: &Attack, history: &History) -> Finding {
        let slowly = match attack.pace {
            Pace::Fast => "",
            Pace::Slow => "slow ",
        };
        let title = format!("Brute force: {} {slowly}failures {}", attack.failures, self.source());
        self.attack(BRUTE_FORCE, attack, history, title, technique("TA0006", "T1110.001"), &format!("{} failures", attack.failures))
    }

    /// Many users.
    pub(super) fn spray(&self, attack: &Attack, history: &History) -> Finding {
        let users = attack.distinct();
        let title = format!("Password spray: {users} users tried {}", self.source());
        let count = format!("{} failures over {users} users", attack.failures);
        self.attack(SPRAY, attack, history, title, technique("TA0006", "T1110.003"), &count)
    }

    /// A success; `events` are what came before it.
    pub(super) fn success(&self, proof: &Proof, events: Vec<EventId>) -> Finding {
        let Proof { event, failures, sprayed, window_ns, session } = *proof;
        let user = name(&self.attempt.user);
        let local = matches!(self.attempt.source, Source::Local { .. });
        let oneself = matches!(&self.attempt.source, Source::Local { who, .. } if *who == self.attempt.user);
        let before = match (failures, sprayed) {
            (0, _) => "after a spray that had this user in it".to_owned(),
            (_, true) => format!("after {failures} failures within {}, in a spray over many users", duration_text(window_ns)),
            (_, false) => format!("after {failures} failures within {}", duration_text(window_ns)),
        };
        let then = if session {
            "A session was opened by it: what runs below is under the control of whoever guessed."
        } else {
            "The password is known to whoever guessed, whether a session follows or not."
        };
        let (severity, reason) =
            if oneself { (Severity::Medium, " Medium: a user of this host proved to be himself.") } else { (Severity::High, "") };
        let mut attack = vec![technique("TA0006", if sprayed { "T1110.003" } else { "T1110.001" })];
        attack.push(technique(if local { "TA0004" } else { "TA0001" }, "T1078"));
        Finding {
            rule: SUCCESS,
            entity: EntityKey::parts(&[&self.attempt.login.0, &event.0]),
            revision: 1 + u32::from(session),
            title: format!("{user} logged in {} {before}", self.source()),
            severity,
            // A spray's single try for a user may be that user's own mistake behind the same address.
            confidence: if sprayed && failures < 2 { Confidence::Medium } else { Confidence::High },
            attack,
            entities: self.entities(std::iter::once(self.attempt.user.as_str())),
            evidence: evidence(self.attempt.event, events.into_iter().rev()),
            process: self.process.map(|process| entry(process, false)),
            login: Some(self.attempt.login),
            explanation: format!("{user} proved to be the user {}, {before}. {then}{reason}", self.source()),
            next_steps: vec![
                format!("Ask the owner of {user} whether that was them; if not, lock the account and change its password and keys."),
                format!("See what the session did: events and alerts with login {}.", self.attempt.login),
                self.block(),
                "If this account or source is known to fail so often, name it in [[detectors.auth_fortress.exceptions]].".to_owned(),
            ],
        }
    }
}

fn technique(tactic: &str, technique: &str) -> Technique {
    Technique { tactic: tactic.to_owned(), technique: technique.to_owned() }
}

fn source_bytes(source: &Source) -> Vec<u8> {
    match minicbor::to_vec(source) {
        Ok(bytes) => bytes,
        // Writing to memory has no failing operation, and no field has a failing encoder.
        Err(error) => unreachable!("encoding into memory failed: {error}"),
    }
}

fn name(user: &str) -> &str {
    if user.is_empty() { "(no user)" } else { user }
}

/// The trigger, then others, each once.
fn evidence(trigger: EventId, others: impl Iterator<Item = EventId>) -> Vec<EventId> {
    let mut evidence = vec![trigger];
    evidence.extend(others.filter(|id| *id != trigger).take(MAX_EVIDENCE - 1));
    evidence
}

/// Those that were got into first, then by number of failures.
fn ranked(accounts: &[Account]) -> Vec<&Account> {
    let mut ranked: Vec<&Account> = accounts.iter().collect();
    ranked.sort_by_key(|account| (!account.hit, std::cmp::Reverse(account.failures)));
    ranked
}

/// `root (12), admin (3) and 5 more`
fn accounts(accounts: &[Account]) -> String {
    let words: Vec<String> =
        ranked(accounts).iter().take(MAX_WORDS).map(|account| format!("{} ({})", name(&account.name), account.failures)).collect();
    let more = accounts.len().saturating_sub(MAX_WORDS);
    if more == 0 { words.join(", ") } else { format!("{} and {more} more", words.join(", ")) }
}
