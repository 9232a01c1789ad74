//! Names of addresses, from the answers that processes of this host got.
//!
//! A name is what a DNS answer claims: whoever answers can claim any name for any address.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

/// Addresses that are remembered, at most, each for a process and for the host; the oldest make room.
const ADDRESSES: usize = 32_768;
/// An answer is good for a connection for at least so long, nanoseconds: programs connect after its time to live, too.
const LEAST: u64 = 60_000_000_000;
/// And for no longer than this.
const MOST: u64 = 24 * 3600 * 1_000_000_000;

/// Whose answer: a process by pid, or `None` for anybody's last one.
type Key = (Option<u32>, IpAddr);

/// Names of addresses.
#[derive(Debug, Default)]
pub(super) struct Domains {
    known: HashMap<Key, Known>,
    /// With the number of the entry; those that were replaced meanwhile are passed over.
    order: VecDeque<(Key, u64)>,
    added: u64,
}

#[derive(Debug)]
struct Known {
    number: u64,
    name: String,
    /// Boot clock, nanoseconds.
    until: u64,
}

impl Domains {
    /// The process `tgid` was told at `now` (boot clock, nanoseconds) that `name` is at `ip`, for `ttl` seconds.
    pub(super) fn learn(&mut self, tgid: u32, ip: IpAddr, name: &str, ttl: u32, now: u64) {
        let until = now.saturating_add((u64::from(ttl) * 1_000_000_000).clamp(LEAST, MOST));
        for key in [(Some(tgid), ip), (None, ip)] {
            self.added += 1;
            self.known.insert(key, Known { number: self.added, name: name.to_owned(), until });
            self.order.push_back((key, self.added));
        }
        while self.order.len() > ADDRESSES {
            let Some((oldest, number)) = self.order.pop_front() else { break };
            if self.known.get(&oldest).is_some_and(|known| known.number == number) {
                self.known.remove(&oldest);
            }
        }
    }

    /// The name that led the process `tgid` to `ip` at `now`: what itself was told last, or else anybody.
    pub(super) fn name(&self, tgid: u32, ip: IpAddr, now: u64) -> Option<&str> {
        let good = |key: Key| self.known.get(&key).filter(|known| known.until >= now);
        good((Some(tgid), ip)).or_else(|| good((None, ip))).map(|known| known.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_process_is_named_what_itself_was_told() {
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        let mut domains = Domains::default();
        domains.learn(1, ip, "one.example", 300, 0);
        domains.learn(2, ip, "two.example", 0, SECOND);
        assert_eq!(domains.name(1, ip, 300 * SECOND), Some("one.example"));
        assert_eq!(domains.name(2, ip, 2 * SECOND), Some("two.example"));
        assert_eq!(domains.name(3, ip, 2 * SECOND), Some("two.example"), "what anybody was told last");
        assert_eq!(domains.name(2, ip, 62 * SECOND), None, "an answer does not last");
        assert_eq!(domains.name(1, "192.0.2.2".parse().unwrap(), 0), None);
    }

    #[test]
    fn names_are_bounded() {
        let mut domains = Domains::default();
        for number in 0..ADDRESSES as u32 {
            domains.learn(1, IpAddr::V4(number.into()), "x.example", 300, 0);
        }
        assert_eq!((domains.known.len(), domains.order.len()), (ADDRESSES, ADDRESSES));
        assert_eq!(domains.name(1, IpAddr::V4(0.into()), 0), None);
    }
}
