//! What holds for any events: bounds, revisions without a hole, and a restored state that goes on as the saved one.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use bartizan_bus::event::{Alert, AlertId, AuthSource, InetSocket, Outcome, SecurityEvent, Transport};
use proptest::prelude::*;

use super::episode::MAX_REVISIONS;
use super::made_up::{Net, SHELL, SSHD};
use super::{NetworkGuardian, NetworkGuardianConfig};
use crate::detector::Detector;
use crate::lineage::Lineage;
use crate::testing::{run, tcp};

/// Low thresholds and little room, so that short runs of events reach both.
const TIGHT: &str = r#"
    quiet = "2m"
    excepted_sources = ["10.0.0.3"]
    [port_scan_in]
    ports = 6
    slow_ports = 8
    slow_window = "1h"
    max_new_alerts = 3
    max_sources = 2
    max_scans = 2
    [port_scan_out]
    ports = 4
    slow_ports = 6
    slow_window = "1h"
    max_targets = 8
    max_scans = 2
    [sweep_out]
    hosts = 3
    slow_hosts = 5
    slow_window = "1h"
    max_targets = 8
    max_scans = 2
    [raw_scan_out]
    answers = 12
    max_sources = 4
    [login_hammering]
    connections = 3
    window = "10m"
    grace = "10s"
    max_sources = 4
"#;

fn config() -> NetworkGuardianConfig {
    toml::from_str(TIGHT).expect("configuration")
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    Probe { source: u8, port: u16, number: u16, flags: u8, udp: bool },
    Answers { source: u8, port: u16, packets: u64 },
    Accept { source: u8, port: u16 },
    Connect { pid: u32, host: u8, port: u16, errno: Option<i32> },
    Burst { pid: u32, host: u8, port: u16 },
    Login { source: u8, log: bool, success: bool },
    Odd { pid: u32 },
    Wait { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let source = || 0u8..12;
    let port = || prop_oneof![0u16..40, Just(22), 40_000u16..40_010, Just(u16::MAX - 40)];
    let errno = prop_oneof![2 => Just(None), 6 => Just(Some(111)), 2 => Just(Some(110)), 1 => Just(Some(115)), 1 => Just(Some(-7))];
    prop_oneof![
        4 => (source(), port(), prop_oneof![2 => 1u16..4, 1 => 0u16..40], any::<u8>(), any::<bool>())
            .prop_map(|(source, port, number, flags, udp)| Step::Probe { source, port, number, flags, udp }),
        1 => (source(), port(), prop_oneof![0u64..30, Just(u64::MAX)]).prop_map(|(source, port, packets)| Step::Answers { source, port, packets }),
        2 => (source(), port()).prop_map(|(source, port)| Step::Accept { source, port }),
        6 => (prop_oneof![3 => Just(SHELL), 1 => 201u32..204], 0u8..6, 0u16..16, errno)
            .prop_map(|(pid, host, port, errno)| Step::Connect { pid, host, port, errno }),
        1 => (201u32..204, 0u8..250, 0u16..60_000).prop_map(|(pid, host, port)| Step::Burst { pid, host, port }),
        1 => (source(), any::<bool>(), any::<bool>()).prop_map(|(source, log, success)| Step::Login { source, log, success }),
        1 => prop_oneof![Just(SHELL), Just(201)].prop_map(|pid| Step::Odd { pid }),
        2 => prop_oneof![0u64..20, 60u64..400, Just(3_700)].prop_map(|seconds| Step::Wait { seconds }),
    ]
}

fn events(steps: &[Step]) -> Vec<SecurityEvent> {
    let ip = |last: u8| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)).to_string();
    let mut net = Net::new();
    for pid in 201..204 {
        net.start(SHELL, pid, &format!("/opt/program{pid}"), &["program"]);
    }
    for step in steps {
        match *step {
            Step::Probe { source, port, number, flags, udp } => {
                let ports: Vec<u16> = (port..port.saturating_add(number)).collect();
                if udp { net.udp(&ip(source), &ports) } else { net.tcp(&ip(source), &ports, flags) }
            }
            Step::Answers { source, port, packets } => net.answers(&ip(source), &[port], packets, 4),
            Step::Accept { source, port } => net.accept(SSHD, port, &ip(source)),
            Step::Connect { pid, host, port, errno } => net.connect(pid, &ip(host), port, errno),
            Step::Burst { pid, host, port } => {
                (0..5).for_each(|more| net.connect(pid, &ip(host), port + more, Some(111)));
                (0..3).for_each(|more| net.connect(pid, &ip(host + more), port, Some(111)));
            }
            Step::Login { source, log, success } => {
                let source_of = if log { AuthSource::SshdLog } else { AuthSource::Pam };
                net.login(&ip(source), source_of, if success { Outcome::Success } else { Outcome::Failure });
            }
            Step::Odd { pid } => {
                net.answers("10.0.0.1", &[], 0, 0);
                let nowhere = InetSocket { local_ip: None, local_port: None, peer_ip: None, peer_port: None, ..tcp(0, "::", 0) };
                net.connect_socket(pid, nowhere, Some(111));
                (1..9u8).for_each(|last| net.connect_socket(pid, InetSocket { transport: Transport::Udp, ..tcp(1, &ip(last), 53) }, None));
                net.connect_socket(pid, InetSocket { transport: Transport::Other, ..tcp(0, "::", 0) }, Some(111));
            }
            Step::Wait { seconds } => net.wait(seconds),
        }
    }
    net.events()
}

