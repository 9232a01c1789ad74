//! Rules `network_guardian.port_scan_out` and `network_guardian.sweep_out`: one origin on this host tries many ports of one host, or one
//! port of many hosts, and most of it fails.
//!
//! Both count the same attempts, each from its side. All hosts and ports that one origin scans are one alert of each rule.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bartizan_bus::event::{Connect, EventId, ExecId, InetSocket, Process, SecurityEvent};
use minicbor::{Decode, Encode};

use super::attempts::{Attempts, Ending, Thresholds, ending};
use super::config::{NetworkGuardianConfig, PortScanOutConfig, SweepOutConfig};
use super::episode::{Episode, STEP};
use super::origin::{Origin, excepted};
use super::report;
use super::table::{Ranked, SavedTable, Table};
use crate::detector::{Context, Findings, StateInfo};

/// Id of the rule about ports.
pub const PORT_SCAN: &str = "network_guardian.port_scan_out";
/// Answers that one scan names, at most.
const MAX_REACHED: usize = 64;

/// Id of the rule about hosts.
pub const SWEEP: &str = "network_guardian.sweep_out";

/// A scan that an origin makes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Scan {
    #[n(0)]
    pub(super) episode: Episode,
    /// Image of the last process that took part, with its pid, name and user.
    #[n(1)]
    pub(super) exec_id: ExecId,
    #[n(2)]
    pub(super) name: String,
    #[n(3)]
    pub(super) uid: u32,
    /// First host, for the title of a port scan.
    #[n(4)]
    pub(super) host: IpAddr,
    /// First port, for the title of a sweep.
    #[n(5)]
    pub(super) port: u16,
    /// Attempts that were refused, among [`Episode::attempts`].
    #[n(6)]
    pub(super) refused: u64,
    /// What it found: hosts and ports that answered, the first of them.
    #[n(7)]
    pub(super) reached: BTreeSet<(IpAddr, u16)>,
}

impl Ranked for Scan {
    fn rank(&self) -> (u8, u64) {
        (0, self.episode.last_ns)
    }
}

/// Saved form of one rule.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct SavedSide<F, K> {
    #[n(0)]
    tried: SavedTable<(Origin, F), Attempts<K>>,
    #[n(1)]
    scans: SavedTable<Origin, Scan>,
    #[n(2)]
    found: u64,
}

/// An attempt that failed.
struct Attempt<'a> {
    id: EventId,
    now: u64,
    origin: Origin,
    process: &'a Process,
    ip: IpAddr,
    port: u16,
    refused: bool,
}

/// One rule: for each origin and each `F` that stays the same, the `K`s that were tried.
struct Side<F, K> {
    rule: &'static str,
    thresholds: Thresholds,
    quiet_ns: u64,
    /// Whether `F` is part of a scan.
    part_of: fn(&Episode, F) -> bool,
    /// The host and the port.
    end: fn(F, K) -> (IpAddr, u16),
    tried: Table<(Origin, F), Attempts<K>>,
    scans: Table<Origin, Scan>,
    found: u64,
}

impl<F: Copy + Ord, K: Copy + Eq> Side<F, K> {
    fn reached(&mut self, now: u64, origin: Origin, same: F, key: K) {
        let thresholds = self.thresholds;
        if self.tried.change(&(origin, same), |attempts| attempts.reached(key, now, &thresholds)).is_none() {
            let mut attempts = Attempts::new();
            attempts.reached(key, now, &thresholds);
            // What made room is counted by the table.
            drop(self.tried.insert((origin, same), attempts));
        }
        if self.scans.get(&origin).is_some_and(|scan| !self.is_over(scan, now) && (self.part_of)(&scan.episode, same)) {
            let end = (self.end)(same, key);
            self.scans.change(&origin, |scan| scan.reaches(end));
        }
    }

