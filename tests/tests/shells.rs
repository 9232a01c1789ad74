//! Real reverse shells, each beside its benign twin.

use std::fs;

use bartizan_tests::{Attacker, Culprit, Kind, Line, Sensor, Speech, lineage, peers, wait_for};
use jiff::Timestamp;
use serde_json::Value;

const RULE: &str = "runtime_watcher.reverse_shell";

fn folder(sensor: &Sensor, name: &str) -> std::path::PathBuf {
    let path = sensor.folder().join(name);
    fs::create_dir(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
    path
}

fn time(alert: &Value) -> Timestamp {
    alert["time"].as_str().and_then(|time| time.parse().ok()).unwrap_or_else(|| panic!("no time in {alert:#}"))
}

/// The attack gives exactly one alert, which is there while the shell lives; then the twin gives none.
fn attack_and_twin(name: &str) {
    let kind = Kind::named(name);
    let mut sensor = Sensor::start();
    let alert = attack(&mut sensor, &kind);
    twin(&sensor, &kind);
    let alerts = sensor.settled_alerts();
    assert_eq!(alerts, [alert], "the twin of {name} must stay silent");
}

fn attack(sensor: &mut Sensor, kind: &Kind) -> Value {
    let work = folder(sensor, "attack");
    let attacker = Attacker::listen(kind.line, &work, "line");
    let address = attacker.address().expect("an attacker on the network");
    let before = Timestamp::now();
    let mut group = kind.launch(&attacker, &work);
    let mut session = attacker.accept();
    session.ask_id();
    let pid = match kind.culprit {
        Culprit::Shell => session.ask_pid(),
        Culprit::First => group.pid(),
    };
    // While the shell lives: nothing but the shell's own doing brought it about.
    let alert = wait_for("the alert", || sensor.our_alerts().into_iter().next());
    assert!(!group.ended(), "the shell should still live: {session:?}");
    session.say_exit();
    drop(group);
    // Datagrams have no end.
    if kind.line != Line::Udp4 {
        session.wait_end();
    }
    let after = Timestamp::now();

    assert_eq!(alert["rule"], RULE, "{alert:#}");
    let chain = lineage(&alert);
    assert_eq!(chain.first(), Some(&u64::from(pid)), "the alert should name the shell: {alert:#}");
    assert!(chain.contains(&u64::from(std::process::id())), "the lineage should reach this test, pid {}: {alert:#}", std::process::id());
    assert!(peers(&alert).contains(&address), "the alert should name the peer {address}: {alert:#}");
    assert!((before..=after).contains(&time(&alert)), "the alert should be between {before} and {after}: {alert:#}");
    assert_eq!(sensor.settled_alerts(), std::slice::from_ref(&alert), "one shell, one alert");
    alert
}

/// Every process is seeded, the first one too, so the oldest known ancestor of all is pid 1.
#[test]
fn the_lineage_goes_up_to_the_first_process() {
    let mut sensor = Sensor::start();
    let alert = attack(&mut sensor, &Kind::named("bash"));
    assert_eq!(lineage(&alert).last(), Some(&1), "{alert:#}");
}

fn twin(sensor: &Sensor, kind: &Kind) {
    let work = folder(sensor, "twin");
    let attacker = Attacker::listen(kind.twin.0, &work, "line");
    let group = kind.launch_twin(&attacker, &work);
    let mut session = attacker.accept();
    match kind.speaks(true) {
        Speech::Shell | Speech::Words => session.ask_id(),
        Speech::Echo => session.ask("anybody there", "anybody there"),
    }
    session.say_exit();
    drop(group);
}

macro_rules! kinds {
    ($($name:ident)*) => {
        $(#[test] fn $name() { attack_and_twin(stringify!($name)); })*

        #[test]
        fn every_kind_has_its_test() {
            let tested = [$(stringify!($name)),*];
            let missing: Vec<_> = bartizan_tests::KINDS.iter().map(|kind| kind.name).filter(|name| !tested.contains(name)).collect();
            assert!(missing.is_empty(), "without a test: {missing:?}");
        }
    };
}

kinds! {
    bash bash_ipv6 bash_udp bash_read_loop sh_redirected
    python python_ipv6 python_pty perl node node_ipv6
    socat socat_ipv6 socat_udp socat_pty
    nc_traditional nc_traditional_udp nc_openbsd_fifo nc_openbsd_fifo_ipv6
}
