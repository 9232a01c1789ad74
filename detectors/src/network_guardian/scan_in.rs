//! Rule `network_guardian.port_scan_in`: one source probes many ports of this host.
//!
//! Invariants worth naming:
//!
//! - A source is judged by ports on which nothing listens. Connections that were taken add to them, and never make a scan by themselves.
//! - Sources that probe the same ports within the same time are one alert: at most one of them need be real.
//! - A source with one port never makes one with more ports be forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bartizan_bus::event::{EventId, InetSocket, PROBE_PORTS, Probe, SecurityEvent, Transport};
use minicbor::{Decode, Encode};

use super::config::{NetworkGuardianConfig, PortScanInConfig};
use super::episode::{Episode, Evidence, SOURCE_STEP};
use super::packets::way;
use super::recent::Recent;
use super::report;
use super::table::{Ranked, SavedTable, Table, weight};
use crate::detector::{Findings, StateInfo};

/// The rule's id.
pub const RULE: &str = "network_guardian.port_scan_in";

/// A source with so many closed ports is remembered apart from those with fewer.
const SUSPECT_PORTS: usize = 4;
/// UDP packets of a host that a socket of ours was connected to so recently are late answers.
const UDP_ANSWER_NS: u64 = 120_000_000_000;
/// Addresses of this host that one scan names, at most.
const MAX_LOCAL: usize = 8;

/// What one source did.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Source {
    #[n(0)]
    closed: Recent<u16>,
    #[n(1)]
    open: Recent<u16>,
    #[n(2)]
    ways: u8,
    #[n(3)]
    packets: u64,
    #[n(4)]
    last_ns: u64,
    #[n(5)]
    evidence: Evidence,
    #[n(6)]
    local: BTreeSet<IpAddr>,
}

impl Ranked for Source {
    fn rank(&self) -> (u8, u64) {
        (weight(self.closed.len() as u64), self.last_ns)
    }
}

/// A host that this host asked over UDP, and when it did last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Asked {
    #[n(0)]
    last_ns: u64,
}

impl Ranked for Asked {
    fn rank(&self) -> (u8, u64) {
        (0, self.last_ns)
    }
}

/// A scan, by one source or by several that do the same.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Scan {
    #[n(0)]
    pub(super) episode: Episode,
    /// Source that gave it away.
    #[n(1)]
    pub(super) source: IpAddr,
    #[n(2)]
    pub(super) ways: u8,
    #[n(3)]
    pub(super) local: BTreeSet<IpAddr>,
    /// Sources that completed a connection: the address is real, whoever sent the probes.
    #[n(4)]
    pub(super) proven: BTreeSet<IpAddr>,
    /// It also stands for sources that probed other ports, because there were too many scans.
    #[n(5)]
    pub(super) crowd: bool,
}

impl Ranked for Scan {
    fn rank(&self) -> (u8, u64) {
        (0, self.episode.last_ns)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Counters {
    #[n(0)]
    scans: u64,
    #[n(1)]
    joined: u64,
    #[n(2)]
    crowded: u64,
    #[n(3)]
    excepted: u64,
    #[n(4)]
    late: u64,
}

/// Saved form.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct Saved {
    #[n(0)]
    few: SavedTable<IpAddr, Source>,
    #[n(1)]
    many: SavedTable<IpAddr, Source>,
    #[n(2)]
    scans: SavedTable<EventId, Scan>,
    #[n(3)]
    counters: Counters,
    #[n(4)]
    asked: SavedTable<IpAddr, Asked>,
}

/// The rule and its state.
pub(super) struct PortScanIn {
    config: PortScanInConfig,
    quiet_ns: u64,
    /// Most closed and most open ports remembered of one source: a whole report more than a scan needs, so that all of it is told.
    keep: usize,
    few: Table<IpAddr, Source>,
    many: Table<IpAddr, Source>,
    scans: Table<EventId, Scan>,
    asked: Table<IpAddr, Asked>,
    /// Scan that each source takes part in.
    members: BTreeMap<IpAddr, EventId>,
    counters: Counters,
}

impl PortScanIn {
    pub(super) fn new(module: &NetworkGuardianConfig) -> Self {
        let config = module.port_scan_in.clone();
        Self {
            quiet_ns: module.quiet.ns(),
            keep: config.ports.max(config.slow_ports) + PROBE_PORTS,
            few: Table::new("scan_in_sources", config.max_sources),
            many: Table::new("scan_in_suspects", config.max_sources),
            scans: Table::new("scan_in_scans", config.max_scans),
            asked: Table::new("scan_in_udp_peers", config.max_sources),
            members: BTreeMap::new(),
            counters: Counters::default(),
            config,
        }
    }

