//! Connection attempts with their result: exactly one record for each attempt.
//!
//! TCP is told by the socket's own state: `inet_sock_set_state` into SYN_SENT is the attempt (in the caller's context),
//! out of it the result (often in softirq, where `current` is somebody else, so the owner waits in `PENDING`). That holds
//! for every way in: connect(2), io_uring, Fast Open, 32-bit calls.
//!
//! Attempts that fail before the first SYN never reach SYN_SENT, or leave it without an error on the socket. They, and UDP,
//! are told by the protocol's connect functions (fexit, best tier) or by the exit of connect(2) (fallback tier; blind to
//! io_uring and 32-bit calls).

use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_probe_read_kernel, bpf_probe_read_user};
use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;
use bartizan_sensor_ebpf::abi::{Connect, Count, FLAG_FROM_CALLER, FLAG_RESULT_UNKNOWN, Fd, FdKind, Header, Kind, Pending, Ring};

use super::{flow_end, syn};
use crate::kernel::call::{ERESTART_RESTARTBLOCK, ERESTARTSYS};
use crate::kernel::family::{AF_INET6, AF_UNSPEC, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE};
use crate::kernel::flow::{self, copy_header};
use crate::kernel::maps::{BULK, PENDING, PENDING_CALLING, PENDING_CLOSED, PENDING_SENT, REPORTED, Reported};
use crate::kernel::object::{Known, Object};
use crate::kernel::{emit, fd, field, ignore, task, zero};

/// include/net/tcp_states.h.
const TCP_ESTABLISHED: i32 = 1;
const TCP_SYN_SENT: i32 = 2;
const TCP_SYN_RECV: i32 = 3;
const TCP_CLOSE: i32 = 7;

const EINTR: i64 = 4;
const EBADF: i64 = 9;
const ENOTSOCK: i64 = 88;
const EISCONN: i64 = 106;
const ECONNABORTED: u32 = 103;
const EALREADY: i64 = 114;
const EINPROGRESS: i64 = 115;

/// Where the peer's address is when the socket does not have it.
enum Peer {
    /// The socket has it.
    Socket,
    /// A `sockaddr` in kernel memory.
    Kernel(u64),
    /// A `sockaddr` in the caller's memory.
    Caller(u64),
}

/// Sends one record about `sk`.
#[inline(always)]
fn report(sk: impl Object, subject: &Header, started: u64, error: u32, flags: u16, peer: Peer) {
    let Some(mut entry) = BULK.reserve::<Connect>(0) else {
        emit::count(Kind::Connect, Count::RingFull);
        return;
    };
    let record = entry.as_mut_ptr();
    let family: u16 = field!(sk, sock_family);
    // SAFETY: reserved memory of the record's size, submitted below with nothing in between that could leave.
    unsafe {
        copy_header(&raw mut (*record).header, subject);
        (*record).header.flags |= flags;
        let socket = &raw mut (*record).socket;
        zero(socket);
        fd::inet(socket, sk, family);
        match peer {
            Peer::Socket => {}
            Peer::Kernel(address) => peer_from(socket, address, family, false),
            Peer::Caller(address) => {
                (*record).header.flags |= FLAG_FROM_CALLER;
                peer_from(socket, address, family, true);
            }
        }
        (*record).started = started;
        (*record).error = error;
        (*record).pad = 0;
        emit::stamp(&raw mut (*record).header, Kind::Connect, size_of::<Connect>() as u32);
    }
    entry.submit(emit::wakeup(Ring::Bulk));
    emit::count(Kind::Connect, Count::Emitted);
}

