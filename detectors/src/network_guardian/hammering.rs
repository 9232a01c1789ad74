//! Rule `network_guardian.login_hammering`: one source connects to login services again and again and hardly ever logs in.
//!
//! The network side of a password guesser that is too slow for a count of failures per minute, and of one whose failures the login service
//! does not tell. A connection counts when its login did not come within the grace time.

use std::collections::VecDeque;
use std::net::IpAddr;

use bartizan_bus::event::{Auth, AuthSource, Body, EventId, ExecId, InetSocket, Outcome, SecurityEvent};
use minicbor::{Decode, Encode};

use super::config::{LoginHammeringConfig, NetworkGuardianConfig};
use super::episode::{Evidence, MAX_STEPS, STEP};
use super::report;
use super::table::{Ranked, SavedTable, Table, weight};
use crate::detector::{Context, Findings, StateInfo};
use crate::runtime_watcher::LOGIN_SERVICES;

/// The rule's id.
pub const RULE: &str = "network_guardian.login_hammering";

/// A window is counted in so many parts.
const PARTS: u64 = 60;
/// Logins that are remembered so that each counts once, though several steps of it are told.
const MAX_LOGINS: usize = 16;

/// What a source did. PAM and sshd's log may tell the same login, so the larger number counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Tally {
    #[n(0)]
    pub(super) connections: u64,
    #[n(1)]
    pam_logins: u64,
    #[n(2)]
    sshd_logins: u64,
    #[n(3)]
    pam_failures: u64,
    #[n(4)]
    sshd_failures: u64,
}

impl Tally {
    /// Connections that led to a login.
    pub(super) fn logins(&self) -> u64 {
        self.pam_logins.max(self.sshd_logins)
    }

    /// Failed attempts that were told.
    pub(super) fn failures(&self) -> u64 {
        self.pam_failures.max(self.sshd_failures)
    }

    fn add(&mut self, other: &Self) {
        let Self { connections, pam_logins, sshd_logins, pam_failures, sshd_failures } = other;
        self.connections += connections;
        self.pam_logins += pam_logins;
        self.sshd_logins += sshd_logins;
        self.pam_failures += pam_failures;
        self.sshd_failures += sshd_failures;
    }
}

/// An attack that is told.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Told {
    /// The newest connection when it was found: part of its identity.
    #[n(0)]
    pub(super) opened: EventId,
    #[n(1)]
    pub(super) revision: u32,
    /// Since the first connection that counted.
    #[n(2)]
    pub(super) tally: Tally,
    #[n(3)]
    pub(super) first_ns: u64,
    #[n(4)]
    told_connections: u64,
}

/// One source.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Source {
    /// Parts of the window by number since boot, oldest first.
    #[n(0)]
    parts: VecDeque<(u64, Tally)>,
    #[n(1)]
    pub(super) last_ns: u64,
    /// The newest connection.
    #[n(2)]
    pub(super) socket: InetSocket,
    #[n(3)]
    newest: EventId,
    /// Who took it, with name and user.
    #[n(4)]
    pub(super) acceptor: Option<(ExecId, String, u32)>,
    #[n(5)]
    pub(super) evidence: Evidence,
    #[n(6)]
    logins: VecDeque<EventId>,
    #[n(7)]
    pub(super) told: Option<Told>,
}

impl Ranked for Source {
    fn rank(&self) -> (u8, u64) {
        let connections = self.parts.iter().map(|(_, tally)| tally.connections).sum();
        (if self.told.is_some() { u8::MAX } else { weight(connections) }, self.last_ns)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Counters {
    #[n(0)]
    found: u64,
    #[n(1)]
    excepted: u64,
}

/// Saved form.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct Saved {
    #[n(0)]
    sources: SavedTable<IpAddr, Source>,
    #[n(1)]
    counters: Counters,
}

/// The rule and its state.
pub(super) struct LoginHammering {
    config: LoginHammeringConfig,
    quiet_ns: u64,
    sources: Table<IpAddr, Source>,
    counters: Counters,
}

impl LoginHammering {
    pub(super) fn new(module: &NetworkGuardianConfig) -> Self {
        let config = module.login_hammering.clone();
        let sources = Table::new("hammering_sources", config.max_sources);
        Self { quiet_ns: module.quiet.ns().max(config.window.ns()), config, sources, counters: Counters::default() }
    }