    /// Packets of `way` reached these closed ports; `aside` more may have been late packets.
    pub(super) fn probed(
        &mut self,
        event: &SecurityEvent,
        probe: &Probe,
        (way, ports, aside): (u8, &[u16], usize),
        module: &NetworkGuardianConfig,
        out: &mut Findings,
    ) {
        let ip = probe.source_ip;
        self.counters.late += aside as u64;
        let ports: Vec<u16> = ports.iter().copied().filter(|port| !module.excepts(ip, Some(*port))).collect();
        if ports.is_empty() {
            self.counters.excepted += u64::from(aside == 0);
            return;
        }
        let now = event.time.boot_ns;
        let asked = || self.asked.get(&ip).is_some_and(|asked| now.saturating_sub(asked.last_ns) <= UDP_ANSWER_NS);
        if probe.transport == Transport::Udp && asked() {
            // A resolver that answers late, to a port that is closed by now.
            self.counters.late += ports.len() as u64;
            return;
        }
        if self.is_member(ip, event, out) {
            self.goes_on(ip, event, probe.packets, out, |scan| {
                ports.iter().for_each(|port| {
                    scan.episode.ports.insert(*port);
                });
                scan.ways |= way;
                add_local(&mut scan.local, probe.local_ip);
            });
            return;
        }
        let keep = self.keep;
        let slow_from = now.saturating_sub(self.config.slow_window.ns());
        self.change(ip, now, |source| {
            source.closed.prune(slow_from);
            source.open.prune(slow_from);
            for port in &ports {
                source.open.remove(port);
                source.closed.note(*port, now, keep);
            }
            source.ways |= way;
            source.packets = source.packets.saturating_add(probe.packets);
            source.evidence.add(event.id);
            add_local(&mut source.local, probe.local_ip);
        });
        self.judge(ip, event, out);
    }

    /// A socket of this host was connected to `socket`'s peer.
    pub(super) fn connected(&mut self, event: &SecurityEvent, socket: &InetSocket) {
        if let (Transport::Udp, Some(ip)) = (socket.transport, socket.peer_ip) {
            // What made room is counted by the table.
            let _ = self.asked.insert(ip, Asked { last_ns: event.time.boot_ns });
        }
    }

    /// A program took a connection.
    pub(super) fn accepted(&mut self, event: &SecurityEvent, socket: &InetSocket, module: &NetworkGuardianConfig, out: &mut Findings) {
        let InetSocket { local_ip: _, local_port: Some(port), peer_ip: Some(ip), .. } = *socket else { return };
        if module.excepts(ip, Some(port)) {
            return;
        }
        if self.is_member(ip, event, out) {
            // It does not make the scan last: a forged source may be a client that goes on with its work.
            let Some(key) = self.members.get(&ip).copied() else { return };
            self.scans.change(&key, |scan| {
                scan.episode.ports.insert(port);
                scan.ways |= way::CONNECT;
                scan.proven.insert(ip);
            });
            self.tell(&key, out);
            return;
        }
        // Only who probed a closed port is remembered: a busy server has many clients.
        let Some(source) = self.few.get(&ip).or_else(|| self.many.get(&ip)) else { return };
        if source.closed.contains(&port) {
            return;
        }
        let (now, keep) = (event.time.boot_ns, self.keep);
        self.change(ip, now, |source| {
            source.open.note(port, now, keep);
            source.ways |= way::CONNECT;
            source.evidence.add(event.id);
        });
        self.judge(ip, event, out);
    }

