//! What one origin tried, seen from one side: the ports of one host, or the hosts on one port.

use bartizan_bus::event::{Connect, Errno, Transport};
use minicbor::{Decode, Encode};

use super::episode::Evidence;
use super::recent::Recent;
use super::table::{Ranked, weight};

/// Linux's error numbers, include/uapi/asm-generic/errno.h.
const ENETUNREACH: i32 = 101;
const ECONNABORTED: i32 = 103;
const ECONNRESET: i32 = 104;
const ETIMEDOUT: i32 = 110;
const ECONNREFUSED: i32 = 111;
const EHOSTUNREACH: i32 = 113;

/// How many times the threshold is remembered of what failed, so that its share is known too.
const KEPT_PER_THRESHOLD: usize = 4;
/// So much is remembered of what was reached: a server with more peers that all fail at once is told.
const KEPT_REACHED: usize = 256;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Connected.
    Reached,
    /// The other side, or a router, refused it.
    Refused,
    /// Nothing answered, or the program gave up before something did.
    Silent,
    /// It never left this host, has no result, or is of a protocol whose connect() asks nobody.
    Nothing,
}

/// Judges the result. UDP's connect() sends nothing and always succeeds, so it says nothing.
pub(super) fn ending(connect: &Connect) -> Ending {
    let Connect { socket, error, duration_ns: _, peer_from_caller: _, domain: _ } = connect;
    if socket.transport != Transport::Tcp {
        return Ending::Nothing;
    }
    match error {
        None => Ending::Reached,
        Some(Errno(ECONNREFUSED | ECONNRESET)) => Ending::Refused,
        // Without a local port there was no route, and no packet left.
        Some(Errno(EHOSTUNREACH | ENETUNREACH)) if socket.local_port.is_some() => Ending::Silent,
        Some(Errno(ETIMEDOUT | ECONNABORTED)) => Ending::Silent,
        Some(_) => Ending::Nothing,
    }
}

/// Distinct keys (ports or hosts) that failed, and that answered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Attempts<K> {
    #[n(0)]
    pub(super) failed: Recent<K>,
    #[n(1)]
    pub(super) reached: Recent<K>,
    #[n(2)]
    last_ns: u64,
    #[n(3)]
    pub(super) evidence: Evidence,
    /// Failed attempts.
    #[n(4)]
    pub(super) count: u64,
    /// Those of them that were refused.
    #[n(5)]
    pub(super) refused: u64,
}

impl<K> Ranked for Attempts<K>
where
    K: Copy + Eq,
{
    fn rank(&self) -> (u8, u64) {
        (weight(self.failed.len() as u64), self.last_ns)
    }
}

/// Thresholds of one rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thresholds {
    pub(super) fast: usize,
    pub(super) fast_ns: u64,
    pub(super) slow: usize,
    pub(super) slow_ns: u64,
    pub(super) min_failed_percent: u8,
    /// Keys that answered count towards the threshold, too.
    pub(super) reached_count: bool,
}

impl Thresholds {
    fn keep(&self) -> usize {
        self.fast.max(self.slow) * KEPT_PER_THRESHOLD
    }
}

impl<K: Copy + Eq> Attempts<K> {
    pub(super) fn new() -> Self {
        Self { failed: Recent::new(), reached: Recent::new(), last_ns: 0, evidence: Evidence::default(), count: 0, refused: 0 }
    }

    /// An attempt was answered: a service that is known, also when it fails later or failed before it was up.
    pub(super) fn reached(&mut self, key: K, now: u64, thresholds: &Thresholds) {
        self.at(now, thresholds);
        self.failed.remove(&key);
        self.reached.note(key, now, thresholds.keep().max(KEPT_REACHED));
    }

    /// An attempt failed. Whether that counts: not where the same was reached within the slow window.
    pub(super) fn failed(&mut self, key: K, now: u64, refused: bool, event: bartizan_bus::event::EventId, thresholds: &Thresholds) -> bool {
        self.at(now, thresholds);
        if self.reached.contains(&key) {
            return false;
        }
        self.failed.note(key, now, thresholds.keep());
        self.evidence.add(event);
        self.count += 1;
        self.refused += u64::from(refused);
        true
    }

    /// Start of the window in which there is a scan, and whether that is the slow one.
    pub(super) fn scan(&self, now: u64, thresholds: &Thresholds) -> Option<(u64, bool)> {
        let Thresholds { fast, fast_ns, slow, slow_ns, min_failed_percent, reached_count } = *thresholds;
        let enough = |from: u64, least: usize| {
            let (failed, reached) = (self.failed.count_since(from), self.reached.count_since(from));
            let counted = if reached_count { failed + reached } else { failed };
            counted >= least && failed * 100 > (failed + reached) * usize::from(min_failed_percent)
        };
        let (from, slow_from) = (now.saturating_sub(fast_ns), now.saturating_sub(slow_ns));
        if enough(from, fast) { Some((from, false)) } else { enough(slow_from, slow).then_some((slow_from, true)) }
    }

    /// They are part of a scan that is told: the next one begins anew. What was reached stays known.
    pub(super) fn told(&mut self) {
        self.failed.clear();
        self.evidence.clear();
        (self.count, self.refused) = (0, 0);
    }

    pub(super) fn is_stale(&self, now: u64, slow_ns: u64) -> bool {
        now.saturating_sub(self.last_ns) > slow_ns
    }

    fn at(&mut self, now: u64, thresholds: &Thresholds) {
        self.last_ns = self.last_ns.max(now);
        let from = now.saturating_sub(thresholds.slow_ns);
        self.failed.prune(from);
        self.reached.prune(from);
        if self.failed.is_empty() {
            self.told();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tcp;

    #[test]
    fn endings_are_told_by_errno_and_by_whether_a_packet_left() {
        let end = |errno: Option<i32>, local: bool| {
            let mut socket = tcp(40_000, "192.0.2.1", 80);
            socket.local_port = socket.local_port.filter(|_| local);
            ending(&Connect { socket, error: errno.map(Errno), duration_ns: None, peer_from_caller: false, domain: None })
        };
        assert_eq!(end(None, true), Ending::Reached);
        assert_eq!([end(Some(111), true), end(Some(104), true)], [Ending::Refused; 2]);
        assert_eq!([end(Some(110), true), end(Some(113), true), end(Some(101), true), end(Some(103), true)], [Ending::Silent; 4]);
        // No route, EPERM, EADDRNOTAVAIL, result unknown.
        let nothing = [end(Some(101), false), end(Some(113), false), end(Some(1), true), end(Some(99), false), end(Some(115), true)];
        assert_eq!(nothing, [Ending::Nothing; 5]);
        let udp = bartizan_bus::event::InetSocket { transport: Transport::Udp, ..tcp(40_000, "192.0.2.1", 80) };
        assert_eq!(
            ending(&Connect { socket: udp, error: None, duration_ns: None, peer_from_caller: false, domain: None }),
            Ending::Nothing
        );
    }
}
