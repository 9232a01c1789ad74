//! A socket was bound: programs at the root of the cgroup hierarchy, which run when the kernel has chosen the port and still in the caller's
//! context, whichever system call it was.

use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use bartizan_sensor_ebpf::abi::{Bind, Kind, Ring};

use crate::kernel::{emit, fd, field, task, zero};

/// What a program of this type returns to let the call go on.
const ALLOW: i32 = 1;

#[inline(always)]
fn bound(sk: u64) -> i32 {
    // SAFETY: every field is written.
    unsafe {
        emit::fixed(Kind::Bind, Ring::Bulk, task::current(), |record: *mut Bind| {
            let family: u16 = field!(sk, sock_family);
            let socket_type: u16 = field!(sk, sock_type);
            zero(&raw mut (*record).socket);
            fd::inet(&raw mut (*record).socket, sk, family);
            (*record).socket_type = u32::from(socket_type);
            (*record).pad = 0;
        });
    }
    ALLOW
}

#[cgroup_sock(post_bind4)]
fn post_bind4(ctx: SockContext) -> i32 {
    bound(ctx.sock as u64)
}

#[cgroup_sock(post_bind6)]
fn post_bind6(ctx: SockContext) -> i32 {
    bound(ctx.sock as u64)
}
