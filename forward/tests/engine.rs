//! The engine against a sink that does what a script says.

mod common;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_bus::event::Severity;
use bartizan_bus::{Bus, Message, StreamName};
use bartizan_forward::{
    Description, Engine, EngineError, EngineOptions, Item, Rejected, Sink, SinkCounts, SinkError, SinkName, SinkState, Start,
};
use tokio::sync::watch;

use common::{alert, message, open_bus, publish, until};

/// What the sink does with the next calls.
#[derive(Debug)]
enum Step {
    /// `open` fails.
    RefuseOpen(SinkError),
    /// `send` fails once the item with this sequence is in the batch; nothing of the batch is taken.
    FailAt(u64, SinkError),
    /// Confirms nothing, then ends the session when the item with this sequence was sent.
    LoseAfter(u64),
}

#[derive(Debug, Default)]
struct Log {
    opened: u32,
    /// Sequences as handed over, per session.
    sessions: Vec<Vec<u64>>,
    steps: VecDeque<Step>,
    /// Confirm nothing while true.
    silent: bool,
}

#[derive(Debug, Clone, Default)]
struct Script(Arc<Mutex<Log>>);

#[derive(Debug)]
struct ScriptedSink {
    script: Script,
    unconfirmed: Vec<u64>,
}

impl Script {
    fn with(steps: impl IntoIterator<Item = Step>) -> Self {
        Self(Arc::new(Mutex::new(Log { steps: steps.into_iter().collect(), ..Log::default() })))
    }

    fn sink(&self) -> ScriptedSink {
        ScriptedSink { script: self.clone(), unconfirmed: Vec::new() }
    }

    fn sessions(&self) -> Vec<Vec<u64>> {
        self.0.lock().unwrap().sessions.clone()
    }
}

impl Sink for ScriptedSink {
    fn describe(&self) -> Description {
        Description { kind: "script", address: "nowhere".to_owned() }
    }

    fn counts(&self) -> SinkCounts {
        SinkCounts::default()
    }

    fn warning(&self) -> Option<String> {
        None
    }

    async fn open(&mut self) -> Result<(), SinkError> {
        self.unconfirmed.clear();
        let mut log = self.script.0.lock().unwrap();
        log.opened += 1;
        if let Some(Step::RefuseOpen(_)) = log.steps.front()
            && let Some(Step::RefuseOpen(error)) = log.steps.pop_front()
        {
            return Err(error);
        }
        log.sessions.push(Vec::new());
        Ok(())
    }

    async fn send(&mut self, items: &[Arc<Item>]) -> Result<(), SinkError> {
        let mut log = self.script.0.lock().unwrap();
        if let Some(Step::FailAt(at, _)) = log.steps.front()
            && items.iter().any(|item| item.seq == *at)
            && let Some(Step::FailAt(_, error)) = log.steps.pop_front()
        {
            return Err(error);
        }
        for item in items {
            self.unconfirmed.push(item.seq);
            log.sessions.last_mut().unwrap().push(item.seq);
        }
        Ok(())
    }

    async fn confirmed(&mut self) -> Result<Vec<u64>, SinkError> {
        loop {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let mut log = self.script.0.lock().unwrap();
            match log.steps.front() {
                Some(Step::LoseAfter(seq)) if self.unconfirmed.contains(seq) => {
                    log.steps.pop_front();
                    return Err(SinkError::retry("script: the session is lost"));
                }
                Some(Step::LoseAfter(_)) => {}
                _ if log.silent || self.unconfirmed.is_empty() => {}
                _ => return Ok(self.unconfirmed.drain(..).rev().collect()),
            }
        }
    }

    async fn close(&mut self) {}
}

fn options() -> EngineOptions {
    EngineOptions {
        name: SinkName::try_from("siem".to_owned()).unwrap(),
        min_severity: Severity::Info,
        start: Start::All,
        retry_min: Duration::from_millis(5),
        retry_max: Duration::from_millis(20),
        retry_config: Duration::from_secs(300),
        drain: Duration::from_secs(60),
        seed: 1,
    }
}

fn engine(bus: &Bus, script: &Script, options: EngineOptions) -> Engine<ScriptedSink> {
    Engine::new(bus.stream(StreamName::Alerts).clone(), script.sink(), options).unwrap()
}

