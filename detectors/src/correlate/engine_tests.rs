//! Correlation on a real bus in a temporary folder: stopped between and within any two steps, restarted, and every match is there once.

use std::fs;
use std::path::Path;
use std::time::Duration;

use bartizan_bus::event::{Alert, PatternMatch, SecurityEvent, decode_match, encode_alert, encode_event};
use bartizan_bus::{Bus, BusConfig, LogReader, Message, StreamName};
use proptest::prelude::*;
use tokio::sync::watch;

use super::config::CorrelateConfig;
use super::engine::{self, CorrelateInfo, CorrelateStatus};
use super::sequence::Correlator;
use crate::config::Config;
use crate::engine_tests::{DEADLINE, copy, runtime};
use crate::status::EngineStatus;
use crate::testing::{Chain, chain, login_id};

/// How often the story happens.
const ROUNDS: u64 = 4;

/// The alerts of several whole stories, each of a login of its own, one after the other.
fn stories() -> Vec<Alert> {
    let one = chain(Chain::Whole).1;
    let of_round = |round: u64| {
        one.iter().cloned().map(move |mut alert| {
            alert.id.0[0] ^= u8::try_from(round).expect("few");
            alert.login = alert.login.map(|_| login_id(1_000 + round));
            alert.trigger_seq += 10_000 * round;
            alert
        })
    };
    (0..ROUNDS).flat_map(of_round).collect()
}

fn expected(alerts: &[Alert]) -> Vec<PatternMatch> {
    let mut correlator = Correlator::new(&CorrelateConfig::default());
    alerts.iter().zip(1..).flat_map(|(alert, seq)| correlator.observe(seq, alert)).collect()
}

fn published(dir: &Path) -> Vec<PatternMatch> {
    let mut reader = LogReader::open(dir, StreamName::Matches).expect("MATCHES");
    let mut matches = Vec::new();
    while let Some(record) = reader.next().expect("readable") {
        let found = decode_match(&record.payload).expect("a match");
        assert_eq!((record.subject.as_str(), record.msg_id), ("sec.matches.correlate.brute_force_to_shell", Some(found.msg_id())));
        matches.push(found);
    }
    matches
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
    /// The same, and there is no cursor any more.
    NoCursor,
}

