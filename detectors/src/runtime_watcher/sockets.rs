//! Connected sockets: when two sightings are one socket, and which end began the connection.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use bartizan_bus::event::{EventId, InetSocket, Transport};
use minicbor::{Decode, Encode};

use crate::detector::{ProcessKey, TableInfo};

/// Whether both are the same socket. Sightings with different inodes never are; the kernel gives an inode number again,
/// so equal ones are believed only where protocol and both ends do not contradict them.
///
/// Both sightings must be of one boot: inode numbers, ports and addresses of another boot say nothing.
pub(super) fn same_socket(a: &InetSocket, b: &InetSocket) -> bool {
    let (ends_a, ends_b) = (Tuple::of(a), Tuple::of(b));
    match (a.inode, b.inode) {
        (Some(inode_a), Some(inode_b)) => inode_a == inode_b && !ends_a.contradicts(&ends_b),
        _ => a.peer_ip.is_some() && ends_a == ends_b,
    }
}

/// Adds `socket` unless it is there or `max` are.
pub(super) fn add_socket(sockets: &mut Vec<InetSocket>, socket: &InetSocket, max: usize) {
    if sockets.len() < max && !sockets.iter().any(|known| same_socket(known, socket)) {
        sockets.push(*socket);
    }
}

/// Whether every one of `some` is among `all`.
pub(super) fn all_among(some: &[InetSocket], all: &[InetSocket]) -> bool {
    some.iter().all(|socket| all.iter().any(|known| same_socket(known, socket)))
}

/// `203.0.113.9:4444`, or as much of it as is known.
pub(super) fn peer_text(socket: &InetSocket) -> String {
    end_text(socket.peer_ip, socket.peer_port)
}

/// Both ends and the protocol, for an explanation.
pub(super) fn socket_text(socket: &InetSocket) -> String {
    let protocol = match socket.transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
        Transport::Other => "IP",
    };
    format!("{protocol} {} -> {}", end_text(socket.local_ip, socket.local_port), peer_text(socket))
}

