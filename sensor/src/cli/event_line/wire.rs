//! What was read off the wire: `network.dns`, `network.tls`, `network.http`, `network.ssh`, `network.udp_flow`.

use bartizan_bus::event::{Direction, Dns, Http, InetSocket, Ssh, Tls, TlsSide, UdpFlow};

use super::super::escape::escape;
use super::{milliseconds, socket};

/// Answers that are shown before the rest is only counted.
const ANSWERS_SHOWN: usize = 4;

/// The ends, with the arrow from who sent to who received.
fn way(ends: &InetSocket, outgoing: bool) -> String {
    if outgoing { socket(ends) } else { socket(ends).replacen('→', "←", 1) }
}

/// `A example.org ? udp 10.0.0.1:4711 → 10.0.0.53:53`, `A example.org: 192.0.2.1, ...`.
pub(super) fn dns(dns: &Dns) -> String {
    let questions: Vec<String> =
        dns.questions.iter().map(|question| format!("{} {}", escape(&question.record_type), escape(&question.name))).collect();
    let mut out = questions.join(", ");
    if dns.response {
        let told = |answer: &bartizan_bus::event::DnsAnswer| {
            answer
                .data
                .as_deref()
                .map_or_else(|| escape(&answer.record_type), |data| format!("{} {}", escape(&answer.record_type), escape(data)))
        };
        let mut answers: Vec<String> = dns.answers.iter().take(ANSWERS_SHOWN).map(told).collect();
        if dns.answers.len() > ANSWERS_SHOWN {
            answers.push(format!("{} more", dns.answers.len() - ANSWERS_SHOWN));
        }
        if dns.rcode != 0 {
            answers.push(rcode(dns.rcode));
        }
        out.push_str(": ");
        out.push_str(if answers.is_empty() { "nothing" } else { "" });
        out.push_str(&answers.join(", "));
    } else {
        out.push('?');
    }
    out.push_str(&format!("  {}", way(&dns.socket, dns.outgoing)));
    out.push_str(&notes(dns.truncated, dns.malformed.as_deref()));
    out
}

/// IANA "DNS RCODEs".
fn rcode(number: u16) -> String {
    match number {
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        3 => "NXDOMAIN".to_owned(),
        4 => "NOTIMP".to_owned(),
        5 => "REFUSED".to_owned(),
        other => format!("rcode {other}"),
    }
}

/// `client hello for example.org, TLS 1.3, ja4 t13d1516h2_8daaf6152771_e5627efa2ab1  tcp 10.0.0.1:5 → 192.0.2.1:443`.
pub(super) fn tls(tls: &Tls) -> String {
    let side = match tls.side {
        TlsSide::Client => "client",
        TlsSide::Server if tls.retry => "server (retry)",
        TlsSide::Server => "server",
    };
    let mut out = format!("{side} hello");
    if let Some(name) = &tls.server_name {
        out.push_str(&format!(" for {}", escape(name)));
    }
    out.push_str(&format!(", {}", escape(&tls.version)));
    if !tls.alpn.is_empty() {
        let alpn: Vec<String> = tls.alpn.iter().map(|protocol| escape(protocol)).collect();
        out.push_str(&format!(", alpn {}", alpn.join(",")));
    }
    if let Some(print) = tls.ja4.as_ref().map(|ja4| ("ja4", ja4)).or(tls.ja3.as_ref().map(|ja3| ("ja3s", ja3))) {
        out.push_str(&format!(", {} {}", print.0, escape(print.1)));
    }
    out.push_str(&format!("  {}", way(&tls.socket, tls.outgoing)));
    out.push_str(&notes(tls.truncated, tls.malformed.as_deref()));
    out
}

/// `GET example.org /path  tcp 10.0.0.1:5 → 192.0.2.1:80`.
pub(super) fn http(http: &Http) -> String {
    let host = http.host.as_deref().map(|host| format!(" {}", escape(host))).unwrap_or_default();
    let agent = http.user_agent.as_deref().map(|agent| format!(" by {}", escape(agent))).unwrap_or_default();
    let notes = notes(http.truncated, http.malformed.as_deref());
    format!("{}{host} {}{agent}  {}{notes}", escape(&http.method), escape(&http.target), way(&http.socket, http.outgoing))
}

/// `OpenSSH_9.2p1 Debian-2 (2.0)  tcp 10.0.0.1:22 → 192.0.2.1:4711`.
pub(super) fn ssh(ssh: &Ssh) -> String {
    let comments = ssh.comments.as_deref().map(|comments| format!(" {}", escape(comments))).unwrap_or_default();
    format!("{}{comments} ({})  {}", escape(&ssh.software), escape(&ssh.protocol), way(&ssh.socket, ssh.outgoing))
}

/// `udp 10.0.0.1:5 → 192.0.2.1:443, sent 517 in 9, received 4096 in 8, 1.234 ms`.
pub(super) fn udp_flow(flow: &UdpFlow) -> String {
    let UdpFlow { socket: ends, direction, duration_ns, bytes_sent, bytes_received, packets_sent, packets_received } = flow;
    let ends = way(ends, *direction != Some(Direction::Incoming));
    let took = milliseconds(*duration_ns);
    format!("{ends}, sent {bytes_sent} in {packets_sent}, received {bytes_received} in {packets_received}, {took}")
}

fn notes(truncated: bool, malformed: Option<&str>) -> String {
    let cut = if truncated { " (cut)" } else { "" };
    let wrong = malformed.map(|why| format!(" ({})", escape(why))).unwrap_or_default();
    format!("{cut}{wrong}")
}

#[cfg(test)]
mod tests {
    use bartizan_bus::event::{DnsAnswer, DnsQuestion, Transport};

    use super::*;
    use crate::cli::samples::inet;

    #[test]
    fn an_answer_shows_its_question_and_where_it_came_from() {
        let answer = |data: &str| DnsAnswer { name: "x.example".into(), record_type: "A".into(), ttl_s: 60, data: Some(data.into()) };
        let message = Dns {
            socket: InetSocket { transport: Transport::Udp, ..inet("10.0.0.1", 4711, "10.0.0.53", 53) },
            outgoing: false,
            response: true,
            id: 1,
            opcode: 0,
            rcode: 0,
            questions: vec![DnsQuestion { name: "x.example".into(), record_type: "A".into() }],
            answers: vec![answer("192.0.2.1"); 6],
            others: 0,
            bytes: 100,
            tc: false,
            truncated: false,
            malformed: None,
            left_out: 0,
        };
        let shown = "A 192.0.2.1, A 192.0.2.1, A 192.0.2.1, A 192.0.2.1, 2 more";
        assert_eq!(dns(&message), format!("A x.example: {shown}  udp 10.0.0.1:4711 ← 10.0.0.53:53"));
        let none = Dns { answers: Vec::new(), rcode: 3, ..message.clone() };
        assert_eq!(dns(&none), "A x.example: NXDOMAIN  udp 10.0.0.1:4711 ← 10.0.0.53:53");
        let query = Dns { outgoing: true, response: false, answers: Vec::new(), ..message };
        assert_eq!(dns(&query), "A x.example?  udp 10.0.0.1:4711 → 10.0.0.53:53");
    }
}
