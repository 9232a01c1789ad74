//! Packets of every socket: programs at the root of the cgroup hierarchy, one for what comes in and one for what goes out.
//!
//! They run for each packet, so what needs no look goes first: a TCP connection of whose direction nothing more is wanted costs one look at
//! what the kernel keeps with the socket. They see every network namespace and every way to send. They do not see what goes around
//! sockets' own packets: packet and XDP sockets, and packets that this host only forwards.
//!
//! They run in softirq, or in the context of whoever sends: the subject is the owner of the socket (`kernel/flow.rs`).

use core::ffi::c_void;

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_sk_fullsock, bpf_skb_load_bytes};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use bartizan_sensor_ebpf::abi::{
    Count, FLOW_IN, FLOW_OUT, FdKind, Header, Kind, PIECE_MAX, Piece, Ring, STREAM_MAX, STREAM_SEGMENTS, Span, UDP_FLOW_NS, UdpFlow,
    UdpGathered, UdpPeer,
};

use super::syn;
use crate::kernel::family::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use crate::kernel::flow::{self, Flow, OWN, Stream, copy_header};
use crate::kernel::maps::{BPF_NOEXIST, BULK, FLOWS, UDP_FLOWS};
use crate::kernel::{bound, copy, emit, fd, field, ignore, zero};

/// What a program of this type returns to let the packet go on.
const PASS: i32 = 1;
/// include/uapi/linux/if_ether.h, as it stands in a packet.
pub(super) const ETH_P_IP: u32 = 0x0800_u16.to_be() as u32;
/// Fixed headers: RFC 791 §3.1, RFC 9293 §3.1, RFC 8200 §3, RFC 768.
const IPV4_HEADER: usize = 20;
const TCP_HEADER: usize = 20;
const IPV6_HEADER: u32 = 40;
const UDP_HEADER: u32 = 8;
/// RFC 1035 §4.2, RFC 6762 §3.
const DNS: u16 = 53;
const MDNS: u16 = 5353;
/// include/net/tcp_states.h.
const TCP_LISTEN: u32 = 10;
/// Ports below this are services' (RFC 6335 §6).
const WELL_KNOWN: u16 = 1024;
/// First byte of a TLS record with a handshake message (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;
/// Bytes in front of a TLS record.
const TLS_HEADER: u32 = 5;
/// Bytes of an HTTP request and of an SSH identification that are wanted, at most (RFC 4253 §4.2: 255).
const HTTP_WANTED: u32 = 1024;
const SSH_WANTED: u32 = 512;

/// Which way a packet goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

#[cgroup_skb]
fn packets_in(ctx: SkBuffContext) -> i32 {
    // SAFETY: the kernel gives the program its packet.
    unsafe { look(ctx.skb.skb, Way::In) };
    PASS
}

#[cgroup_skb]
fn packets_out(ctx: SkBuffContext) -> i32 {
    // SAFETY: as above.
    unsafe { look(ctx.skb.skb, Way::Out) };
    PASS
}

/// Looks at one packet.
#[inline(always)]
unsafe fn look(skb: *mut __sk_buff, way: Way) {
    // SAFETY: by the caller; the verifier checks each pointer that comes of it.
    unsafe {
        if is_bare(skb, way) {
            return;
        }
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return;
        }
        let sk = bpf_sk_fullsock(sk);
        if sk.is_null() {
            return;
        }
        let protocol = (*sk).protocol;
        if protocol == u32::from(IPPROTO_TCP) {
            if way == Way::In && (*sk).state == TCP_LISTEN && syn::attempt(skb) {
                return;
            }
            let flow = FLOWS.get(sk.cast());
            if flow.is_null() {
                return;
            }
            let stream = match way {
                Way::In => &raw mut (*flow).streams.incoming,
                Way::Out => &raw mut (*flow).streams.outgoing,
            };
            if (*stream).done == 0 {
                tcp(skb, sk, way, flow, stream);
            }
        } else if protocol == u32::from(IPPROTO_UDP) {
            udp(skb, sk, way);
        }
    }
}

