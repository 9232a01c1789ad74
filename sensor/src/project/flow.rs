//! `network.bind`, `network.flow_end` and `network.raw_socket`.

use bartizan_bus::event::{self, Body, Direction};
use bartizan_sensor_ebpf::abi::{Bind, FLOW_IN, FLOW_OUT, FlowEnd, RawSocket};

use super::{Act, What, errno, fd};

pub(super) fn bind(record: &Bind) -> What {
    let Bind { header: _, socket, socket_type: kind, pad: _ } = record;
    let mut socket = fd::socket(socket);
    (socket.connected, socket.peer_ip, socket.peer_port) = (false, None, None);
    Act::done(Body::Bind(event::Bind { socket, socket_type: socket_type(*kind) })).into()
}

pub(super) fn end(record: &FlowEnd) -> What {
    let FlowEnd {
        header,
        socket,
        started,
        bytes_sent,
        bytes_received,
        segments_sent,
        segments_received,
        retransmitted,
        error,
        direction: began,
        pad: _,
    } = record;
    let error = errno(*error);
    let body = event::FlowEnd {
        socket: fd::socket(socket),
        direction: direction(*began),
        duration_ns: (*started != 0).then(|| header.ktime.saturating_sub(*started)),
        bytes_sent: *bytes_sent,
        bytes_received: *bytes_received,
        packets_sent: (*segments_sent).into(),
        packets_received: (*segments_received).into(),
        retransmitted: (*retransmitted).into(),
        error,
    };
    Act::ended(Body::FlowEnd(body), error.map_or(0, |error| -i64::from(error.0))).into()
}

/// Who began, from `FLOW_*`.
pub(super) fn direction(raw: u32) -> Option<Direction> {
    match raw {
        FLOW_OUT => Some(Direction::Outgoing),
        FLOW_IN => Some(Direction::Incoming),
        _ => None,
    }
}

pub(super) fn raw_socket(record: &RawSocket) -> What {
    let RawSocket { header: _, inode, family, socket_type: kind, protocol, pad: _ } = record;
    let body = event::RawSocket {
        family: family_name(*family),
        socket_type: socket_type(*kind),
        protocol: if *family == AF_PACKET { u32::from(u16::from_be(*protocol as u16)) } else { *protocol },
        protocol_name: protocol_name(*family, *protocol).map(str::to_owned),
        inode: (*inode != 0).then_some(*inode),
    };
    Act::done(Body::RawSocket(body)).into()
}

/// include/linux/socket.h.
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const AF_NETLINK: u32 = 16;
const AF_PACKET: u32 = 17;

/// include/linux/socket.h.
fn family_name(family: u32) -> String {
    match family {
        AF_INET => "AF_INET",
        AF_INET6 => "AF_INET6",
        15 => "AF_KEY",
        AF_NETLINK => "AF_NETLINK",
        AF_PACKET => "AF_PACKET",
        29 => "AF_CAN",
        30 => "AF_TIPC",
        31 => "AF_BLUETOOTH",
        38 => "AF_ALG",
        40 => "AF_VSOCK",
        42 => "AF_QIPCRTR",
        44 => "AF_XDP",
        other => return format!("family {other}"),
    }
    .to_owned()
}

/// include/linux/net.h.
pub(super) fn socket_type(raw: u32) -> String {
    match raw {
        1 => "SOCK_STREAM",
        2 => "SOCK_DGRAM",
        3 => "SOCK_RAW",
        4 => "SOCK_RDM",
        5 => "SOCK_SEQPACKET",
        6 => "SOCK_DCCP",
        10 => "SOCK_PACKET",
        other => return format!("type {other}"),
    }
    .to_owned()
}

/// include/uapi/linux/in.h, netlink.h, if_ether.h. The Ethernet type comes in network order.
fn protocol_name(family: u32, protocol: u32) -> Option<&'static str> {
    Some(match (family, protocol) {
        (AF_INET | AF_INET6, 1) => "ICMP",
        (AF_INET | AF_INET6, 6) => "TCP",
        (AF_INET | AF_INET6, 17) => "UDP",
        (AF_INET | AF_INET6, 58) => "ICMPV6",
        (AF_INET | AF_INET6, 255) => "RAW",
        (AF_NETLINK, 6) => "NETLINK_XFRM",
        (AF_NETLINK, 9) => "NETLINK_AUDIT",
        (AF_NETLINK, 11) => "NETLINK_CONNECTOR",
        (AF_NETLINK, 12) => "NETLINK_NETFILTER",
        (AF_NETLINK, 21) => "NETLINK_CRYPTO",
        (AF_PACKET, protocol) => match u16::from_be(protocol as u16) {
            0x0003 => "ETH_P_ALL",
            0x0800 => "ETH_P_IP",
            0x0806 => "ETH_P_ARP",
            0x86dd => "ETH_P_IPV6",
            _ => return None,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_headers() {
        assert_eq!([17, 16, 2, 99].map(family_name), ["AF_PACKET", "AF_NETLINK", "AF_INET", "family 99"]);
        assert_eq!([1, 3, 9].map(socket_type), ["SOCK_STREAM", "SOCK_RAW", "type 9"]);
        assert_eq!(protocol_name(AF_PACKET, u32::from(0x0003_u16.to_be())), Some("ETH_P_ALL"));
        assert_eq!([protocol_name(AF_NETLINK, 9), protocol_name(AF_NETLINK, 0)], [Some("NETLINK_AUDIT"), None]);
    }
}
