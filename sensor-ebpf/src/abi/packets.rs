//! What packets carry: parts of the records that the programs at the sockets' packets make.

use super::{Fd, Header, Span};

/// Bytes of one message or segment that are kept, at most.
pub const PIECE_MAX: usize = 4096;
/// Bytes of one direction of a TCP connection that are looked at, at most.
pub const STREAM_MAX: u32 = 4096;
/// Segments of one direction that are looked at, at most.
pub const STREAM_SEGMENTS: u32 = 256;
/// A UDP flow that goes on is told after so long, nanoseconds.
pub const UDP_FLOW_NS: u64 = 60_000_000_000;

/// Ports that are kept of one source's attempts to connect.
pub const SYN_PORTS: usize = 16;

/// Whose attempts to connect are gathered: the key of the map `SYNS`. Zeros are those for whom it had no room.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct SynSource {
    /// Source address, network order; IPv4 in the first four bytes.
    pub source: [u8; 16],
    /// `AF_INET` or `AF_INET6`.
    pub family: u32,
    /// Zero.
    pub pad: u32,
}

/// What was gathered: the value of the map `SYNS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct SynGathered {
    /// Boot clock of the first SYN, nanoseconds.
    pub first: u64,
    /// Boot clock of the last SYN, nanoseconds.
    pub last: u64,
    /// SYNs.
    pub attempts: u64,
    /// Connections that were established meanwhile.
    pub completed: u64,
    /// Sources that are told together, at least.
    pub sources: u64,
    /// Address of this host that the first SYN went to, network order; IPv4 in the first four bytes.
    pub local: [u8; 16],
    /// `AF_INET` or `AF_INET6` of `local`.
    pub family: u16,
    /// Ports in `ports`.
    pub found: u16,
    /// 1 when there were other ports than these.
    pub more: u32,
    /// Ports that listen, each once, host order.
    pub ports: [u16; SYN_PORTS],
}

/// A UDP message, or a part of one direction of a TCP connection.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct Piece {
    /// The socket; of UDP with the ends that the packet has.
    pub socket: Fd,
    /// Names the socket on this host since boot.
    pub cookie: u64,
    /// TCP: bytes of this direction before these.
    pub offset: u32,
    /// Bytes of the message or segment; more than `data` has when it was cut.
    pub whole: u32,
    /// [`FLOW_OUT`](super::FLOW_OUT), [`FLOW_IN`](super::FLOW_IN), or 0 when not known: who began the connection.
    pub direction: u32,
    /// 1 when this host sent it.
    pub outgoing: u16,
    /// TCP: 1 when no more of this direction will be sent up.
    pub last: u16,
    /// The bytes. Bytes of the record behind them are stale.
    pub data: Span,
    /// Zero.
    pub pad: u32,
}

/// Whose UDP packets are gathered: the key of the map `UDP_FLOWS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct UdpPeer {
    /// Address of the peer, network order; IPv4 in the first four bytes.
    pub peer: [u8; 16],
    /// Thread-group id of the socket's owner; 0 when not known.
    pub tgid: u32,
    /// This host's port, host order; 0 for any, where the peer's alone is a well-known one.
    pub local_port: u16,
    /// The peer's port, host order; 0 for any, where this host's alone is a well-known one.
    pub peer_port: u16,
    /// `AF_INET` or `AF_INET6`.
    pub family: u32,
    /// Zero.
    pub pad: u32,
}

/// What was gathered: the value of the map `UDP_FLOWS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "decode", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
pub struct UdpGathered {
    /// Whose socket.
    pub owner: Header,
    /// Boot clock of the first packet, nanoseconds.
    pub first: u64,
    /// Boot clock of the last packet, nanoseconds.
    pub last: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Payload of these, bytes.
    pub bytes_sent: u64,
    /// Packets received.
    pub packets_received: u64,
    /// Payload of these, bytes.
    pub bytes_received: u64,
    /// This host's address in the first packet, network order; IPv4 in the first four bytes.
    pub local: [u8; 16],
    /// This host's port in the first packet.
    pub local_port: u16,
    /// The peer's port in the first packet.
    pub peer_port: u16,
    /// [`FLOW_OUT`](super::FLOW_OUT) when this host sent the first packet, else [`FLOW_IN`](super::FLOW_IN).
    pub direction: u32,
}
