//! The engine on a real bus in a temporary folder: stopped at any point and in any way, restarted, and nothing is
//! missing and nothing is doubled.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bartizan_bus::event::{Alert, SecurityEvent, decode_alert, encode_event};
use bartizan_bus::{Bus, BusConfig, LogReader, Message, StreamName};
use proptest::prelude::*;
use tokio::sync::watch;

use crate::config::Config;
use crate::engine::{self, EngineReport};
use crate::panel::Panel;
use crate::snapshot;
use crate::status::{EngineInfo, EngineStatus};
use crate::testing::{Host, inet, pipe, tcp, tty};

/// Generous: nothing here takes a second.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

const PEER: &str = "203.0.113.9";

/// Many processes, nine alerts of all four kinds, spread out.
fn scenario() -> Vec<SecurityEvent> {
    let mut host = Host::new();
    host.seed(1, 0, "/usr/lib/systemd/systemd", &["systemd"]);
    host.seed(50, 1, "/usr/sbin/sshd", &["sshd"]);
    host.seed(100, 50, "/usr/bin/bash", &["-bash"]);
    let terminal = || [tty("pts/0"), tty("pts/0"), tty("pts/0")];
    for round in 0u16..3 {
        let pid = 1000 + u32::from(round) * 100;
        for quiet in 0..4 {
            host.fork(100, pid + quiet);
            host.exec_with(pid + quiet, "/usr/bin/ls", &["ls"], &terminal(), None);
            host.exit(pid + quiet);
        }
        let direct = tcp(41_000 + round, PEER, 4444);
        host.fork(100, pid + 10);
        host.connect(pid + 10, direct);
        host.exec_with(pid + 10, "/usr/bin/bash", &["bash", "-i"], &[inet(direct), inet(direct), inet(direct)], None);
        let relayed = tcp(42_000 + round, PEER, 5555);
        host.fork(100, pid + 20);
        host.exec(pid + 20, "/usr/bin/python3", &["python3", "-c", "pty"]);
        host.connect(pid + 20, relayed);
        host.fork(pid + 20, pid + 21);
        let relay = host.relay(pid + 20, &[0, 1, 2], &[relayed]);
        host.exec_with(pid + 21, "/usr/bin/bash", &["bash"], &[tty("pts/7"), tty("pts/7"), tty("pts/7")], relay);
        let first = u64::from(round) * 10;
        host.fork(100, pid + 30);
        host.fork(100, pid + 31);
        host.exec_with(pid + 30, "/bin/sh", &["sh"], &[pipe(first + 1), pipe(first + 2), pipe(first + 2)], None);
        host.exec_with(pid + 31, "/usr/bin/openssl", &["openssl"], &[pipe(first + 2), pipe(first + 1), tty("pts/0")], None);
        host.heartbeat();
        host.connect(pid + 31, tcp(43_000 + round, PEER, 6666));
    }
    host.take()
}

fn config() -> Config {
    Config { snapshot_every_events: 7, ..Config::default() }
}

/// What the detectors say without any bus.
fn expected(events: &[SecurityEvent]) -> Vec<Alert> {
    let mut panel = Panel::new(&config());
    let numbered = events.iter().zip(1..);
    numbered.flat_map(|(event, seq)| panel.observe(seq, event)).map(|raised| raised.alert).collect()
}

fn publish(bus: &Bus, events: &[SecurityEvent]) {
    let messages = events
        .iter()
        .map(|event| Message { subject: event.subject(), msg_id: None, time_ns: event.time.wall_ns, payload: encode_event(event).into() })
        .collect();
    bus.stream(StreamName::Events).append_batch(messages).expect("room for events");
}

fn published(dir: &Path) -> Vec<Alert> {
    let mut reader = LogReader::open(dir, StreamName::Alerts).expect("ALERTS");
    let mut alerts = Vec::new();
    while let Some(record) = reader.next().expect("readable") {
        alerts.push(decode_alert(&record.payload).expect("an alert"));
    }
    alerts
}