#[tokio::test]
async fn alerts_arrive_in_order_and_the_cursor_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let script = Script::default();
    for round in 0..3_u64 {
        let bus = open_bus(dir.path()).await;
        let last = publish(&bus, round * 100 + 1..=round * 100 + 100);
        let engine = engine(&bus, &script, options());
        let status = engine.status();
        assert_eq!(status.snapshot().cursor, round * 100);
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(engine.run(stopped));
        let now = until(&status, "everything confirmed", |now| now.cursor == last).await;
        assert_eq!((now.lag, now.confirmed, now.sent, now.resent, now.in_flight), (0, 100, 100, 0, 0));
        assert_eq!(now.state, SinkState::Connected);
        stop.send_replace(true);
        running.await.unwrap().unwrap();
        assert_eq!(status.snapshot().state, SinkState::Stopped);
        drop(status);
        bus.close().unwrap();
    }
    let rounds: Vec<Vec<u64>> = (0..3).map(|round| (round * 100 + 1..=round * 100 + 100).collect()).collect();
    assert_eq!(script.sessions(), rounds);
}

#[tokio::test]
async fn what_a_lost_session_did_not_confirm_is_sent_again_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open_bus(dir.path()).await;
    let last = publish(&bus, 1..=300);
    let script = Script::with([Step::RefuseOpen(SinkError::retry("script: down")), Step::LoseAfter(130), Step::LoseAfter(130)]);
    let engine = engine(&bus, &script, options());
    let status = engine.status();
    let (_stop, stopped) = watch::channel(false);
    let running = tokio::spawn(engine.run(stopped));
    let now = until(&status, "everything confirmed", |now| now.cursor == last).await;
    running.abort();
    assert_eq!(now.confirmed, 300);
    assert!(now.resent >= 260, "two lost sessions with 130 alerts each at least: {now:?}");
    assert!(now.last_error.unwrap().contains("lost"));
    let sessions = script.sessions();
    assert_eq!(sessions.len(), 3);
    for session in &sessions {
        assert!(session.iter().copied().eq(1..=session.len() as u64), "{session:?}");
    }
    assert_eq!(sessions[2].len(), 300);
}

#[tokio::test]
async fn the_cursor_never_passes_an_unconfirmed_alert() {
    let dir = tempfile::tempdir().unwrap();
    let script = Script::default();
    script.0.lock().unwrap().silent = true;
    {
        let bus = open_bus(dir.path()).await;
        publish(&bus, 1..=50);
        let engine = engine(&bus, &script, options());
        let status = engine.status();
        let (_stop, stopped) = watch::channel(false);
        let running = tokio::spawn(engine.run(stopped));
        let now = until(&status, "everything sent", |now| now.sent == 50).await;
        assert_eq!((now.cursor, now.lag, now.in_flight, now.confirmed), (0, 50, 50, 0));
        // The crash: no drain, no flush.
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
    }
    script.0.lock().unwrap().silent = false;
    let bus = open_bus(dir.path()).await;
    let engine = engine(&bus, &script, options());
    let status = engine.status();
    let (_stop, stopped) = watch::channel(false);
    let running = tokio::spawn(engine.run(stopped));
    until(&status, "everything confirmed", |now| now.cursor == 50).await;
    running.abort();
    let whole: Vec<u64> = (1..=50).collect();
    assert_eq!(script.sessions(), vec![whole.clone(), whole]);
}

#[tokio::test]
async fn undecodable_and_refused_alerts_are_stepped_over_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open_bus(dir.path()).await;
    publish(&bus, 1..=2);
    let bad = Message { msg_id: Some("bad/1".to_owned()), payload: vec![1, 0xff].into(), ..message(&alert(3)) };
    bus.stream(StreamName::Alerts).append(bad).unwrap();
    let newer = Message { msg_id: Some("newer/1".to_owned()), payload: vec![200, 0xa0].into(), ..message(&alert(4)) };
    bus.stream(StreamName::Alerts).append(newer).unwrap();
    publish(&bus, 5..=8);
    let poison = SinkError::Poison { items: vec![Rejected { seq: 6, reason: "script: too odd".to_owned() }] };
    let script = Script::with([Step::FailAt(6, poison)]);
    let engine = engine(&bus, &script, options());
    let status = engine.status();
    let (_stop, stopped) = watch::channel(false);
    let running = tokio::spawn(engine.run(stopped));
    let now = until(&status, "everything settled", |now| now.cursor == 8).await;
    running.abort();
    assert_eq!((now.undecodable, now.refused, now.confirmed), (2, 1, 5));
    let named: Vec<(u64, Option<&str>)> = now.poison.iter().map(|poison| (poison.seq, poison.id.as_deref())).collect();
    assert_eq!(named, [(3, Some("bad/1")), (4, Some("newer/1")), (6, Some(alert(6).msg_id().as_str()))]);
    assert!(now.poison[1].reason.contains("newer"), "{:?}", now.poison[1]);
    assert_eq!(script.sessions().last().unwrap(), &[1, 2, 5, 7, 8]);
    assert!(bus.stream(StreamName::Alerts).get(3).unwrap().is_some(), "it stays in ALERTS");
}