/// Publishes `more`, correlates until `through` of ALERTS is taken (0: as long as it takes to start), and ends in the given way.
async fn run_until(dir: &Path, more: &[Alert], through: u64, end: End) -> CorrelateInfo {
    let cursors = tempfile::tempdir().expect("temporary folder");
    copy(&dir.join("consumers"), &cursors.path().join("consumers"));
    let bus = Bus::open(dir, &BusConfig::default()).expect("the folder opens");
    let message = |alert: &Alert| Message {
        subject: alert.subject(),
        msg_id: Some(alert.msg_id()),
        time_ns: alert.time.wall_ns,
        payload: encode_alert(alert).into(),
    };
    bus.stream(StreamName::Alerts).append_batch(more.iter().map(message).collect()).expect("room for alerts");
    let (stop, stopping) = watch::channel(false);
    let status = CorrelateStatus::default();
    let running = tokio::spawn(engine::run(bus.clone(), CorrelateConfig::default(), dir.to_owned(), stopping, status.clone()));
    let there = async {
        while status.info().last_seq < through {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(DEADLINE, there).await.expect("correlation gets there");
    if end == End::Orderly {
        stop.send(true).expect("it runs");
        running.await.expect("no panic").expect("an orderly end");
    } else {
        running.abort();
        // It may have got to the end of something before it was dropped, but never by itself to its own.
        assert!(running.await.expect_err("aborted").is_cancelled());
    }
    bus.close().expect("the bus closes");
    drop(bus);
    if matches!(end, End::OldCursor | End::NoCursor) {
        fs::remove_dir_all(dir.join("consumers")).expect("removable");
    }
    if end == End::OldCursor {
        copy(&cursors.path().join("consumers"), &dir.join("consumers"));
    }
    status.info()
}

#[test]
fn an_orderly_run_publishes_each_story_once_and_takes_up_where_it_ended() {
    let alerts = stories();
    let matches = expected(&alerts);
    assert_eq!(matches.len() as u64, ROUNDS);
    let last = alerts.len() as u64;
    let dir = tempfile::tempdir().expect("temporary folder");
    runtime().block_on(async {
        let info = run_until(dir.path(), &alerts, last, End::Orderly).await;
        assert_eq!((info.last_seq, info.acked_seq, info.published, info.duplicates), (last, last, ROUNDS, 0));
        assert!(!info.running);
        let info = run_until(dir.path(), &[], last, End::Orderly).await;
        assert_eq!((info.replayed, info.published, info.state.counters["matches"]), (last, 0, ROUNDS));
    });
    assert_eq!(published(dir.path()), matches);
}

#[test]
fn a_match_whose_alert_was_not_acknowledged_is_found_again_and_dropped() {
    let alerts = stories();
    let last = alerts.len() as u64;
    let dir = tempfile::tempdir().expect("temporary folder");
    for end in [End::OldCursor, End::NoCursor] {
        runtime().block_on(async {
            let more = if end == End::OldCursor { &alerts[..] } else { &[] };
            run_until(dir.path(), more, last, end).await;
            let info = run_until(dir.path(), &[], last, End::Orderly).await;
            assert_eq!((info.published, info.duplicates), (0, ROUNDS), "{end:?}");
        });
    }
    assert_eq!(published(dir.path()), expected(&alerts));
}

#[test]
fn a_record_that_is_no_alert_is_counted_and_passed() {
    let dir = tempfile::tempdir().expect("temporary folder");
    {
        let bus = Bus::open(dir.path(), &BusConfig::default()).expect("the folder opens");
        let subject = "sec.alerts.high.foreign".parse().expect("subject");
        bus.stream(StreamName::Alerts).append(Message { subject, msg_id: None, time_ns: 0, payload: "no alert".into() }).expect("room");
        bus.close().expect("the bus closes");
    }
    let alerts = stories();
    let last = alerts.len() as u64 + 1;
    let info = runtime().block_on(run_until(dir.path(), &alerts, last, End::Orderly));
    assert_eq!((info.undecodable, info.acked_seq, info.published), (1, last, ROUNDS));
    assert!(info.first_undecodable.is_some_and(|first| first.contains("sequence 1")));
}

#[test]
fn settings_that_cannot_be_used_are_refused() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let bus = Bus::open(dir.path(), &BusConfig::default()).expect("the folder opens");
    let (_stop, stopping) = watch::channel(false);
    let config = CorrelateConfig { max_alerts: 1, ..CorrelateConfig::default() };
    let ended = runtime().block_on(engine::run(bus, config, dir.path().to_owned(), stopping, CorrelateStatus::default()));
    assert!(ended.expect_err("refused").to_string().contains("detectors.correlate.max_alerts"));
}

/// Runs detectors and correlation on one bus until the detectors have taken `through` of EVENTS, and ends both; when they are not killed,
/// not before everything is judged.
async fn run_both(dir: &Path, more: &[SecurityEvent], through: u64, kill: bool) {
    let bus = Bus::open(dir, &BusConfig::default()).expect("the folder opens");
    let message = |event: &SecurityEvent| Message {
        subject: event.subject(),
        msg_id: None,
        time_ns: event.time.wall_ns,
        payload: encode_event(event).into(),
    };
    bus.stream(StreamName::Events).append_batch(more.iter().map(message).collect()).expect("room for events");
    let (stop, stopping) = watch::channel(false);
    let (judging, joining) = (EngineStatus::new(), CorrelateStatus::default());
    let detectors = tokio::spawn(crate::engine::run(bus.clone(), Config::default(), dir.to_owned(), stopping.clone(), judging.clone()));
    let correlation = tokio::spawn(engine::run(bus.clone(), CorrelateConfig::default(), dir.to_owned(), stopping, joining.clone()));
    let there = async {
        let judged = || if kill { judging.info().last_seq >= through } else { judging.info().acked_seq >= through };
        let joined = || kill || joining.info().acked_seq >= bus.stream(StreamName::Alerts).info().last_seq;
        while !(judged() && joined()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(DEADLINE, there).await.expect("both get there");
    if kill {
        detectors.abort();
        correlation.abort();
        let (detectors, correlation) = (detectors.await, correlation.await);
        assert!(detectors.is_err() && correlation.is_err(), "both were dropped");
    } else {
        stop.send(true).expect("both run");
        detectors.await.expect("no panic").expect("an orderly end");
        correlation.await.expect("no panic").expect("an orderly end");
    }
    bus.close().expect("the bus closes");
}

fn ends() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Orderly), Just(End::Dropped), Just(End::OldCursor), Just(End::NoCursor)]
}

proptest! {
    // Each case opens the bus several times, and each open and close syncs.
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Alerts arrive in pieces, so that the end comes between any two steps; the engine is stopped after an arbitrary part of each.
    #[test]
    fn whatever_stops_it_no_match_is_missing_and_none_is_doubled(
        runs in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), ends()), 1..6)
    ) {
        let alerts = stories();
        let dir = tempfile::tempdir().expect("temporary folder");
        let runtime = runtime();
        let mut given = 0;
        for (piece, through, end) in runs {
            let upto = given + piece.index(alerts.len() - given + 1);
            let through = through.index(upto + 1) as u64;
            runtime.block_on(run_until(dir.path(), &alerts[given..upto], through, end));
            given = upto;
        }
        runtime.block_on(run_until(dir.path(), &alerts[given..], alerts.len() as u64, End::Orderly));
        prop_assert_eq!(published(dir.path()), expected(&alerts));
    }

    /// From events to the match, with an end between any two of them: what an unbroken run says, once.
    #[test]
    fn an_end_between_any_two_steps_changes_nothing(cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4)) {
        let (events, alerts) = chain(Chain::Whole);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.index(events.len())).collect();
        cuts.sort_unstable();
        let dir = tempfile::tempdir().expect("temporary folder");
        let runtime = runtime();
        let mut given = 0;
        for cut in cuts {
            runtime.block_on(run_both(dir.path(), &events[given..cut], cut as u64, true));
            given = cut;
        }
        runtime.block_on(run_both(dir.path(), &events[given..], events.len() as u64, false));
        let matches = published(dir.path());
        prop_assert_eq!(matches.len(), 1);
        prop_assert_eq!(matches, expected(&alerts));
    }
}
