//! What nmap does to a host, mode by mode, each beside what looks like it and is none.

use bartizan_bus::event::{Alert, Confidence, Entity, InetSocket, Severity, Transport};

use super::PORT_SCAN_IN;
use super::episode::MAX_REVISIONS;
use super::made_up::{ACK, Net, RST, SYN, ip, ports, told};
use crate::testing::tcp;

const SCANNER: &str = "203.0.113.9";
const XMAS: u8 = 1 | 8 | 32;
/// Who takes connections; no login service.
const INETD: u32 = 1;

fn hosts(alert: &Alert) -> Vec<String> {
    let hosts = alert.entities.iter().filter_map(|entity| match entity {
        Entity::Host { ip } => Some(ip.to_string()),
        _ => None,
    });
    hosts.collect()
}

#[test]
fn a_half_open_or_connect_scan_is_one_alert_that_names_source_and_ports() {
    let mut net = Net::new();
    net.tcp(SCANNER, &ports(1, 1000), SYN);
    let alerts = net.alerts();
    assert_eq!(told(&alerts), [("port_scan_in", 1), ("port_scan_in", 2), ("port_scan_in", 3)]);
    let first = &alerts[0];
    assert!(alerts.iter().all(|alert| alert.id == first.id && alert.rule == PORT_SCAN_IN));
    assert_eq!((first.severity, first.confidence, first.lineage.len()), (Severity::Medium, Confidence::High, 0));
    assert_eq!(hosts(first), [SCANNER]);
    assert!(first.title.contains("203.0.113.9 probed 32 ports"), "{}", first.title);
    assert!(first.explanation.starts_with("203.0.113.9 sent 32 packets to 32 ports of 10.0.0.5"), "{}", first.explanation);
    assert!(first.explanation.contains("1, 2, 3") && first.explanation.contains("nothing proves the address"), "{}", first.explanation);
    assert_eq!((first.attack[0].tactic.as_str(), first.attack[0].technique.as_str()), ("TA0043", "T1595"));
    assert!(first.evidence.len() == 1 && alerts[2].evidence.len() > 10);
}

#[test]
fn the_end_tells_what_was_not_told_yet_and_a_later_scan_is_another_alert() {
    let mut net = Net::new();
    net.tcp(SCANNER, &ports(1, 60), SYN);
    net.wait(45 * 60);
    net.tcp(SCANNER, &ports(1, 25), SYN);
    net.wait(45 * 60);
    let alerts = net.alerts();
    assert_eq!(told(&alerts), [("port_scan_in", 1), ("port_scan_in", 2), ("port_scan_in", 1)]);
    assert_ne!(alerts[0].id, alerts[2].id);
    assert!(alerts[1].title.contains("60 ports"), "{}", alerts[1].title);
}

#[test]
fn a_scan_of_every_port_keeps_its_bound_of_revisions() {
    let mut net = Net::new();
    for first in (0..65_000).step_by(1_000) {
        net.tcp(SCANNER, &ports(first, 1_000), SYN);
    }
    net.wait(3_600);
    let alerts = net.alerts();
    let last = alerts.last().expect("found");
    assert!(last.revision == alerts.len() as u32 && last.revision <= MAX_REVISIONS, "{}", last.revision);
    assert!(last.title.contains("65000 ports") && last.evidence.len() <= 32 && last.explanation.len() < 2_000);
}

#[test]
fn nineteen_ports_are_no_scan_and_the_window_slides() {
    let mut net = Net::new();
    net.tcp(SCANNER, &ports(1, 19), SYN);
    assert_eq!(net.alerts(), []);

    // Ten, and ten more six minutes later: too far apart for the fast form, which alone is on.
    let slow_off = "[port_scan_in]\nslow_ports = 1000";
    let apart = |seconds| {
        let mut net = Net::new();
        net.tcp(SCANNER, &ports(1, 10), SYN);
        net.wait(seconds);
        net.tcp(SCANNER, &ports(11, 10), SYN);
        net.alerts_with(slow_off).len()
    };
    assert_eq!((apart(240), apart(360)), (1, 0));

    // One port many times.
    let mut net = Net::new();
    (0..100).for_each(|_| net.tcp(SCANNER, &[445], SYN));
    assert_eq!(net.alerts(), []);
}

