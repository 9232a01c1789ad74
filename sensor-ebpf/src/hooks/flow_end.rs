//! A TCP connection came to its end: called by the program at the socket's state changes, which sees every way to close one.
//!
//! The kernel's own counters are still there. They are of the whole connection; payload is counted once, however often it was sent.

use bartizan_sensor_ebpf::abi::{Count, FlowEnd, Kind, Ring};

use crate::kernel::family::IPPROTO_TCP;
use crate::kernel::flow::{self, OWN, owner};
use crate::kernel::maps::{BULK, FLOWS};
use crate::kernel::object::{Known, Object};
use crate::kernel::{emit, fd, field, offset, zero};

/// include/net/tcp_states.h: a connection that has sent or received something has been in a state other than these.
const TCP_SYN_SENT: i32 = 2;
const TCP_SYN_RECV: i32 = 3;
const TCP_CLOSE: i32 = 7;
const TCP_LISTEN: i32 = 10;
const TCP_NEW_SYN_RECV: i32 = 12;

/// `sk` changes from the state `old` to closed.
#[inline(always)]
pub(super) fn closed(sk: Known, old: i32) {
    if matches!(old, TCP_SYN_SENT | TCP_SYN_RECV | TCP_CLOSE | TCP_LISTEN | TCP_NEW_SYN_RECV) {
        return;
    }
    // An MPTCP socket closes besides its subflows, which are TCP sockets: those are told.
    let protocol: u16 = field!(sk, sock_protocol);
    if protocol != IPPROTO_TCP {
        return;
    }
    let flow = FLOWS.get(sk.key());
    let address = sk.address();
    // SAFETY: the kernel keeps the value while the program runs.
    if !flow.is_null() && unsafe { (*flow).state } & OWN != 0 {
        emit::count(Kind::FlowEnd, Count::FilteredSelf);
        return;
    }
    // SAFETY: as above.
    let met = unsafe { flow::met(flow, address) };
    if emit::is_ignored_socket(Kind::FlowEnd as u16, met, sk) || emit::is_shed(Kind::FlowEnd) {
        return;
    }
    let Some(mut entry) = BULK.reserve::<FlowEnd>(0) else {
        emit::count(Kind::FlowEnd, Count::RingFull);
        return;
    };
    let record = entry.as_mut_ptr();
    let family: u16 = field!(sk, sock_family);
    // SAFETY: reserved memory of the record's size, submitted below with nothing in between that could leave.
    unsafe {
        zero(record);
        fd::inet(&raw mut (*record).socket, sk, family);
        // The port's number is given back before the state changes; what packets carried stays.
        let port: u16 = field!(address, inet_sport);
        (*record).socket.local_port = u16::from_be(port);
        if !flow.is_null() {
            (*record).started = (*flow).started;
            (*record).direction = (*flow).direction;
            owner(&raw mut (*record).header, &raw mut (*record).socket.inode, flow, address, true);
        }
        let (sent, again): (u64, u64) = (field!(address, tcp_bytes_sent), field!(address, tcp_bytes_retrans));
        (*record).bytes_sent = sent.wrapping_sub(again);
        (*record).bytes_received = received(sk);
        (*record).segments_sent = field!(address, tcp_segs_out);
        (*record).segments_received = field!(address, tcp_segs_in);
        (*record).retransmitted = field!(address, tcp_total_retrans);
        let error: i32 = field!(sk, sock_err);
        (*record).error = error.unsigned_abs();
        emit::stamp(&raw mut (*record).header, Kind::FlowEnd, size_of::<FlowEnd>() as u32);
    }
    entry.submit(emit::wakeup(Ring::Bulk));
    emit::count(Kind::FlowEnd, Count::Emitted);
}

/// Payload bytes that came in. The kernel counts the peer's FIN, too.
#[inline(always)]
fn received(sk: Known) -> u64 {
    let bytes: u64 = field!(sk.address(), tcp_bytes_received);
    let flags: u64 = field!(sk, sock_flags);
    let fin = flags & 1 << offset!(sock_done) != 0;
    if fin && bytes > 0 { bytes - 1 } else { bytes }
}
