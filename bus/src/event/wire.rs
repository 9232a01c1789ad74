//! What was read off the wire: the bodies of `network.dns`, `network.tls`, `network.http`, `network.ssh`, and of `network.udp_flow`.
//!
//! Names and texts are what a peer sent. They are printable ASCII; other bytes are escaped.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Direction, InetSocket};

/// Body of `network.dns`: a DNS message of a process of this host, from or to port 53 or to port 5353 (multicast DNS).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Dns {
    /// The socket, with the ends that the message has.
    #[n(0)]
    pub socket: InetSocket,
    /// This host sent it.
    #[n(1)]
    pub outgoing: bool,
    /// An answer, not a question.
    #[n(2)]
    pub response: bool,
    /// Chosen by who asks, repeated by who answers.
    #[n(3)]
    pub id: u16,
    /// What is asked for; 0 is a standard query.
    #[n(4)]
    pub opcode: u8,
    /// Response code; 0: no error, 3: no such name.
    #[n(5)]
    pub rcode: u16,
    /// Questions.
    #[n(6)]
    pub questions: Vec<DnsQuestion>,
    /// Records of the answer section.
    #[n(7)]
    pub answers: Vec<DnsAnswer>,
    /// Records of the other sections.
    #[n(8)]
    pub others: u32,
    /// Bytes of the message.
    #[n(9)]
    pub bytes: u32,
    /// The sender left something out for lack of room, and asks to be asked over TCP.
    #[n(10)]
    pub tc: bool,
    /// Not all of the message was read.
    #[n(11)]
    pub truncated: bool,
    /// Why reading stopped before the end, when what follows is no question or record.
    #[n(12)]
    pub malformed: Option<String>,
    /// Questions and records that were read and are not told.
    #[n(13)]
    pub left_out: u32,
}

/// A question of a [`Dns`] message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct DnsQuestion {
    /// The name.
    #[n(0)]
    pub name: String,
    /// `A`, `AAAA`, `TXT` ... or `TYPE` and its number.
    #[n(1)]
    pub record_type: String,
}

/// A record of the answer section of a [`Dns`] message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct DnsAnswer {
    /// The name.
    #[n(0)]
    pub name: String,
    /// `A`, `AAAA`, `TXT` ... or `TYPE` and its number.
    #[n(1)]
    pub record_type: String,
    /// Seconds for which it may be kept.
    #[n(2)]
    pub ttl_s: u32,
    /// An address, a name, a text; `None` for what is not read.
    #[n(3)]
    pub data: Option<String>,
}

/// Whose hello it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum TlsSide {
    /// A ClientHello.
    #[n(0)]
    Client,
    /// A ServerHello.
    #[n(1)]
    Server,
}

/// Body of `network.tls`: the hello of one side of a TLS connection. Numbers are those of the IANA registries "TLS Parameters" and "TLS
/// ExtensionType Values", with GREASE.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Tls {
    /// The socket.
    #[n(0)]
    pub socket: InetSocket,
    /// Who began the connection; `None` when not known.
    #[n(1)]
    pub direction: Option<Direction>,
    /// This host sent it.
    #[n(2)]
    pub outgoing: bool,
    /// Whose hello it is.
    #[n(3)]
    pub side: TlsSide,
    /// Client: the highest version that it offers. Server: the one that is spoken. `TLS 1.3`, `SSL 3.0`, or a number.
    #[n(4)]
    pub version: String,
    /// Client: the host that it asks for (SNI). With [`Self::ech`] that of the provider, not of the site.
    #[n(5)]
    pub server_name: Option<String>,
    /// Protocols of the ALPN extension.
    #[n(6)]
    pub alpn: Vec<String>,
    /// Client: all that it offers, in its order. Server: the one that it chose.
    #[n(7)]
    pub cipher_suites: Vec<u16>,
    /// Groups for the key exchange, likewise.
    #[n(8)]
    pub groups: Vec<u16>,
    /// Extensions, in their order.
    #[n(9)]
    pub extensions: Vec<u16>,
    /// JA3 of a client, JA3S of a server: 32 hexadecimal digits. `None` when the hello was cut.
    #[n(10)]
    pub ja3: Option<String>,
    /// JA4 of a client. `None` when the hello was cut.
    #[n(11)]
    pub ja4: Option<String>,
    /// Client: an Encrypted ClientHello, or something that shall look like one.
    #[n(12)]
    pub ech: bool,
    /// Server: the client is to begin again, with another key share.
    #[n(13)]
    pub retry: bool,
    /// Not all of the hello was read.
    #[n(14)]
    pub truncated: bool,
    /// What is wrong with it, when something is: the first such.
    #[n(15)]
    pub malformed: Option<String>,
}

/// Body of `network.http`: the first request of a connection that speaks HTTP/1 in the clear.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Http {
    /// The socket.
    #[n(0)]
    pub socket: InetSocket,
    /// Who began the connection; `None` when not known.
    #[n(1)]
    pub direction: Option<Direction>,
    /// This host sent it.
    #[n(2)]
    pub outgoing: bool,
    /// `GET`, `POST` ...
    #[n(3)]
    pub method: String,
    /// As it was sent, secrets replaced: a path with its query, or an absolute address.
    #[n(4)]
    pub target: String,
    /// `HTTP/1.1`, `HTTP/1.0`; `None` when it was cut before.
    #[n(5)]
    pub version: Option<String>,
    /// `Host`.
    #[n(6)]
    pub host: Option<String>,
    /// `User-Agent`.
    #[n(7)]
    pub user_agent: Option<String>,
    /// `Content-Type`.
    #[n(8)]
    pub content_type: Option<String>,
    /// `Content-Length`.
    #[n(9)]
    pub content_length: Option<u64>,
    /// Not all of the head was read.
    #[n(10)]
    pub truncated: bool,
    /// Why reading stopped before the head's end, when a line of it is no header.
    #[n(11)]
    pub malformed: Option<String>,
}

/// Body of `network.ssh`: how one side of an SSH connection names itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Ssh {
    /// The socket.
    #[n(0)]
    pub socket: InetSocket,
    /// Who began the connection; `None` when not known.
    #[n(1)]
    pub direction: Option<Direction>,
    /// This host sent it.
    #[n(2)]
    pub outgoing: bool,
    /// `2.0`, or `1.99` of a server that takes version 1 too.
    #[n(3)]
    pub protocol: String,
    /// Program and version.
    #[n(4)]
    pub software: String,
    /// What follows, often the distribution's version.
    #[n(5)]
    pub comments: Option<String>,
}

/// Body of `network.udp_flow`: UDP packets between two ports of one process and one peer, gathered until none came for two seconds, or for a
/// minute. Where one of the ports is a well-known one, below 1024, and the other is not, all of the other side are taken together.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct UdpFlow {
    /// The socket of the first packet, with the ends that the packet has.
    #[n(0)]
    pub socket: InetSocket,
    /// Who sent the first packet.
    #[n(1)]
    pub direction: Option<Direction>,
    /// From the first packet to the last, nanoseconds.
    #[n(2)]
    pub duration_ns: u64,
    /// Payload, bytes.
    #[n(3)]
    pub bytes_sent: u64,
    /// Payload, bytes.
    #[n(4)]
    pub bytes_received: u64,
    /// Packets.
    #[n(5)]
    pub packets_sent: u64,
    /// Packets.
    #[n(6)]
    pub packets_received: u64,
}