    fn failed(&mut self, attempt: &Attempt<'_>, same: F, key: K, out: &mut Findings) {
        let Attempt { id, now, origin, process: _, ip: _, port: _, refused } = *attempt;
        if self.scans.get(&origin).is_some_and(|scan| self.is_over(scan, now))
            && let Some(scan) = self.scans.remove(&origin)
        {
            self.close(&origin, scan, out);
        }
        let (part_of, end) = (self.part_of, self.end);
        if self.scans.get(&origin).is_some_and(|scan| part_of(&scan.episode, same)) {
            self.scans.change(&origin, |scan| {
                scan.tries(end(same, key));
                scan.goes_on(attempt, 1, u64::from(refused));
            });
            self.tell(&origin, out);
            return;
        }
        let (place, thresholds) = ((origin, same), self.thresholds);
        if self.tried.get(&place).is_none() {
            drop(self.tried.insert(place, Attempts::new()));
        }
        let judged = self.tried.change(&place, |attempts| {
            let counts = attempts.failed(key, now, refused, id, &thresholds);
            let (from, slow) = counts.then(|| attempts.scan(now, &thresholds)).flatten()?;
            let before = attempts.clone();
            attempts.told();
            Some((from, slow, before))
        });
        let Some(Some((from, slow, before))) = judged else { return };
        if self.scans.get(&origin).is_none() {
            self.found += 1;
            let first = before.failed.first_since(from).unwrap_or(now);
            let scan = Scan::new(Episode::new(id, first, now, slow), attempt);
            if let Some((evicted, scan)) = self.scans.insert(origin, scan) {
                self.close(&evicted, scan, out);
            }
        }
        self.scans.change(&origin, |scan| {
            before.failed.since(from).for_each(|key| scan.tries(end(same, key)));
            before.reached.since(from).for_each(|key| scan.reaches(end(same, key)));
            scan.episode.evidence.merge(&before.evidence);
            scan.goes_on(attempt, before.count, before.refused);
        });
        self.tell(&origin, out);
    }

    fn tick(&mut self, now: u64, out: &mut Findings) {
        let (thresholds, quiet_ns) = (self.thresholds, self.quiet_ns);
        for (origin, scan) in self.scans.take_if(|scan| scan.is_over(now, quiet_ns, thresholds.slow_ns)) {
            self.close(&origin, scan, out);
        }
        drop(self.tried.take_if(|attempts| attempts.is_stale(now, thresholds.slow_ns)));
    }

    fn is_over(&self, scan: &Scan, now: u64) -> bool {
        scan.is_over(now, self.quiet_ns, self.thresholds.slow_ns)
    }

    fn tell(&mut self, origin: &Origin, out: &mut Findings) {
        if self.scans.change(origin, |scan| scan.episode.step(STEP)) == Some(true)
            && let Some(scan) = self.scans.get(origin)
        {
            out.push(report::scan_out(self.rule, origin, scan));
        }
    }

    /// The scan is over, or made room.
    fn close(&self, origin: &Origin, mut scan: Scan, out: &mut Findings) {
        if scan.episode.end() {
            out.push(report::scan_out(self.rule, origin, &scan));
        }
    }

    fn clear(&mut self) {
        self.tried.clear();
        self.scans.clear();
    }

    fn save(&self) -> SavedSide<F, K> {
        SavedSide { tried: self.tried.save(), scans: self.scans.save(), found: self.found }
    }

    fn restore(&mut self, saved: SavedSide<F, K>) {
        let SavedSide { tried, scans, found } = saved;
        self.tried.restore(tried);
        self.scans.restore(scans);
        self.found = found;
    }
}

impl Scan {
    fn new(episode: Episode, attempt: &Attempt<'_>) -> Self {
        let Attempt { id: _, now: _, origin: _, process, ip, port, refused: _ } = attempt;
        Self {
            episode,
            exec_id: process.exec_id,
            name: process.name.clone(),
            uid: process.uid,
            host: *ip,
            port: *port,
            refused: 0,
            reached: BTreeSet::new(),
        }
    }

    fn tries(&mut self, (host, port): (IpAddr, u16)) {
        self.episode.ports.insert(port);
        self.episode.add_host(host);
    }

    fn reaches(&mut self, end: (IpAddr, u16)) {
        self.tries(end);
        if self.reached.len() < MAX_REACHED {
            self.reached.insert(end);
        }
    }

    fn goes_on(&mut self, attempt: &Attempt<'_>, attempts: u64, refused: u64) {
        let Attempt { id, now, origin: _, process, ip: _, port: _, refused: _ } = attempt;
        self.episode.goes_on(*now, *id, attempts);
        self.refused = self.refused.saturating_add(refused);
        if self.exec_id != process.exec_id {
            self.exec_id = process.exec_id;
            self.name.clone_from(&process.name);
            self.uid = process.uid;
        }
    }

    fn is_over(&self, now: u64, quiet_ns: u64, slow_ns: u64) -> bool {
        self.episode.is_over(now, if self.episode.slow { slow_ns.max(quiet_ns) } else { quiet_ns })
    }
}

/// Saved form.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct Saved {
    #[n(0)]
    ports: Option<SavedSide<IpAddr, u16>>,
    #[n(1)]
    hosts: Option<SavedSide<u16, IpAddr>>,
    #[n(2)]
    excepted: u64,
}