/// Whether the packet is a TCP segment without payload: half of all packets. Without a helper; no also where that takes a longer look, and
/// for the first one of a connection that comes in.
#[inline(always)]
unsafe fn is_bare(skb: *mut __sk_buff, way: Way) -> bool {
    // SAFETY: by the caller; the verifier checks each read against the end.
    unsafe {
        let (start, end) = ((*skb).data as usize, (*skb).data_end as usize);
        let (next, header) = if (*skb).protocol == ETH_P_IP { (9, IPV4_HEADER) } else { (6, IPV6_HEADER as usize) };
        if start + header + TCP_HEADER > end {
            return false;
        }
        let byte = |at: usize| (start as *const u8).add(at).read_volatile();
        // RFC 791 §3.1: version 4 and five words.
        if (header == IPV4_HEADER && byte(0) != 0x45) || u16::from(byte(next)) != IPPROTO_TCP {
            return false;
        }
        if way == Way::In && syn::is_first(byte(header + 13)) {
            return false;
        }
        let words = u32::from(byte(header + 12) >> 4);
        (*skb).len <= header as u32 + words * 4
    }
}

/// Loads a value of the packet at `at`; zeros when it is not there.
#[inline(always)]
pub(super) unsafe fn load<T: Copy>(skb: *mut __sk_buff, at: u32) -> T {
    let mut value = core::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: `T` is an integer or an array of integers at every call site; the helper writes no more than its size.
    unsafe {
        bpf_skb_load_bytes(skb.cast(), at, value.as_mut_ptr().cast(), size_of::<T>() as u32);
        value.assume_init()
    }
}

/// Where the transport header begins, or 0 where it does not follow at once (IPv6 with extension headers).
#[inline(always)]
pub(super) unsafe fn transport(skb: *mut __sk_buff, protocol: u16) -> u32 {
    // SAFETY: by the caller.
    unsafe {
        if (*skb).protocol == ETH_P_IP {
            let first: u8 = load(skb, 0);
            return u32::from(first & 0xf) * 4;
        }
        let next: u8 = load(skb, 6);
        if u16::from(next) == protocol { IPV6_HEADER } else { 0 }
    }
}

/// A segment of a TCP connection of whose direction more is wanted.
#[inline(always)]
unsafe fn tcp(skb: *mut __sk_buff, sk: *mut bpf_sock, way: Way, flow: *mut Flow, stream: *mut Stream) {
    // SAFETY: by the caller.
    unsafe {
        let header = transport(skb, IPPROTO_TCP);
        if header == 0 {
            return;
        }
        // RFC 9293 §3.1: the sequence number is at 4, the header's length in words in the upper half of the byte at 12.
        let words: u8 = load(skb, header + 12);
        let at = header + u32::from(words >> 4) * 4;
        let len = (*skb).len;
        if len <= at {
            return;
        }
        let len = len - at;
        let sequence: u32 = load(skb, header + 4);
        let sequence = u32::from_be(sequence);
        if (*stream).kind == 0 && !begin(skb, sk, at, len, sequence, flow, stream) {
            (*stream).done = 1;
            return;
        }
        let (offset, taken) = (sequence.wrapping_sub((*stream).base), (*stream).taken);
        // What was sent again, and what comes before its turn: the wanted bytes will come once more in their order, or are not told.
        if offset != taken {
            return;
        }
        let wanted = (*stream).wanted;
        let more = wanted.saturating_sub(taken);
        let part = if len < more { len } else { more };
        if part == 0 {
            (*stream).done = 1;
            return;
        }
        let kind = (*stream).kind;
        (*stream).taken = taken + part;
        (*stream).segments += 1;
        let last = (*stream).taken >= wanted || (*stream).segments >= STREAM_SEGMENTS || ends(skb, kind, at + len);
        (*stream).done = u16::from(last);
        let piece = Taking { kind, at, part, offset: taken, whole: len, last: u16::from(last), way };
        take(skb, sk, flow, &piece, &Ends::NONE);
    }
}

/// The first payload of a direction. Returns whether it is wanted.
#[inline(always)]
unsafe fn begin(skb: *mut __sk_buff, sk: *mut bpf_sock, at: u32, len: u32, sequence: u32, flow: *mut Flow, stream: *mut Stream) -> bool {
    // SAFETY: by the caller.
    unsafe {
        if (*flow).state & OWN != 0 {
            return false;
        }
        let (kind, wanted) = if u16::from_be((*sk).dst_port) == DNS {
            (Kind::DnsBytes, STREAM_MAX)
        } else {
            let first: u8 = load(skb, at);
            if first == TLS_HANDSHAKE {
                // Its length is known where it came whole.
                let length: u16 = load(skb, at + 3);
                let whole = TLS_HEADER + u32::from(u16::from_be(length));
                (Kind::TlsBytes, if len >= TLS_HEADER && whole < STREAM_MAX { whole } else { STREAM_MAX })
            } else if first == b'S' && is_ssh(skb, at, len) {
                (Kind::SshBytes, SSH_WANTED)
            } else if first.is_ascii_uppercase() && !is_response(skb, at, len) {
                (Kind::HttpBytes, HTTP_WANTED)
            } else {
                return false;
            }
        };
        if ignore::of_kind(kind as u16) != 0 && is_ignored(kind as u16, sk, flow) {
            return false;
        }
        (*stream).base = sequence;
        (*stream).wanted = wanted;
        (*stream).kind = kind as u16;
        true
    }
}

