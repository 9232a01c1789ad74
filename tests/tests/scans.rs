//! Scans over the whole path: a real nmap on another host and on this one, and the alerts of `network_guardian`; each beside the benign
//! twin that connects as often.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use bartizan_tests::{Group, Namespace, Sensor, free_port, need, run, victim, wait_for};
use serde_json::Value;

const IN: &str = "network_guardian.port_scan_in";
const OUT: &str = "network_guardian.port_scan_out";
const SWEEP: &str = "network_guardian.sweep_out";

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn nmap() -> PathBuf {
    need("nmap", "nmap")
}

/// Options of every scan: no names are asked, no host is looked for first, nothing is repeated.
const PLAIN: [&str; 5] = ["-n", "-Pn", "--max-retries", "0", "--disable-arp-ping"];

/// Alerts of `network_guardian` about this host, each once in its newest revision: (rule, alert).
fn scans(sensor: &Sensor, about: Ipv4Addr) -> Vec<(String, Value)> {
    let about = about.to_string();
    let names =
        |alert: &Value| alert["entities"].as_array().into_iter().flatten().any(|entity| entity["type"] == "host" && entity["ip"] == about);
    let mut newest: Vec<(String, Value)> = Vec::new();
    for alert in sensor.alerts_json().into_iter().filter(|alert| alert["detector"] == "network_guardian" && names(alert)) {
        newest.retain(|(_, known)| known["id"] != alert["id"]);
        newest.push((text(&alert["rule"]).to_owned(), alert));
    }
    newest
}

/// Waits until what reached closed ports has been told, which takes up to a second, and was judged.
fn settle(sensor: &mut Sensor) {
    let before = sensor.settle();
    wait_for("two heartbeats after the last packet", || {
        let beats = sensor.events_json(&["--kind", "sensor.heartbeat"]);
        (beats.iter().filter(|beat| beat["seq"].as_u64() > Some(before)).count() >= 2).then_some(())
    });
    sensor.settle();
}

#[test]
fn every_kind_of_scan_from_another_host_is_one_alert() {
    let mut sensor = Sensor::start();
    for (mode, first) in ["-sS", "-sT", "-sF", "-sN", "-sX", "-sU"].into_iter().zip((2000..).step_by(100)) {
        let other = Namespace::new();
        // Ports of its own: who probes the same ones is taken for a decoy of the scanner before.
        let ports = format!("{first}-{}", first + 59);
        run(other.command(&nmap()).args(PLAIN).args([mode, "-p", &ports]).arg(other.host().to_string())).ok();
        settle(&mut sensor);
        // The other host runs on this kernel too: what leaves it is seen as well, and is not asked for here.
        let mut found = scans(&sensor, other.guest());
        found.retain(|(rule, _)| rule == IN);
        let [(_, alert)] = &found[..] else { panic!("{mode}: expected one alert, got {found:#?}") };
        assert_eq!(alert["lineage"], serde_json::json!([]), "packets have no process");
        assert!(text(&alert["explanation"]).contains(&other.guest().to_string()), "{mode}: {alert:#}");
    }
}

#[test]
fn a_sneaky_scan_is_found_by_the_slow_window() {
    // -T1 sends a probe every 15 s: four of them here, where the default asks for twenty in a day.
    let config = "[detectors.network_guardian.port_scan_in]\nslow_ports = 4\n";
    let (mut sensor, other) = (Sensor::with().config(config).start(), Namespace::new());
    run(other.command(&nmap()).args(PLAIN).args(["-sS", "-T1", "-p", "3001-3005"]).arg(other.host().to_string())).ok();
    settle(&mut sensor);
    let mut found = scans(&sensor, other.guest());
    found.retain(|(rule, _)| rule == IN);
    let [(_, alert)] = &found[..] else { panic!("expected one alert, got {found:#?}") };
    assert!(text(&alert["title"]).contains("probed 4 ports"), "the fast form asks for twenty: {alert:#}");
}

