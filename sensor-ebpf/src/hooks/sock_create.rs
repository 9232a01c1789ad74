//! A process makes an INET socket: a program at the root of the cgroup hierarchy, in the caller's context, whichever system call it was.
//!
//! Raw sockets are told. Of datagram sockets the owner is noted: their packets come in softirq. Stream sockets have their owner noted when
//! they connect, listen or are accepted.

use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;

use super::raw_socket;
use crate::kernel::maps::{FLOWS, SELF_TGID};
use crate::kernel::{field, flow, ignore, task};

/// What a program of this type returns to let the call go on.
const ALLOW: i32 = 1;
/// include/linux/net.h.
const SOCK_STREAM: u32 = 1;
const SOCK_RAW: u32 = 3;

#[cgroup_sock(sock_create)]
fn sock_create(ctx: SockContext) -> i32 {
    // SAFETY: the kernel gives the program its socket.
    let (family, socket_type, protocol) = unsafe { ((*ctx.sock).family, (*ctx.sock).type_, (*ctx.sock).protocol) };
    if socket_type == SOCK_STREAM {
        return ALLOW;
    }
    if socket_type == SOCK_RAW {
        // Its file's inode is not tied to it yet.
        raw_socket::report(family, socket_type, protocol, 0);
    }
    let entry = FLOWS.get_or_begin(ctx.sock.cast());
    if !entry.is_null() {
        let current = task::current();
        let tgid: u32 = field!(current, task_tgid);
        // SAFETY: the kernel keeps the value while the program runs; `SELF_TGID` as in `offset!`.
        unsafe {
            task::subject(&raw mut (*entry).owner, current);
            (*entry).met = ignore::met_by(current);
            let own = core::ptr::read_volatile(&raw const SELF_TGID);
            if own != 0 && own == tgid {
                (*entry).state = flow::OWN;
            }
        }
    }
    ALLOW
}