/// Takes the peer from a `sockaddr_in` or `sockaddr_in6` at `address`.
#[inline(always)]
unsafe fn peer_from(socket: *mut Fd, address: u64, family: u16, user: bool) {
    let mut bytes = [0_u64; 4];
    // SAFETY: 28 bytes are the size of sockaddr_in6; a shorter one faults nowhere because the rest is only ignored.
    unsafe {
        if user {
            if bpf_probe_read_user(bytes.as_mut_ptr().cast(), 28, address as *const _) != 0 {
                bpf_probe_read_user(bytes.as_mut_ptr().cast(), 16, address as *const _);
            }
        } else {
            bpf_probe_read_kernel(bytes.as_mut_ptr().cast(), 28, address as *const _);
        }
        (*socket).peer_port = u16::from_be((bytes[0] >> 16) as u16);
        let peer = (&raw mut (*socket).peer).cast::<u64>();
        if family == AF_INET6 {
            peer.write(bytes[1]);
            peer.add(1).write(bytes[2]);
        } else {
            (*socket).kind = FdKind::Inet4 as u8;
            peer.write(bytes[0] >> 32);
            peer.add(1).write(0);
        }
    }
}

/// Whether the configuration leaves an attempt of the running task towards this peer out; if so it is counted.
#[inline(always)]
fn is_ignored(sk: impl Object, peer: &Peer) -> bool {
    let kind = Kind::Connect as u16;
    if ignore::of_kind(kind) == 0 {
        return false;
    }
    let met = ignore::met_by(task::current());
    let (address, user) = match *peer {
        Peer::Socket => return emit::is_ignored_socket(kind, met, sk),
        Peer::Kernel(address) => (address, false),
        Peer::Caller(address) => (address, true),
    };
    let family: u16 = field!(sk, sock_family);
    // RFC 3493 §3.3: the address is at 8, that of `sockaddr_in` at 4.
    let is_v6 = family == AF_INET6;
    let (at, len) = if is_v6 { (address + 8, 16) } else { (address + 4, 4) };
    let mut bytes = [0_u8; 16];
    // SAFETY: as long as is said at most; zeros where it faults.
    unsafe {
        if user {
            bpf_probe_read_user((&raw mut bytes).cast(), len, at as *const _);
        } else {
            bpf_probe_read_kernel((&raw mut bytes).cast(), len, at as *const _);
        }
    }
    emit::is_ignored_peer(kind, met, &bytes, is_v6)
}

/// The running task as a record's subject.
#[inline(always)]
fn subject_now() -> Header {
    let mut header = core::mem::MaybeUninit::<Header>::uninit();
    // SAFETY: all bytes are written before they are read.
    unsafe {
        zero(header.as_mut_ptr());
        task::subject(header.as_mut_ptr(), task::current());
        header.assume_init()
    }
}

/// The state of `sk` changes.
#[inline(always)]
pub(super) fn changes(sk: Known, old: i32, new: i32) {
    if new == TCP_SYN_SENT {
        attempt(sk);
    } else if old == TCP_SYN_SENT || old == TCP_SYN_RECV {
        if new == TCP_ESTABLISHED {
            flow::established(sk.key());
            if old == TCP_SYN_RECV {
                syn::completed(sk);
            }
        }
        result(sk, old, new);
    } else if new == TCP_CLOSE {
        flow_end::closed(sk, old);
    }
}

/// A first SYN is about to be sent.
#[inline(always)]
fn attempt(sk: Known) {
    // An MPTCP socket changes state together with its first subflow, which is a TCP socket: that one is told.
    let protocol: u16 = field!(sk, sock_protocol);
    if protocol != IPPROTO_TCP {
        return;
    }
    let mut header = subject_now();
    let (own, inode) = (emit::is_self(Kind::Connect, header.tgid), fd::socket_inode(sk));
    let met = ignore::met_by(task::current());
    flow::connects(sk.key(), &header, inode, own, met);
    if own {
        return;
    }
    if emit::is_ignored_socket(Kind::Connect as u16, met, sk) || emit::is_shed(Kind::Connect) {
        // Counted: the failure that connect(2) may return is no second attempt.
        remember_reported(sk, 0);
        return;
    }
    // SAFETY: the helper takes nothing.
    header.ktime = unsafe { bpf_ktime_get_boot_ns() };
    let pending = Pending { header, state: PENDING_CALLING, inode };
    let key = sk.address();
    if PENDING.get_ptr(&key).is_some() {
        emit::count(Kind::Connect, Count::NoResult);
    }
    if PENDING.insert(&key, &pending, 0).is_err() {
        emit::count(Kind::Connect, Count::PendingFull);
        report(sk, &pending.header, pending.header.ktime, 0, FLAG_RESULT_UNKNOWN, Peer::Socket);
        remember_reported(sk, 0);
    }
}

