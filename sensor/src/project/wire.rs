//! `network.dns`, `network.tls`, `network.http`, `network.ssh` and `network.udp_flow`: from the bytes of packets.

use std::net::IpAddr;

use bartizan_bus::event::{self, Body, Direction, DnsAnswer, DnsQuestion, InetSocket, TlsSide};
use bartizan_sensor_ebpf::abi::{self, Bytes, Fd, FdKind, Kind, UdpGathered, UdpPeer};
use bartizan_wire::dns::{Data, Message};
use bartizan_wire::tls::{ClientHello, ServerHello};
use bartizan_wire::{http1, ssh, tls};

use super::{Act, What, fd, flow};

/// RFC 6762 §3.
const MDNS: u16 = 5353;
/// include/linux/socket.h.
const AF_INET6: u32 = 10;
/// include/uapi/linux/in.h.
const IPPROTO_UDP: u16 = 17;
/// Numbers in a name of a type of DNS record, IANA "Resource Record (RR) TYPEs".
const TYPES: &[(u16, &str)] = &[
    (1, "A"),
    (2, "NS"),
    (5, "CNAME"),
    (6, "SOA"),
    (10, "NULL"),
    (12, "PTR"),
    (13, "HINFO"),
    (15, "MX"),
    (16, "TXT"),
    (28, "AAAA"),
    (33, "SRV"),
    (35, "NAPTR"),
    (43, "DS"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (52, "TLSA"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (251, "IXFR"),
    (252, "AXFR"),
    (255, "ANY"),
    (257, "CAA"),
];

/// A UDP message, or a part of one direction of a TCP connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The socket.
    pub socket: InetSocket,
    /// Names the socket.
    pub cookie: u64,
    /// TCP: bytes of this direction before these.
    pub offset: u32,
    /// Bytes of the message or segment.
    pub whole: u32,
    /// Who began the connection.
    pub direction: Option<Direction>,
    /// This host sent it.
    pub outgoing: bool,
    /// No more of this direction will come.
    pub last: bool,
    /// The bytes.
    pub data: Vec<u8>,
}

pub(super) fn piece(piece: &abi::Piece, bytes: Bytes<'_>) -> What {
    let abi::Piece { socket, cookie, offset, whole, direction, outgoing, last, data, pad: _ } = piece;
    What::Piece(Box::new(Piece {
        socket: fd::socket(socket),
        cookie: *cookie,
        offset: *offset,
        whole: *whole,
        direction: flow::direction(*direction),
        outgoing: *outgoing != 0,
        last: *last != 0,
        data: bytes.get(*data).unwrap_or_default().to_vec(),
    }))
}

/// A UDP flow: the packets of `key` that were gathered.
pub fn udp_flow(key: &UdpPeer, gathered: &UdpGathered) -> Act {
    let UdpPeer { peer, tgid: _, local_port: _, peer_port: _, family, pad: _ } = *key;
    let UdpGathered {
        owner: _,
        first,
        last,
        packets_sent,
        bytes_sent,
        packets_received,
        bytes_received,
        local,
        local_port,
        peer_port,
        direction,
    } = *gathered;
    let kind = if family == AF_INET6 { FdKind::Inet6 } else { FdKind::Inet4 } as u8;
    let ends = Fd { kind, state: 0, protocol: IPPROTO_UDP, local_port, peer_port, inode: 0, other: 0, local, peer };
    Act::done(Body::UdpFlow(event::UdpFlow {
        socket: fd::socket(&ends),
        direction: flow::direction(direction),
        duration_ns: last.saturating_sub(first),
        bytes_sent,
        bytes_received,
        packets_sent,
        packets_received,
    }))
}

/// A DNS message in a UDP packet; `None` when something else is spoken on that port.
pub fn udp_dns(piece: &Piece) -> Option<Message> {
    let multicast = [piece.socket.peer_port, piece.socket.local_port].contains(&Some(MDNS));
    let read = if multicast { bartizan_wire::dns::multicast } else { bartizan_wire::dns::message };
    read(&piece.data).ok()
}

/// `network.dns`.
pub fn dns(piece: &Piece, message: &Message, bytes: u32) -> Act {
    let others = message.authorities.len() + message.additionals.len();
    Act::done(Body::Dns(event::Dns {
        socket: piece.socket,
        outgoing: piece.outgoing,
        response: message.response,
        id: message.id,
        opcode: message.opcode,
        rcode: message.rcode,
        questions: message
            .questions
            .iter()
            .map(|question| DnsQuestion { name: question.name.clone(), record_type: type_name(question.qtype) })
            .collect(),
        answers: message
            .answers
            .iter()
            .map(|answer| DnsAnswer {
                name: answer.name.clone(),
                record_type: type_name(answer.rtype),
                ttl_s: answer.ttl,
                data: data(&answer.data),
            })
            .collect(),
        others: others as u32,
        bytes,
        tc: message.tc,
        truncated: message.truncated,
        malformed: message.malformed.map(str::to_owned),
        left_out: message.left_out as u32,
    }))
}

/// The addresses that an answer gives for the name that was asked for, and for how many seconds.
pub fn addresses(message: &Message) -> Vec<(IpAddr, u32)> {
    let of = |data: &Data| -> Vec<IpAddr> {
        match data {
            Data::A(ip) => vec![IpAddr::V4(*ip)],
            Data::Aaaa(ip) => vec![IpAddr::V6(*ip)],
            Data::Svcb { hints, .. } => hints.clone(),
            _ => Vec::new(),
        }
    };
    message.answers.iter().flat_map(|answer| of(&answer.data).into_iter().map(|ip| (ip, answer.ttl))).collect()
}

fn type_name(number: u16) -> String {
    let known = TYPES.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| format!("TYPE{number}"), |(_, name)| (*name).to_owned())
}