fn end_text(ip: Option<IpAddr>, port: Option<u16>) -> String {
    match (ip, port) {
        (Some(ip), Some(port)) => SocketAddr::new(ip, port).to_string(),
        (Some(ip), None) => ip.to_string(),
        (None, Some(port)) => format!("(address unknown):{port}"),
        (None, None) => "(unknown)".to_owned(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
struct Tuple {
    #[n(0)]
    transport: u8,
    #[n(1)]
    local_ip: Option<IpAddr>,
    #[n(2)]
    local_port: Option<u16>,
    #[n(3)]
    peer_ip: Option<IpAddr>,
    #[n(4)]
    peer_port: Option<u16>,
}

impl Tuple {
    fn of(socket: &InetSocket) -> Self {
        let transport = match socket.transport {
            Transport::Tcp => 0,
            Transport::Udp => 1,
            Transport::Other => 2,
        };
        let InetSocket { transport: _, local_ip, local_port, peer_ip, peer_port, connected: _, inode: _ } = *socket;
        Self { transport, local_ip, local_port, peer_ip, peer_port }
    }

    /// Whether both are known in full, and differ.
    fn contradicts(&self, other: &Self) -> bool {
        self != other && self.complete() && other.complete()
    }

    /// Whether both ends are known.
    fn complete(&self) -> bool {
        let Self { transport: _, local_ip, local_port, peer_ip, peer_port } = self;
        local_ip.is_some() && local_port.is_some() && peer_ip.is_some() && peer_port.is_some()
    }
}

/// An outbound connection that was seen being made.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Opened {
    /// Who connected.
    #[n(0)]
    pub(super) by: ProcessKey,
    /// Its `comm` at that time.
    #[n(1)]
    pub(super) name: String,
    /// The `network.connect`.
    #[n(2)]
    pub(super) event: EventId,
    #[n(3)]
    stamp: u64,
    #[n(4)]
    inode: Option<u64>,
}

/// The outbound connections of this host, the newest of them, bounded.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub(super) struct Connections {
    #[n(0)]
    opened: BTreeMap<Tuple, Opened>,
    #[n(1)]
    order: BTreeMap<u64, Tuple>,
    #[n(2)]
    by_inode: BTreeMap<u64, Tuple>,
    #[n(3)]
    stamp: u64,
    #[n(4)]
    evicted: u64,
}

impl Connections {
    pub(super) fn new() -> Self {
        Self { opened: BTreeMap::new(), order: BTreeMap::new(), by_inode: BTreeMap::new(), stamp: 0, evicted: 0 }
    }

    /// Remembers that `by` made this connection.
    pub(super) fn add(&mut self, socket: &InetSocket, by: ProcessKey, name: &str, event: EventId, max: usize) {
        let tuple = Tuple::of(socket);
        self.remove(&tuple);
        self.stamp += 1;
        self.order.insert(self.stamp, tuple);
        if let Some(inode) = socket.inode {
            self.by_inode.insert(inode, tuple);
        }
        self.opened.insert(tuple, Opened { by, name: name.to_owned(), event, stamp: self.stamp, inode: socket.inode });
        self.shrink(max);
    }

    /// Who made this connection; `None` when it came in, or when nobody saw it being made.
    pub(super) fn opened(&self, socket: &InetSocket) -> Option<&Opened> {
        let ends = Tuple::of(socket);
        let by_inode = || {
            let known = self.by_inode.get(&socket.inode?).filter(|known| !known.contradicts(&ends))?;
            self.opened.get(known)
        };
        self.opened.get(&ends).or_else(by_inode)
    }

    /// Forgets the oldest beyond `max`.
    pub(super) fn shrink(&mut self, max: usize) {
        while self.opened.len() > max {
            let Some(oldest) = self.order.first_key_value().map(|(_, tuple)| *tuple) else { return };
            self.evicted += 1;
            self.remove(&oldest);
        }
    }

    pub(super) fn table(&self, bound: usize) -> TableInfo {
        TableInfo { name: "connections", entries: self.opened.len(), bound, evicted: self.evicted }
    }

    fn remove(&mut self, tuple: &Tuple) {
        let Some(opened) = self.opened.remove(tuple) else { return };
        self.order.remove(&opened.stamp);
        if let Some(inode) = opened.inode
            && self.by_inode.get(&inode) == Some(tuple)
        {
            self.by_inode.remove(&inode);
        }
    }
}

#[cfg(test)]
mod tests {
    use bartizan_bus::event::BootId;

    use super::*;
    use crate::testing::tcp;

    fn key() -> ProcessKey {
        ProcessKey { boot: BootId(1), pid: 1, start_ticks: 1 }
    }

    #[test]
    fn one_socket_is_known_by_inode_or_by_both_ends() {
        let a = tcp(40000, "192.0.2.1", 4444);
        let without = InetSocket { inode: None, ..a };
        assert!(same_socket(&a, &without));
        assert!(same_socket(&a, &InetSocket { local_ip: None, ..a }));
        assert!(!same_socket(&a, &InetSocket { inode: Some(1), ..a }));
        // The same inode number, and another connection.
        assert!(!same_socket(&a, &InetSocket { peer_port: Some(1), ..a }));
        assert!(!same_socket(&a, &InetSocket { transport: Transport::Udp, ..a }));
        assert!(same_socket(&a, &InetSocket { peer_ip: None, peer_port: None, ..a }));
        assert!(!same_socket(&without, &InetSocket { peer_port: Some(1), ..without }));
        assert!(!same_socket(&without, &InetSocket { transport: Transport::Udp, ..without }));
    }

    #[test]
    fn the_accepting_end_of_a_local_connection_is_not_the_connecting_end() {
        let mut connections = Connections::new();
        let client = tcp(40000, "10.0.0.5", 22);
        connections.add(&client, key(), "ssh", EventId([0; 20]), 10);
        let server = InetSocket { local_port: Some(22), peer_port: Some(40000), inode: Some(5), ..client };
        assert!(connections.opened(&client).is_some());
        assert!(connections.opened(&server).is_none());
        assert!(connections.opened(&InetSocket { inode: client.inode, ..server }).is_none(), "the number given again");
        assert!(connections.opened(&InetSocket { local_ip: None, ..client }).is_some());
    }

    #[test]
    fn the_oldest_connection_makes_room_and_is_counted() {
        let mut connections = Connections::new();
        for port in 1..=5 {
            connections.add(&tcp(port, "192.0.2.1", 80), key(), "x", EventId([0; 20]), 3);
        }
        assert!(connections.opened(&tcp(2, "192.0.2.1", 80)).is_none());
        assert!(connections.opened(&tcp(3, "192.0.2.1", 80)).is_some());
        assert_eq!((connections.opened.len(), connections.by_inode.len(), connections.evicted), (3, 3, 2));
    }

    #[test]
    fn ends_are_written_so_that_ipv6_is_readable() {
        assert_eq!(socket_text(&tcp(1, "2001:db8::1", 443)), "TCP 10.0.0.5:1 -> [2001:db8::1]:443");
        assert_eq!(peer_text(&InetSocket { peer_ip: None, peer_port: None, ..tcp(1, "::1", 1) }), "(unknown)");
    }
}