#[test]
fn a_scan_with_one_probe_in_fifteen_seconds_is_found_and_a_client_of_a_few_dead_services_is_not() {
    // nmap -T1: 20 ports in five minutes are never there, so this is the slow form.
    let mut net = Net::new();
    for port in ports(1, 40) {
        net.tcp(SCANNER, &[port], SYN);
        net.wait(15);
    }
    let alerts = net.alerts();
    assert_eq!(told(&alerts), [("port_scan_in", 1)]);
    assert_eq!(alerts[0].confidence, Confidence::High, "21 ports in five minutes");

    let mut net = Net::new();
    for port in ports(1, 40) {
        net.tcp(SCANNER, &[port], SYN);
        net.wait(600);
    }
    let alerts = net.alerts();
    assert_eq!(told(&alerts), [("port_scan_in", 1)]);
    assert_eq!(alerts[0].confidence, Confidence::Medium);
    assert!(alerts[0].explanation.starts_with("Slowly, 203.0.113.9"), "{}", alerts[0].explanation);

    let mut net = Net::new();
    for round in 0..200 {
        net.tcp(SCANNER, &[80 + round % 5], SYN);
        net.wait(600);
    }
    assert_eq!(net.alerts(), []);
}

#[test]
fn what_the_host_s_own_programs_miss_in_a_day_is_no_scan_and_a_fast_one_is() {
    for own in ["127.0.0.1", "::1", "10.0.0.5"] {
        let mut net = Net::new();
        for port in ports(1, 60) {
            net.tcp(own, &[port], SYN);
            net.wait(600);
        }
        assert_eq!(net.alerts(), [], "{own}");
        net.tcp(own, &ports(1, 20), SYN);
        assert_eq!(net.alerts().len(), 1, "{own}");
    }
}

#[test]
fn slower_than_the_slow_window_is_not_found() {
    let mut net = Net::new();
    for port in ports(1, 60) {
        net.tcp(SCANNER, &[port], SYN);
        net.wait(3_600 + 1_200);
    }
    assert_eq!(net.alerts(), [], "18 ports a day");
}

#[test]
fn fin_null_xmas_ack_and_udp_scans_are_found() {
    for (flags, word, confidence) in [
        (1, "without SYN, ACK or RST", Confidence::High),
        (0, "without SYN, ACK or RST", Confidence::High),
        (XMAS, "without SYN, ACK or RST", Confidence::High),
        (ACK, "TCP ACK without a connection", Confidence::Medium),
    ] {
        let mut net = Net::new();
        net.tcp(SCANNER, &ports(1, 30), flags);
        let alerts = net.alerts();
        assert_eq!(told(&alerts), [("port_scan_in", 1)], "{flags}");
        assert!(alerts[0].explanation.contains(word), "{}", alerts[0].explanation);
        assert_eq!(alerts[0].confidence, confidence, "{flags}");
    }
    // nmap -sU is held to about one port a second by the host's own ICMP rate.
    let mut net = Net::new();
    for port in ports(1, 30) {
        net.udp(SCANNER, &[port]);
        net.wait(1);
    }
    assert_eq!(told(&net.alerts()), [("port_scan_in", 1)]);
}

#[test]
fn backscatter_is_no_scan() {
    for flags in [RST, RST | ACK, SYN | ACK] {
        let mut net = Net::new();
        net.tcp(SCANNER, &ports(1, 1_000), flags);
        assert_eq!(net.alerts(), [], "{flags}");
    }
}

#[test]
fn late_answers_of_a_resolver_and_stragglers_after_a_restart_are_no_scan() {
    let mut net = Net::new();
    net.udp("192.0.2.53", &ports(33_000, 500));
    // Clients of a service that was restarted, and servers of clients that were.
    (0..300).for_each(|_| net.tcp("192.0.2.80", &[443], ACK | 8));
    net.tcp("192.0.2.81", &ports(40_000, 300), ACK | 1);
    assert_eq!(net.alerts(), []);

    // A resolver that picks ports of the whole range: its sockets are connected, so its servers are known.
    let late = |asked: bool| {
        let mut net = Net::new();
        if asked {
            let socket = InetSocket { transport: Transport::Udp, ..tcp(2_000, "192.0.2.53", 53) };
            net.connect_socket(INETD, socket, None);
        }
        net.udp("192.0.2.53", &ports(2_000, 30));
        net.alerts().len()
    };
    assert_eq!((late(true), late(false)), (0, 1));

    // A SYN to the same ports belongs to no old connection.
    net.tcp(SCANNER, &ports(33_000, 20), SYN);
    assert_eq!(net.alerts().len(), 1);
}