    /// Tells the rest of what is over, and forgets what is too old.
    pub(super) fn tick(&mut self, event: &SecurityEvent, out: &mut Findings) {
        let now = event.time.boot_ns;
        let (quiet_ns, slow_ns) = (self.quiet_ns, self.config.slow_window.ns());
        for (_, scan) in self.scans.take_if(|scan| scan.is_over(now, quiet_ns, slow_ns)) {
            self.close(scan, out);
        }
        let open: Vec<EventId> = self.scans.iter().map(|(key, _)| *key).collect();
        for key in open {
            if self.scans.change(&key, |scan| scan.episode.pause(now)) == Some(true)
                && let Some(scan) = self.scans.get(&key)
            {
                out.push(report::scan_in(scan));
            }
        }
        drop(self.asked.take_if(|asked| now.saturating_sub(asked.last_ns) > UDP_ANSWER_NS));
        for table in [&mut self.few, &mut self.many] {
            drop(table.take_if(|source| now.saturating_sub(source.last_ns) > slow_ns));
        }
    }

    pub(super) fn clear(&mut self) {
        self.few.clear();
        self.many.clear();
        self.scans.clear();
        self.asked.clear();
        self.members.clear();
    }

    pub(super) fn state(&self, into: &mut StateInfo) {
        let Counters { scans, joined, crowded, excepted, late } = self.counters;
        into.tables.extend([self.few.info(), self.many.info(), self.scans.info(), self.asked.info()]);
        into.counters.extend([
            ("scan_in_found", scans),
            ("scan_in_sources_joined", joined),
            ("scan_in_sources_crowded", crowded),
            ("scan_in_excepted", excepted),
            ("scan_in_late_packets", late),
        ]);
    }

    pub(super) fn save(&self) -> Saved {
        Saved {
            few: self.few.save(),
            many: self.many.save(),
            scans: self.scans.save(),
            counters: self.counters.clone(),
            asked: self.asked.save(),
        }
    }

    pub(super) fn restore(&mut self, saved: Saved) {
        let Saved { few, many, scans, counters, asked } = saved;
        self.asked.restore(asked);
        self.few.restore(few);
        self.many.restore(many);
        self.scans.restore(scans);
        self.counters = counters;
        let members = self.scans.iter().flat_map(|(key, scan)| scan.episode.hosts.iter().map(|ip| (*ip, *key)));
        self.members = members.collect();
    }

    /// Changes what is remembered of `ip`, which moves to the suspects when it has enough ports.
    fn change(&mut self, ip: IpAddr, now: u64, change: impl FnOnce(&mut Source)) {
        let known = self.few.remove(&ip).or_else(|| self.many.remove(&ip));
        let mut source = known.unwrap_or_else(|| Source {
            closed: Recent::new(),
            open: Recent::new(),
            ways: 0,
            packets: 0,
            last_ns: now,
            evidence: Evidence::default(),
            local: BTreeSet::new(),
        });
        change(&mut source);
        source.last_ns = source.last_ns.max(now);
        let table = if source.closed.len() >= SUSPECT_PORTS { &mut self.many } else { &mut self.few };
        // What made room is counted by the table.
        drop(table.insert(ip, source));
    }