/// Both rules and their state.
pub(super) struct ScanOut {
    ports: Option<Side<IpAddr, u16>>,
    hosts: Option<Side<u16, IpAddr>>,
    excepted: u64,
}

impl ScanOut {
    pub(super) fn new(module: &NetworkGuardianConfig) -> Self {
        let quiet_ns = module.quiet.ns();
        let PortScanOutConfig { enabled, ports, window, slow_ports, slow_window, min_failed_percent, max_targets, max_scans } =
            module.port_scan_out;
        let ports = enabled.then(|| Side {
            rule: PORT_SCAN,
            thresholds: Thresholds {
                fast: ports,
                fast_ns: window.ns(),
                slow: slow_ports,
                slow_ns: slow_window.ns(),
                min_failed_percent,
                reached_count: false,
            },
            quiet_ns,
            part_of: |episode, host| episode.hosts.contains(&host),
            end: |host, port| (host, port),
            tried: Table::new("scan_out_hosts", max_targets),
            scans: Table::new("scan_out_scans", max_scans),
            found: 0,
        });
        let SweepOutConfig { enabled, hosts, window, slow_hosts, slow_window, min_failed_percent, max_targets, max_scans } =
            module.sweep_out;
        let hosts = enabled.then(|| Side {
            rule: SWEEP,
            thresholds: Thresholds {
                fast: hosts,
                fast_ns: window.ns(),
                slow: slow_hosts,
                slow_ns: slow_window.ns(),
                min_failed_percent,
                reached_count: true,
            },
            quiet_ns,
            part_of: |episode, port| episode.ports.contains(port),
            end: |port, host| (host, port),
            tried: Table::new("sweep_out_ports", max_targets),
            scans: Table::new("sweep_out_sweeps", max_scans),
            found: 0,
        });
        Self { ports, hosts, excepted: 0 }
    }

    /// A connection attempt has its result.
    pub(super) fn connected(
        &mut self,
        event: &SecurityEvent,
        connect: &Connect,
        module: &NetworkGuardianConfig,
        context: &Context<'_>,
        out: &mut Findings,
    ) {
        let ending = ending(connect);
        let Some(process) = &event.process else { return };
        let InetSocket { peer_ip: Some(ip), peer_port: Some(port), .. } = connect.socket else { return };
        if ending == Ending::Nothing {
            return;
        }
        if excepted(&module.health_checkers, process, context.lineage, ip, Some(port)) {
            self.excepted += 1;
            return;
        }
        let (now, origin) = (event.time.boot_ns, Origin::of(process, context.lineage));
        if ending == Ending::Reached {
            if let Some(side) = &mut self.ports {
                side.reached(now, origin, ip, port);
            }
            if let Some(side) = &mut self.hosts {
                side.reached(now, origin, port, ip);
            }
            return;
        }
        let attempt = Attempt { id: event.id, now, origin, process, ip, port, refused: ending == Ending::Refused };
        if let Some(side) = &mut self.ports {
            side.failed(&attempt, ip, port, out);
        }
        if let Some(side) = &mut self.hosts {
            side.failed(&attempt, port, ip, out);
        }
    }

    /// Tells the rest of what is over, and forgets what is too old.
    pub(super) fn tick(&mut self, event: &SecurityEvent, out: &mut Findings) {
        if let Some(side) = &mut self.ports {
            side.tick(event.time.boot_ns, out);
        }
        if let Some(side) = &mut self.hosts {
            side.tick(event.time.boot_ns, out);
        }
    }

    pub(super) fn clear(&mut self) {
        self.ports.iter_mut().for_each(Side::clear);
        self.hosts.iter_mut().for_each(Side::clear);
    }

    pub(super) fn state(&self, into: &mut StateInfo) {
        if let Some(side) = &self.ports {
            into.tables.extend([side.tried.info(), side.scans.info()]);
            into.counters.insert("scan_out_found", side.found);
        }
        if let Some(side) = &self.hosts {
            into.tables.extend([side.tried.info(), side.scans.info()]);
            into.counters.insert("sweep_out_found", side.found);
        }
        into.counters.insert("out_excepted", self.excepted);
    }

    pub(super) fn save(&self) -> Saved {
        Saved { ports: self.ports.as_ref().map(Side::save), hosts: self.hosts.as_ref().map(Side::save), excepted: self.excepted }
    }

    pub(super) fn restore(&mut self, saved: Saved) {
        let Saved { ports, hosts, excepted } = saved;
        if let (Some(side), Some(saved)) = (&mut self.ports, ports) {
            side.restore(saved);
        }
        if let (Some(side), Some(saved)) = (&mut self.hosts, hosts) {
            side.restore(saved);
        }
        self.excepted = excepted;
    }
}
