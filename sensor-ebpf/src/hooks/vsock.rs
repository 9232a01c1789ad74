//! Connections over VM sockets, between a virtual machine and its host: made, and taken.
//!
//! Best tier: fexit on what every connect() goes through, `__sys_connect_file`, and on `security_sock_graft`, which ties an accepted socket to
//! its file: VM sockets themselves may be a module, which is loaded later. Fallback: the exits of connect(2) and accept(2), where the descriptor
//! names the socket. Where they are a module, the kernel's types do not say where the socket has its addresses: then only the one that
//! connect() was given is told.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user};
use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;
use bartizan_sensor_ebpf::abi::{FLAG_FROM_CALLER, Kind, Ring, VSOCK_ANY, Vsock, VsockAccept, VsockConnect};
use bartizan_sensor_ebpf::layout::ABSENT;

use super::connect::is_no_attempt;
use crate::kernel::call::errno;
use crate::kernel::family::AF_VSOCK;
use crate::kernel::{emit, fd, field, offset, read, task};

/// `svm_port` and `svm_cid` in a `sockaddr_vm`, include/uapi/linux/vm_sockets.h.
const PORT_AT: u64 = 4;
const CID_AT: u64 = 8;
const EINPROGRESS: i64 = 115;

/// Fills `out` from the socket.
#[inline(always)]
unsafe fn fill(out: *mut Vsock, sk: u64) {
    // SAFETY: by the caller.
    unsafe {
        (*out).inode = fd::socket_inode(sk);
        ((*out).local_cid, (*out).local_port) = (VSOCK_ANY, VSOCK_ANY);
        ((*out).peer_cid, (*out).peer_port) = (VSOCK_ANY, VSOCK_ANY);
        if offset!(vsock_local) != u64::from(ABSENT) && offset!(vsock_remote) != u64::from(ABSENT) {
            let (local, remote) = (sk + offset!(vsock_local), sk + offset!(vsock_remote));
            ((*out).local_cid, (*out).local_port) = (read(local + CID_AT), read(local + PORT_AT));
            ((*out).peer_cid, (*out).peer_port) = (read(remote + CID_AT), read(remote + PORT_AT));
        }
    }
}

/// connect() on `sk` returned `result`; `address` is what it was given.
#[inline(always)]
pub(super) fn connected(sk: u64, result: i64, address: u64, user: bool) {
    // A connection that is still being made is told once, when it was begun.
    if is_no_attempt(-result) && -result != EINPROGRESS {
        return;
    }
    let socket_type: u16 = field!(sk, sock_type);
    // SAFETY: every field is written.
    unsafe {
        emit::fixed(Kind::VsockConnect, Ring::Bulk, task::current(), |record: *mut VsockConnect| {
            let socket = &raw mut (*record).socket;
            fill(socket, sk);
            (*record).socket_type = u32::from(socket_type);
            (*record).error = errno(result);
            if (*socket).peer_cid == VSOCK_ANY {
                let mut words = [0_u32; 3];
                let copied = if user {
                    (*record).header.flags |= FLAG_FROM_CALLER;
                    bpf_probe_read_user(words.as_mut_ptr().cast(), 12, address as *const _)
                } else {
                    bpf_probe_read_kernel(words.as_mut_ptr().cast(), 12, address as *const _)
                };
                if copied == 0 {
                    ((*socket).peer_port, (*socket).peer_cid) = (words[1], words[2]);
                }
            }
        });
    }
}

/// A connection became the socket `sk`.
#[inline(always)]
pub(super) fn accepted(sk: u64) {
    let (family, socket_type): (u16, u16) = (field!(sk, sock_family), field!(sk, sock_type));
    if family != AF_VSOCK {
        return;
    }
    // SAFETY: every field is written.
    unsafe {
        emit::fixed(Kind::VsockAccept, Ring::Bulk, task::current(), |record: *mut VsockAccept| {
            fill(&raw mut (*record).socket, sk);
            (*record).socket_type = u32::from(socket_type);
            (*record).pad = 0;
        });
    }
}

/// (struct file *file, struct sockaddr_storage *address, int addrlen, int file_flags), then the result.
#[fexit]
fn fexit_sys_connect_file(ctx: FExitContext) -> i32 {
    let file = ctx.arg::<*const u8>(0) as u64;
    let sk = fd::socket_of(file);
    if sk == 0 {
        return 0;
    }
    let family: u16 = field!(sk, sock_family);
    if family == AF_VSOCK {
        connected(sk, i64::from(ctx.arg::<i32>(4)), ctx.arg::<*const u8>(1) as u64, false);
    }
    0
}

/// (struct sock *sk, struct socket *parent): the accepted socket got its file.
#[fexit]
fn fexit_sock_graft(ctx: FExitContext) -> i32 {
    accepted(ctx.arg::<*const u8>(0) as u64);
    0
}
