//! Packets that reach ports on which nothing listens.
//!
//! The kernel drops them with the reason NO_SOCKET, whatever they are: the SYN of any kind of scan, FIN, null and Xmas scans, UDP. That
//! happens in softirq, so there is no subject. Packets are gathered here by source, because anybody can send them by the
//! million: a record goes out when [`PROBE_PORTS`] ports are full, and user space takes the rest once a second.
//!
//! Two CPUs may work on one source at once: `packets` is counted atomically; a port that both add at once may take the
//! other's place. The list of ports is then one short; it never names a port that was not tried.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use bartizan_sensor_ebpf::abi::{Count, Kind, PROBE_PORTS, Probe, ProbeGathered, ProbeSource, Ring};
use bartizan_sensor_ebpf::layout::ABSENT;

use crate::kernel::family::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use crate::kernel::maps::{BPF_NOEXIST, BULK, PROBES};
use crate::kernel::{bound, copy, emit, field, ignore, offset, read, zero};

/// IPv6 extension headers that may stand before the transport header: hop-by-hop, routing, destination options, fragment (RFC 8200 §4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// FIN, SYN, RST, PSH, ACK, URG (RFC 9293 §3.1).
const TCP_FLAGS: u8 = 0x3f;
/// Extension headers that are passed over.
const EXTENSIONS: usize = 4;

#[btf_tracepoint(function = "kfree_skb")]
fn kfree_skb(ctx: BtfTracePointContext) -> u32 {
    // (struct sk_buff *skb, void *location, enum skb_drop_reason reason [, struct sock *rx_sk])
    let no_socket = offset!(drop_no_socket);
    if no_socket == u64::from(ABSENT) || u64::from(ctx.arg::<u32>(2)) != no_socket {
        return 0;
    }
    let skb = ctx.arg::<*const u8>(0) as u64;
    let head: u64 = field!(skb, skb_head);
    let (network, transport): (u16, u16) = (field!(skb, skb_network_header), field!(skb, skb_transport_header));
    gather(head + u64::from(network), head + u64::from(transport));
    0
}

/// Takes the packet with these headers.
#[inline(always)]
fn gather(network: u64, transport: u64) {
    let mut key = ProbeSource { source: [0; 16], protocol: 0, family: 0, flags: 0 };
    let mut local = [0_u8; 16];
    let version: u8 = read(network);
    // SAFETY: both arrays have 16 bytes. Offsets: RFC 791 §3.1, RFC 8200 §3.
    let protocol = unsafe {
        if version >> 4 == 6 {
            key.family = AF_INET6;
            copy((&raw mut key.source).cast(), 16, network + 8);
            copy((&raw mut local).cast(), 16, network + 24);
            transport_of_v6(network)
        } else {
            key.family = AF_INET;
            copy((&raw mut key.source).cast(), 4, network + 12);
            copy((&raw mut local).cast(), 4, network + 16);
            u16::from(read::<u8>(network + 9))
        }
    };
    if protocol != IPPROTO_TCP && protocol != IPPROTO_UDP {
        return;
    }
    key.protocol = protocol;
    // The destination port is at 2 in both headers; the flags are at 13 (RFC 9293 §3.1, RFC 768).
    let port = u16::from_be(read(transport + 2));
    if protocol == IPPROTO_TCP {
        key.flags = u32::from(read::<u8>(transport + 13) & TCP_FLAGS);
    }
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if emit::is_ignored_peer(Kind::Probe as u16, ignore::met_by_nobody(), &key.source, key.family == AF_INET6) {
        return;
    }
    if PROBES.get_ptr(&key).is_none() {
        let fresh = ProbeGathered { first: now, last: now, packets: 0, local, found: 0, pad: 0, ports: [0; PROBE_PORTS] };
        // Somebody else may have put it there meanwhile: as good.
        let _ = PROBES.insert(&key, &fresh, BPF_NOEXIST);
    }
    let Some(gathered) = PROBES.get_ptr_mut(&key) else {
        emit::count(Kind::Probe, Count::TableFull);
        return;
    };
    add(&key, gathered, port, now);
}

/// The transport protocol of an IPv6 packet.
#[inline(always)]
fn transport_of_v6(network: u64) -> u16 {
    let mut next: u8 = read(network + 6);
    let mut at = network + 40;
    for _ in 0..EXTENSIONS {
        if next != HOP_BY_HOP && next != ROUTING && next != DESTINATION && next != FRAGMENT {
            break;
        }
        let (after, length): (u8, u8) = (read(at), read(at + 1));
        at += if next == FRAGMENT { 8 } else { (u64::from(length) + 1) * 8 };
        next = after;
    }
    u16::from(next)
}

/// Adds one packet.
#[inline(always)]
fn add(key: &ProbeSource, gathered: *mut ProbeGathered, port: u16, now: u64) {
    // SAFETY: a map value lives for ever; the map is preallocated.
    unsafe {
        emit::add_one(&raw mut (*gathered).packets);
        (*gathered).last = now;
        let found = bound::<{ PROBE_PORTS as u32 * 2 - 1 }>(u64::from((&raw const (*gathered).found).read_volatile()));
        let ports = (&raw mut (*gathered).ports).cast::<u16>();
        for index in 0..PROBE_PORTS {
            if index as u64 >= found {
                break;
            }
            if ports.add(index).read_volatile() == port {
                return;
            }
        }
        if found < PROBE_PORTS as u64 {
            ports.add(bound::<{ PROBE_PORTS as u32 - 1 }>(found) as usize).write_volatile(port);
            (&raw mut (*gathered).found).write_volatile(found as u32 + 1);
            if found as usize + 1 < PROBE_PORTS {
                return;
            }
            send(key, gathered);
            (*gathered).first = now;
            (&raw mut (*gathered).packets).write_volatile(0);
            (&raw mut (*gathered).found).write_volatile(0);
        }
    }
}

/// Sends what was gathered.
#[inline(always)]
unsafe fn send(key: &ProbeSource, gathered: *const ProbeGathered) {
    let Some(mut entry) = BULK.reserve::<Probe>(0) else {
        emit::count(Kind::Probe, Count::RingFull);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: reserved memory of the record's size, submitted below with nothing in between that could leave.
    unsafe {
        zero(record);
        (*record).source = key.source;
        copy((&raw mut (*record).local).cast(), 16, (&raw const (*gathered).local) as u64);
        (*record).first = (*gathered).first;
        (*record).packets = (*gathered).packets;
        (*record).protocol = key.protocol;
        (*record).family = key.family;
        (*record).found = PROBE_PORTS as u16;
        (*record).flags = key.flags as u16;
        copy((&raw mut (*record).ports).cast(), 2 * PROBE_PORTS as u32, (&raw const (*gathered).ports) as u64);
        emit::stamp(&raw mut (*record).header, Kind::Probe, size_of::<Probe>() as u32);
    }
    entry.submit(emit::wakeup(Ring::Bulk));
    emit::count(Kind::Probe, Count::Emitted);
}
