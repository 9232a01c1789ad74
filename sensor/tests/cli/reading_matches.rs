//! `bartizan matches`.

use bartizan_bus::StreamName;
use bartizan_bus::event::{AlertId, Confidence, EventId, MatchId, MatchStep, PatternMatch, Severity, encode_match};

use crate::fixture::{Following, Host, at};

fn found(seconds: u32, id: u8, severity: Severity) -> PatternMatch {
    let step = |name: &str, before: u32| MatchStep {
        name: name.to_owned(),
        alert: AlertId([id; 16]),
        revision: 1,
        alert_seq: 7,
        trigger_seq: 9,
        time: at(seconds - before),
        rule: "auth_fortress.brute_force".to_owned(),
        title: format!("{name} of {id}"),
    };
    PatternMatch {
        id: MatchId([id; 16]),
        revision: 1,
        time: at(seconds),
        host: "host1".to_owned(),
        pattern: "correlate.brute_force_to_shell".to_owned(),
        title: format!("Story {id}"),
        severity,
        confidence: Confidence::High,
        attack: Vec::new(),
        entities: Vec::new(),
        login: Some(EventId([9; 20])),
        steps: vec![step("guessing", 8), step("shell", 0)],
        explanation: "One after the other.".to_owned(),
        next_steps: Vec::new(),
    }
}

fn store(host: &Host, found: &PatternMatch) {
    host.raw(StreamName::Matches, found.time.wall_ns, encode_match(found));
}

fn story() -> Host {
    let host = Host::new();
    store(&host, &found(10, 0xaa, Severity::Critical));
    store(&host, &found(20, 0xbb, Severity::High));
    host
}

#[test]
fn no_matches_is_said_beside_an_empty_answer() {
    let run = Host::new().run(&["matches", "--json"]);
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(0), "", "bartizan: no matches\n"));
}

#[test]
fn a_block_draws_the_timeline() {
    let run = story().run(&["matches", "--severity", "critical"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    for part in [
        "CRITICAL 2023-11-14 22:13:30.000 correlate.brute_force_to_shell on host1\n  Story 170\n",
        "Steps:   2023-11-14 22:13:22.000  guessing  guessing of 170\n",
        "2023-11-14 22:13:30.000  shell     shell of 170 +8s\n",
    ] {
        assert!(run.stdout.contains(part), "{part} is not in\n{}", run.stdout);
    }
}

#[test]
fn json_filters_and_what_cannot_be_read() {
    let host = story();
    host.raw(StreamName::Matches, at(21).wall_ns, b"\x01garbage".to_vec());
    let run = host.run(&["matches", "--json"]);
    assert_eq!((run.code, run.sequences()), (Some(1), vec![1, 2]));
    assert!(run.stderr.contains("MATCHES sequence 3 cannot be shown"), "{}", run.stderr);
    assert_eq!(run.json()[0]["steps"][1]["time"], "2023-11-14T22:13:30.000000000Z");
    let shown = |args: &[&str]| host.run(&[&["matches", "--json"], args].concat()).sequences();
    assert_eq!(shown(&["--severity", "critical"]), [1]);
    assert_eq!(shown(&["--since", "2023-11-14T22:13:35Z"]), [2]);
    assert_eq!(shown(&["--pattern", "correlate.other"]), [0u64; 0]);
    assert_eq!(shown(&["-n", "1"]), [2]);
}

#[test]
fn following_shows_new_matches() {
    let host = story();
    let following = Following::start(&mut host.command(&["matches", "--json", "--follow", "-n", "1"]));
    let line = || serde_json::from_str::<serde_json::Value>(&following.line()).expect("json");
    assert_eq!(line()["id"], "bb".repeat(16));
    store(&host, &found(30, 0xcc, Severity::Critical));
    assert_eq!(line()["id"], "cc".repeat(16));
}