/// The handshake came to an end, good or bad.
#[inline(always)]
fn result(sk: Known, old: i32, new: i32) {
    if new != TCP_ESTABLISHED && new != TCP_CLOSE {
        return;
    }
    let key = sk.address();
    let Some(pending) = PENDING.get_ptr_mut(&key) else { return };
    let inode = fd::socket_inode(sk);
    // SAFETY: the map is preallocated.
    let same = inode == unsafe { (*pending).inode };
    // A socket that was closed meanwhile has no file any more. Everything else with another file is another socket at the
    // address of one whose result never came: an accepted connection, for one.
    let orphan = inode == 0 && old == TCP_SYN_SENT && new == TCP_CLOSE;
    if !same && !orphan {
        emit::count(Kind::Connect, Count::NoResult);
        let _ = PENDING.remove(&key);
        return;
    }
    // SAFETY: the map is preallocated; the entry is only deleted below.
    unsafe {
        if new == TCP_ESTABLISHED {
            report(sk, &(*pending).header, (*pending).header.ktime, 0, 0, Peer::Socket);
        } else {
            let error: i32 = field!(sk, sock_err);
            if error == 0 && (*pending).state == PENDING_CALLING {
                (*pending).state = PENDING_CLOSED;
                return;
            }
            let error = if error == 0 { ECONNABORTED } else { error.unsigned_abs() };
            report(sk, &(*pending).header, (*pending).header.ktime, error, 0, Peer::Socket);
            remember_reported(sk, error);
        }
    }
    let _ = PENDING.remove(&key);
}

/// The failure of `sk` was told: whoever called, or collects it by another connect(), tried nothing new.
#[inline(always)]
fn remember_reported(sk: impl Object, error: u32) {
    let key = Reported { sk: sk.address(), inode: fd::socket_inode(sk) };
    let _ = REPORTED.insert(&key, &error, 0);
}

/// Whether `error` is the failure that was already told of `sk`; it is forgotten then.
#[inline(always)]
fn was_reported(sk: impl Object, error: u32) -> bool {
    let key = Reported { sk: sk.address(), inode: fd::socket_inode(sk) };
    let Some(told) = REPORTED.get_ptr(&key) else { return false };
    // SAFETY: the map is preallocated: a reused entry is a wrong number at worst.
    let told = unsafe { *told };
    let same = told == 0 || told == error;
    if same {
        let _ = REPORTED.remove(&key);
    }
    same
}

/// connect() on a TCP socket returned.
#[inline(always)]
fn tcp_returned(sk: impl Object, result: i64, peer: Peer) {
    let error = -result;
    let key = sk.address();
    if let Some(pending) = PENDING.get_ptr_mut(&key) {
        // SAFETY: as in `result`.
        unsafe {
            if (*pending).state == PENDING_CLOSED {
                let error = if error > 0 { error as u32 } else { ECONNABORTED };
                report(sk, &(*pending).header, (*pending).header.ktime, error, 0, Peer::Socket);
                let _ = PENDING.remove(&key);
            } else {
                (*pending).state = PENDING_SENT;
            }
        }
        return;
    }
    if error <= 0 {
        return;
    }
    if is_no_attempt(error) {
        return;
    }
    // The protocol's own function fails only in an attempt of its own; connect(2) also returns what was told before.
    if matches!(peer, Peer::Caller(_)) && was_reported(sk, error as u32) {
        return;
    }
    let subject = subject_now();
    if emit::is_self(Kind::Connect, subject.tgid) || is_ignored(sk, &peer) || emit::is_shed(Kind::Connect) {
        return;
    }
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    report(sk, &subject, now, error as u32, 0, peer);
}

