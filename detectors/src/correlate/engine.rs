//! Runs correlation on the bus: the durable consumer `correlate` on ALERTS, publishing to MATCHES.
//!
//! Invariants worth naming:
//!
//! - **An alert is acknowledged when the matches that it completed are on disk.** Matches are rare, so that each is waited for.
//! - **The state is what the stored alerts say.** There is no snapshot: a start takes every alert of ALERTS up to the acknowledged
//!   sequence again, silently, and goes on live from there. What was found and not acknowledged is found again under the same id, and
//!   dropped as a duplicate by looking at what MATCHES already holds.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bartizan_bus::event::{Alert, PatternMatch, decode_alert};
use bartizan_bus::{Bus, Consumer, Delivery, OpenError, PublishError, ReadError, Stream, StreamName};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::config::CorrelateConfig;
use super::sequence::Correlator;
use crate::config::ConfigError;
use crate::detector::StateInfo;
use crate::engine::{BATCH, CURSOR_INTERVAL, RETRY, consumer_config, optional, replay};

/// Name of the durable consumer on ALERTS.
pub const CONSUMER: &str = "correlate";
/// Matches of the end of MATCHES that are looked at after a restart.
const MAX_KNOWN_MATCHES: u64 = 65_536;

/// Why correlation cannot run, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CorrelateError {
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The durable consumer cannot be opened.
    #[error("correlation cannot follow ALERTS: {0}")]
    Open(#[from] OpenError),
    /// ALERTS or MATCHES cannot be read.
    #[error("correlation cannot go on: {0}")]
    Read(#[from] ReadError),
    /// MATCHES takes nothing any more.
    #[error("correlation cannot publish matches: {0}")]
    Publish(#[from] PublishError),
    /// Rebuilding the state panicked.
    #[error("rebuilding correlation's state from the stored alerts failed: {0}; set detectors.correlate.enabled = false to run without it")]
    Rebuild(String),
}

/// Correlation in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CorrelateInfo {
    /// It takes alerts now.
    pub running: bool,
    /// Last sequence of ALERTS taken.
    pub last_seq: u64,
    /// Last sequence whose matches, and all before, are on disk.
    pub acked_seq: u64,
    /// Alerts that were taken again, silently, at the start.
    pub replayed: u64,
    /// Matches that MATCHES took since the start.
    pub published: u64,
    /// Matches that were there already: found again after a restart.
    pub duplicates: u64,
    /// Matches found and not on disk yet.
    pub waiting: usize,
    /// Records of ALERTS that could not be read, since the start.
    pub undecodable: u64,
    /// The first of them: sequence and reason.
    pub first_undecodable: Option<String>,
    /// Attempts to publish that failed and were made again.
    pub publish_retries: u64,
    /// Matches larger than MATCHES takes, given up.
    pub refused: u64,
    /// The last failure to publish.
    pub last_publish_error: Option<String>,
    /// Attempts to write the acknowledgement cursor that failed.
    pub cursor_errors: u64,
    /// Size of the state, and what it counted.
    pub state: StateInfo,
}

/// A handle to correlation's numbers; clones share them.
#[derive(Debug, Clone, Default)]
pub struct CorrelateStatus {
    info: Arc<Mutex<CorrelateInfo>>,
}

impl CorrelateStatus {
    /// The numbers now.
    pub fn info(&self) -> CorrelateInfo {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, CorrelateInfo> {
        // Numbers stay readable even if a thread panicked while it held them: no update spans an invariant.
        self.info.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Correlates until `shutdown` becomes true or its sender is gone. `data_dir` is the folder that `bus` was opened on. Dropping the
/// future is as safe as a crash: the next run takes up where the acknowledgements on disk end.
///
/// # Errors
/// [`CorrelateError`]: unusable settings, a consumer that cannot be opened, streams that were closed or that a newer Bartizan wrote, a
/// disk that failed. A full disk and failed reads are waited out, counted in `status`, and not errors.
pub async fn run(
    bus: Bus,
    config: CorrelateConfig,
    data_dir: PathBuf,
    shutdown: watch::Receiver<bool>,
    status: CorrelateStatus,
) -> Result<(), CorrelateError> {
    config.validate()?;
    let alerts = bus.stream(StreamName::Alerts).clone();
    let consumer = alerts.consumer(CONSUMER, consumer_config())?;
    let floor = consumer.ack_floor();
    let rebuilt = tokio::task::spawn_blocking(move || rebuild(&config, &data_dir, floor)).await;
    let (correlator, replayed) = rebuilt.map_err(|error| CorrelateError::Rebuild(error.to_string()))??;
    let known = known_matches(bus.stream(StreamName::Matches))?;
    *status.lock() = CorrelateInfo { running: true, replayed, ..CorrelateInfo::default() };
    let engine = Engine {
        correlator,
        consumer,
        bus,
        known,
        waiting: VecDeque::new(),
        taken: floor,
        acked: floor,
        flush_at: None,
        status: status.clone(),
    };
    let ended = engine.run(shutdown).await;
    status.lock().running = false;
    ended
}

/// The state after `floor`, and how many alerts made it.
fn rebuild(config: &CorrelateConfig, data_dir: &Path, floor: u64) -> Result<(Correlator, u64), CorrelateError> {
    let mut correlator = Correlator::new(config);
    if floor == 0 {
        return Ok((correlator, 0));
    }
    let replayed = replay(data_dir, StreamName::Alerts, 0, floor, |record| {
        if let Ok(alert) = decode_alert(&record.payload) {
            correlator.observe(record.seq, &alert);
        }
    })?;
    Ok((correlator, replayed))
}

/// Message ids of the newest matches in MATCHES.
fn known_matches(matches: &Stream) -> Result<HashSet<String>, CorrelateError> {
    let info = matches.info();
    let oldest = info.first_seq.max(info.last_seq.saturating_sub(MAX_KNOWN_MATCHES)).max(1);
    let mut known = HashSet::new();
    for seq in oldest..=info.last_seq {
        match matches.get(seq) {
            Ok(Some(delivery)) => known.extend(delivery.msg_id),
            Ok(None) | Err(ReadError::Damaged { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(known)
}

struct Engine {
    correlator: Correlator,
    consumer: Consumer,
    bus: Bus,
    /// What MATCHES held at the start.
    known: HashSet<String>,
    /// Found and not on disk yet.
    waiting: VecDeque<Arc<PatternMatch>>,
    taken: u64,
    acked: u64,
    flush_at: Option<Instant>,
    status: CorrelateStatus,
}

/// What woke the engine.
enum Woken {
    Shutdown,
    Alerts(Result<Vec<Delivery>, ReadError>),
    Flush,
}

impl Engine {
    async fn run(mut self, mut shutdown: watch::Receiver<bool>) -> Result<(), CorrelateError> {
        loop {
            self.update_status();
            let flush = self.flush_at.map(tokio::time::sleep_until);
            let woken = tokio::select! {
                biased;
                // An owner that is gone without a word wants the same as one that said so.
                _ = shutdown.wait_for(|stop| *stop) => Woken::Shutdown,
                () = optional(flush) => Woken::Flush,
                result = self.consumer.fetch(BATCH) => Woken::Alerts(result),
            };
            match woken {
                Woken::Shutdown => break,
                Woken::Flush => self.flush(),
                Woken::Alerts(Ok(batch)) => {
                    self.take(&batch);
                    if !self.publish(&mut shutdown).await? {
                        break;
                    }
                    self.acknowledge();
                    // A long backlog must not keep the other tasks of this thread from running.
                    tokio::task::yield_now().await;
                }
                Woken::Alerts(Err(error @ (ReadError::Damaged { .. } | ReadError::Io { .. }))) => {
                    self.note_unreadable(0, &error.to_string());
                    tokio::time::sleep(RETRY).await;
                }
                Woken::Alerts(Err(error)) => return Err(error.into()),
            }
        }
        self.flush();
        self.update_status();
        Ok(())
    }

    fn take(&mut self, batch: &[Delivery]) {
        for delivery in batch.iter() {
            if delivery.seq <= self.taken {
                // Delivered a second time.
                continue;
            }
            self.taken = delivery.seq;
            match delivery.read::<Alert>() {
                Ok(alert) => self.waiting.extend(self.correlator.observe(delivery.seq, &alert).into_iter().map(Arc::new)),
                Err(error) => self.note_unreadable(1, &format!("sequence {}: {error}", delivery.seq)),
            }
        }
    }

    /// Brings what was found to the disk. Says no when it is told to stop before that: what is left is found again.
    async fn publish(&mut self, shutdown: &mut watch::Receiver<bool>) -> Result<bool, CorrelateError> {
        while let Some(found) = self.waiting.front() {
            if self.known.contains(&found.msg_id()) {
                self.status.lock().duplicates += 1;
                self.waiting.pop_front();
                continue;
            }
            match self.bus.publish(found).await {
                Ok(ack) => {
                    tracing::debug!(pattern = found.pattern, id = %found.id, seq = ack.seq, "match");
                    let mut info = self.status.lock();
                    info.published += u64::from(!ack.duplicate);
                    info.duplicates += u64::from(ack.duplicate);
                }
                Err(error @ PublishError::Full { .. }) => {
                    tracing::error!(%error, "matches wait to be published");
                    {
                        let mut info = self.status.lock();
                        info.publish_retries += 1;
                        info.waiting = self.waiting.len();
                        info.last_publish_error = Some(error.to_string());
                    }
                    tokio::select! {
                        _ = shutdown.wait_for(|stop| *stop) => return Ok(false),
                        () = tokio::time::sleep(RETRY) => continue,
                    }
                }
                Err(error @ PublishError::TooLarge { .. }) => {
                    // What no stream would ever take must not hold up the others.
                    tracing::error!(%error, id = %found.id, "a match is larger than MATCHES takes and is given up");
                    let mut info = self.status.lock();
                    info.refused += 1;
                    info.last_publish_error = Some(format!("match {} is given up: {error}", found.id));
                }
                Err(error @ (PublishError::Closed { .. } | PublishError::Io { .. })) => return Err(error.into()),
            }
            self.waiting.pop_front();
        }
        Ok(true)
    }

    /// Everything taken is dealt with: [`publish`](Self::publish) has left nothing waiting.
    fn acknowledge(&mut self) {
        if self.taken > self.acked {
            self.consumer.ack_through(self.taken);
            self.acked = self.taken;
            self.flush_at.get_or_insert_with(|| Instant::now() + CURSOR_INTERVAL);
        }
    }

    fn flush(&mut self) {
        self.flush_at = None;
        if let Err(error) = self.consumer.flush_acks() {
            // Tried again after the next acknowledgement.
            tracing::warn!(%error, "correlation's cursor cannot be written; after a crash more alerts would be taken again");
            self.status.lock().cursor_errors += 1;
        }
    }

    fn note_unreadable(&self, count: u64, what: &str) {
        tracing::warn!(what, "a record of ALERTS cannot be read");
        let mut info = self.status.lock();
        info.undecodable += count;
        info.first_undecodable.get_or_insert_with(|| what.to_owned());
    }

    fn update_status(&self) {
        let mut info = self.status.lock();
        info.last_seq = self.taken;
        info.acked_seq = self.acked;
        info.waiting = self.waiting.len();
        info.state = self.correlator.state();
    }
}
