//! `network.syn`, from what user space takes out of the kernel's map.

use bartizan_bus::event::Syn;
use bartizan_sensor_ebpf::abi::{SynGathered, SynSource};

use super::fd;

/// include/linux/socket.h.
const AF_INET6: u16 = 10;

/// What was gathered of one source, or of several together.
pub fn gather(key: &SynSource, gathered: &SynGathered) -> Syn {
    let SynSource { source, family: of, pad: _ } = *key;
    let SynGathered { first, last, attempts, completed, sources, local, family, found, more, ports } = *gathered;
    let mut distinct: Vec<u16> = Vec::new();
    for port in ports.into_iter().take(found.into()) {
        // Two CPUs may have added the same one.
        if !distinct.contains(&port) {
            distinct.push(port);
        }
    }
    Syn {
        source_ip: (of != 0).then(|| fd::address(source, of == u32::from(AF_INET6))),
        sources,
        local_ip: fd::address(local, family == AF_INET6),
        ports: distinct,
        more_ports: more != 0,
        attempts,
        completed,
        span_ns: last.saturating_sub(first),
    }
}

#[cfg(test)]
mod tests {
    use bartizan_sensor_ebpf::abi::SYN_PORTS;

    use super::*;

    #[test]
    fn a_source_is_told_with_its_ports_each_once_and_many_without_an_address() {
        let mut source = [0; 16];
        source[..4].copy_from_slice(&[192, 0, 2, 7]);
        let mut ports = [0; SYN_PORTS];
        ports[..4].copy_from_slice(&[22, 80, 22, 9]);
        let value =
            SynGathered { first: 5, last: 9, attempts: 4, completed: 1, sources: 1, local: source, family: 2, found: 3, more: 1, ports };
        let syn = gather(&SynSource { source, family: 2, pad: 0 }, &value);
        assert_eq!(
            (syn.source_ip.map(|ip| ip.to_string()).as_deref(), syn.local_ip.to_string().as_str()),
            (Some("192.0.2.7"), "192.0.2.7")
        );
        assert_eq!((&syn.ports[..], syn.more_ports, syn.attempts, syn.completed, syn.span_ns), (&[22, 80][..], true, 4, 1, 4));
        let together = gather(&SynSource { source: [0; 16], family: 0, pad: 0 }, &SynGathered { sources: 44, ..value });
        assert_eq!((together.source_ip, together.sources), (None, 44));
    }
}
