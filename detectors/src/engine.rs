//! Runs the detectors on the bus. The only place of this crate that touches streams, disk and clock.
//!
//! Invariants worth naming:
//!
//! - **Acknowledge after sync.** An event's acknowledgement follows the sync of the alerts derived from it and from all
//!   before it. Meanwhile the detectors go on: alerts are appended without waiting, and a queue remembers which event
//!   waits for which alert.
//! - **A snapshot is written only when every alert of the events in it is on disk**, so whatever a snapshot covers
//!   needs no second look, however old the acknowledgement cursor on disk is.
//! - **After a restart** the state is the snapshot plus a silent replay up to the acknowledged sequence; from there on
//!   events are live. What was found but not acknowledged is found again, under the same id, and dropped as a duplicate
//!   by looking at what ALERTS already holds, whatever the stream's duplicate window.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bartizan_bus::event::{Alert, SecurityEvent, decode_alert, decode_event};
use bartizan_bus::{
    Bus, Consumer, ConsumerConfig, DeliverPolicy, Delivery, LogReader, OpenError, PublishError, ReadError, Record, Stream, StreamName,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::{Config, ConfigError};
use crate::panel::{Panel, Raised};
use crate::snapshot::{self, SnapshotError};
use crate::status::{EngineInfo, EngineStatus, Recovery};

/// Name of the durable consumer on EVENTS.
pub const CONSUMER: &str = "detectors";
/// Events taken from the consumer at a time.
pub(crate) const BATCH: usize = 256;
/// Alerts that may be on their way to the disk before the engine stops taking events.
const MAX_ALERTS_IN_FLIGHT: usize = 4_096;
/// Alerts of the end of ALERTS that are looked at after a restart.
const MAX_KNOWN_ALERTS: u64 = 65_536;
/// Pause before a failed publish, read or sync is tried again.
pub(crate) const RETRY: Duration = Duration::from_secs(1);
/// How long acknowledgements may stay in memory.
pub(crate) const CURSOR_INTERVAL: Duration = Duration::from_millis(500);
/// Between two looks at the sizes and counters of the detectors' state while events come; what was taken and acknowledged is told at once.
const STATE_INTERVAL: Duration = Duration::from_millis(250);
/// How long an orderly end waits for alerts to reach the disk.
const END_WAIT: Duration = Duration::from_secs(10);
/// An event is delivered again after this long without acknowledgement; the engine takes events in order and would
/// drop a second delivery anyway.
const ACK_WAIT: Duration = Duration::from_secs(3600);
/// Events delivered and not acknowledged, at most: alerts in flight hold back the events behind them.
const MAX_ACK_PENDING: usize = 1 << 20;

/// What the engine did, when it has ended in good order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineReport {
    /// Last sequence of EVENTS taken.
    pub last_seq: u64,
    /// Last sequence acknowledged.
    pub acked_seq: u64,
    /// Alerts that ALERTS took.
    pub published: u64,
    /// Alerts that were there already.
    pub duplicates: u64,
}

