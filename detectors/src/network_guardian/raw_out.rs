//! Rule `network_guardian.raw_scan_out`: one host answers to packets that no socket of this host sent.
//!
//! A scanner with raw sockets (`nmap -sS` as root) sends SYNs past the kernel's sockets, from one or few ports. What comes back (SYN+ACK of
//! open ports, RST of closed ones) finds no socket. The same is seen when somebody elsewhere writes our address into packets of theirs, so
//! this alone is never sure.

use std::net::IpAddr;

use bartizan_bus::event::{EventId, Probe, SecurityEvent};
use minicbor::{Decode, Encode};

use super::config::{NetworkGuardianConfig, RawScanOutConfig};
use super::episode::{Episode, MAX_STEPS, STEP};
use super::recent::Recent;
use super::report;
use super::table::{Ranked, SavedTable, Table, weight};
use crate::detector::{Findings, StateInfo};

/// The rule's id.
pub const RULE: &str = "network_guardian.raw_scan_out";

/// A scanner uses few ports of ours. Answers to more are the late ends of many old connections, or backscatter.
const MAX_PORTS: usize = 8;
/// A port of an old connection gets few late packets, a scanner's port one for each that it asked.
const PER_PORT: u64 = 10;

/// Answers of one host.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Answers {
    /// Begin of the present window.
    #[n(0)]
    since: u64,
    #[n(1)]
    packets: u64,
    /// Ports of ours that they came to: one more than a scanner uses is enough to know.
    #[n(2)]
    ports: Recent<u16>,
    #[n(3)]
    last_ns: u64,
    /// What was told, if it is.
    #[n(4)]
    pub(super) told: Option<Episode>,
    /// Answers that were told.
    #[n(5)]
    told_answers: u64,
}

impl Ranked for Answers {
    fn rank(&self) -> (u8, u64) {
        (if self.told.is_some() { u8::MAX } else { weight(self.packets) }, self.last_ns)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Counters {
    #[n(0)]
    found: u64,
    #[n(1)]
    answers: u64,
    #[n(2)]
    excepted: u64,
}

/// Saved form.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct Saved {
    #[n(0)]
    hosts: SavedTable<IpAddr, Answers>,
    #[n(1)]
    counters: Counters,
}

/// The rule and its state.
pub(super) struct RawScanOut {
    config: RawScanOutConfig,
    quiet_ns: u64,
    hosts: Table<IpAddr, Answers>,
    counters: Counters,
}

impl RawScanOut {
    pub(super) fn new(module: &NetworkGuardianConfig) -> Self {
        let config = module.raw_scan_out.clone();
        let hosts = Table::new("raw_out_hosts", config.max_sources);
        Self { config, quiet_ns: module.quiet.ns(), hosts, counters: Counters::default() }
    }

    /// Answers of `probe.source_ip` came to ports without a socket.
    pub(super) fn answered(&mut self, event: &SecurityEvent, probe: &Probe, module: &NetworkGuardianConfig, out: &mut Findings) {
        let (ip, now) = (probe.source_ip, event.time.boot_ns);
        if module.excepts(ip, None) {
            self.counters.excepted += 1;
            return;
        }
        self.counters.answers = self.counters.answers.saturating_add(probe.packets);
        let RawScanOutConfig { enabled: _, answers, window, max_sources: _ } = self.config;
        let quiet_ns = self.quiet_ns;
        if self.hosts.get(&ip).is_some_and(|host| host.is_over(now, window.ns(), quiet_ns))
            && let Some(host) = self.hosts.remove(&ip)
        {
            close(ip, host, out);
        }
        if self.hosts.get(&ip).is_none() {
            let host = Answers { since: now, packets: 0, ports: Recent::new(), last_ns: now, told: None, told_answers: 0 };
            if let Some((evicted, host)) = self.hosts.insert(ip, host) {
                close(evicted, host, out);
            }
        }
        let least = answers as u64;
        let (told, new) = self
            .hosts
            .change(&ip, |host| {
                let before = host.told.is_some();
                let told = host.add(event.id, now, probe, window.ns(), least).then(|| host.told.clone()).flatten();
                (told, !before && host.told.is_some())
            })
            .unwrap_or_default();
        self.counters.found += u64::from(new);
        if let Some(episode) = told {
            out.push(report::raw_out(ip, &episode));
        }
    }

    /// Tells the rest of what is over, and forgets what is too old.
    pub(super) fn tick(&mut self, event: &SecurityEvent, out: &mut Findings) {
        let (now, window_ns, quiet_ns) = (event.time.boot_ns, self.config.window.ns(), self.quiet_ns);
        for (ip, host) in self.hosts.take_if(|host| host.is_over(now, window_ns, quiet_ns)) {
            close(ip, host, out);
        }
    }

    pub(super) fn clear(&mut self) {
        self.hosts.clear();
    }

    pub(super) fn state(&self, into: &mut StateInfo) {
        let Counters { found, answers, excepted } = self.counters;
        into.tables.push(self.hosts.info());
        into.counters.extend([("raw_out_found", found), ("raw_out_answers", answers), ("raw_out_excepted", excepted)]);
    }

    pub(super) fn save(&self) -> Saved {
        Saved { hosts: self.hosts.save(), counters: self.counters.clone() }
    }

    pub(super) fn restore(&mut self, saved: Saved) {
        let Saved { hosts, counters } = saved;
        self.hosts.restore(hosts);
        self.counters = counters;
    }
}

impl Answers {
    /// Takes one report; whether it is to be told.
    fn add(&mut self, id: EventId, now: u64, probe: &Probe, window_ns: u64, least: u64) -> bool {
        self.last_ns = self.last_ns.max(now);
        if let Some(episode) = &mut self.told {
            probe.ports.iter().take(MAX_PORTS).for_each(|port| {
                episode.ports.insert(*port);
            });
            episode.goes_on(now, id, probe.packets);
            let due = episode.attempts >= self.told_answers.saturating_mul(STEP) && episode.revision < MAX_STEPS;
            if due {
                episode.tell();
                self.told_answers = episode.attempts;
            }
            return due;
        }
        if now.saturating_sub(self.since) > window_ns {
            (self.since, self.packets) = (now, 0);
            self.ports.clear();
        }
        self.packets = self.packets.saturating_add(probe.packets);
        probe.ports.iter().for_each(|port| self.ports.note(*port, now, MAX_PORTS + 1));
        let few = self.ports.len() <= MAX_PORTS && self.packets / PER_PORT >= self.ports.len() as u64;
        if self.packets < least || !few {
            return false;
        }
        let mut episode = Episode::new(id, self.since, now, false);
        self.ports.since(0).for_each(|port| {
            episode.ports.insert(port);
        });
        episode.add_host(probe.source_ip);
        episode.goes_on(now, id, self.packets);
        episode.tell();
        self.told_answers = episode.attempts;
        self.told = Some(episode);
        true
    }

    fn is_over(&self, now: u64, window_ns: u64, quiet_ns: u64) -> bool {
        let quiet = if self.told.is_some() { quiet_ns } else { window_ns };
        now.saturating_sub(self.last_ns) > quiet
    }
}

/// It is over, or made room.
fn close(ip: IpAddr, host: Answers, out: &mut Findings) {
    let Answers { told: Some(mut episode), told_answers, .. } = host else { return };
    if episode.attempts > told_answers {
        episode.tell();
        out.push(report::raw_out(ip, &episode));
    }
}
