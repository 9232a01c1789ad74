//! `bartizan events`.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bartizan_bus::{BusConfig, StreamName};

use crate::fixture::{Following, Host, Run, as_nobody, at, bartizan, connect, exec, exit, fork};

fn story() -> Host {
    let host = Host::new();
    host.event(&exec(0, 10, &["sh", "-c", "curl x"]));
    host.event(&fork(1, 10, 11));
    host.event(&exec(2, 11, &["curl", "x"]));
    host.event(&connect(3, 11));
    host.event(&exit(4, 11));
    host
}

#[test]
fn a_line_an_event_oldest_first() {
    let run = story().run(&["events"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[0], "2023-11-14 22:13:20.000 🚀 process.exec         alice    sh(10)                           sh -c 'curl x'");
    assert!(lines[1].ends_with("→ sh(11)"), "{}", lines[1]);
    assert!(lines[3].ends_with("tcp 10.0.0.1:5555 → 203.0.113.9:443 ok"), "{}", lines[3]);
}

#[test]
fn json_is_one_object_a_line() {
    let run = story().run(&["events", "--json"]);
    assert_eq!((run.code, run.sequences()), (Some(0), vec![1, 2, 3, 4, 5]));
    let first = &run.json()[0];
    assert_eq!((&first["kind"], &first["process"]["argv"][2]), (&"process.exec".into(), &"curl x".into()));
    assert_eq!(first["time"], "2023-11-14T22:13:20.000000000Z");
}

#[test]
fn the_same_without_a_running_writer() {
    let host = story();
    host.bus.close().expect("close");
    assert_eq!(host.run(&["events", "--json"]).sequences(), [1, 2, 3, 4, 5]);
}

#[test]
fn filters() {
    let host = story();
    let shown = |args: &[&str]| host.run(&[&["events", "--json"], args].concat()).sequences();
    assert_eq!(shown(&["--kind", "process.exec"]), [1, 3]);
    assert_eq!(shown(&["--kind", "process"]), [1, 2, 3, 5]);
    assert_eq!(shown(&["--kind", "network", "--kind", "process.exit"]), [4, 5]);
    assert_eq!(shown(&["--pid", "11"]), [2, 3, 4, 5]);
    assert_eq!(shown(&["--pid", "10", "--pid", "11", "--kind", "process.fork"]), [2]);
    assert_eq!(shown(&["-n", "2"]), [4, 5]);
    assert_eq!(shown(&["--kind", "process.exec", "--limit", "1"]), [3]);
    assert_eq!(shown(&["--since", "2023-11-14T22:13:23Z"]), [4, 5]);
    assert_eq!(shown(&["--since", "1h"]), [0u64; 0]);
    assert_eq!(shown(&["-n", "0"]), [0u64; 0]);
}

#[test]
fn following_goes_on_with_what_comes() {
    let host = story();
    let following = Following::start(&mut host.command(&["events", "--json", "--follow", "-n", "1"]));
    let seq = |line: String| serde_json::from_str::<serde_json::Value>(&line).expect("json")["seq"].as_u64();
    assert_eq!(seq(following.line()), Some(5));
    for pid in 20..23 {
        host.event(&exec(pid, pid, &["late"]));
        assert_eq!(seq(following.line()), Some(u64::from(pid) - 14));
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly_even_on_a_quiet_host() {
    use std::io::Read;
    let host = story();
    let mut command = host.command(&["events", "--follow"]);
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().expect("start");
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut [0]).expect("one byte");
    drop(stdout);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn an_argv_cannot_draw_on_the_terminal() {
    let host = Host::new();
    let attack = "\u{1b}]0;pwned\u{7}\u{1b}[2J\r\n2023 fake line\u{202e}\u{9b}31m\u{2028}\t\u{7f}";
    let mut event = exec(0, 10, &["sh", attack]);
    Arc::make_mut(event.process.as_mut().expect("process")).name = attack.to_owned();
    host.event(&event);
    let run = host.run(&["events", "--color", "never"]);
    assert_eq!(run.stdout.lines().count(), 1, "{:?}", run.stdout);
    assert!(!run.stdout.chars().any(|c| (c.is_control() && c != '\n') || "\u{202e}\u{2028}".contains(c)), "{:?}", run.stdout);
    assert!(run.stdout.contains("\\x1b]0;pwned\\x07"));
    // In JSON the text is whole, and its escapes are JSON's.
    let json = host.run(&["events", "--json"]);
    assert!(!json.stdout.chars().any(|c| (c.is_control() && c != '\n') || "\u{202e}\u{2028}".contains(c)), "{:?}", json.stdout);
    assert_eq!(json.json()[0]["process"]["argv"][1], attack);
}

#[test]
fn colours_only_when_asked_for_or_on_a_terminal() {
    let host = story();
    assert!(!host.run(&["events"]).stdout.contains('\u{1b}'));
    assert!(!host.run(&["events", "--no-color"]).stdout.contains('\u{1b}'));
    assert!(host.run(&["events", "--color", "always"]).stdout.contains("\u{1b}["));
    assert_eq!(host.run(&["events", "--no-color", "--color", "always"]).code, Some(64));
}

#[test]
fn a_record_that_cannot_be_decoded_is_named_and_counted() {
    let host = story();
    host.raw(StreamName::Events, at(5).wall_ns, vec![1, 0xff, 0xff]);
    host.raw(StreamName::Events, at(6).wall_ns, vec![200]);
    host.event(&exec(7, 30, &["after"]));
    let run = host.run(&["events", "--json"]);
    assert_eq!((run.code, run.sequences()), (Some(1), vec![1, 2, 3, 4, 5, 8]));
    assert!(run.stderr.contains("EVENTS sequence 6 cannot be shown: record is damaged"), "{}", run.stderr);
    assert!(run.stderr.contains("EVENTS sequence 7 cannot be shown: record has schema version 200"), "{}", run.stderr);
    assert!(run.stderr.contains("2 records could not be decoded"), "{}", run.stderr);
}

#[test]
fn damage_in_the_log_is_one_sentence_and_reading_goes_on() {
    let mut config = BusConfig::default();
    config.events.segment_bytes = 4096;
    // The damage is made in a raw segment, which no thread may seal meanwhile.
    config.events.compression = None;
    let host = Host::with(config);
    for index in 0..100 {
        host.event(&exec(index, 1000 + index, &["sh", "-c", "a command of some length, so that segments fill"]));
    }
    let host = host.reopened();
    let mut segments: Vec<_> = std::fs::read_dir(host.data_dir().join("streams/EVENTS"))
        .expect("stream folder")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    segments.sort();
    assert!(segments.len() > 2, "{segments:?}");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&segments[0]).expect("segment");
    let middle = file.metadata().expect("metadata").len() / 2;
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, middle).expect("read");
    file.write_all_at(&bytes.map(|byte| !byte), middle).expect("write");

    let run = host.run(&["events", "--json"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let damages: Vec<&str> = run.stderr.lines().filter(|line| line.contains("is damaged at byte")).collect();
    assert_eq!(damages.len(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("1 damaged places"), "{}", run.stderr);
    let shown = run.sequences();
    assert!(shown.starts_with(&[1]) && shown.ends_with(&[100]) && shown.len() < 100, "{shown:?}");
    assert!(shown.is_sorted());
}

#[test]
fn a_missing_folder_is_one_sentence() {
    let temp = tempfile::tempdir().expect("temp folder");
    let none = temp.path().join("none");
    for verb in ["events", "alerts", "matches"] {
        let run = Run::of(bartizan(&[verb, "--data-dir"]).arg(&none));
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
        assert!(run.stderr.contains("none") && run.stderr.contains("--data-dir"), "{}", run.stderr);
    }
}

#[test]
fn a_folder_that_may_not_be_read_is_one_sentence() {
    use std::os::unix::fs::PermissionsExt;
    let host = story();
    std::fs::set_permissions(host.data_dir(), std::fs::Permissions::from_mode(0o000)).expect("permissions");
    for verb in ["events", "alerts", "matches"] {
        let run = Run::of(as_nobody(&[verb, "--data-dir"], host.temp.path()).arg(host.data_dir()));
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
        assert!(run.stderr.contains("ermission denied"), "{}", run.stderr);
    }
    std::fs::set_permissions(host.data_dir(), std::fs::Permissions::from_mode(0o700)).expect("permissions");
}