#[tokio::test]
async fn severity_and_start_are_honoured() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open_bus(dir.path()).await;
    publish(&bus, 1..=10);
    let script = Script::default();
    let engine = engine(&bus, &script, EngineOptions { start: Start::New, min_severity: Severity::High, ..options() });
    let status = engine.status();
    // Published before `run`: the sink begins where it was made.
    let last = publish(&bus, 11..=18);
    let (_stop, stopped) = watch::channel(false);
    let running = tokio::spawn(engine.run(stopped));
    let now = until(&status, "everything settled", |now| now.cursor == last).await;
    running.abort();
    // `common::alert` numbers n % 4: low, medium, high, critical.
    assert_eq!(script.sessions(), [[11, 14, 15, 18]]);
    assert_eq!((now.below_min_severity, now.confirmed, now.lag), (4, 4, 0));
}

#[tokio::test]
async fn a_stop_delivers_what_is_stored_and_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open_bus(dir.path()).await;
    publish(&bus, 1..=200);
    let script = Script::default();
    let first = engine(&bus, &script, options());
    let status = first.status();
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(first.run(stopped));
    until(&status, "a session", |now| now.state == SinkState::Connected).await;
    stop.send_replace(true);
    running.await.unwrap().unwrap();
    let now = status.snapshot();
    assert_eq!((now.state, now.cursor, now.lag), (SinkState::Stopped, 200, 0));

    // A receiver that confirms nothing holds the stop up no longer than `drain`.
    publish(&bus, 201..=210);
    script.0.lock().unwrap().silent = true;
    let second = engine(&bus, &script, EngineOptions { drain: Duration::from_millis(50), ..options() });
    let status = second.status();
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(second.run(stopped));
    until(&status, "everything sent", |now| now.sent == 10).await;
    stop.send_replace(true);
    tokio::time::timeout(common::DEADLINE, running).await.expect("the stop is bounded").unwrap().unwrap();
    assert_eq!(status.snapshot().cursor, 200);
}

#[tokio::test]
async fn a_fatal_error_ends_the_engine_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open_bus(dir.path()).await;
    let script = Script::with([Step::RefuseOpen(SinkError::Fatal { reason: "script: no more".to_owned() })]);
    let engine = engine(&bus, &script, options());
    let status = engine.status();
    let (_stop, stopped) = watch::channel(false);
    let error = engine.run(stopped).await.unwrap_err();
    assert!(matches!(error, EngineError::Fatal { .. }));
    assert!(error.to_string().contains("script: no more"), "{error}");
    assert_eq!(status.snapshot().state, SinkState::Failed);
}

#[tokio::test]
async fn errors_of_each_class_show_in_the_status() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        (SinkError::Throttled { after: Duration::from_secs(3600), reason: "script: slow down".to_owned() }, SinkState::Throttled),
        (SinkError::Config { reason: "script: wrong token".to_owned() }, SinkState::Misconfigured),
        (SinkError::Retry { after: Some(Duration::from_secs(3600)), reason: "script: later".to_owned() }, SinkState::Retrying),
        (SinkError::Poison { items: Vec::new() }, SinkState::Retrying),
    ];
    let bus = open_bus(dir.path()).await;
    for (error, state) in cases {
        let reason = error.to_string();
        let script = Script::with([Step::RefuseOpen(error)]);
        let hour = Duration::from_secs(3600);
        let engine = engine(&bus, &script, EngineOptions { retry_min: hour, retry_max: hour, ..options() });
        let status = engine.status();
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn(engine.run(stopped));
        let now = until(&status, "the pause", |now| now.next_retry.is_some()).await;
        assert_eq!((now.state, now.last_error, now.failed_attempts), (state, Some(reason), 1));
        // Asked to stop in the middle of the pause, it stops.
        stop.send_replace(true);
        running.await.unwrap().unwrap();
    }
}
