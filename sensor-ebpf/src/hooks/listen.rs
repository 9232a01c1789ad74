//! A TCP socket begins to take connections: its own state says so, in the caller's context and whichever system call caused it.

use bartizan_sensor_ebpf::abi::{Count, Kind, Listen, Ring};

use crate::kernel::family::IPPROTO_TCP;
use crate::kernel::maps::BULK;
use crate::kernel::object::Known;
use crate::kernel::{emit, fd, field, flow, task, zero};

/// `sk` begins to listen.
#[inline(always)]
pub(super) fn begins(sk: Known) {
    // An MPTCP socket listens by a TCP socket: that one is told.
    let protocol: u16 = field!(sk, sock_protocol);
    if protocol != IPPROTO_TCP {
        return;
    }
    let current = task::current();
    let tgid: u32 = field!(current, task_tgid);
    let own = emit::is_self(Kind::Listen, tgid);
    flow::listens(sk.key(), own);
    if own || emit::is_ignored(Kind::Listen, current) {
        return;
    }
    let Some(mut entry) = BULK.reserve::<Listen>(0) else {
        emit::count(Kind::Listen, Count::RingFull);
        return;
    };
    let record = entry.as_mut_ptr();
    let family: u16 = field!(sk, sock_family);
    // SAFETY: reserved memory of the record's size, submitted below with nothing in between that could leave.
    unsafe {
        task::subject(&raw mut (*record).header, current);
        zero(&raw mut (*record).socket);
        fd::inet(&raw mut (*record).socket, sk, family);
        (*record).backlog = field!(sk, sock_max_ack_backlog);
        (*record).pad = 0;
        emit::stamp(&raw mut (*record).header, Kind::Listen, size_of::<Listen>() as u32);
    }
    entry.submit(emit::wakeup(Ring::Bulk));
    emit::count(Kind::Listen, Count::Emitted);
}
