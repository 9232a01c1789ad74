//! What sockets do between their beginning and their end: the bodies of `network.bind`, `network.flow_end` and `network.raw_socket`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Errno, InetSocket};

/// Body of `network.bind`: a socket was bound to an address of this host. A port that the kernel chooses by itself, for a connection or the
/// first datagram, is no bind.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Bind {
    /// The socket. A missing local address is every address of the host.
    #[n(0)]
    pub socket: InetSocket,
    /// `SOCK_STREAM`, `SOCK_DGRAM` ...
    #[n(1)]
    pub socket_type: String,
}

/// Who began a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[cbor(index_only)]
pub enum Direction {
    /// This host.
    #[n(0)]
    Outgoing,
    /// The peer.
    #[n(1)]
    Incoming,
}

/// Body of `network.flow_end`: a TCP connection came to its end. The subject is who connected or accepted it, which need not be who closed it; of a
/// connection that nobody has accepted it is who listens.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct FlowEnd {
    /// The socket.
    #[n(0)]
    pub socket: InetSocket,
    /// Who began it; `None` for a connection that is older than the sensor.
    #[n(1)]
    pub direction: Option<Direction>,
    /// From the handshake to the end, nanoseconds; `None` likewise.
    #[n(2)]
    pub duration_ns: Option<u64>,
    /// Payload, bytes, without what was sent again.
    #[n(3)]
    pub bytes_sent: u64,
    /// Payload, bytes, each once.
    #[n(4)]
    pub bytes_received: u64,
    /// Segments, with and without payload.
    #[n(5)]
    pub packets_sent: u64,
    /// Segments, with and without payload.
    #[n(6)]
    pub packets_received: u64,
    /// Of those sent, the ones that were sent again.
    #[n(7)]
    pub retransmitted: u64,
    /// What broke it off: `ECONNRESET` by the peer, `ETIMEDOUT` by silence; `None` when it was closed.
    #[n(8)]
    pub error: Option<Errno>,
}

/// Body of `network.raw_socket`: a process made a socket that sees or makes more than its own connections.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct RawSocket {
    /// `AF_PACKET`, `AF_INET` (a raw one), `AF_NETLINK`, `AF_VSOCK`, `AF_ALG` ...
    #[n(0)]
    pub family: String,
    /// `SOCK_RAW`, `SOCK_DGRAM` ...
    #[n(1)]
    pub socket_type: String,
    /// Protocol as the program asked for it: of the family's own numbering; of `AF_PACKET` an Ethernet type.
    #[n(2)]
    pub protocol: u32,
    /// Its name, where it has one: `ICMP`, `NETLINK_AUDIT`, `ETH_P_ALL`.
    #[n(3)]
    pub protocol_name: Option<String>,
    /// Inode of the socket, as in `/proc/<pid>/fd`.
    #[n(4)]
    pub inode: Option<u64>,
}
