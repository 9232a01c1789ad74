//! The exits of connect(2) and accept(2), in the fallback tier of what they tell: one program each, that finds the socket and goes by its
//! family.

use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use bartizan_sensor_ebpf::abi::{
    PART_ACCEPT_INET, PART_ACCEPT_VSOCK, PART_CONNECT_TCP, PART_CONNECT_UDP, PART_CONNECT_UNIX, PART_CONNECT_VSOCK,
};

use super::{accept, connect, unix_connect, vsock};
use crate::kernel::call::at_exit;
use crate::kernel::family::{AF_UNIX, AF_VSOCK, IPPROTO_TCP, is_inet};
use crate::kernel::{emit, fd, field, task};

#[tracepoint]
fn sys_exit_connect(ctx: TracePointContext) -> u32 {
    let (regs, result) = at_exit(&ctx);
    let number: u64 = field!(regs, regs_di);
    let sk = socket(number as u32);
    if sk == 0 {
        return 0;
    }
    let parts = emit::parts();
    let (address, len): (u64, u64) = (field!(regs, regs_si), field!(regs, regs_dx));
    let family: u16 = field!(sk, sock_family);
    if is_inet(family) {
        let protocol: u16 = field!(sk, sock_protocol);
        if protocol == IPPROTO_TCP {
            if parts & PART_CONNECT_TCP != 0 {
                connect::tcp_at_exit(sk, address, result);
            }
        } else if parts & PART_CONNECT_UDP != 0 {
            connect::udp_at_exit(sk, address, result);
        }
    } else if family == AF_UNIX && parts & PART_CONNECT_UNIX != 0 {
        unix_connect::at_exit(sk, result, address, len);
    } else if family == AF_VSOCK && parts & PART_CONNECT_VSOCK != 0 {
        vsock::connected(sk, result, address, true);
    }
    0
}

/// Attached at the exits of `accept` and `accept4`.
#[tracepoint]
fn sys_exit_accept(ctx: TracePointContext) -> u32 {
    let (_, result) = at_exit(&ctx);
    if result < 0 {
        return 0;
    }
    let sk = socket(result as u32);
    if sk == 0 {
        return 0;
    }
    let parts = emit::parts();
    let family: u16 = field!(sk, sock_family);
    if is_inet(family) {
        if parts & PART_ACCEPT_INET != 0 {
            accept::at_exit(sk, family);
        }
    } else if family == AF_VSOCK && parts & PART_ACCEPT_VSOCK != 0 {
        vsock::accepted(sk);
    }
    0
}

/// Address of the socket behind the descriptor; 0 where it is none.
#[inline(always)]
fn socket(number: u32) -> u64 {
    let file = fd::file_of(task::current(), number);
    if file == 0 { 0 } else { fd::socket_of(file) }
}
