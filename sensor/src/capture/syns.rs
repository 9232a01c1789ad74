//! Attempts to connect to ports that listen, gathered by source.

use std::cmp::Reverse;
use std::io;

use aya::maps::MapData;
use bartizan_sensor_ebpf::abi::{SYN_PORTS, SynGathered, SynSource};

use super::drain;

/// Sources taken at once, at most: the map holds no more (`SYNS` in the kernel's maps.rs).
const SOURCES: usize = 4096;
/// Sources that are told by themselves at once, at most: those with the most unfinished attempts. The others are told together.
const TOLD: usize = 256;
/// Without a SYN for so long, what was asked for has been answered, or will not be; nanoseconds.
const QUIET: u64 = 1_000_000_000;
/// A source most of whose attempts are unfinished is told after so long, nanoseconds.
const FLOOD: u64 = 1_000_000_000;
/// Any other that does not pause, nanoseconds.
const LONG: u64 = 10_000_000_000;
/// Key of what is told together.
const OTHERS: SynSource = SynSource { source: [0; 16], family: 0, pad: 0 };

/// Where the kernel gathers them.
#[derive(Debug)]
pub struct Maps {
    /// By source.
    pub sources: MapData,
    /// Those for whom there is no room there.
    pub others: MapData,
}

/// Takes out the sources that are due at `now` (boot clock, nanoseconds), or all of them, and keeps those whose attempts did not all come to a
/// connection: the others are told by what came of them.
///
/// # Errors
/// As [`drain::take`].
pub fn take(maps: &Maps, now: u64, all: bool) -> io::Result<Vec<(SynSource, SynGathered)>> {
    let due = |value: &SynGathered| all || is_due(value, now);
    // SAFETY: the types of `SYNS` and `SYN_OTHERS`.
    let mut taken = unsafe { drain::take::<SynSource, SynGathered>(&maps.sources, SOURCES, due)? };
    // SAFETY: as above.
    taken.extend(unsafe { drain::take::<SynSource, SynGathered>(&maps.others, 1, due)? });
    Ok(told(taken))
}

/// Attempts that came to no connection.
fn unfinished(value: &SynGathered) -> u64 {
    value.attempts.saturating_sub(value.completed)
}

fn is_due(value: &SynGathered, now: u64) -> bool {
    let (quiet, long) = (now.saturating_sub(value.last), now.saturating_sub(value.first));
    quiet >= QUIET || long >= LONG || (long >= FLOOD && unfinished(value) > value.completed)
}

/// What is told of what was taken: at most [`TOLD`] sources, and the rest together.
fn told(mut taken: Vec<(SynSource, SynGathered)>) -> Vec<(SynSource, SynGathered)> {
    taken.retain(|(_, value)| unfinished(value) > 0);
    taken.sort_by_key(|(key, value)| (*key == OTHERS, Reverse(unfinished(value)), *key));
    // The kernel's own entry of many stands last: alone it is told as it is.
    if taken.len() > TOLD {
        let rest = taken.split_off(TOLD);
        let together = rest.into_iter().map(|(_, value)| value).reduce(|one, other| join(&one, &other));
        taken.extend(together.map(|value| (OTHERS, value)));
    }
    taken
}

/// Both, as of one source.
fn join(one: &SynGathered, other: &SynGathered) -> SynGathered {
    let mut joined = *one;
    joined.first = one.first.min(other.first);
    joined.last = one.last.max(other.last);
    joined.attempts += other.attempts;
    joined.completed += other.completed;
    joined.sources += other.sources;
    joined.more |= other.more;
    for port in other.ports.into_iter().take(other.found.into()) {
        let found = usize::from(joined.found).min(SYN_PORTS);
        if joined.ports[..found].contains(&port) {
            continue;
        }
        match joined.ports.get_mut(found) {
            Some(place) => {
                *place = port;
                joined.found += 1;
            }
            None => joined.more = 1,
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn of(source: u16, attempts: u64, completed: u64) -> (SynSource, SynGathered) {
        let mut key = SynSource { family: 2, ..OTHERS };
        key.source[..2].copy_from_slice(&source.to_be_bytes());
        let mut ports = [0; SYN_PORTS];
        ports[0] = source;
        (key, SynGathered { first: S, last: S, attempts, completed, sources: 1, local: [0; 16], family: 2, found: 1, more: 0, ports })
    }

    #[test]
    fn a_source_is_due_when_it_pauses_when_it_floods_or_after_long() {
        let at = |last: u64, completed: u64, now: u64| {
            let (_, mut value) = of(1, 10, completed);
            value.last = last;
            is_due(&value, now)
        };
        assert!(!at(S, 9, S + S / 2) && at(S, 9, 2 * S), "it pauses");
        assert!(!at(3 * S, 9, 3 * S) && at(11 * S, 9, 11 * S), "it goes on");
        assert!(at(2 * S, 4, 2 * S) && !at(2 * S, 5, 2 * S), "most are unfinished");
    }

    #[test]
    fn what_came_to_a_connection_is_not_told() {
        assert_eq!(told(vec![of(1, 3, 3), of(2, 3, 2), of(3, 1, 2)]), [of(2, 3, 2)]);
    }

    #[test]
    fn of_many_sources_the_worst_are_told_by_themselves_and_the_rest_together() {
        let many: Vec<_> = (1..=300).map(|source| of(source, u64::from(source) + 1, 1)).collect();
        let found = told(many);
        assert_eq!((found.len(), found[0], found[255].0), (257, of(300, 301, 1), of(45, 0, 0).0));
        let (key, rest) = found[256];
        let sum: u64 = (1..=44).map(|source| source + 1).sum();
        assert_eq!((key, rest.sources, rest.attempts, rest.completed), (OTHERS, 44, sum, 44));
        assert_eq!((rest.found, rest.more, rest.ports[0]), (16, 1, 44));
    }

    #[test]
    fn the_kernels_entry_of_many_is_told_last() {
        let (_, value) = of(9, 1000, 0);
        let found = told(vec![(OTHERS, value), of(2, 1, 0)]);
        assert_eq!(found, [of(2, 1, 0), (OTHERS, value)]);
    }
}
