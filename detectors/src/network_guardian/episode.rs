//! One scan from its detection to its end: what it amounts to, and when that is told again.
//!
//! The first revision is the detection. A next one follows when the ports or the targets are five times, or the sources
//! twice, as many as at the last one (a second source is news to whoever blocks the first), when it pauses with sources that were not
//! told, and once at the end when there is more than was told. With at most 65,536 ports and [`MAX_HOSTS`] hosts that makes at most
//! [`MAX_REVISIONS`].

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;

use bartizan_bus::event::EventId;
use minicbor::{Decode, Encode};

use super::port_set::PortSet;

/// Hosts that one scan names apart, at most.
pub(super) const MAX_HOSTS: usize = 1_024;
/// Evidence of one scan, at most: the newest events.
const MAX_EVIDENCE: usize = 32;
/// So many times as much as was told is told again.
pub(super) const STEP: u64 = 5;
/// The same of sources of one scan.
pub(super) const SOURCE_STEP: u64 = 2;
/// Where packets or connections are counted, which have no highest number: so many revisions, and the last.
pub(super) const MAX_STEPS: u32 = 7;
/// When nothing more came for so long, sources that were not told yet are.
const PAUSE_NS: u64 = 2_000_000_000;
/// So often at most.
const MAX_PAUSES: u32 = 4;
/// Revisions of one alert, at most: the first, 5, 25 ... 15,625 ports, 2, 4 ... 1,024 hosts, the pauses, and the last.
#[cfg(test)]
pub(super) const MAX_REVISIONS: u32 = 1 + 6 + 10 + MAX_PAUSES + 1;

/// Newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Evidence {
    #[n(0)]
    ids: VecDeque<EventId>,
}

impl Evidence {
    /// Adds the event that happens now.
    pub(super) fn add(&mut self, id: EventId) {
        if self.ids.front() != Some(&id) {
            self.ids.push_front(id);
            self.ids.truncate(MAX_EVIDENCE);
        }
    }

    pub(super) fn ids(&self) -> Vec<EventId> {
        self.ids.iter().copied().collect()
    }

    pub(super) fn clear(&mut self) {
        self.ids.clear();
    }

    /// Adds what `other` has, which happened before.
    pub(super) fn merge(&mut self, other: &Self) {
        for id in other.ids.iter().rev() {
            if !self.ids.contains(id) {
                self.add(*id);
            }
        }
    }
}

/// A scan that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Episode {
    /// The event that gave it away: with its rule and what it is about, its identity.
    #[n(0)]
    pub(super) opened: EventId,
    #[n(1)]
    pub(super) opened_ns: u64,
    #[n(2)]
    pub(super) first_ns: u64,
    #[n(3)]
    pub(super) last_ns: u64,
    /// Found by the slow form.
    #[n(4)]
    pub(super) slow: bool,
    #[n(5)]
    pub(super) ports: PortSet,
    /// The other side: sources of a scan that comes in, targets of one that goes out.
    #[n(6)]
    pub(super) hosts: BTreeSet<IpAddr>,
    /// Times that a host found no room in `hosts`.
    #[n(7)]
    pub(super) hosts_over: u64,
    /// Packets or attempts.
    #[n(8)]
    pub(super) attempts: u64,
    #[n(9)]
    pub(super) evidence: Evidence,
    #[n(10)]
    pub(super) revision: u32,
    #[n(11)]
    told_ports: u64,
    #[n(12)]
    told_hosts: u64,
    #[n(13)]
    pauses: u32,
}

impl Episode {
    /// A scan that nothing was told of yet.
    pub(super) fn new(opened: EventId, first_ns: u64, now: u64, slow: bool) -> Self {
        Self {
            opened,
            opened_ns: now,
            first_ns,
            last_ns: now,
            slow,
            ports: PortSet::default(),
            hosts: BTreeSet::new(),
            hosts_over: 0,
            attempts: 0,
            evidence: Evidence::default(),
            revision: 0,
            told_ports: 0,
            told_hosts: 0,
            pauses: 0,
        }
    }

