//! Packets to closed ports, gathered by source.

use std::io;

use aya::maps::MapData;
use bartizan_sensor_ebpf::abi::{ProbeGathered, ProbeSource};

use super::drain;

/// Sources taken at once, at most: the map holds no more (`PROBES` in the kernel's maps.rs).
const SOURCES: usize = 8192;

/// Takes out everything, one entry a source.
///
/// # Errors
/// As [`drain::take`].
pub fn take(map: &MapData) -> io::Result<Vec<(ProbeSource, ProbeGathered)>> {
    // SAFETY: the types of `PROBES`.
    let mut taken = unsafe { drain::take::<ProbeSource, ProbeGathered>(map, SOURCES, |_| true)? };
    // One without packets was sent the moment before.
    taken.retain(|(_, value)| value.packets > 0);
    Ok(taken)
}
