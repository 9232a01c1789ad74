//! A socket that sees or makes more than its own connections: packet, netlink but for what everybody asks of it, vsock, key, XDP and the kernel's
//! crypto. (Raw INET sockets: `sock_create.rs`.)
//!
//! Best tier: fexit on `security_socket_post_create`. Fallback: the exit of socket(2), whose arguments are numbers.

use aya_ebpf::macros::{fexit, tracepoint};
use aya_ebpf::programs::{FExitContext, TracePointContext};
use bartizan_sensor_ebpf::abi::{Kind, RawSocket, Ring};

use crate::kernel::call::at_exit;
use crate::kernel::{emit, fd, field, task};

/// include/linux/socket.h.
const AF_KEY: u32 = 15;
const AF_NETLINK: u32 = 16;
const AF_PACKET: u32 = 17;
const AF_CAN: u32 = 29;
const AF_TIPC: u32 = 30;
const AF_BLUETOOTH: u32 = 31;
const AF_ALG: u32 = 38;
const AF_VSOCK: u32 = 40;
const AF_QIPCRTR: u32 = 42;
const AF_XDP: u32 = 44;
/// Families that are told: those above.
const TOLD: u64 = 1 << AF_KEY
    | 1 << AF_NETLINK
    | 1 << AF_PACKET
    | 1 << AF_CAN
    | 1 << AF_TIPC
    | 1 << AF_BLUETOOTH
    | 1 << AF_ALG
    | 1 << AF_VSOCK
    | 1 << AF_QIPCRTR
    | 1 << AF_XDP;
/// Protocols of netlink that are told, include/uapi/linux/netlink.h: XFRM 6, AUDIT 9, CONNECTOR 11, NETFILTER 12, CRYPTO 21. Not ROUTE (every
/// getaddrinfo), SOCK_DIAG (ss), KOBJECT_UEVENT (every libudev), GENERIC.
const NETLINK_TOLD: u64 = 1 << 6 | 1 << 9 | 1 << 11 | 1 << 12 | 1 << 21;
/// include/linux/net.h.
const SOCK_TYPE_MASK: u32 = 0xf;

/// Whether a socket of this family and protocol is told.
#[inline(always)]
fn is_told(family: u32, protocol: u32) -> bool {
    if family >= 64 || TOLD & 1 << family == 0 {
        return false;
    }
    family != AF_NETLINK || (protocol < 64 && NETLINK_TOLD & 1 << protocol != 0)
}

/// Sends one record.
#[inline(always)]
pub(super) fn report(family: u32, socket_type: u32, protocol: u32, inode: u64) {
    // SAFETY: every field is written.
    unsafe {
        emit::fixed(Kind::RawSocket, Ring::Bulk, task::current(), |record: *mut RawSocket| {
            (*record).inode = inode;
            (*record).family = family;
            (*record).socket_type = socket_type & SOCK_TYPE_MASK;
            (*record).protocol = protocol;
            (*record).pad = 0;
        });
    }
}

/// (struct socket *sock, int family, int type, int protocol, int kern), then the result.
#[fexit]
fn fexit_socket_post_create(ctx: FExitContext) -> i32 {
    let (family, protocol) = (ctx.arg::<u32>(1), ctx.arg::<u32>(3));
    if is_told(family, protocol) && ctx.arg::<u32>(4) == 0 && ctx.arg::<i32>(5) == 0 {
        let socket = ctx.arg::<*const u8>(0) as u64;
        report(family, ctx.arg::<u32>(2), protocol, fd::socket_inode_of(socket));
    }
    0
}

#[tracepoint]
fn sys_exit_socket(ctx: TracePointContext) -> u32 {
    let (regs, result) = at_exit(&ctx);
    let family: u64 = field!(regs, regs_di);
    if family as u32 >= 64 || TOLD & 1 << (family as u32) == 0 || result < 0 {
        return 0;
    }
    let (socket_type, protocol): (u64, u64) = (field!(regs, regs_si), field!(regs, regs_dx));
    if is_told(family as u32, protocol as u32) {
        let file = fd::file_of(task::current(), result as u32);
        let inode: u64 = if file == 0 { 0 } else { field!(file, file_inode) };
        let number = if inode == 0 { 0 } else { field!(inode, inode_ino) };
        report(family as u32, socket_type as u32, protocol as u32, number);
    }
    0
}
