//! UDP packets, gathered by process and peer.

use std::io;

use aya::maps::MapData;
use bartizan_sensor_ebpf::abi::{UdpGathered, UdpPeer};

use super::drain;

/// Flows taken at once, at most: the map holds no more (`UDP_FLOWS` in the kernel's maps.rs).
const FLOWS: usize = 16_384;
/// A flow without packets for so long has ended, nanoseconds.
const QUIET: u64 = 2_000_000_000;

/// Takes out the flows that have ended at `now` (boot clock, nanoseconds), or all of them.
///
/// # Errors
/// As [`drain::take`].
pub fn take(map: &MapData, now: u64, all: bool) -> io::Result<Vec<(UdpPeer, UdpGathered)>> {
    let ended = |value: &UdpGathered| all || now.saturating_sub(value.last) >= QUIET;
    // SAFETY: the types of `UDP_FLOWS`.
    let mut taken = unsafe { drain::take::<UdpPeer, UdpGathered>(map, FLOWS, ended)? };
    // One without packets was sent the moment before.
    taken.retain(|(_, value)| value.packets_sent + value.packets_received > 0);
    Ok(taken)
}