    /// Whether the source scans by now: then it begins a scan or joins one.
    fn judge(&mut self, ip: IpAddr, event: &SecurityEvent, out: &mut Findings) {
        let PortScanInConfig { ports, window, slow_ports, slow_window, max_new_alerts, .. } = self.config;
        let Some(source) = self.few.get(&ip).or_else(|| self.many.get(&ip)) else { return };
        let now = event.time.boot_ns;
        let count = |from| {
            let closed = source.closed.count_since(from);
            // At most as many open ports as closed ones: a checker of many services, some of them down, is no scanner.
            closed + source.open.count_since(from).min(closed)
        };
        let (from, slow_from) = (now.saturating_sub(window.ns()), now.saturating_sub(slow_window.ns()));
        // This host itself is all its programs together: what they miss in a day says nothing. `port_scan_out` tells them apart.
        let own = ip.to_canonical().is_loopback() || source.local.contains(&ip);
        let (from, slow) = match (count(from) >= ports, !own && count(slow_from) >= slow_ports) {
            (true, _) => (from, false),
            (false, true) => (slow_from, true),
            (false, false) => return,
        };
        let Some(source) = self.few.remove(&ip).or_else(|| self.many.remove(&ip)) else { return };
        let tried: Vec<u16> = source.closed.since(from).collect();
        let near = |scan: &Scan| now.saturating_sub(scan.episode.last_ns) <= window.ns();
        let shared = |scan: &Scan| tried.iter().filter(|port| scan.episode.ports.contains(**port)).count();
        let alike = self.scans.iter().filter(|(_, scan)| near(scan)).map(|(key, scan)| (shared(scan), *key));
        let alike = alike.max().filter(|(shared, _)| shared * 2 >= tried.len()).map(|(_, key)| key);
        let recent = self.scans.iter().filter(|(_, scan)| now.saturating_sub(scan.episode.opened_ns) <= window.ns());
        let recent: Vec<(u64, EventId)> = recent.map(|(key, scan)| (scan.episode.opened_ns, *key)).collect();
        let crowd = recent.iter().max().filter(|_| recent.len() >= max_new_alerts).map(|(_, key)| *key);
        let key = match (alike, crowd) {
            (Some(key), _) => {
                self.counters.joined += 1;
                key
            }
            (None, Some(key)) => {
                self.counters.crowded += 1;
                self.scans.change(&key, |scan| scan.crowd = true);
                key
            }
            (None, None) => {
                self.counters.scans += 1;
                let first = source.closed.first_since(from).unwrap_or(now);
                let scan = Scan {
                    episode: Episode::new(event.id, first, now, slow),
                    source: ip,
                    ways: 0,
                    local: BTreeSet::new(),
                    proven: BTreeSet::new(),
                    crowd: false,
                };
                if let Some((_, evicted)) = self.scans.insert(event.id, scan) {
                    self.close(evicted, out);
                }
                event.id
            }
        };
        let named = self.scans.change(&key, |scan| {
            let open: Vec<u16> = source.open.since(from).collect();
            for port in tried.iter().chain(&open) {
                scan.episode.ports.insert(*port);
            }
            scan.ways |= source.ways;
            source.local.iter().for_each(|local| add_local(&mut scan.local, *local));
            scan.episode.evidence.merge(&source.evidence);
            scan.episode.goes_on(now, event.id, source.packets);
            let named = scan.episode.add_host(ip);
            if named && !open.is_empty() {
                scan.proven.insert(ip);
            }
            named
        });
        if named == Some(true) {
            self.members.insert(ip, key);
        }
        self.tell(&key, out);
    }

    /// Whether `ip` takes part in a scan that goes on. One that is over by now is closed.
    fn is_member(&mut self, ip: IpAddr, event: &SecurityEvent, out: &mut Findings) -> bool {
        let Some(key) = self.members.get(&ip).copied() else { return false };
        let (quiet_ns, slow_ns) = (self.quiet_ns, self.config.slow_window.ns());
        let over = self.scans.get(&key).is_none_or(|scan| scan.is_over(event.time.boot_ns, quiet_ns, slow_ns));
        if over && let Some(scan) = self.scans.remove(&key) {
            self.close(scan, out);
        }
        !over
    }

    fn goes_on(&mut self, ip: IpAddr, event: &SecurityEvent, packets: u64, out: &mut Findings, change: impl FnOnce(&mut Scan)) {
        let Some(key) = self.members.get(&ip).copied() else { return };
        self.scans.change(&key, |scan| {
            change(scan);
            scan.episode.goes_on(event.time.boot_ns, event.id, packets);
        });
        self.tell(&key, out);
    }

    fn tell(&mut self, key: &EventId, out: &mut Findings) {
        let due = self.scans.change(key, |scan| scan.episode.step(SOURCE_STEP));
        if due == Some(true)
            && let Some(scan) = self.scans.get(key)
        {
            out.push(report::scan_in(scan));
        }
    }

    /// The scan is over, or made room.
    fn close(&mut self, mut scan: Scan, out: &mut Findings) {
        for ip in &scan.episode.hosts {
            self.members.remove(ip);
        }
        if scan.episode.end() {
            out.push(report::scan_in(&scan));
        }
    }
}

impl Scan {
    fn is_over(&self, now: u64, quiet_ns: u64, slow_ns: u64) -> bool {
        self.episode.is_over(now, if self.episode.slow { slow_ns.max(quiet_ns) } else { quiet_ns })
    }
}

fn add_local(local: &mut BTreeSet<IpAddr>, ip: IpAddr) {
    if local.len() < MAX_LOCAL {
        local.insert(ip);
    }
}