    /// A program took a connection.
    pub(super) fn accepted(
        &mut self,
        event: &SecurityEvent,
        socket: &InetSocket,
        module: &NetworkGuardianConfig,
        context: &Context<'_>,
        out: &mut Findings,
    ) {
        let Some(ip) = socket.peer_ip else { return };
        let exe = event.process.as_ref().and_then(|process| process.exe_path());
        if !self.is_login_service(socket.local_port, exe) {
            return;
        }
        if module.excepts(ip, socket.local_port) {
            self.counters.excepted += 1;
            return;
        }
        let now = event.time.boot_ns;
        self.end_if_over(ip, now, context, out);
        let acceptor = event.process.as_ref().map(|process| (process.exec_id, process.name.clone(), process.uid));
        if self.sources.get(&ip).is_none() {
            let source = Source {
                parts: VecDeque::new(),
                last_ns: now,
                socket: *socket,
                newest: event.id,
                acceptor: acceptor.clone(),
                evidence: Evidence::default(),
                logins: VecDeque::new(),
                told: None,
            };
            if let Some((evicted, source)) = self.sources.insert(ip, source) {
                close(evicted, source, context, out);
            }
        }
        let parts = self.parts();
        self.sources.change(&ip, |source| {
            (source.socket, source.newest) = (*socket, event.id);
            source.last_ns = source.last_ns.max(now);
            source.acceptor = acceptor.or(source.acceptor.take());
            source.evidence.add(event.id);
            source.count(now, parts, &Tally { connections: 1, ..Tally::default() });
        });
        self.judge(ip, now, context, out);
    }

    /// A login of a source succeeded, or failed.
    pub(super) fn authenticated(&mut self, event: &SecurityEvent, auth: &Auth) {
        let Some(ip) = auth.peer_ip else { return };
        let success = match event.outcome {
            Outcome::Success => true,
            Outcome::Failure if matches!(event.body, Body::Authenticate(_)) => false,
            Outcome::Failure | Outcome::Unknown => return,
        };
        let more = match (auth.source, success) {
            (AuthSource::Pam, true) => Tally { pam_logins: 1, ..Tally::default() },
            (AuthSource::SshdLog, true) => Tally { sshd_logins: 1, ..Tally::default() },
            (AuthSource::Pam, false) => Tally { pam_failures: 1, ..Tally::default() },
            (AuthSource::SshdLog, false) => Tally { sshd_failures: 1, ..Tally::default() },
        };
        let parts = self.parts();
        self.sources.change(&ip, |source| {
            if success {
                if source.logins.contains(&auth.login) {
                    return;
                }
                source.logins.push_front(auth.login);
                source.logins.truncate(MAX_LOGINS);
            } else {
                source.evidence.add(event.id);
            }
            source.count(event.time.boot_ns, parts, &more);
        });
    }

    /// Judges whose grace has passed, tells the rest of what is over, and forgets what is too old.
    pub(super) fn tick(&mut self, event: &SecurityEvent, context: &Context<'_>, out: &mut Findings) {
        let now = event.time.boot_ns;
        let quiet_ns = self.quiet_ns;
        let kept_ns = self.config.window.ns().saturating_add(self.config.grace.ns());
        for (ip, source) in self.sources.take_if(|source| source.is_over(now, quiet_ns, kept_ns)) {
            close(ip, source, context, out);
        }
        let least = weight(self.config.connections as u64);
        let waiting = self.sources.iter().filter(|(_, source)| source.told.is_none() && source.rank().0 >= least);
        let waiting: Vec<IpAddr> = waiting.map(|(ip, _)| *ip).collect();
        for ip in waiting {
            self.judge(ip, now, context, out);
        }
    }

    pub(super) fn clear(&mut self) {
        self.sources.clear();
    }

    pub(super) fn state(&self, into: &mut StateInfo) {
        let Counters { found, excepted } = self.counters;
        into.tables.push(self.sources.info());
        into.counters.extend([("hammering_found", found), ("hammering_excepted", excepted)]);
    }

    pub(super) fn save(&self) -> Saved {
        Saved { sources: self.sources.save(), counters: self.counters.clone() }
    }