#[test]
fn a_health_checker_of_twenty_open_ports_is_silent_and_a_scanner_s_open_ports_count() {
    let mut net = Net::new();
    for round in 0..50 {
        for port in ports(8_000, 20) {
            // Three of them are down now and then.
            match port {
                8_003 | 8_007 | 8_011 if round % 3 == 0 => net.tcp("10.0.0.9", &[port], SYN),
                _ => net.accept(INETD, port, "10.0.0.9"),
            }
        }
        net.wait(30);
    }
    assert_eq!(net.alerts(), []);

    let mut net = Net::new();
    net.tcp(SCANNER, &ports(1, 12), SYN);
    ports(8_000, 8).into_iter().for_each(|port| net.accept(INETD, port, SCANNER));
    let alerts = net.alerts();
    assert_eq!(told(&alerts), [("port_scan_in", 1)]);
    assert!(alerts[0].explanation.contains("Complete connections came from 203.0.113.9: a real host"), "{}", alerts[0].explanation);
    assert!(alerts[0].explanation.contains("8007"), "{}", alerts[0].explanation);
}

#[test]
fn an_excepted_source_is_silent_and_an_exception_for_a_port_is_no_more_than_that() {
    let scan = |config: &str| {
        let mut net = Net::new();
        net.tcp("10.0.0.9", &ports(1, 100), SYN);
        net.alerts_with(config).len()
    };
    assert_eq!(scan(""), 1);
    assert_eq!(scan("excepted_sources = [\"10.0.0.8/31\"]"), 0);
    assert_eq!(scan("excepted_sources = [\"10.0.0.8\"]"), 1);
    assert_eq!(scan("excepted_sources = [\"10.0.0.9:22\"]"), 1);
}

#[test]
fn a_source_within_the_own_network_is_a_discovery_and_one_outside_a_reconnaissance() {
    for (source, tactic) in
        [("10.1.2.3", "TA0007"), ("100.64.0.1", "TA0007"), ("fd00::1", "TA0007"), ("::1", "TA0007"), ("2001:db8::1", "TA0043")]
    {
        let mut net = Net::new();
        net.tcp(source, &ports(1, 30), SYN);
        assert_eq!(net.alerts()[0].attack[0].tactic, tactic, "{source}");
    }
}

#[test]
fn decoys_are_one_alert_that_names_each_and_says_that_they_may_be_forged() {
    // nmap -D: every port is probed from each address before the next port is.
    let mut net = Net::new();
    let sources: Vec<String> = (1..=10).map(|last| format!("198.51.100.{last}")).chain([SCANNER.to_owned()]).collect();
    for chunk in ports(1, 1_000).chunks(32) {
        sources.iter().for_each(|source| net.tcp(source, chunk, SYN));
    }
    net.wait(3_600);
    let alerts = net.alerts();
    assert!(alerts.iter().all(|alert| alert.id == alerts[0].id) && alerts.len() <= MAX_REVISIONS as usize, "{:?}", told(&alerts));
    let last = alerts.last().expect("found");
    assert!(last.title.contains("11 sources probed 1000 ports"), "{}", last.title);
    assert!(
        last.explanation.contains("10 other sources probed the same ports") && last.explanation.contains("forged"),
        "{}",
        last.explanation
    );
    let named = hosts(last);
    assert!(sources.iter().all(|source| named.contains(source)), "{named:?}");

    // The real one completes a connection to what is open.
    let mut net = Net::new();
    for chunk in ports(1, 100).chunks(32) {
        sources.iter().for_each(|source| net.tcp(source, chunk, SYN));
    }
    net.accept(INETD, 22_222, SCANNER);
    net.wait(3_600);
    let alerts = net.alerts();
    let last = alerts.last().expect("found");
    assert!(last.explanation.contains("Complete connections came from 203.0.113.9"), "{}", last.explanation);
}

#[test]
fn a_client_whose_address_a_scanner_forges_does_not_make_the_scan_last() {
    let mut net = Net::new();
    net.tcp("198.51.100.7", &ports(1, 60), SYN);
    for _ in 0..20 {
        net.wait(300);
        net.accept(INETD, 443, "198.51.100.7");
    }
    net.tcp(SCANNER, &ports(1, 20), SYN);
    let alerts = net.alerts();
    assert_eq!(told(&alerts), [("port_scan_in", 1), ("port_scan_in", 2), ("port_scan_in", 1)]);
    assert_ne!(alerts[0].id, alerts[2].id);
    assert!(alerts[1].explanation.contains("that scans or that a scanner hides behind"), "{}", alerts[1].explanation);
}

#[test]
fn sources_that_probe_other_ports_or_at_other_times_are_alerts_of_their_own() {
    let mut net = Net::new();
    net.tcp(SCANNER, &ports(1, 30), SYN);
    net.tcp("198.51.100.1", &ports(2_000, 30), SYN);
    let alerts = net.alerts();
    assert_eq!(told(&alerts), [("port_scan_in", 1), ("port_scan_in", 1)]);
    assert_ne!(alerts[0].id, alerts[1].id);

    let mut net = Net::new();
    net.tcp(SCANNER, &ports(1, 30), SYN);
    net.wait(600);
    net.tcp("198.51.100.1", &ports(1, 30), SYN);
    assert_eq!(net.alerts().len(), 2);
}

