//! What packets to closed ports are: questions of a scanner, answers, or late comers.
//!
//! The sensor gathers packets of the same flags, so nobody hides a scan by mixing answers into it.

use bartizan_bus::event::{Probe, Transport};

/// Header bits of TCP, RFC 9293 §3.1.
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const ALL: u8 = 0x3f;

/// Ways to probe, as bits.
pub(super) mod way {
    /// A SYN: a connect (`nmap -sT`) and a half-open scan (`-sS`) look alike at a closed port.
    pub(in super::super) const SYN: u8 = 1;
    /// Neither SYN, RST nor ACK: FIN, null and Xmas scans.
    pub(in super::super) const STEALTH: u8 = 2;
    /// An ACK of no connection (`-sA`, `-sW`, `-sM`).
    pub(in super::super) const ACK: u8 = 4;
    /// A datagram.
    pub(in super::super) const UDP: u8 = 8;
    /// Another protocol.
    pub(in super::super) const OTHER: u8 = 16;
    /// A connection that a program took.
    pub(in super::super) const CONNECT: u8 = 32;
}

/// What the packets of one [`Probe`] are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packets {
    /// Questions to these ports, in one of the ways of [`way`]. `aside` more ports may have got late packets instead.
    Questions { way: u8, ports: Vec<u16>, aside: usize },
    /// Answers to packets that had our address as their source.
    Answers,
}

/// Judges `probe`. `ephemeral` are the first and last port that this host gives to its own connections: what comes there late may belong to
/// one that is gone.
pub(super) fn read(probe: &Probe, ephemeral: [u16; 2]) -> Packets {
    let Probe { transport, source_ip: _, local_ip: _, ports, packets: _, span_ns: _, tcp_flags } = probe;
    let flags = tcp_flags & ALL;
    let (way, late_possible) = match transport {
        // An answer with SYN has ACK too: SYN+RST is no answer.
        Transport::Tcp if flags & SYN != 0 && flags & ACK == 0 => (way::SYN, false),
        Transport::Tcp if flags & (SYN | RST) != 0 => return Packets::Answers,
        Transport::Tcp if flags & ACK != 0 => (way::ACK, true),
        Transport::Tcp => (way::STEALTH, false),
        Transport::Udp => (way::UDP, true),
        Transport::Other => (way::OTHER, false),
    };
    let [first, last] = ephemeral;
    let all = ports.len();
    let ports: Vec<u16> = ports.iter().copied().filter(|port| !late_possible || !(first..=last).contains(port)).collect();
    Packets::Questions { way, aside: all - ports.len(), ports }
}

/// The ways for people.
pub(super) fn ways_text(ways: u8) -> String {
    let named = [
        (way::SYN, "SYN (a connect and a half-open scan look alike)"),
        (way::STEALTH, "TCP without SYN, ACK or RST (FIN, null or Xmas scan)"),
        (way::ACK, "TCP ACK without a connection (ACK, window or Maimon scan)"),
        (way::UDP, "UDP"),
        (way::OTHER, "another protocol"),
        (way::CONNECT, "complete connections"),
    ];
    let words: Vec<&str> = named.iter().filter(|(bit, _)| ways & bit != 0).map(|(_, word)| *word).collect();
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn probe(transport: Transport, tcp_flags: u8, ports: &[u16]) -> Probe {
        let ip = IpAddr::from([192, 0, 2, 1]);
        Probe { transport, source_ip: ip, local_ip: ip, ports: ports.to_vec(), packets: 1, span_ns: 0, tcp_flags }
    }

    fn way_of(transport: Transport, flags: u8) -> Option<u8> {
        match read(&probe(transport, flags, &[22]), [32_768, 60_999]) {
            Packets::Questions { way, .. } => Some(way),
            Packets::Answers => None,
        }
    }

    #[test]
    fn flags_tell_questions_from_answers() {
        let tcp = |flags| way_of(Transport::Tcp, flags);
        assert_eq!([tcp(2), tcp(2 | 64 | 128), tcp(3), tcp(6)], [Some(way::SYN); 4], "SYN, with ECN, with FIN, with RST");
        assert_eq!([tcp(0), tcp(1), tcp(1 | 8 | 32)], [Some(way::STEALTH); 3], "null, FIN, Xmas");
        assert_eq!([tcp(16), tcp(17), tcp(24)], [Some(way::ACK); 3], "ACK, Maimon, data");
        assert_eq!([tcp(4), tcp(18), tcp(20), tcp(22)], [None; 4], "RST, SYN+ACK, RST+ACK, no kind that TCP knows");
        assert_eq!(way_of(Transport::Udp, 0), Some(way::UDP));
    }

    #[test]
    fn late_comers_to_ephemeral_ports_are_set_aside() {
        let kept = |transport, flags| match read(&probe(transport, flags, &[22, 40_000, 61_000]), [32_768, 60_999]) {
            Packets::Questions { ports, aside, .. } => (ports, aside),
            Packets::Answers => (Vec::new(), 0),
        };
        let late = (vec![22, 61_000], 1);
        assert_eq!([kept(Transport::Udp, 0), kept(Transport::Tcp, 16), kept(Transport::Tcp, 17)], [late.clone(), late.clone(), late]);
        let all = (vec![22, 40_000, 61_000], 0);
        assert_eq!([kept(Transport::Tcp, 2), kept(Transport::Tcp, 6), kept(Transport::Tcp, 1)], [all.clone(), all.clone(), all]);
    }
}