fn data(data: &Data) -> Option<String> {
    Some(match data {
        Data::A(ip) => ip.to_string(),
        Data::Aaaa(ip) => ip.to_string(),
        Data::Cname(name) | Data::Ns(name) | Data::Ptr(name) => name.clone(),
        Data::Mx { preference, exchange } => format!("{preference} {exchange}"),
        Data::Txt { strings: _, len: _, text } => text.clone(),
        Data::Srv { priority, weight, port, target } => format!("{priority} {weight} {port} {target}"),
        Data::Svcb { priority, target, hints, left_out: _ } => {
            let hints: Vec<String> = hints.iter().map(IpAddr::to_string).collect();
            format!("{priority} {target} {}", hints.join(",")).trim_end().to_owned()
        }
        Data::Other | Data::Cut | Data::Malformed(_) => return None,
    })
}

/// `TLS 1.3` and so on (RFC 8446 §4.1.2, RFC 6101).
fn version_name(version: u16) -> String {
    match version {
        0x0002 => "SSL 2.0".to_owned(),
        0x0300 => "SSL 3.0".to_owned(),
        0x0301 => "TLS 1.0".to_owned(),
        0x0302 => "TLS 1.1".to_owned(),
        0x0303 => "TLS 1.2".to_owned(),
        0x0304 => "TLS 1.3".to_owned(),
        other => format!("0x{other:04x}"),
    }
}

/// `network.tls` of a client.
pub fn client_hello(piece: &Piece, hello: &ClientHello) -> Act {
    let offered = hello.supported_versions.iter().copied().filter(|version| !tls::is_grease(*version));
    Act::done(Body::Tls(event::Tls {
        socket: piece.socket,
        direction: piece.direction,
        outgoing: piece.outgoing,
        side: TlsSide::Client,
        version: version_name(offered.max().unwrap_or(hello.version)),
        server_name: hello.server_name.clone(),
        alpn: hello.alpn.iter().map(|protocol| bartizan_wire::escape(protocol)).collect(),
        cipher_suites: hello.cipher_suites.clone(),
        groups: hello.groups.clone(),
        extensions: hello.extensions.clone(),
        ja3: hello.ja3(),
        ja4: hello.ja4(),
        ech: hello.ech.is_some(),
        retry: false,
        truncated: hello.truncated,
        malformed: hello.malformed.map(str::to_owned),
    }))
}

/// `network.tls` of a server.
pub fn server_hello(piece: &Piece, hello: &ServerHello) -> Act {
    Act::done(Body::Tls(event::Tls {
        socket: piece.socket,
        direction: piece.direction,
        outgoing: piece.outgoing,
        side: TlsSide::Server,
        version: version_name(hello.negotiated()),
        server_name: None,
        alpn: hello.alpn.iter().map(|protocol| bartizan_wire::escape(protocol)).collect(),
        cipher_suites: hello.cipher_suite.into_iter().collect(),
        groups: hello.group.into_iter().collect(),
        extensions: hello.extensions.clone(),
        ja3: hello.ja3s(),
        ja4: None,
        ech: false,
        retry: hello.hello_retry_request,
        truncated: hello.truncated,
        malformed: hello.malformed.map(str::to_owned),
    }))
}

/// `network.http`.
pub fn http(piece: &Piece, request: &http1::Request) -> Act {
    Act::done(Body::Http(event::Http {
        socket: piece.socket,
        direction: piece.direction,
        outgoing: piece.outgoing,
        method: request.method.clone(),
        target: request.target.clone(),
        version: request.minor.map(|minor| format!("HTTP/1.{minor}")),
        host: request.host.clone(),
        user_agent: request.user_agent.clone(),
        content_type: request.content_type.clone(),
        content_length: request.content_length,
        truncated: request.truncated,
        malformed: request.malformed.map(str::to_owned),
    }))
}

/// `network.ssh`.
pub fn ssh(piece: &Piece, identification: &ssh::Identification) -> Act {
    Act::done(Body::Ssh(event::Ssh {
        socket: piece.socket,
        direction: piece.direction,
        outgoing: piece.outgoing,
        protocol: identification.protocol.clone(),
        software: identification.software.clone(),
        comments: identification.comments.clone(),
    }))
}

/// Whether records of `kind` are parts of TCP connections, or DNS over UDP when `piece` is that.
pub fn is_datagram(kind: Kind, piece: &Piece) -> bool {
    kind == Kind::DnsBytes && piece.socket.transport == event::Transport::Udp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_versions_have_names_or_numbers() {
        assert_eq!([1, 65, 4711].map(type_name), ["A", "HTTPS", "TYPE4711"]);
        assert_eq!([0x0304, 0x0300, 0x7f1c].map(version_name), ["TLS 1.3", "SSL 3.0", "0x7f1c"]);
    }
}