/// Whether the configuration leaves out what this connection begins with.
#[inline(always)]
unsafe fn is_ignored(kind: u16, sk: *mut bpf_sock, flow: *mut Flow) -> bool {
    // SAFETY: by the caller; every program writes the same number there.
    unsafe {
        // `<VERIFIER>` As in `take_into`.
        let slot = &raw mut (*flow).address;
        slot.cast::<*mut c_void>().write_volatile(sk.cast());
        let address = slot.read_volatile();
        emit::is_ignored_socket(kind, flow::met(flow, address), address)
    }
}

/// Whether these `len` bytes are, or may still become, what SSH begins with.
#[inline(always)]
unsafe fn is_ssh(skb: *mut __sk_buff, at: u32, len: u32) -> bool {
    // SAFETY: by the caller.
    let head: u32 = unsafe { load(skb, at) };
    len < 4 || head == u32::from_ne_bytes(*b"SSH-")
}

/// Whether these `len` bytes begin an HTTP response.
#[inline(always)]
unsafe fn is_response(skb: *mut __sk_buff, at: u32, len: u32) -> bool {
    // SAFETY: by the caller.
    let head: u32 = unsafe { load(skb, at) };
    len >= 4 && head == u32::from_ne_bytes(*b"HTTP")
}

/// Whether the segment that ends at `end` ends what is wanted of it: an HTTP head, an SSH identification.
#[inline(always)]
unsafe fn ends(skb: *mut __sk_buff, kind: u16, end: u32) -> bool {
    // SAFETY: by the caller.
    let tail: u32 = unsafe { load(skb, end - 4) };
    let [.., last] = tail.to_ne_bytes();
    (kind == Kind::HttpBytes as u16 && tail == u32::from_ne_bytes(*b"\r\n\r\n")) || (kind == Kind::SshBytes as u16 && last == b'\n')
}

/// A UDP packet.
#[inline(always)]
unsafe fn udp(skb: *mut __sk_buff, sk: *mut bpf_sock, way: Way) {
    // SAFETY: by the caller.
    unsafe {
        let header = transport(skb, IPPROTO_UDP);
        if header == 0 {
            return;
        }
        let flow = FLOWS.get(sk.cast());
        if !flow.is_null() && (*flow).state & OWN != 0 {
            return;
        }
        let mut ends = Ends::NONE;
        let ports: [u16; 2] = load(skb, header);
        let (source, destination) = (u16::from_be(ports[0]), u16::from_be(ports[1]));
        let (from, to) = match way {
            Way::Out => (&raw mut ends.local, &raw mut ends.peer),
            Way::In => (&raw mut ends.peer, &raw mut ends.local),
        };
        (ends.local_port, ends.peer_port) = if way == Way::Out { (source, destination) } else { (destination, source) };
        // RFC 791 §3.1, RFC 8200 §3.
        if (*skb).protocol == ETH_P_IP {
            ends.family = AF_INET;
            bpf_skb_load_bytes(skb.cast(), 12, from.cast(), 4);
            bpf_skb_load_bytes(skb.cast(), 16, to.cast(), 4);
        } else {
            ends.family = AF_INET6;
            bpf_skb_load_bytes(skb.cast(), 8, from.cast(), 16);
            bpf_skb_load_bytes(skb.cast(), 24, to.cast(), 16);
        }
        let (at, len) = (header + UDP_HEADER, (*skb).len);
        let len = len.saturating_sub(at);
        let (is_v6, met) = (ends.family == AF_INET6, if flow.is_null() { ignore::met_by_nobody() } else { (*flow).met });
        if !emit::is_ignored_peer(Kind::UdpFlow as u16, met, &ends.peer, is_v6) {
            gather(skb, flow, &ends, len, way);
        }
        if len > 0 && (ends.peer_port == DNS || ends.peer_port == MDNS) {
            if emit::is_ignored_peer(Kind::DnsBytes as u16, met, &ends.peer, is_v6) {
                return;
            }
            let part = if len < PIECE_MAX as u32 { len } else { PIECE_MAX as u32 };
            let piece = Taking { kind: Kind::DnsBytes as u16, at, part, offset: 0, whole: len, last: 1, way };
            take(skb, sk, flow, &piece, &ends);
        }
    }
}

