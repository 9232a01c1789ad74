//! `network.probe`, from a record and from what user space takes out of the kernel's map.

use std::net::IpAddr;

use bartizan_bus::event::{self, Transport};
use bartizan_sensor_ebpf::abi::{Probe, ProbeGathered, ProbeSource};

use super::{What, fd};

/// include/uapi/linux/in.h.
const IPPROTO_TCP: u16 = 6;
/// include/linux/socket.h.
const AF_INET6: u16 = 10;

pub(super) fn project(record: &Probe) -> What {
    let Probe { header, source, local, first, packets, protocol, family, found, flags, ports } = record;
    let key = ProbeSource { source: *source, protocol: *protocol, family: *family, flags: u32::from(*flags) };
    let gathered = ProbeGathered {
        first: *first,
        last: header.ktime,
        packets: *packets,
        local: *local,
        found: u32::from(*found),
        pad: 0,
        ports: *ports,
    };
    What::Probe(gather(&key, &gathered))
}

/// What was gathered of one source.
pub fn gather(key: &ProbeSource, gathered: &ProbeGathered) -> event::Probe {
    let ProbeSource { source, protocol, family, flags } = *key;
    let ProbeGathered { first, last, packets, local, found, pad: _, ports } = *gathered;
    let address = |bytes| -> IpAddr { fd::address(bytes, family == AF_INET6) };
    let mut distinct: Vec<u16> = Vec::new();
    for port in ports.into_iter().take(found as usize) {
        // Two CPUs may have added the same one.
        if !distinct.contains(&port) {
            distinct.push(port);
        }
    }
    event::Probe {
        transport: if protocol == IPPROTO_TCP { Transport::Tcp } else { Transport::Udp },
        source_ip: address(source),
        local_ip: address(local),
        ports: distinct,
        packets,
        span_ns: last.saturating_sub(first),
        tcp_flags: flags as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_two_cpus_added_is_named_once() {
        let mut source = [0; 16];
        source[..4].copy_from_slice(&[192, 0, 2, 7]);
        let mut ports = [0; bartizan_sensor_ebpf::abi::PROBE_PORTS];
        ports[..4].copy_from_slice(&[22, 80, 22, 9]);
        let gathered = ProbeGathered { first: 5, last: 9, packets: 4, local: source, found: 3, pad: 0, ports };
        let probe = gather(&ProbeSource { source, protocol: IPPROTO_TCP, family: 2, flags: 2 }, &gathered);
        assert_eq!((probe.ports, probe.packets, probe.span_ns, probe.tcp_flags), (vec![22, 80], 4, 4, 2));
        assert_eq!(probe.source_ip.to_string(), "192.0.2.7");
    }
}
