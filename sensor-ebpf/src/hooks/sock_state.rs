//! The state of a TCP socket changes: one program, because it runs up to ten times in a connection's life.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use bartizan_sensor_ebpf::abi::{PART_STATE_CONNECT, PART_STATE_LISTEN};

use super::{connect, listen};
use crate::kernel::emit;
use crate::kernel::object::Known;

/// include/net/tcp_states.h.
const TCP_LISTEN: i32 = 10;

#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state(ctx: BtfTracePointContext) -> u32 {
    // (const struct sock *sk, const int oldstate, const int newstate)
    let (old, new) = (ctx.arg::<i32>(1), ctx.arg::<i32>(2));
    let sk = Known::new(ctx.arg(0));
    let parts = emit::parts();
    if new == TCP_LISTEN {
        if parts & PART_STATE_LISTEN != 0 {
            listen::begins(sk);
        }
    } else if parts & PART_STATE_CONNECT != 0 {
        connect::changes(sk, old, new);
    }
    0
}
