//! Scans that leave the host, each beside what looks like it and is none.

use bartizan_bus::event::{Alert, Confidence, Entity, InetSocket, Severity, Transport};

use super::episode::MAX_REVISIONS;
use super::made_up::{Net, REFUSED, SHELL, TIMEOUT, ip, ports, told};
use super::{PORT_SCAN_OUT, SWEEP_OUT};
use crate::testing::tcp;

const TARGET: &str = "192.0.2.20";
const NMAP: u32 = 200;

fn nmap() -> Net {
    let mut net = Net::new();
    net.start(SHELL, NMAP, "/usr/bin/nmap", &["nmap", "-sT", TARGET]);
    net
}

fn of<'a>(alerts: &'a [Alert], rule: &str) -> Vec<&'a Alert> {
    alerts.iter().filter(|alert| alert.rule == rule).collect()
}

#[test]
fn a_connect_scan_is_one_alert_about_the_program() {
    let mut net = nmap();
    for port in ports(1, 1_000) {
        net.connect(NMAP, TARGET, port, if port % 100 == 22 { None } else { REFUSED });
    }
    net.wait(3_600);
    let alerts = net.alerts();
    assert_eq!(told(&alerts), [("port_scan_out", 1), ("port_scan_out", 2), ("port_scan_out", 3), ("port_scan_out", 4)]);
    let (first, last) = (&alerts[0], &alerts[3]);
    assert!(alerts.iter().all(|alert| alert.id == first.id && alert.rule == PORT_SCAN_OUT));
    assert_eq!((first.severity, first.confidence, last.confidence), (Severity::High, Confidence::Medium, Confidence::High));
    assert!(first.title.contains("nmap tried 20 ports of 192.0.2.20"), "{}", first.title);
    assert!(last.title.contains("1000 ports"), "{}", last.title);
    assert!(last.explanation.contains("990 refused, 0 without an answer"), "{}", last.explanation);
    assert!(last.explanation.contains("Reached: 192.0.2.20:22, 192.0.2.20:122"), "{}", last.explanation);
    assert!(matches!(first.entities[0], Entity::Process { pid: NMAP, .. }));
    assert_eq!(first.entities[1], Entity::Host { ip: ip(TARGET) });
    assert_eq!(first.lineage.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["nmap", "bash", "sshd", "systemd"]);
}

#[test]
fn a_health_checker_is_silent_also_when_services_are_down() {
    let mut net = nmap();
    for round in 0..100 {
        for port in ports(8_000, 20) {
            // A few are down; later all are, after they were seen up.
            let down = (round > 2 && port < 8_004) || round > 50;
            net.connect(NMAP, TARGET, port, if down { REFUSED } else { None });
        }
        net.wait(30);
    }
    assert_eq!(net.alerts(), []);

    // Four of twenty were never up.
    let mut net = nmap();
    for _ in 0..20 {
        for port in ports(8_000, 40) {
            net.connect(NMAP, TARGET, port, if port < 8_019 { REFUSED } else { None });
        }
        net.wait(30);
    }
    assert_eq!(net.alerts(), []);
}

#[test]
fn most_must_fail() {
    let scan = |config: &str| {
        let mut net = nmap();
        for port in ports(1, 90) {
            net.connect(NMAP, TARGET, port, if port % 3 == 0 { REFUSED } else { None });
        }
        net.alerts_with(config).len()
    };
    assert_eq!(scan(""), 0, "a third");
    assert_eq!(scan("[port_scan_out]\nmin_failed_percent = 30"), 1);
}

#[test]
fn a_program_that_waits_for_services_to_come_up_is_silent() {
    let mut net = nmap();
    for port in ports(9_000, 100) {
        (0..5).for_each(|_| net.connect(NMAP, "127.0.0.1", port, REFUSED));
        net.connect(NMAP, "127.0.0.1", port, None);
    }
    assert_eq!(net.alerts(), []);
}

#[test]
fn a_loop_that_starts_a_program_for_each_port_is_one_origin() {
    let mut net = Net::new();
    for (pid, port) in (1_000..).zip(ports(1, 30)) {
        net.start(SHELL, pid, "/usr/bin/nc.openbsd", &["nc", "-z", TARGET, "1"]);
        net.connect(pid, TARGET, port, REFUSED);
        net.host.exit(pid);
    }
    let alerts = net.alerts();
    assert_eq!(told(&alerts), [("port_scan_out", 1)]);
    assert!(alerts[0].explanation.contains("in the session of pid 100"), "{}", alerts[0].explanation);

    // The same number of failures by programs of as many sessions.
    let mut net = Net::new();
    for (pid, port) in (1_000..).zip(ports(1, 30)) {
        net.start(SHELL, pid, "/usr/bin/curl", &["curl", TARGET]);
        net.setsid(pid);
        net.connect(pid, TARGET, port, REFUSED);
    }
    assert_eq!(net.alerts(), []);
}