/// Adds a UDP packet to those of its process and peer.
#[inline(always)]
unsafe fn gather(skb: *mut __sk_buff, flow: *const Flow, ends: &Ends, len: u32, way: Way) {
    // SAFETY: by the caller; the maps are preallocated, or the kernel keeps the value while the program runs.
    unsafe {
        // A resolver asks from another port each time, and is asked from another one: one flow each.
        let (here, there) = (ends.local_port < WELL_KNOWN, ends.peer_port < WELL_KNOWN);
        let key = UdpPeer {
            peer: ends.peer,
            tgid: if flow.is_null() { 0 } else { (*flow).owner.tgid },
            local_port: if there && !here { 0 } else { ends.local_port },
            peer_port: if here && !there { 0 } else { ends.peer_port },
            family: u32::from(ends.family),
            pad: 0,
        };
        let now = bpf_ktime_get_boot_ns();
        if UDP_FLOWS.get_ptr(&key).is_none() {
            let mut fresh = core::mem::MaybeUninit::<UdpGathered>::uninit();
            let value = fresh.as_mut_ptr();
            zero(value);
            if !flow.is_null() {
                copy_header(&raw mut (*value).owner, &raw const (*flow).owner);
            }
            ((*value).first, (*value).last) = (now, now);
            (*value).local = ends.local;
            ((*value).local_port, (*value).peer_port) = (ends.local_port, ends.peer_port);
            (*value).direction = if way == Way::Out { FLOW_OUT } else { FLOW_IN };
            // Somebody else may have put it there meanwhile: as good.
            let _ = UDP_FLOWS.insert(&key, &*value, BPF_NOEXIST);
        }
        let Some(gathered) = UDP_FLOWS.get_ptr_mut(&key) else {
            emit::count(Kind::UdpFlow, Count::TableFull);
            return;
        };
        let segments = (*skb).gso_segs;
        let packets = u64::from(if segments == 0 { 1 } else { segments });
        match way {
            Way::Out => {
                emit::add(&raw mut (*gathered).packets_sent, packets);
                emit::add(&raw mut (*gathered).bytes_sent, u64::from(len));
            }
            Way::In => {
                emit::add(&raw mut (*gathered).packets_received, packets);
                emit::add(&raw mut (*gathered).bytes_received, u64::from(len));
            }
        }
        (&raw mut (*gathered).last).write_volatile(now);
        if now - (*gathered).first > UDP_FLOW_NS {
            send(&key, gathered, now);
        }
    }
}

/// Sends what was gathered of a flow that goes on, and begins anew.
#[inline(always)]
unsafe fn send(key: &UdpPeer, gathered: *mut UdpGathered, now: u64) {
    // SAFETY: by the caller; reserved memory of the record's size, submitted below with nothing in between that could leave.
    unsafe {
        if let Some(mut entry) = BULK.reserve::<UdpFlow>(0) {
            let record = entry.as_mut_ptr();
            copy_header(&raw mut (*record).header, &raw const (*gathered).owner);
            (*record).key = *key;
            copy((&raw mut (*record).gathered).cast(), size_of::<UdpGathered>() as u32, gathered as u64);
            emit::stamp(&raw mut (*record).header, Kind::UdpFlow, size_of::<UdpFlow>() as u32);
            entry.submit(emit::wakeup(Ring::Bulk));
            emit::count(Kind::UdpFlow, Count::Emitted);
        } else {
            emit::count(Kind::UdpFlow, Count::RingFull);
        }
        (&raw mut (*gathered).first).write_volatile(now);
        (&raw mut (*gathered).packets_sent).write_volatile(0);
        (&raw mut (*gathered).bytes_sent).write_volatile(0);
        (&raw mut (*gathered).packets_received).write_volatile(0);
        (&raw mut (*gathered).bytes_received).write_volatile(0);
    }
}

/// The two ends of a UDP packet.
struct Ends {
    local: [u8; 16],
    peer: [u8; 16],
    local_port: u16,
    peer_port: u16,
    /// `AF_INET` or `AF_INET6`; 0 where the socket has them.
    family: u16,
}

