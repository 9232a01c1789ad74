//! What sockets do: `network.bind`, `network.flow_end`, `network.raw_socket`.

use bartizan_bus::event::{Bind, Direction, FlowEnd, RawSocket};

use super::super::escape::escape;
use super::access::local;
use super::{milliseconds, socket};

/// `udp *:53`.
pub(super) fn bind(bind: &Bind) -> String {
    let Bind { socket: ends, socket_type } = bind;
    format!("{} {}", local(ends), escape(socket_type))
}

/// `tcp 10.0.0.1:5 → 1.2.3.4:443, sent 517 in 9, received 4096 in 8, 1.234 ms`.
pub(super) fn flow_end(flow: &FlowEnd) -> String {
    let FlowEnd { socket: ends, direction, duration_ns, bytes_sent, bytes_received, packets_sent, packets_received, retransmitted, error } =
        flow;
    let ends = match direction {
        Some(Direction::Incoming) => socket(ends).replacen('→', "←", 1),
        Some(Direction::Outgoing) => socket(ends),
        None => socket(ends).replacen('→', "↔", 1),
    };
    let mut out = format!("{ends}, sent {bytes_sent} in {packets_sent}, received {bytes_received} in {packets_received}");
    if *retransmitted > 0 {
        out.push_str(&format!(", {retransmitted} again"));
    }
    if let Some(duration) = duration_ns {
        out.push_str(&format!(", {}", milliseconds(*duration)));
    }
    if let Some(error) = error {
        out.push_str(&format!(", {}", error.name()));
    }
    out
}

/// `AF_PACKET SOCK_RAW ETH_P_ALL`.
pub(super) fn raw_socket(raw: &RawSocket) -> String {
    let RawSocket { family, socket_type, protocol, protocol_name, inode: _ } = raw;
    let protocol = protocol_name.as_deref().map_or_else(|| format!("protocol {protocol}"), escape);
    format!("{} {} {protocol}", escape(family), escape(socket_type))
}

#[cfg(test)]
mod tests {
    use bartizan_bus::event::Errno;

    use super::*;
    use crate::cli::samples::inet;

    #[test]
    fn flows_say_who_began_and_how_they_ended() {
        let flow = FlowEnd {
            socket: inet("10.0.0.1", 22, "192.0.2.7", 4711),
            direction: Some(Direction::Incoming),
            duration_ns: Some(1_234_567),
            bytes_sent: 10,
            bytes_received: 20,
            packets_sent: 3,
            packets_received: 4,
            retransmitted: 1,
            error: Some(Errno(104)),
        };
        assert_eq!(flow_end(&flow), "tcp 10.0.0.1:22 ← 192.0.2.7:4711, sent 10 in 3, received 20 in 4, 1 again, 1.234 ms, ECONNRESET");
    }
}