#[test]
fn within_a_login_a_session_for_each_probe_is_still_one_origin() {
    use bartizan_bus::event::{Auth, AuthSource, Body, EventId, Outcome};
    let mut net = Net::new();
    let login = Auth::of(AuthSource::Pam, EventId([7; 20]));
    net.host.publish(Some(SHELL), Outcome::Success, Body::SessionOpen(login));
    for (pid, port) in (1_000..).zip(ports(1, 30)) {
        net.start(SHELL, pid, "/usr/bin/nc.openbsd", &["nc", "-z", TARGET, "1"]);
        net.setsid(pid);
        // As sudo does: a login of its own, below.
        let mut inner = [1; 20];
        inner[..4].copy_from_slice(&pid.to_be_bytes());
        let inner = Auth::of(AuthSource::Pam, EventId(inner));
        net.host.publish(Some(pid), Outcome::Success, Body::SessionOpen(inner));
        net.connect(pid, TARGET, port, REFUSED);
    }
    let alerts = net.alerts();
    assert_eq!(told(&alerts), [("port_scan_out", 1)]);
    assert!(alerts[0].explanation.contains("in one login"), "{}", alerts[0].explanation);
}

#[test]
fn a_slow_scan_is_found_within_a_day_and_not_beyond() {
    let scan = |seconds| {
        let mut net = nmap();
        for port in ports(1, 30) {
            net.connect(NMAP, TARGET, port, TIMEOUT);
            net.wait(seconds);
        }
        net.alerts()
    };
    let alerts = scan(900);
    assert_eq!(told(&alerts), [("port_scan_out", 1)]);
    assert!(alerts[0].explanation.contains("(slow form)"), "{}", alerts[0].explanation);
    assert_eq!(scan(3_600 + 1_800), []);
}

#[test]
fn a_sweep_is_found_and_says_when_nothing_answered() {
    let mut net = nmap();
    (1..=10).for_each(|last| net.connect(NMAP, &format!("192.0.2.{last}"), 22, if last > 4 { TIMEOUT } else { None }));
    let alerts = net.alerts();
    assert_eq!(told(&alerts), [("sweep_out", 1)], "six of ten failed");
    assert!(alerts[0].title.contains("10 hosts"), "{}", alerts[0].title);
    assert!(alerts[0].explanation.contains("Reached: 192.0.2.1:22, 192.0.2.2:22"), "{}", alerts[0].explanation);
    assert_eq!(alerts[0].confidence, Confidence::Medium);

    let sweep = |errno| {
        let mut net = nmap();
        (1..=60).for_each(|last| net.connect(NMAP, &format!("192.0.2.{last}"), 22, errno));
        net.wait(3_600);
        net.alerts()
    };
    let alerts = sweep(REFUSED);
    assert_eq!(told(&alerts), [("sweep_out", 1), ("sweep_out", 2), ("sweep_out", 3)]);
    assert_eq!((alerts[0].severity, alerts[2].confidence, alerts[0].rule.as_str()), (Severity::High, Confidence::High, SWEEP_OUT));
    assert!(alerts[0].title.contains("nmap tried 10 hosts on port 22"), "{}", alerts[0].title);
    assert!(alerts[2].title.contains("60 hosts"), "{}", alerts[2].title);
    assert_eq!(alerts[2].entities.len(), 33);
    let silent = sweep(TIMEOUT);
    assert_eq!(silent[0].confidence, Confidence::Low);
    assert!(silent[0].explanation.contains("a network that is down looks the same"), "{}", silent[0].explanation);
}

#[test]
fn a_client_of_many_hosts_of_which_most_answer_is_silent() {
    let mut net = nmap();
    for last in 1..=200 {
        net.connect(NMAP, &format!("192.0.2.{last}"), 443, if last % 3 == 0 { TIMEOUT } else { None });
    }
    // Each name has two addresses, and the slower connection is given up (RFC 8305).
    for last in 1..=100 {
        net.connect(NMAP, &format!("198.51.100.{last}"), 443, None);
        net.connect(NMAP, &format!("2001:db8::{last:x}"), 443, Some(103));
    }
    // A server that knows its peers loses the network.
    for _ in 0..5 {
        (1..=200).filter(|last| last % 3 != 0).for_each(|last| net.connect(NMAP, &format!("192.0.2.{last}"), 443, TIMEOUT));
        net.wait(60);
    }
    assert_eq!(net.alerts(), []);
}

