//! Attempts to connect to ports that listen, by source: called by the program at packets that come in, which also sees those that are never
//! answered, and by the one at the socket's state changes, which sees the connections that come of them.
//!
//! Anybody can send them by the million, so a SYN costs a look-up and an addition, and nothing is sent up: user space takes once a second
//! what was gathered. Sources for whom the map has no room are counted together.
//!
//! Two CPUs may work on one source at once: as in `probe.rs`.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_skb_load_bytes};
use bartizan_sensor_ebpf::abi::{Kind, SYN_PORTS, SynGathered, SynSource};
use bartizan_sensor_ebpf::layout::ABSENT;

use super::packets::{ETH_P_IP, load, transport};
use crate::kernel::family::{AF_INET, AF_INET6, IPPROTO_TCP};
use crate::kernel::maps::{BPF_NOEXIST, SYN_OTHERS, SYNS};
use crate::kernel::object::{Known, Object};
use crate::kernel::{bound, emit, fd, field, ignore, offset};

/// FIN, SYN, RST, ACK (RFC 9293 §3.1).
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Key of [`SYN_OTHERS`].
const OTHERS: SynSource = SynSource { source: [0; 16], family: 0, pad: 0 };

/// Whether a segment with these flags asks for a connection.
#[inline(always)]
pub(super) fn is_first(flags: u8) -> bool {
    flags & (FIN | SYN | RST | ACK) == SYN
}

/// Takes the segment that came to a listening socket, if it asks for a connection.
#[inline(always)]
pub(super) unsafe fn attempt(skb: *mut __sk_buff) -> bool {
    // SAFETY: by the caller: the packet of the running program.
    unsafe {
        let header = transport(skb, IPPROTO_TCP);
        if header == 0 {
            return false;
        }
        // The destination port is at 2, the flags are at 13 (RFC 9293 §3.1).
        let flags: u8 = load(skb, header + 13);
        if !is_first(flags) {
            return false;
        }
        let port: u16 = load(skb, header + 2);
        let mut key = OTHERS;
        let mut local = [0_u8; 16];
        // RFC 791 §3.1, RFC 8200 §3.
        if (*skb).protocol == ETH_P_IP {
            key.family = AF_INET.into();
            bpf_skb_load_bytes(skb.cast(), 12, (&raw mut key.source).cast(), 4);
            bpf_skb_load_bytes(skb.cast(), 16, (&raw mut local).cast(), 4);
        } else {
            key.family = AF_INET6.into();
            bpf_skb_load_bytes(skb.cast(), 8, (&raw mut key.source).cast(), 16);
            bpf_skb_load_bytes(skb.cast(), 24, (&raw mut local).cast(), 16);
        }
        if emit::is_ignored_peer(Kind::Syn as u16, ignore::met_by_nobody(), &key.source, key.family == u32::from(AF_INET6)) {
            return true;
        }
        let now = bpf_ktime_get_boot_ns();
        if let Some(gathered) = of(&key, local, now) {
            add(gathered, u16::from_be(port), now);
        }
        true
    }
}

/// Where attempts of this source are gathered: by themselves, or with those for whom there is no room.
#[inline(always)]
fn of(key: &SynSource, local: [u8; 16], now: u64) -> Option<*mut SynGathered> {
    if let Some(gathered) = SYNS.get_ptr_mut(key) {
        return Some(gathered);
    }
    let fresh = SynGathered {
        first: now,
        last: now,
        attempts: 0,
        completed: 0,
        sources: 1,
        local,
        family: key.family as u16,
        found: 0,
        more: 0,
        ports: [0; SYN_PORTS],
    };
    // Somebody else may have put it there meanwhile: as good.
    let _ = SYNS.insert(key, &fresh, BPF_NOEXIST);
    if let Some(gathered) = SYNS.get_ptr_mut(key) {
        return Some(gathered);
    }
    if SYN_OTHERS.get_ptr(&OTHERS).is_none() {
        let _ = SYN_OTHERS.insert(&OTHERS, &fresh, BPF_NOEXIST);
    }
    SYN_OTHERS.get_ptr_mut(&OTHERS)
}

/// Adds one attempt.
#[inline(always)]
fn add(gathered: *mut SynGathered, port: u16, now: u64) {
    // SAFETY: a map value lives for ever; the map is preallocated.
    unsafe {
        emit::add_one(&raw mut (*gathered).attempts);
        (&raw mut (*gathered).last).write_volatile(now);
        let found = bound::<{ SYN_PORTS as u32 * 2 - 1 }>(u64::from((&raw const (*gathered).found).read_volatile()));
        let ports = (&raw mut (*gathered).ports).cast::<u16>();
        for index in 0..SYN_PORTS {
            if index as u64 >= found {
                break;
            }
            if ports.add(index).read_volatile() == port {
                return;
            }
        }
        if found < SYN_PORTS as u64 {
            ports.add(bound::<{ SYN_PORTS as u32 - 1 }>(found) as usize).write_volatile(port);
            (&raw mut (*gathered).found).write_volatile(found as u16 + 1);
        } else {
            (&raw mut (*gathered).more).write_volatile(1);
        }
    }
}

/// The connection `sk`, which a peer asked for, is established.
#[inline(always)]
pub(super) fn completed(sk: Known) {
    // An MPTCP socket changes state together with its first subflow, which is a TCP socket.
    let protocol: u16 = field!(sk, sock_protocol);
    if protocol != IPPROTO_TCP {
        return;
    }
    let mut key = OTHERS;
    let family: u16 = field!(sk, sock_family);
    // SAFETY: sixteen bytes, and four of them.
    unsafe {
        if family == AF_INET6 && offset!(sock_v6_daddr) != u64::from(ABSENT) && !is_mapped(sk) {
            key.family = AF_INET6.into();
            fd::address((&raw mut key.source).cast(), sk, offset!(sock_v6_daddr));
        } else {
            key.family = AF_INET.into();
            (&raw mut key.source).cast::<u32>().write_unaligned(field!(sk, sock_daddr));
        }
    }
    // What is left out at its SYN is nobody else's connection either.
    let entries = ignore::of_kind(Kind::Syn as u16);
    if entries != 0 {
        let met = ignore::with_peer(entries & ignore::met_by_nobody(), &key.source, key.family == u32::from(AF_INET6));
        if ignore::leave_out(entries, met) {
            return;
        }
    }
    let gathered = SYNS.get_ptr_mut(&key).or_else(|| SYN_OTHERS.get_ptr_mut(&OTHERS));
    if let Some(gathered) = gathered {
        // SAFETY: as in `add`.
        unsafe { emit::add_one(&raw mut (*gathered).completed) };
    }
}

/// Whether the peer of `sk` is an IPv4-mapped address: its packets are IPv4's.
#[inline(always)]
fn is_mapped(sk: Known) -> bool {
    let at = offset!(sock_v6_daddr);
    let (high, low): (u64, u32) = (sk.member(at), sk.member(at + 8));
    high == 0 && low == 0xffff_u32.to_be()
}
