//! What comes in from the network: the bodies of `network.accept`, `network.listen`, `network.probe` and `network.syn`.

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

/// Body of `network.syn`: attempts of one source to connect to ports that listen, some of which came to no connection: a half-open scan, a flood of
/// SYNs, a peer that gave up. It is gathered until the source pauses for a second; of one that does not pause, for a second where most attempts
/// are unfinished, else for ten. A source whose attempts all came to connections is told by these alone. The event's time is that of the last
/// attempt. It has no subject: packets come in softirq.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Syn {
    /// Source address. Anybody can write any address there. `None` for the sources that are too many to be told by themselves: beyond the 256
    /// with the most unfinished attempts, and beyond the 4,096 that the kernel gathers at once.
    #[n(0)]
    pub source_ip: Option<IpAddr>,
    /// Sources: 1, or at least so many where they are told together.
    #[n(1)]
    pub sources: u64,
    /// Address of this host that the first attempt went to.
    #[n(2)]
    pub local_ip: IpAddr,
    /// The ports, each once, in the order in which they were first tried; at most [`SYN_PORTS`].
    #[n(3)]
    pub ports: Vec<u16>,
    /// There were other ports than these.
    #[n(4)]
    #[cbor(default)]
    pub more_ports: bool,
    /// SYNs, those that were sent again among them.
    #[n(5)]
    pub attempts: u64,
    /// Connections with these sources that were established meanwhile. Handshakes that are still under way count as unfinished.
    #[n(6)]
    pub completed: u64,
    /// From the first attempt to the last, nanoseconds.
    #[n(7)]
    pub span_ns: u64,
}

/// Ports in one [`Syn`], at most.
pub const SYN_PORTS: usize = 16;