#[test]
fn what_never_left_the_host_or_asks_nobody_does_not_count() {
    let mut net = nmap();
    for last in 1..=50u16 {
        let peer = format!("2001:db8::{last:x}");
        // No IPv6 route: browsers try it for every name.
        net.connect_socket(NMAP, InetSocket { local_ip: None, local_port: None, ..tcp(0, &peer, 443) }, Some(101));
        // A resolver.
        net.connect_socket(NMAP, InetSocket { transport: Transport::Udp, ..tcp(40_000, &peer, 53) }, None);
        net.connect_socket(NMAP, InetSocket { transport: Transport::Udp, ..tcp(40_000, TARGET, last) }, REFUSED);
        // Unknown result; forbidden.
        net.connect(NMAP, TARGET, last, Some(115));
        net.connect(NMAP, TARGET, last, Some(1));
    }
    assert_eq!(net.alerts(), []);
}

#[test]
fn many_hosts_and_many_ports_are_one_alert_of_each_rule() {
    let mut net = nmap();
    for last in 1..=60 {
        for port in ports(1, 50) {
            net.connect(NMAP, &format!("192.0.2.{last}"), port, REFUSED);
        }
    }
    net.wait(3_600);
    let alerts = net.alerts();
    for (rule, title) in [(PORT_SCAN_OUT, "50 ports of 60 hosts"), (SWEEP_OUT, "60 hosts on 50 ports")] {
        let alerts = of(&alerts, rule);
        assert!(!alerts.is_empty() && alerts.len() <= MAX_REVISIONS as usize, "{}", alerts.len());
        assert!(alerts.iter().all(|alert| alert.id == alerts[0].id));
        let last = alerts.last().expect("some");
        assert!(last.title.contains(title), "{}", last.title);
    }
}

#[test]
fn a_later_scan_of_the_same_program_is_another_alert_and_one_failure_after_a_scan_is_none() {
    let mut net = nmap();
    ports(1, 20).into_iter().for_each(|port| net.connect(NMAP, TARGET, port, REFUSED));
    net.wait(2 * 3_600);
    net.connect(NMAP, TARGET, 1, REFUSED);
    net.wait(2 * 3_600);
    ports(1, 20).into_iter().for_each(|port| net.connect(NMAP, TARGET, port, REFUSED));
    let alerts = net.alerts();
    assert_eq!(told(&alerts), [("port_scan_out", 1), ("port_scan_out", 1)]);
    assert_ne!(alerts[0].id, alerts[1].id);
}

#[test]
fn a_browser_of_the_same_login_does_not_hide_a_scanner() {
    let mut net = nmap();
    net.start(SHELL, 300, "/usr/lib/firefox/firefox", &["firefox"]);
    for last in 1..=100 {
        net.connect(300, &format!("198.51.100.{last}"), 443, None);
        net.connect(300, &format!("203.0.113.{last}"), 443, None);
    }
    (1..=20).for_each(|last| net.connect(NMAP, &format!("192.0.2.{last}"), 443, TIMEOUT));
    assert_eq!(told(&net.alerts()), [("sweep_out", 1)]);
}

#[test]
fn a_health_checker_that_is_named_is_silent_and_only_towards_its_targets() {
    let grouped = |config: &str| {
        let mut net = Net::new();
        net.start(1, 300, "/usr/bin/python3.11", &["python3", "/opt/checks/all.py"]);
        // As a daemon does, after its exec.
        net.setsid(300);
        for (pid, port) in (1_000..).zip(ports(1, 30)) {
            net.start(300, pid, "/usr/lib/nagios/plugins/check_tcp", &["check_tcp"]);
            net.connect(pid, TARGET, port, REFUSED);
        }
        net.alerts_with(config).len()
    };
    let named = |program: &str, targets: &str| grouped(&format!("[[health_checkers]]\nname = \"c\"\nprogram = \"{program}\"\n{targets}"));
    assert_eq!(grouped(""), 1);
    assert_eq!(named("/usr/lib/nagios/plugins/check_tcp", ""), 0);
    assert_eq!(named("/opt/checks/all.py", ""), 0, "the script of an ancestor");
    assert_eq!(named("/usr/bin/nmap", ""), 1);
    assert_eq!(named("/usr/lib/nagios/plugins/check_tcp", "targets = [\"192.0.2.0/24\"]"), 0);
    assert_eq!(named("/usr/lib/nagios/plugins/check_tcp", "targets = [\"192.0.3.0/24\"]"), 1);
}