/// Revisions of each alert are 1, 2, 3 ... without a hole, and bounded.
fn check_revisions(alerts: &[Alert]) -> Result<(), TestCaseError> {
    let mut seen: BTreeMap<AlertId, u32> = BTreeMap::new();
    for alert in alerts {
        let revision = seen.entry(alert.id).or_default();
        *revision += 1;
        prop_assert_eq!(alert.revision, *revision, "{}", &alert.rule);
        prop_assert!(alert.revision <= MAX_REVISIONS);
        prop_assert!(!alert.evidence.is_empty() && alert.evidence.len() <= 32);
        prop_assert!(alert.entities.len() <= 34 && alert.explanation.len() < 4_000);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_state_that_is_saved_and_restored_anywhere_gives_the_same_alerts(steps in proptest::collection::vec(step(), 1..120), cut in any::<prop::sample::Index>()) {
        let events = events(&steps);
        let mut lineage = Lineage::new(100);
        let whole = run(&mut NetworkGuardian::new(&config()), &mut lineage, 1, &events);
        check_revisions(&whole)?;

        let cut = cut.index(events.len());
        let (mut first, mut lineage) = (NetworkGuardian::new(&config()), Lineage::new(100));
        let mut alerts = run(&mut first, &mut lineage, 1, &events[..cut]);
        let mut second = NetworkGuardian::new(&config());
        second.restore(&first.save()).expect("own bytes");
        prop_assert_eq!(second.save(), first.save());
        prop_assert_eq!(second.state(), first.state());
        alerts.extend(run(&mut second, &mut lineage, cut as u64 + 1, &events[cut..]));
        prop_assert_eq!(alerts, whole);
    }

    #[test]
    fn tables_keep_their_bounds(steps in proptest::collection::vec(step(), 1..120)) {
        let events = events(&steps);
        let (mut guardian, mut lineage) = (NetworkGuardian::new(&config()), Lineage::new(100));
        for (event, seq) in events.iter().zip(1..) {
            run(&mut guardian, &mut lineage, seq, std::slice::from_ref(event));
            for table in guardian.state().tables {
                prop_assert!(table.entries <= table.bound, "{table:?}");
            }
        }
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut guardian = NetworkGuardian::new(&NetworkGuardianConfig::default());
        let _ = guardian.restore(&bytes);
    }
}

#[test]
fn the_steps_reach_every_rule_and_every_table_s_bound() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut rules, mut evicted) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for _ in 0..40 {
        let steps = proptest::collection::vec(step(), 300).new_tree(&mut runner).expect("steps").current();
        let mut guardian = NetworkGuardian::new(&config());
        let alerts = run(&mut guardian, &mut Lineage::new(100), 1, &events(&steps));
        rules.extend(alerts.into_iter().map(|alert| alert.rule));
        evicted.extend(guardian.state().tables.into_iter().filter(|table| table.evicted > 0).map(|table| table.name));
        if (rules.len(), evicted.len()) == (5, 10) {
            break;
        }
    }
    assert_eq!(rules.len(), 5, "{rules:?}");
    assert_eq!(evicted.len(), 10, "{evicted:?}");
}