#[test]
fn many_scanners_at_once_raise_a_bounded_number_of_alerts() {
    let mut net = Net::new();
    for source in 0..500u32 {
        let source = std::net::Ipv4Addr::from(0xc000_0200 + source).to_string();
        // Each its own ports.
        let first = u16::try_from(source.len()).expect("short") * 1_000 + u16::from(source.as_bytes()[source.len() - 1]) * 20;
        net.tcp(&source, &ports(first, 20), SYN);
    }
    net.wait(3_600);
    let alerts = net.alerts_with("[port_scan_in]\nmax_new_alerts = 4");
    let ids: std::collections::BTreeSet<_> = alerts.iter().map(|alert| alert.id).collect();
    assert_eq!(ids.len(), 4);
    assert!(alerts.len() <= 4 * MAX_REVISIONS as usize);
    assert!(alerts.iter().any(|alert| alert.explanation.contains("they stand here together")));
}

#[test]
fn a_flood_of_forged_sources_does_not_make_a_slow_scanner_be_forgotten() {
    let mut net = Net::new();
    let mut flood = 0u32;
    for port in ports(1, 25) {
        net.tcp(SCANNER, &[port], SYN);
        // In its first four probes it is one of many; from then on it is remembered apart.
        let sources = if port <= 4 { 20 } else { 200 };
        for _ in 0..sources {
            flood += 1;
            net.tcp(&std::net::Ipv4Addr::from(0x0a00_0000 + flood).to_string(), &[80], SYN);
        }
        net.wait(15);
    }
    let alerts = net.alerts_with("[port_scan_in]\nmax_sources = 64");
    assert_eq!(told(&alerts), [("port_scan_in", 1)]);
    assert_eq!(hosts(&alerts[0]), [SCANNER]);
}

#[test]
fn answers_of_one_host_to_few_ports_without_a_socket_are_a_raw_scan() {
    // nmap -sS out of this host: RST+ACK of closed and SYN+ACK of open ports, to the one port that nmap sends from.
    let mut net = Net::new();
    for _ in 0..30 {
        net.answers("192.0.2.77", &[51_234], 32, RST | ACK);
        net.answers("192.0.2.77", &[51_234], 1, SYN | ACK);
    }
    net.wait(3_600);
    let alerts = net.alerts();
    assert_eq!(told(&alerts), [("raw_scan_out", 1), ("raw_scan_out", 2), ("raw_scan_out", 3), ("raw_scan_out", 4)]);
    assert_eq!((alerts[0].confidence, alerts[3].confidence), (Confidence::Low, Confidence::Medium));
    assert!(
        alerts[3].explanation.contains("990 answers") && alerts[3].explanation.contains("writes the address"),
        "{}",
        alerts[3].explanation
    );
    assert_eq!(hosts(&alerts[0]), ["192.0.2.77"]);
    assert!(alerts.iter().all(|alert| alert.id == alerts[0].id));
}

#[test]
fn resets_of_old_connections_and_backscatter_are_no_raw_scan() {
    let mut net = Net::new();
    // Two or three for each of many old connections.
    (0..100).for_each(|port| net.answers("192.0.2.77", &[40_000 + port], 3, RST));
    // A few ports, few each.
    (0..7).for_each(|port| net.answers("192.0.2.78", &[40_000 + port], 3, RST | ACK));
    // Less than it takes within five minutes, for a day.
    for _ in 0..200 {
        net.answers("192.0.2.79", &[40_000], 2, RST);
        net.wait(240);
    }
    assert_eq!(net.alerts(), []);
    net.answers("192.0.2.77", &[51_234], 500, RST | ACK);
    assert_eq!(net.alerts_with("excepted_sources = [\"192.0.2.77\"]"), []);
}

#[test]
fn a_reboot_begins_anew() {
    let mut net = Net::with_boot(1 << 32);
    net.tcp(SCANNER, &ports(1, 15), SYN);
    let mut events = net.events();
    let mut net = Net::with_boot(2 << 32);
    net.tcp(SCANNER, &ports(20, 15), SYN);
    events.extend(net.events());
    let mut guardian = super::NetworkGuardian::new(&super::NetworkGuardianConfig::default());
    let alerts = crate::testing::run(&mut guardian, &mut crate::lineage::Lineage::new(100), 1, &events);
    assert_eq!(alerts, []);
}

#[test]
fn ipv6_sources_are_told_as_they_are() {
    let mut net = Net::new();
    net.tcp("2001:db8::77", &ports(1, 20), SYN);
    let alerts = net.alerts();
    assert_eq!(alerts[0].entities, [Entity::Host { ip: ip("2001:db8::77") }]);
}
