//! A program took a connection that a peer made.
//!
//! Best tier: fexit on `inet_accept`, which both address families end in, when the new socket has its file already: it sees io_uring
//! and 32-bit callers. Linux 6.10 put its last two parameters into one. Fallback: the exit of accept(2) and accept4(2), where the new
//! descriptor names the socket.

use core::ffi::c_void;

use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;
use bartizan_sensor_ebpf::abi::{Accept, Kind, Ring};

use crate::kernel::family::is_inet;
use crate::kernel::object::{Known, Object};
use crate::kernel::{emit, fd, field, flow, ignore, offset, task, zero};

/// Sends one record about the accepted `sk`. `met`: entries of `sensor.ignore` that ask for nothing else of processes.
#[inline(always)]
fn report(sk: impl Object, family: u16, met: u64) {
    let current = task::current();
    let tgid: u32 = field!(current, task_tgid);
    if emit::is_self(Kind::Accept, tgid) || emit::is_ignored_socket(Kind::Accept as u16, met, sk) || emit::is_shed(Kind::Accept) {
        return;
    }
    // SAFETY: every field is written.
    unsafe {
        emit::fixed_of_any(Kind::Accept, Ring::Bulk, current, |record: *mut Accept| {
            zero(&raw mut (*record).socket);
            fd::inet(&raw mut (*record).socket, sk, family);
        });
    }
}

/// Family of the socket; `None` where it is no INET one.
#[inline(always)]
fn inet_family(sk: impl Object) -> Option<u16> {
    let family: u16 = field!(sk, sock_family);
    is_inet(family).then_some(family)
}

/// The function returned `result` for the new `struct socket` in its second parameter.
#[inline(always)]
fn accepted(ctx: &FExitContext, result: i32) -> i32 {
    if result == 0 {
        let socket = ctx.arg::<*const u8>(1);
        // SAFETY: read by type: the verifier knows what comes of it as a socket, and checks that it is one.
        let sk = unsafe { socket.add(offset!(socket_sk) as usize).cast::<*mut c_void>().read() };
        if !sk.is_null() {
            let met = ignore::met_by(task::current());
            let known = Known::new(sk.cast_const().cast());
            flow::accepted(sk, known, met);
            if let Some(family) = inet_family(known) {
                report(known, family, met);
            }
        }
    }
    0
}

/// (struct socket *sock, struct socket *newsock, struct proto_accept_arg *arg), then the result.
#[fexit]
fn fexit_inet_accept(ctx: FExitContext) -> i32 {
    accepted(&ctx, ctx.arg::<i32>(3))
}

/// (struct socket *sock, struct socket *newsock, int flags, bool kern), then the result: before Linux 6.10.
#[fexit]
fn fexit_inet_accept_flags(ctx: FExitContext) -> i32 {
    accepted(&ctx, ctx.arg::<i32>(4))
}

/// accept(2) returned the INET socket `sk`.
#[inline(always)]
pub(super) fn at_exit(sk: u64, family: u16) {
    let met = ignore::met_by(task::current());
    flow::accepted_by_address(sk, met);
    report(sk, family, met);
}
