//! Descriptors, sockets and relays.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bartizan_bus::event::{InetSocket, Stdio, StdioEnd, Transport};
use bartizan_sensor_ebpf::abi::{self, FLAG_RELAY_TRUNCATED, Fd, FdKind};

use super::{Relay, text};

/// include/net/tcp_states.h; a connected UDP socket says established too.
const ESTABLISHED: u8 = 1;
const CLOSE_WAIT: u8 = 8;
/// include/uapi/linux/in.h.
const IPPROTO_TCP: u16 = 6;
const IPPROTO_UDP: u16 = 17;
const IPPROTO_UDPLITE: u16 = 136;
const IPPROTO_MPTCP: u16 = 262;

/// Descriptors 0-2.
pub(super) fn stdio(fds: &[Fd]) -> Vec<Stdio> {
    fds.iter().zip(0..).map(|(fd, number)| Stdio { fd: number, end: end(fd) }).collect()
}

fn end(fd: &Fd) -> StdioEnd {
    match FdKind::from_raw(fd.kind) {
        FdKind::Closed => StdioEnd::Closed,
        FdKind::Inet4 | FdKind::Inet6 => StdioEnd::Inet { socket: socket(fd) },
        FdKind::Pipe => StdioEnd::Pipe { inode: fd.inode },
        FdKind::Tty => StdioEnd::Tty { name: text::tty(&fd.local).unwrap_or_default() },
        FdKind::Unix => StdioEnd::Unix { inode: fd.inode, peer_inode: (fd.other != 0).then_some(fd.other) },
        FdKind::File => StdioEnd::File { inode: fd.inode },
        FdKind::Device => StdioEnd::Device { device: fd.other as u32 },
        FdKind::Other => StdioEnd::Other,
    }
}

/// An address in network order: sixteen bytes, or four and padding. An IPv4-mapped one is given as IPv4.
pub(super) fn address(bytes: [u8; 16], v6: bool) -> IpAddr {
    if v6 {
        let six = Ipv6Addr::from(bytes);
        return six.to_ipv4_mapped().map_or(IpAddr::V6(six), IpAddr::V4);
    }
    IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
}

/// An INET socket.
pub(super) fn socket(fd: &Fd) -> InetSocket {
    let address = |bytes| address(bytes, FdKind::from_raw(fd.kind) == FdKind::Inet6);
    let (local, peer) = (address(fd.local), address(fd.peer));
    InetSocket {
        transport: match fd.protocol {
            IPPROTO_TCP | IPPROTO_MPTCP => Transport::Tcp,
            IPPROTO_UDP | IPPROTO_UDPLITE => Transport::Udp,
            _ => Transport::Other,
        },
        local_ip: (!local.is_unspecified()).then_some(local),
        local_port: (fd.local_port != 0).then_some(fd.local_port),
        peer_ip: (!peer.is_unspecified() || fd.peer_port != 0).then_some(peer),
        peer_port: (fd.peer_port != 0).then_some(fd.peer_port),
        connected: matches!(fd.state, ESTABLISHED | CLOSE_WAIT),
        inode: (fd.inode != 0).then_some(fd.inode),
    }
}

/// What the parent holds; `None` when it holds no other end.
pub(super) fn relay(relay: &abi::Relay, flags: u16) -> Option<Relay> {
    if relay.held == 0 {
        return None;
    }
    let found = relay.sockets_found as usize;
    Some(Relay {
        tgid: relay.tgid,
        start_boottime: relay.start_boottime,
        exec_id: relay.exec_id,
        fds: (0..3).filter(|fd| relay.held & (1 << fd) != 0).collect(),
        sockets: sockets(relay),
        truncated: flags & FLAG_RELAY_TRUNCATED != 0 || found > relay.sockets.len(),
    })
}

/// The INET sockets of a relay.
pub(super) fn sockets(relay: &abi::Relay) -> Vec<InetSocket> {
    relay.sockets.iter().take(relay.sockets_found as usize).map(socket).collect()
}