/// Errors of a connect() that tried nothing new.
#[inline(always)]
pub(super) fn is_no_attempt(error: i64) -> bool {
    matches!(error, EINTR | EBADF | ENOTSOCK | EISCONN | EALREADY | EINPROGRESS) || (ERESTARTSYS..=ERESTART_RESTARTBLOCK).contains(&error)
}

/// connect() on a UDP socket returned.
#[inline(always)]
fn udp_returned(sk: impl Object, result: i64, peer: Peer) {
    let subject = subject_now();
    let (error, peer) = if result < 0 { ((-result) as u32, peer) } else { (0, Peer::Socket) };
    if emit::is_self(Kind::Connect, subject.tgid) || is_ignored(sk, &peer) || emit::is_shed(Kind::Connect) {
        return;
    }
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    report(sk, &subject, now, error, 0, peer);
}

#[inline(always)]
fn is_udp(sk: impl Object) -> bool {
    let protocol: u16 = field!(sk, sock_protocol);
    protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE
}

/// Family of the `sockaddr` at `address`.
#[inline(always)]
fn kernel_family(address: u64) -> u16 {
    crate::kernel::read(address)
}

/// Family of the `sockaddr` at `address` in the caller's memory.
#[inline(always)]
fn caller_family(address: u64) -> u16 {
    let mut family = AF_UNSPEC;
    // SAFETY: two bytes for a `u16`.
    unsafe { bpf_probe_read_user((&raw mut family).cast(), 2, address as *const _) };
    family
}

/// Whether the `sockaddr_in6` at `address` is an IPv4-mapped one: the kernel then calls the IPv4 function, which reports.
#[inline(always)]
fn is_mapped(address: u64) -> bool {
    let (high, low): (u64, u32) = (crate::kernel::read(address + 8), crate::kernel::read(address + 16));
    high == 0 && low == 0xffff_u32.to_be()
}

// (struct sock *sk, struct sockaddr *uaddr, int addr_len), then the result.
#[inline(always)]
fn traced(ctx: &FExitContext) -> (Known, u64, i64) {
    (Known::new(ctx.arg(0)), ctx.arg::<*const u8>(1) as u64, i64::from(ctx.arg::<i32>(3)))
}

#[fexit]
fn fexit_tcp_v4_connect(ctx: FExitContext) -> i32 {
    let (sk, address, result) = traced(&ctx);
    tcp_returned(sk, result, Peer::Kernel(address));
    0
}

#[fexit]
fn fexit_tcp_v6_connect(ctx: FExitContext) -> i32 {
    let (sk, address, result) = traced(&ctx);
    if !is_mapped(address) {
        tcp_returned(sk, result, Peer::Kernel(address));
    }
    0
}

#[fexit]
fn fexit_ip4_datagram_connect(ctx: FExitContext) -> i32 {
    let (sk, address, result) = traced(&ctx);
    if is_udp(sk) {
        udp_returned(sk, result, Peer::Kernel(address));
    }
    0
}

#[fexit]
fn fexit_ip6_datagram_connect(ctx: FExitContext) -> i32 {
    let (sk, address, result) = traced(&ctx);
    // An AF_INET address on an IPv6 socket and a mapped one both go on to the IPv4 function.
    if is_udp(sk) && kernel_family(address) == AF_INET6 && !is_mapped(address) {
        udp_returned(sk, result, Peer::Kernel(address));
    }
    0
}

/// connect(2) on the TCP socket `sk` returned.
#[inline(always)]
pub(super) fn tcp_at_exit(sk: u64, address: u64, result: i64) {
    tcp_returned(sk, result, Peer::Caller(address));
}

/// connect(2) on the INET socket `sk` returned, which may be a UDP one.
#[inline(always)]
pub(super) fn udp_at_exit(sk: u64, address: u64, result: i64) {
    // AF_UNSPEC takes a connection back. The kernel had a copy of the address; this is the caller's.
    if is_udp(sk) && !is_no_attempt(-result) && caller_family(address) != AF_UNSPEC {
        udp_returned(sk, result, Peer::Caller(address));
    }
}

const _: () = assert!(core::mem::offset_of!(Connect, socket) % 8 == 0);
