//! `bartizan alerts`.

use bartizan_bus::StreamName;
use bartizan_bus::event::Severity;

use crate::fixture::{Following, Host, alert, at};

fn story() -> Host {
    let host = Host::new();
    host.alert(&alert(0, 0xaa, 1, Severity::High));
    host.alert(&alert(1, 0xbb, 1, Severity::Low));
    host.alert(&alert(2, 0xaa, 2, Severity::Critical));
    host
}

#[test]
fn no_alerts_is_said_beside_an_empty_answer() {
    for args in [&["alerts"][..], &["alerts", "--json"]] {
        let run = Host::new().run(args);
        assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(0), "", "bartizan: no alerts\n"));
    }
}

#[test]
fn a_block_draws_the_lineage_that_explains_it() {
    let run = story().run(&["alerts", "--rule", "runtime_watcher.reverse_shell", "--severity", "high"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let tree = "\
  Lineage: sshd(100)  alice  sshd -i
           └─ python3(200)  alice  python3 -i
              └─ bash(300)  alice  bash -i
";
    assert!(run.stdout.contains(tree), "{}", run.stdout);
    for part in [
        "CRITICAL 2023-11-14 22:13:22.000 runtime_watcher.reverse_shell on host1",
        "peer tcp 10.0.0.1:5555 → 203.0.113.9:443",
        "TA0002 T1059.004",
        "1. Isolate the host.",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa revision 2",
    ] {
        assert!(run.stdout.contains(part), "{part} is not in\n{}", run.stdout);
    }
}

#[test]
fn each_alert_is_shown_once_in_its_latest_revision() {
    let run = story().run(&["alerts", "--json"]);
    assert_eq!((run.code, run.sequences()), (Some(0), vec![2, 3]));
    let latest = &run.json()[1];
    for (key, value) in [("rule", "runtime_watcher.reverse_shell"), ("severity", "critical"), ("time", "2023-11-14T22:13:22.000000000Z")] {
        assert_eq!(latest[key], value);
    }
    assert_eq!((&latest["id"], &latest["revision"]), (&"aa".repeat(16).into(), &2.into()));
    let names: Vec<_> = latest["lineage"].as_array().expect("lineage").iter().map(|entry| entry["name"].clone()).collect();
    assert_eq!(names, ["bash", "python3", "sshd"]);
}

#[test]
fn filters() {
    let host = story();
    let shown = |args: &[&str]| host.run(&[&["alerts", "--json"], args].concat()).sequences();
    assert_eq!(shown(&["--severity", "low"]), [2, 3]);
    assert_eq!(shown(&["--severity", "high"]), [3]);
    assert_eq!(shown(&["--rule", "runtime_watcher"]), [2, 3]);
    assert_eq!(shown(&["--rule", "network_guardian"]), [0u64; 0]);
    assert_eq!(shown(&["--since", "2023-11-14T22:13:22Z"]), [3]);
    assert_eq!(shown(&["-n", "1"]), [3]);
    assert_eq!(host.run(&["alerts", "--severity", "loud"]).code, Some(64));
}

#[test]
fn following_shows_new_alerts_and_new_revisions() {
    let host = story();
    let following = Following::start(&mut host.command(&["alerts", "--json", "--follow", "--severity", "high"]));
    let line = || serde_json::from_str::<serde_json::Value>(&following.line()).expect("json");
    assert_eq!(line()["seq"], 3);
    host.alert(&alert(3, 0xcc, 1, Severity::Info));
    host.alert(&alert(4, 0xaa, 3, Severity::Critical));
    let update = line();
    assert_eq!((&update["seq"], &update["revision"]), (&5.into(), &3.into()));
}

#[test]
fn an_undecodable_alert_is_named_once() {
    let host = story();
    host.raw(StreamName::Alerts, at(3).wall_ns, b"\x01garbage".to_vec());
    let run = host.run(&["alerts", "--json"]);
    assert_eq!((run.code, run.sequences()), (Some(1), vec![2, 3]));
    assert_eq!(run.stderr.matches("ALERTS sequence 4 cannot be shown").count(), 1, "{}", run.stderr);
}

#[test]
fn an_alert_cannot_draw_on_the_terminal() {
    let host = Host::new();
    let mut evil = alert(0, 1, 1, Severity::High);
    evil.title = "\u{1b}[2J\nfake".to_owned();
    evil.lineage[0].argv = vec!["\u{9b}2J\u{202e}".to_owned()];
    host.alert(&evil);
    let run = host.run(&["alerts"]);
    assert_eq!(run.code, Some(0));
    assert!(!run.stdout.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{:?}", run.stdout);
    assert!(!run.stdout.lines().any(|line| line.starts_with("fake")));
}