async fn until(status: &EngineStatus, reached: impl Fn(&EngineInfo) -> bool) {
    let waiting = async {
        while !reached(&status.info()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect("the engine gets there");
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// As told.
    Orderly,
    /// The task is dropped where it stands.
    Dropped,
    /// The same, and the cursor on disk is what it was at the start of the run.
    OldCursor,
    /// The same, and the snapshot is gone.
    NoSnapshot,
    /// The same, and the snapshot is damaged.
    DamagedSnapshot,
    /// Cursor and snapshot are what they were at the start of the run.
    OldBoth,
}

/// Runs the engine on `dir` until it has taken `through`, and ends it in the given way.
async fn run_until(dir: &Path, more: &[SecurityEvent], through: u64, end: End) -> EngineInfo {
    let cursors = tempfile::tempdir().expect("temporary folder");
    copy(&dir.join("consumers"), &cursors.path().join("consumers"));
    let state = fs::read(snapshot::path(dir)).ok();

    let bus = Bus::open(dir, &BusConfig::default()).expect("the folder opens");
    publish(&bus, more);
    let (stop, stopping) = watch::channel(false);
    let status = EngineStatus::new();
    let engine = tokio::spawn(engine::run(bus.clone(), config(), dir.to_owned(), stopping, status.clone()));
    until(&status, |info| info.last_seq >= through).await;
    if end == End::Orderly {
        stop.send(true).expect("the engine runs");
        let report: EngineReport = engine.await.expect("no panic").expect("an orderly end");
        assert_eq!(report.last_seq, report.acked_seq);
    } else {
        engine.abort();
        assert!(engine.await.expect_err("aborted").is_cancelled());
    }
    bus.close().expect("the bus closes");
    drop(bus);
    if matches!(end, End::OldCursor | End::OldBoth) {
        fs::remove_dir_all(dir.join("consumers")).expect("removable");
        copy(&cursors.path().join("consumers"), &dir.join("consumers"));
    }
    match (end, state) {
        (End::NoSnapshot, _) | (End::OldBoth, None) => drop(fs::remove_file(snapshot::path(dir))),
        (End::OldBoth, Some(state)) => fs::write(snapshot::path(dir), state).expect("writable"),
        (End::DamagedSnapshot, _) if snapshot::path(dir).exists() => fs::write(snapshot::path(dir), "damaged").expect("writable"),
        _ => {}
    }
    status.info()
}

/// Copies a folder of folders of files; nothing when it is not there.
pub(crate) fn copy(from: &Path, to: &Path) {
    let Ok(entries) = fs::read_dir(from) else { return };
    fs::create_dir_all(to).expect("creatable");
    for entry in entries {
        let entry = entry.expect("listable");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copyable");
        }
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// What is told of the state is not told after each batch, but once nothing more comes it is of the last event.
#[test]
fn a_quiet_engine_s_state_is_told_as_it_is() {
    let (dir, events) = (tempfile::tempdir().expect("temporary folder"), scenario());
    let (first, second) = events.split_at(events.len() / 2);
    let mut panel = Panel::new(&config());
    events.iter().zip(1..).for_each(|(event, seq)| drop(panel.observe(seq, event)));
    let info = runtime().block_on(async {
        let bus = Bus::open(dir.path(), &BusConfig::default()).expect("the folder opens");
        let (stop, stopping) = watch::channel(false);
        let status = EngineStatus::new();
        let engine = tokio::spawn(engine::run(bus.clone(), config(), dir.path().to_owned(), stopping, status.clone()));
        publish(&bus, first);
        until(&status, |info| info.state_seq >= first.len() as u64).await;
        publish(&bus, second);
        until(&status, |info| info.state_seq >= events.len() as u64).await;
        let info = status.info();
        stop.send(true).expect("the engine runs");
        engine.await.expect("no panic").expect("an orderly end");
        info
    });
    assert_eq!(info.shared, panel.shared());
    let states = |told: &[crate::status::DetectorStatus]| told.iter().map(|detector| detector.state.clone()).collect::<Vec<_>>();
    assert_eq!(states(&info.detectors), states(&panel.status()));
}

#[test]
fn an_orderly_run_publishes_acknowledges_and_saves() {
    let events = scenario();
    let alerts = expected(&events);
    assert_eq!(alerts.len(), 9);
    let dir = tempfile::tempdir().expect("temporary folder");
    let last = events.len() as u64;
    runtime().block_on(async {
        let info = run_until(dir.path(), &events, last, End::Orderly).await;
        assert!(!info.running);
        assert_eq!((info.last_seq, info.acked_seq, info.alerts_waiting, info.undecodable), (last, last, 0, 0));
        assert_eq!((info.detectors[0].findings, info.detectors[0].published, info.detectors[0].duplicates), (9, 9, 0));
        assert_eq!(info.snapshot.seq, Some(last));
        assert_eq!(info.detectors[0].observed, last);

        // The next start takes up exactly there.
        let again = run_until(dir.path(), &[], last, End::Orderly).await;
        assert_eq!(again.recovery.snapshot_seq, Some(last));
        assert_eq!((again.recovery.replayed, again.recovery.missing, again.detectors[0].findings), (0, 0, 0));
    });
    assert_eq!(published(dir.path()), alerts);
}

#[test]
fn a_lost_snapshot_is_named_and_rebuilt_without_repeating_an_alert() {
    let events = scenario();
    let dir = tempfile::tempdir().expect("temporary folder");
    let last = events.len() as u64;
    for (end, word) in [(End::NoSnapshot, "no saved state"), (End::DamagedSnapshot, "damaged")] {
        runtime().block_on(async {
            let more = if end == End::NoSnapshot { &events[..] } else { &[] };
            run_until(dir.path(), more, last, End::Orderly).await;
            run_until(dir.path(), &[], last, end).await;
            let info = run_until(dir.path(), &[], last, End::Orderly).await;
            assert!(info.recovery.snapshot_error.as_deref().is_some_and(|error| error.contains(word)), "{:?}", info.recovery);
            assert_eq!((info.recovery.replayed, info.detectors[0].findings), (last, 0));
        });
    }
    assert_eq!(published(dir.path()), expected(&events));
}

#[test]
fn what_a_snapshot_covers_is_not_taken_twice_when_the_cursor_is_lost() {
    let events = scenario();
    let dir = tempfile::tempdir().expect("temporary folder");
    let last = events.len() as u64;
    runtime().block_on(async {
        run_until(dir.path(), &events, last, End::Orderly).await;
        fs::remove_dir_all(dir.path().join("consumers")).expect("removable");
        let info = run_until(dir.path(), &[], last, End::Orderly).await;
        assert_eq!((info.recovery.resumed_after, info.recovery.snapshot_seq), (0, Some(last)));
        assert_eq!((info.detectors[0].observed, info.acked_seq), (0, last));
    });
    assert_eq!(published(dir.path()), expected(&events));
}

#[test]
fn a_record_that_is_no_event_is_counted_and_passed() {
    let events = scenario();
    let dir = tempfile::tempdir().expect("temporary folder");
    {
        let bus = Bus::open(dir.path(), &BusConfig::default()).expect("the folder opens");
        let subject = events[0].subject();
        bus.stream(StreamName::Events).append(Message { subject, msg_id: None, time_ns: 0, payload: "no event".into() }).expect("room");
        bus.close().expect("the bus closes");
    }
    let last = events.len() as u64 + 1;
    let info = runtime().block_on(run_until(dir.path(), &events, last, End::Orderly));
    assert_eq!((info.undecodable, info.acked_seq), (1, last));
    assert!(info.first_undecodable.is_some_and(|first| first.contains("sequence 1")));
    assert_eq!(published(dir.path()).len(), 9);
}

#[test]
fn an_alert_that_no_stream_takes_is_given_up_counted_and_holds_up_nothing() {
    let mut host = Host::new();
    host.seed(1, 0, "/usr/lib/systemd/systemd", &["systemd"]);
    // The event just fits into a message of 8 MiB; the alert says the same of the process, and more.
    let endless = format!("/{}/bash", "x".repeat((8 << 20) - 1000));
    for (pid, exe) in [(10, endless.as_str()), (20, "/usr/bin/bash")] {
        let socket = tcp(40_000 + u16::try_from(pid).expect("small"), PEER, 4444);
        host.seed(pid, 1, "/usr/bin/ls", &["ls"]);
        host.exec_as(pid, exe, "/bin/bash", &["bash", "-i"], &[inet(socket), inet(socket), inet(socket)], None);
    }
    let events = host.take();
    let dir = tempfile::tempdir().expect("temporary folder");
    let last = events.len() as u64;
    let info = runtime().block_on(run_until(dir.path(), &events, last, End::Orderly));
    assert_eq!((info.refused, info.detectors[0].findings, info.detectors[0].published), (1, 2, 1));
    assert_eq!((info.acked_seq, info.alerts_waiting), (last, 0));
    assert!(info.last_publish_error.as_deref().is_some_and(|error| error.contains("about event 3")), "{:?}", info.last_publish_error);
    assert_eq!(serde_json::to_value(&info).expect("JSON")["refused"], 1);
    assert_eq!(published(dir.path()).len(), 1);
}

#[test]
fn settings_that_cannot_be_used_are_refused() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let bus = Bus::open(dir.path(), &BusConfig::default()).expect("the folder opens");
    let (_stop, stopping) = watch::channel(false);
    let config = Config { max_processes: 0, ..Config::default() };
    let ended = runtime().block_on(engine::run(bus, config, dir.path().to_owned(), stopping, EngineStatus::new()));
    assert!(ended.expect_err("refused").to_string().contains("detectors.max_processes"));
}

fn ends() -> impl Strategy<Value = End> {
    prop_oneof![
        Just(End::Orderly),
        Just(End::Dropped),
        Just(End::OldCursor),
        Just(End::NoSnapshot),
        Just(End::DamagedSnapshot),
        Just(End::OldBoth),
    ]
}

proptest! {
    // Each case opens the bus several times, and each open and close syncs.
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Events arrive in pieces; the engine is stopped after an arbitrary part of each, in an arbitrary way.
    #[test]
    fn whatever_stops_it_no_alert_is_missing_and_none_is_doubled(
        runs in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), ends()), 1..5)
    ) {
        let events = scenario();
        let dir = tempfile::tempdir().expect("temporary folder");
        let runtime = runtime();
        let mut given = 0;
        for (piece, through, end) in runs {
            let upto = given + piece.index(events.len() - given + 1);
            let through = through.index(upto + 1) as u64;
            runtime.block_on(run_until(dir.path(), &events[given..upto], through, end));
            given = upto;
        }
        runtime.block_on(run_until(dir.path(), &events[given..], events.len() as u64, End::Orderly));
        prop_assert_eq!(published(dir.path()), expected(&events));
    }
}