/// Why the engine cannot run, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The durable consumer cannot be opened.
    #[error("the detectors cannot follow EVENTS: {0}")]
    Open(#[from] OpenError),
    /// EVENTS or ALERTS cannot be read.
    #[error("the detectors cannot go on: {0}")]
    Read(#[from] ReadError),
    /// ALERTS takes nothing any more.
    #[error("the detectors cannot publish alerts: {0}")]
    Publish(#[from] PublishError),
    /// Rebuilding the state panicked.
    #[error("rebuilding the detectors' state from {path} failed: {reason}; move that file away to rebuild from events alone", path = path.display())]
    Rebuild {
        /// The snapshot's path.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
}

/// Runs every detector that `config` leaves on, until `shutdown` becomes true or its sender is gone.
///
/// `data_dir` is the folder that `bus` was opened on; the state is kept at `<data_dir>/detectors/state`. `status` is
/// kept current for `bartizan status`. Dropping the future is as safe as a crash: the next run takes up where the
/// acknowledgements on disk end.
///
/// # Errors
/// [`EngineError`]: unusable settings, a consumer that cannot be opened, streams that were closed or that a newer
/// Bartizan wrote, a disk that failed. A full disk and failed reads are waited out, counted in `status`, and not errors.
pub async fn run(
    bus: Bus,
    config: Config,
    data_dir: PathBuf,
    shutdown: watch::Receiver<bool>,
    status: EngineStatus,
) -> Result<EngineReport, EngineError> {
    config.validate()?;
    let events = bus.stream(StreamName::Events).clone();
    let alerts = bus.stream(StreamName::Alerts).clone();
    let consumer = events.consumer(CONSUMER, consumer_config())?;
    let floor = consumer.ack_floor();
    let last_seq = events.info().last_seq;

    let (rebuild_config, rebuild_dir) = (config.clone(), data_dir.clone());
    let rebuilt = tokio::task::spawn_blocking(move || rebuild(&rebuild_config, &rebuild_dir, floor, last_seq)).await;
    let (panel, taken, recovery) =
        rebuilt.map_err(|error| EngineError::Rebuild { path: snapshot::path(&data_dir), reason: error.to_string() })??;
    let known = known_alerts(&alerts, floor)?;

    {
        let mut info = status.lock();
        *info = EngineInfo { running: true, recovery, ..EngineInfo::default() };
        info.detectors = panel.status();
        info.shared = panel.shared();
        info.snapshot.seq = info.recovery.snapshot_seq;
    }
    let engine = Engine {
        panel,
        consumer,
        bus,
        alerts,
        data_dir,
        snapshot_every: config.snapshot_every_events,
        known,
        unpublished: VecDeque::new(),
        in_flight: VecDeque::new(),
        taken,
        acked: floor,
        flush_at: None,
        snapshot_at: taken,
        snapshot: SnapshotJob::Idle,
        status: status.clone(),
        state_told: None,
    };
    let ended = engine.run(shutdown).await;
    status.lock().running = false;
    ended
}

/// How the engines of this crate consume: everything, in order, with acknowledgements that may be lost.
pub(crate) fn consumer_config() -> ConsumerConfig {
    ConsumerConfig {
        deliver: DeliverPolicy::All,
        ack_wait: ACK_WAIT,
        max_deliver: None,
        max_ack_pending: MAX_ACK_PENDING,
        sync_acks: false,
    }
}

/// The state after `floor`: the snapshot, then everything after it again, silently. Returns the sequence up to which
/// the state reaches.
fn rebuild(config: &Config, data_dir: &Path, floor: u64, last_seq: u64) -> Result<(Panel, u64, Recovery), EngineError> {
    let mut recovery = Recovery { resumed_after: floor, ..Recovery::default() };
    let restored = match snapshot::load(data_dir) {
        Ok(None) if floor == 0 => None,
        Ok(None) => {
            recovery.snapshot_error = Some(format!("there is no saved state at {}", snapshot::path(data_dir).display()));
            None
        }
        Ok(Some(snapshot)) => match Panel::restore(config, &snapshot) {
            Ok(panel) => Some((panel, snapshot.seq)),
            Err(error) => {
                recovery.snapshot_error = Some(error.to_string());
                None
            }
        },
        Err(error) => {
            recovery.snapshot_error = Some(error.to_string());
            None
        }
    };
    if let Some(error) = &recovery.snapshot_error {
        tracing::warn!(%error, "the detectors' state is rebuilt from the stored events");
    }
    let (mut panel, covered) = match restored {
        Some((panel, seq)) => {
            recovery.snapshot_seq = Some(seq);
            // Beyond the end of EVENTS lies what a power cut took, or another stream altogether. Both begin anew there.
            (panel, seq.min(last_seq))
        }
        None => (Panel::new(config), 0),
    };
    if covered < floor {
        recovery.replayed = replay(data_dir, StreamName::Events, covered, floor, |record| {
            if let Ok(event) = decode_event(&record.payload) {
                panel.observe(record.seq, &event);
            }
        })?;
        recovery.missing = (floor - covered).saturating_sub(recovery.replayed);
    }
    Ok((panel, covered.max(floor), recovery))
}

/// Hands every readable record of `stream` behind `after`, up to and with `through`, to `each`; how many there were.
pub(crate) fn replay(
    data_dir: &Path,
    stream: StreamName,
    after: u64,
    through: u64,
    mut each: impl FnMut(&Record),
) -> Result<u64, ReadError> {
    let mut reader = LogReader::open(data_dir, stream)?;
    reader.seek_seq(after + 1)?;
    let mut replayed = 0;
    loop {
        match reader.next() {
            Ok(Some(record)) if record.seq <= through => {
                replayed += 1;
                each(&record);
            }
            Ok(_) => return Ok(replayed),
            Err(ReadError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The newest alerts in ALERTS that events after `floor` triggered, by message id.
fn known_alerts(alerts: &Stream, floor: u64) -> Result<HashMap<String, u64>, EngineError> {
    let info = alerts.info();
    let mut known = HashMap::new();
    let oldest = info.first_seq.max(info.last_seq.saturating_sub(MAX_KNOWN_ALERTS)).max(1);
    for seq in (oldest..=info.last_seq).rev() {
        let delivery = match alerts.get(seq) {
            Ok(Some(delivery)) => delivery,
            Ok(None) | Err(ReadError::Damaged { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        // Messages of others in this stream say nothing about the engine.
        let Ok(alert) = decode_alert(&delivery.payload) else { continue };
        if alert.trigger_seq <= floor {
            break;
        }
        known.insert(alert.msg_id(), seq);
    }
    Ok(known)
}

/// An alert that ALERTS has not taken yet.
struct Unpublished {
    event_seq: u64,
    detector: usize,
    alert: Arc<Alert>,
}

/// An alert that ALERTS took and that is not known to be on disk.
struct InFlight {
    event_seq: u64,
    alert_seq: u64,
}

/// The snapshot's way to the disk.
enum SnapshotJob {
    Idle,
    /// Made; waits until ALERTS is synced up to `alert_seq`.
    Held {
        seq: u64,
        bytes: Vec<u8>,
        alert_seq: u64,
    },
    Writing {
        seq: u64,
        size: u64,
        task: JoinHandle<Result<(), SnapshotError>>,
    },
}

struct Engine {
    panel: Panel,
    consumer: Consumer,
    bus: Bus,
    alerts: Stream,
    data_dir: PathBuf,
    snapshot_every: u64,
    known: HashMap<String, u64>,
    unpublished: VecDeque<Unpublished>,
    in_flight: VecDeque<InFlight>,
    /// Last sequence that the detectors took.
    taken: u64,
    /// Last sequence acknowledged.
    acked: u64,
    /// When the cursor is to be written.
    flush_at: Option<Instant>,
    /// Sequence of the last snapshot that was made.
    snapshot_at: u64,
    snapshot: SnapshotJob,
    status: EngineStatus,
    /// When the detectors' state was last told; `None` when it has to be told now.
    state_told: Option<Instant>,
}

/// What woke the engine.
enum Woken {
    Shutdown,
    Events(Result<Vec<Delivery>, ReadError>),
    Synced(Result<(), PublishError>),
    Retry,
    Flush,
    Snapshot(Result<(), SnapshotError>),
}

impl Engine {
    async fn run(mut self, mut shutdown: watch::Receiver<bool>) -> Result<EngineReport, EngineError> {
        self.update_status();
        loop {
            match self.wait(&mut shutdown).await {
                Woken::Shutdown => return self.end().await,
                Woken::Events(Ok(batch)) => {
                    self.take(&batch);
                    self.publish()?;
                    // A long backlog must not keep other tasks of this thread, where it has some, from running.
                    tokio::task::yield_now().await;
                }
                Woken::Events(Err(error @ (ReadError::Damaged { .. } | ReadError::Io { .. }))) => {
                    self.note_unreadable(0, &error.to_string());
                    tokio::time::sleep(RETRY).await;
                }
                Woken::Events(Err(error)) => return Err(error.into()),
                Woken::Synced(Ok(())) => {}
                Woken::Synced(Err(error)) => {
                    self.publish_failed(error)?;
                    tokio::time::sleep(RETRY).await;
                }
                Woken::Retry => self.publish()?,
                Woken::Flush => {
                    self.flush();
                    // It follows the last events, so that what is told of a quiet engine is not old.
                    self.state_told = None;
                }
                Woken::Snapshot(result) => self.snapshot_written(result),
            }
            self.acknowledge();
            self.step_snapshot();
            self.update_status();
        }
    }

    async fn wait(&mut self, shutdown: &mut watch::Receiver<bool>) -> Woken {
        let room = self.unpublished.len() + self.in_flight.len() < MAX_ALERTS_IN_FLIGHT;
        let front = self.in_flight.front().map(|alert| alert.alert_seq);
        let flush = self.flush_at.map(tokio::time::sleep_until);
        tokio::select! {
            biased;
            // An owner that is gone without a word wants the same as one that said so.
            _ = shutdown.wait_for(|stop| *stop) => Woken::Shutdown,
            result = optional(front.map(|seq| self.alerts.wait_synced(seq))) => Woken::Synced(result),
            result = optional(self.snapshot.writing()) => {
                Woken::Snapshot(result.unwrap_or_else(|error| Err(SnapshotError::Io {
                    what: "write",
                    path: snapshot::path(&self.data_dir),
                    source: std::io::Error::other(error),
                })))
            }
            () = tokio::time::sleep(RETRY), if !self.unpublished.is_empty() => Woken::Retry,
            // Before the events: under load those are always there.
            () = optional(flush) => Woken::Flush,
            result = self.consumer.fetch(BATCH), if room => Woken::Events(result),
        }
    }

    /// Hands a batch to the detectors and queues what they raise.
    fn take(&mut self, batch: &[Delivery]) {
        for delivery in batch {
            if delivery.seq <= self.taken {
                // Seen already: by the snapshot, or delivered a second time.
                continue;
            }
            self.taken = delivery.seq;
            let event = match delivery.read::<SecurityEvent>() {
                Ok(event) => event,
                Err(error) => {
                    self.note_unreadable(1, &format!("sequence {}: {error}", delivery.seq));
                    continue;
                }
            };
            for Raised { detector, alert } in self.panel.observe(delivery.seq, &event) {
                if let Some(found) = self.status.lock().detectors.get_mut(detector) {
                    found.findings += 1;
                }
                tracing::debug!(rule = alert.rule, id = %alert.id, trigger = delivery.seq, "alert");
                self.unpublished.push_back(Unpublished { event_seq: delivery.seq, detector, alert: Arc::new(alert) });
            }
        }
    }

    /// Appends what is queued, in order. What cannot be appended stays queued.
    fn publish(&mut self) -> Result<(), EngineError> {
        while let Some(next) = self.unpublished.front() {
            let known = self.known.get(&next.alert.msg_id()).copied();
            let (alert_seq, duplicate) = match known {
                Some(seq) => (seq, true),
                None => match self.bus.append(&next.alert) {
                    Ok(ack) => (ack.seq, ack.duplicate),
                    Err(error @ PublishError::TooLarge { .. }) => {
                        self.give_up(&error);
                        continue;
                    }
                    Err(error) => return self.publish_failed(error),
                },
            };
            if let Some(counted) = self.status.lock().detectors.get_mut(next.detector) {
                counted.published += u64::from(!duplicate);
                counted.duplicates += u64::from(duplicate);
            }
            self.in_flight.push_back(InFlight { event_seq: next.event_seq, alert_seq });
            self.unpublished.pop_front();
        }
        Ok(())
    }

    /// An alert that no stream would ever take must not hold up the others.
    fn give_up(&mut self, error: &PublishError) {
        let Some(Unpublished { event_seq, detector: _, alert }) = self.unpublished.pop_front() else { return };
        let alert = alert.msg_id();
        tracing::error!(%error, event_seq, alert, "an alert is larger than ALERTS takes and is given up");
        let mut info = self.status.lock();
        info.refused += 1;
        info.last_publish_error = Some(format!("alert {alert} about event {event_seq} is given up: {error}"));
    }

    /// A full disk is waited out. A stream that was closed, or whose disk failed, takes nothing until it is opened again.
    fn publish_failed(&mut self, error: PublishError) -> Result<(), EngineError> {
        match error {
            PublishError::Full { .. } => {}
            PublishError::Closed { .. } | PublishError::Io { .. } | PublishError::TooLarge { .. } => return Err(error.into()),
        }
        tracing::error!(%error, "alerts wait to be published");
        let mut info = self.status.lock();
        info.publish_retries += 1;
        info.last_publish_error = Some(error.to_string());
        Ok(())
    }

    /// Acknowledges up to the first event that still waits for an alert.
    fn acknowledge(&mut self) {
        let synced = self.alerts.synced_seq();
        while self.in_flight.front().is_some_and(|alert| alert.alert_seq <= synced) {
            self.in_flight.pop_front();
        }
        let first = self.in_flight.front().map(|alert| alert.event_seq).or(self.unpublished.front().map(|alert| alert.event_seq));
        let through = first.map_or(self.taken, |seq| seq - 1);
        if through > self.acked {
            self.consumer.ack_through(through);
            self.acked = through;
            self.flush_at.get_or_insert_with(|| Instant::now() + CURSOR_INTERVAL);
        }
    }

    fn flush(&mut self) {
        self.flush_at = None;
        if let Err(error) = self.consumer.flush_acks() {
            // Tried again after the next acknowledgement.
            tracing::warn!(%error, "the detectors' cursor cannot be written; after a crash more events would be taken again");
            self.status.lock().cursor_errors += 1;
        }
    }

    fn step_snapshot(&mut self) {
        if matches!(self.snapshot, SnapshotJob::Idle) && self.taken - self.snapshot_at >= self.snapshot_every && self.unpublished.is_empty()
        {
            self.make_snapshot();
        }
        let synced = self.alerts.synced_seq();
        self.snapshot = match std::mem::replace(&mut self.snapshot, SnapshotJob::Idle) {
            SnapshotJob::Held { seq, bytes, alert_seq } if alert_seq <= synced => {
                let data_dir = self.data_dir.clone();
                let size = bytes.len() as u64;
                SnapshotJob::Writing { seq, size, task: tokio::task::spawn_blocking(move || snapshot::store(&data_dir, &bytes)) }
            }
            other => other,
        };
    }

    fn make_snapshot(&mut self) {
        let bytes = self.panel.snapshot(self.taken).to_bytes();
        let alert_seq = self.in_flight.iter().map(|alert| alert.alert_seq).max().unwrap_or(0);
        self.snapshot_at = self.taken;
        self.snapshot = SnapshotJob::Held { seq: self.taken, bytes, alert_seq };
    }

    fn snapshot_written(&mut self, result: Result<(), SnapshotError>) {
        let SnapshotJob::Writing { seq, size, task: _ } = std::mem::replace(&mut self.snapshot, SnapshotJob::Idle) else { return };
        let mut info = self.status.lock();
        match result {
            Ok(()) => {
                info.snapshot.seq = Some(seq);
                info.snapshot.bytes = size;
                info.snapshot.written += 1;
            }
            Err(error) => {
                tracing::warn!(%error, "the detectors' state is not saved; after a restart more events are taken again");
                info.snapshot.failed += 1;
                info.snapshot.last_error = Some(error.to_string());
            }
        }
    }

    fn note_unreadable(&self, count: u64, what: &str) {
        tracing::warn!(what, "a record of EVENTS cannot be read");
        let mut info = self.status.lock();
        info.undecodable += count;
        info.first_undecodable.get_or_insert_with(|| what.to_owned());
    }

    fn update_status(&mut self) {
        let tell_state = self.state_told.is_none_or(|told| told.elapsed() >= STATE_INTERVAL);
        let mut info = self.status.lock();
        info.last_seq = self.taken;
        info.acked_seq = self.acked;
        info.alerts_waiting = self.unpublished.len() + self.in_flight.len();
        info.snapshot.events_since = self.taken.saturating_sub(info.snapshot.seq.unwrap_or(0));
        info.detectors.iter_mut().zip(self.panel.observed()).for_each(|(shown, observed)| shown.observed = observed);
        if tell_state {
            info.state_seq = self.taken;
            info.shared = self.panel.shared();
            info.detectors.iter_mut().zip(self.panel.status()).for_each(|(shown, now)| shown.state = now.state);
            drop(info);
            self.state_told = Some(Instant::now());
        }
    }

    /// The orderly end: alerts to the disk, cursor to the disk, state to the disk.
    async fn end(mut self) -> Result<EngineReport, EngineError> {
        self.publish()?;
        if let Some(last) = self.in_flight.iter().map(|alert| alert.alert_seq).max() {
            match tokio::time::timeout(END_WAIT, self.alerts.wait_synced(last)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => self.publish_failed(error)?,
                Err(_) => tracing::error!("alerts did not reach the disk in time; they are found again at the next start"),
            }
        }
        self.acknowledge();
        if let SnapshotJob::Writing { task, .. } = &mut self.snapshot {
            let result = task.await.unwrap_or_else(|error| {
                Err(SnapshotError::Io { what: "write", path: snapshot::path(&self.data_dir), source: std::io::Error::other(error) })
            });
            self.snapshot_written(result);
        }
        self.flush();
        if self.unpublished.is_empty() && self.in_flight.is_empty() {
            self.make_snapshot();
            self.step_snapshot();
            if let SnapshotJob::Writing { task, .. } = &mut self.snapshot {
                let result = task.await.unwrap_or_else(|error| {
                    Err(SnapshotError::Io { what: "write", path: snapshot::path(&self.data_dir), source: std::io::Error::other(error) })
                });
                self.snapshot_written(result);
            }
        }
        self.state_told = None;
        self.update_status();
        let info = self.status.info();
        let sum = |number: fn(&crate::status::DetectorStatus) -> u64| info.detectors.iter().map(number).sum();
        Ok(EngineReport {
            last_seq: self.taken,
            acked_seq: self.acked,
            published: sum(|detector| detector.published),
            duplicates: sum(|detector| detector.duplicates),
        })
    }
}

impl SnapshotJob {
    fn writing(&mut self) -> Option<&mut JoinHandle<Result<(), SnapshotError>>> {
        match self {
            Self::Writing { task, .. } => Some(task),
            Self::Idle | Self::Held { .. } => None,
        }
    }
}

/// Waits for `future`, or for ever when there is none.
pub(crate) async fn optional<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
