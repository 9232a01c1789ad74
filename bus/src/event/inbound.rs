//! What comes in from the network: the bodies of `network.accept`, `network.listen` and `network.probe`.

use std::net::IpAddr;

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

use super::{InetSocket, Transport};

/// Body of `network.accept`: a program took a connection that a peer made. The subject is the accepting process.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Accept {
    /// The new socket: local is the side that was connected to.
    #[n(0)]
    pub socket: InetSocket,
}

/// Body of `network.listen`: a TCP socket begins to take connections.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Listen {
    /// The socket. A missing local address is every address of the host; a missing port is one that the kernel chooses next.
    #[n(0)]
    pub socket: InetSocket,
    /// Connections that may wait, as `listen(2)` was told and the kernel limited it.
    #[n(1)]
    pub backlog: u32,
}

/// Body of `network.probe`: packets of one source, with the same flags, that reached ports on which nothing listens, gathered over at most a second or until
/// [`PROBE_PORTS`] ports. The event's time is that of the last packet. It has no subject: packets come in softirq.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Probe {
    /// Transport protocol.
    #[n(0)]
    pub transport: Transport,
    /// Source address. Anybody can write any address there.
    #[n(1)]
    pub source_ip: IpAddr,
    /// Address of this host that the first packet went to.
    #[n(2)]
    pub local_ip: IpAddr,
    /// The ports, each once, in the order in which they were first tried; at most [`PROBE_PORTS`].
    #[n(3)]
    pub ports: Vec<u16>,
    /// Packets.
    #[n(4)]
    pub packets: u64,
    /// From the first packet to the last, nanoseconds.
    #[n(5)]
    pub span_ns: u64,
    /// TCP flags, the same of all these packets: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32 (RFC 9293 §3.1). 0 for UDP and for null scans.
    /// Packets of one source with other flags are an event of their own.
    #[n(6)]
    pub tcp_flags: u8,
}

/// Ports in one [`Probe`], at most.
pub const PROBE_PORTS: usize = 32;