    pub(super) fn restore(&mut self, saved: Saved) {
        let Saved { sources, counters } = saved;
        self.sources.restore(sources);
        self.counters = counters;
    }

    fn is_login_service(&self, port: Option<u16>, exe: Option<&str>) -> bool {
        let LoginHammeringConfig { ports, services, .. } = &self.config;
        port.is_some_and(|port| ports.contains(&port))
            || exe.is_some_and(|exe| LOGIN_SERVICES.contains(&exe) || services.iter().any(|service| service == exe))
    }

    /// Length of a part in nanoseconds, and how many are kept.
    fn parts(&self) -> (u64, u64) {
        let length = (self.config.window.ns() / PARTS).max(1);
        (length, PARTS + self.config.grace.ns() / length + 2)
    }

    /// An attack that is over before `now` ends before something new is counted.
    fn end_if_over(&mut self, ip: IpAddr, now: u64, context: &Context<'_>, out: &mut Findings) {
        let kept_ns = self.config.window.ns().saturating_add(self.config.grace.ns());
        if self.sources.get(&ip).is_some_and(|source| source.is_over(now, self.quiet_ns, kept_ns))
            && let Some(source) = self.sources.remove(&ip)
        {
            close(ip, source, context, out);
        }
    }

    fn judge(&mut self, ip: IpAddr, now: u64, context: &Context<'_>, out: &mut Findings) {
        let LoginHammeringConfig { connections, window, grace, max_success_percent, .. } = &self.config;
        let (length, _) = self.parts();
        let until = now.saturating_sub(grace.ns());
        let from = until.saturating_sub(window.ns());
        let (first, last) = (from / length, until / length);
        let (least, percent) = (*connections as u64, u64::from(*max_success_percent));
        let found = self.sources.change(&ip, |source| {
            if let Some(told) = &mut source.told {
                let due = told.tally.connections >= told.told_connections.saturating_mul(STEP) && told.revision < MAX_STEPS;
                if due {
                    told.revision += 1;
                    told.told_connections = told.tally.connections;
                }
                return (due, false);
            }
            let within: Vec<&(u64, Tally)> = source.parts.iter().filter(|(number, _)| *number >= first).collect();
            let mut tally = Tally::default();
            within.iter().for_each(|(_, part)| tally.add(part));
            // What is younger than the grace time may still log in.
            let judged: u64 = within.iter().filter(|(number, _)| *number < last).map(|(_, part)| part.connections).sum();
            let without = judged.saturating_sub(tally.logins());
            if without < least || tally.logins() * 100 > tally.connections * percent {
                return (false, false);
            }
            let first_ns = within.first().map_or(from, |(number, _)| number.saturating_mul(length));
            source.told = Some(Told { opened: source.newest, revision: 1, told_connections: tally.connections, tally, first_ns });
            (true, true)
        });
        let Some((due, new)) = found else { return };
        self.counters.found += u64::from(new);
        if due && let Some(source) = self.sources.get(&ip) {
            report::hammering(ip, source, context).into_iter().for_each(|finding| out.push(finding));
        }
    }
}

impl Source {
    fn count(&mut self, now: u64, (length, kept): (u64, u64), more: &Tally) {
        let number = now / length;
        if let Some(told) = &mut self.told {
            told.tally.add(more);
        }
        match self.parts.back_mut() {
            // Events of one second may come in another order than they happened in: what is late counts as now.
            Some((last, tally)) if *last >= number => tally.add(more),
            _ => self.parts.push_back((number, *more)),
        }
        let oldest = number.saturating_sub(kept);
        while self.parts.front().is_some_and(|(number, _)| *number < oldest) {
            self.parts.pop_front();
        }
    }

    fn is_over(&self, now: u64, quiet_ns: u64, kept_ns: u64) -> bool {
        now.saturating_sub(self.last_ns) > if self.told.is_some() { quiet_ns } else { kept_ns }
    }
}

/// The attack is over, or made room.
fn close(ip: IpAddr, mut source: Source, context: &Context<'_>, out: &mut Findings) {
    let Some(told) = &mut source.told else { return };
    if told.tally.connections > told.told_connections {
        told.revision += 1;
        told.told_connections = told.tally.connections;
        report::hammering(ip, &source, context).into_iter().for_each(|finding| out.push(finding));
    }
}