#[test]
fn decoys_do_not_hide_the_scanner_and_are_named_as_such() {
    let (mut sensor, other) = (Sensor::start(), Namespace::new());
    let decoys: Vec<String> = (10..14).map(|number| other.add_address(number).to_string()).collect();
    let list = format!("{},ME", decoys.join(","));
    run(other.command(&nmap()).args(PLAIN).args(["-sS", "-D", &list, "-p", "2000-2059"]).arg(other.host().to_string())).ok();
    // Sources that join late are told when the scan pauses.
    let found = wait_for("the scanner among its decoys", || {
        settle(&mut sensor);
        let mut found = scans(&sensor, other.guest());
        found.retain(|(rule, _)| rule == IN);
        (!found.is_empty()).then_some(found)
    });
    let said = found.iter().any(|(_, alert)| text(&alert["explanation"]).contains("forged"));
    assert!(said, "that addresses may be forged is not said: {found:#?}");
}

/// A server on the other host that takes connections on `ports` until it is dropped.
fn listening(other: &Namespace, sensor: &Sensor, ports: &[u16]) -> Group {
    let script = "import socket,sys,time\ns=[socket.create_server((sys.argv[1],int(p)),backlog=64) for p in sys.argv[2:]]\nprint('up',flush=True)\ntime.sleep(600)\n";
    let log = sensor.folder().join("listening");
    let mut command = other.command(&need("python3", "python3"));
    command.args(["-c", script, &other.guest().to_string()]).args(ports.iter().map(u16::to_string));
    command.stdout(std::fs::File::create(&log).expect("a log")).stdin(std::process::Stdio::null());
    let group = Group::start(&mut command);
    wait_for("the servers of the other host", || std::fs::read_to_string(&log).ok().filter(|said| said.contains("up")));
    group
}

#[test]
fn a_health_checker_and_an_excepted_scanner_are_silent() {
    let (other, excepted) = (Namespace::new(), Namespace::new());
    let config = format!("[detectors.network_guardian]\nexcepted_sources = [\"{}\"]\n", excepted.guest());
    let mut sensor = Sensor::with().config(&config).start();
    // From there to twenty open ports here.
    let servers: Vec<TcpListener> = (0..20).map(|_| TcpListener::bind((other.host(), free_port())).expect("a port")).collect();
    let ports: Vec<String> = servers.iter().map(|server| server.local_addr().expect("bound").port().to_string()).collect();
    let check =
        "import socket,sys\nfor _ in range(3):\n  for p in sys.argv[2:]:\n    socket.create_connection((sys.argv[1],int(p)),5).close()\n";
    run(other.command(&need("python3", "python3")).args(["-c", check, &other.host().to_string()]).args(&ports)).ok();
    // From here to twenty open ports there.
    let there: Vec<u16> = (4000..4020).collect();
    let _servers = listening(&other, &sensor, &there);
    let there: Vec<String> = there.iter().map(u16::to_string).collect();
    run(victim(need("python3", "python3"), &sensor.folder().join("check")).args(["-c", check, &other.guest().to_string()]).args(&there))
        .ok();
    // A monitoring scan from the excepted address.
    run(excepted.command(&nmap()).args(PLAIN).args(["-sS", "-p", "2000-2059"]).arg(excepted.host().to_string())).ok();
    settle(&mut sensor);
    assert_eq!(scans(&sensor, other.guest()), []);
    assert_eq!(scans(&sensor, excepted.guest()), []);
    drop(servers);
}

#[test]
fn scans_out_of_this_host_name_their_process() {
    let (mut sensor, other) = (Sensor::start(), Namespace::new());
    let mut scan = |target: &[String], ports: &str| {
        let mut command = Command::new(nmap());
        let mut group = Group::start(command.args(PLAIN).args(["-sT", "-p", ports]).args(target).stdout(std::process::Stdio::null()));
        let pid = u64::from(group.pid());
        assert!(group.wait().success());
        settle(&mut sensor);
        pid
    };
    let vertical = scan(&[other.guest().to_string()], "2000-2059");
    let neighbours: Vec<String> = (20..34).map(|number| other.add_address(number).to_string()).collect();
    let horizontal = scan(&neighbours, "22");
    for (rule, pid) in [(OUT, vertical), (SWEEP, horizontal)] {
        let found: Vec<Value> = sensor.alerts_json().into_iter().filter(|alert| alert["rule"] == rule).collect();
        let ids: std::collections::BTreeSet<&str> = found.iter().map(|alert| text(&alert["id"])).collect();
        assert_eq!(ids.len(), 1, "{rule}: {found:#?}");
        assert!(bartizan_tests::lineage(&found[0]).contains(&pid), "{rule} names another process than {pid}: {:#}", found[0]);
    }
}