    /// Adds a host; whether it is among those that are named apart.
    pub(super) fn add_host(&mut self, ip: IpAddr) -> bool {
        if self.hosts.contains(&ip) {
            return true;
        }
        if self.hosts.len() >= MAX_HOSTS {
            self.hosts_over += 1;
            return false;
        }
        self.hosts.insert(ip)
    }

    /// More happened.
    pub(super) fn goes_on(&mut self, now: u64, event: EventId, attempts: u64) {
        self.last_ns = self.last_ns.max(now);
        self.attempts = self.attempts.saturating_add(attempts);
        self.evidence.add(event);
    }

    /// Whether it is to be told now, with so many times as many hosts; if so, it counts as told.
    pub(super) fn step(&mut self, host_step: u64) -> bool {
        let due = self.ports.len() >= self.told_ports * STEP || self.hosts.len() as u64 >= self.told_hosts * host_step;
        if due {
            self.tell();
        }
        due
    }

    /// Time goes on. Whether it paused with hosts that were not told; if so, it counts as told.
    pub(super) fn pause(&mut self, now: u64) -> bool {
        let untold = self.hosts.len() as u64 > self.told_hosts && self.pauses < MAX_PAUSES;
        let due = untold && now.saturating_sub(self.last_ns) >= PAUSE_NS;
        if due {
            self.pauses += 1;
            self.tell();
        }
        due
    }

    /// It is over. Whether there is more than was told; if so, it counts as told.
    pub(super) fn end(&mut self) -> bool {
        let more = self.ports.len() > self.told_ports || self.hosts.len() as u64 > self.told_hosts;
        if more {
            self.tell();
        }
        more
    }

    /// Whether nothing happened since `quiet_ns`.
    pub(super) fn is_over(&self, now: u64, quiet_ns: u64) -> bool {
        now.saturating_sub(self.last_ns) > quiet_ns
    }

    /// It counts as told now.
    pub(super) fn tell(&mut self) {
        self.revision += 1;
        self.told_ports = self.ports.len();
        self.told_hosts = self.hosts.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_was_not_told_is_told_in_the_pause() {
        let mut episode = Episode::new(EventId([1; 20]), 0, 0, false);
        episode.ports.insert(22);
        for host in 1..=5 {
            assert!(episode.add_host(IpAddr::from([10, 0, 0, host])));
            assert_eq!(episode.step(SOURCE_STEP), [1, 2, 4].contains(&host), "{host}");
        }
        assert!(!episode.pause(PAUSE_NS - 1), "it may go on");
        assert!(episode.pause(PAUSE_NS));
        assert!(!episode.pause(2 * PAUSE_NS), "told once");
    }

    #[test]
    fn what_grows_fivefold_is_told_and_the_rest_at_the_end() {
        let id = EventId([1; 20]);
        let mut episode = Episode::new(id, 0, 0, false);
        assert!(episode.add_host(IpAddr::from([10, 0, 0, 1])));
        let mut told = Vec::new();
        for port in 0..=u16::MAX {
            episode.ports.insert(port);
            if port >= 19 && episode.step(SOURCE_STEP) {
                told.push(u32::from(port) + 1);
            }
        }
        assert_eq!(told, [20, 100, 500, 2_500, 12_500, 62_500]);
        assert!(episode.end());
        assert!(!episode.end());
        for host in 1..3_000u32 {
            episode.add_host(IpAddr::from(host.to_be_bytes()));
            episode.step(SOURCE_STEP);
        }
        assert_eq!((episode.hosts.len(), episode.hosts_over), (MAX_HOSTS, 3_000 - MAX_HOSTS as u64));
        assert!(episode.revision <= MAX_REVISIONS, "{}", episode.revision);
    }
}