impl Ends {
    /// Those of the socket.
    const NONE: Self = Self { local: [0; 16], peer: [0; 16], local_port: 0, peer_port: 0, family: 0 };
}

/// What is taken of a packet.
struct Taking {
    kind: u16,
    /// Where in the packet, and how many bytes: 1 to [`PIECE_MAX`].
    at: u32,
    part: u32,
    /// What [`Piece`] says of it.
    offset: u32,
    whole: u32,
    last: u16,
    way: Way,
}

/// A record as it lies in the ring, with room for `N` bytes.
#[repr(C)]
struct Taken<const N: usize> {
    header: Header,
    piece: Piece,
    data: [u8; N],
}

/// Sends bytes of the packet up, in a record of the least size that holds them.
#[inline(always)]
unsafe fn take(skb: *mut __sk_buff, sk: *mut bpf_sock, flow: *const Flow, taking: &Taking, ends: &Ends) {
    if emit::is_shed_raw(taking.kind) {
        return;
    }
    // SAFETY: by the caller.
    unsafe {
        if taking.part <= 128 {
            take_into::<128>(skb, sk, flow, taking, ends);
        } else if taking.part <= 512 {
            take_into::<512>(skb, sk, flow, taking, ends);
        } else if taking.part <= 2048 {
            take_into::<2048>(skb, sk, flow, taking, ends);
        } else {
            take_into::<PIECE_MAX>(skb, sk, flow, taking, ends);
        }
    }
}

#[inline(always)]
unsafe fn take_into<const N: usize>(skb: *mut __sk_buff, sk: *mut bpf_sock, flow: *const Flow, taking: &Taking, ends: &Ends) {
    let Some(mut entry) = BULK.reserve::<Taken<N>>(0) else {
        emit::count_raw(taking.kind, Count::RingFull);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: reserved memory of the record's size, submitted below with nothing in between that could leave.
    unsafe {
        zero(&raw mut (*record).header);
        let piece = &raw mut (*record).piece;
        zero(piece);
        // `<VERIFIER>` The socket's address as a number: no arithmetic is allowed on the pointer, and what comes back from memory is a number.
        let address = &raw mut (*piece).cookie;
        address.cast::<*mut c_void>().write_volatile(sk.cast());
        let address = address.read_volatile();
        (*piece).cookie = bpf_get_socket_cookie(skb.cast());
        let socket = &raw mut (*piece).socket;
        if ends.family == 0 {
            let family: u16 = field!(address, sock_family);
            fd::inet(socket, address, family);
        } else {
            (*socket).kind = if ends.family == AF_INET6 { FdKind::Inet6 } else { FdKind::Inet4 } as u8;
            (*socket).protocol = IPPROTO_UDP;
            (*socket).state = field!(address, sock_state);
            (*socket).inode = fd::socket_inode(address);
            ((*socket).local_port, (*socket).peer_port) = (ends.local_port, ends.peer_port);
            ((*socket).local, (*socket).peer) = (ends.local, ends.peer);
        }
        if !flow.is_null() {
            flow::owner(&raw mut (*record).header, &raw mut (*socket).inode, flow, address, false);
            (*piece).direction = (*flow).direction;
        }
        (*piece).offset = taking.offset;
        (*piece).whole = taking.whole;
        (*piece).outgoing = u16::from(taking.way == Way::Out);
        (*piece).last = taking.last;
        // 1 to N, in a way that the verifier can follow.
        let mask = bound_to::<N>(u64::from(taking.part - 1));
        let len = mask + 1;
        (*piece).data = Span { offset: (size_of::<Taken<N>>() - N) as u16, len: len as u16 };
        bpf_skb_load_bytes(skb.cast(), taking.at, (&raw mut (*record).data).cast(), len as u32);
        emit::stamp_raw(&raw mut (*record).header, taking.kind, size_of::<Taken<N>>() as u32);
    }
    entry.submit(emit::wakeup(Ring::Bulk));
    emit::count_raw(taking.kind, Count::Emitted);
}

/// `value` as an index into `N` bytes, a power of two.
#[inline(always)]
fn bound_to<const N: usize>(value: u64) -> u64 {
    match N {
        128 => bound::<127>(value),
        512 => bound::<511>(value),
        2048 => bound::<2047>(value),
        _ => bound::<{ PIECE_MAX as u32 - 1 }>(value),
    }
}

const _: () = assert!(PIECE_MAX == 4096, "a power of two");
