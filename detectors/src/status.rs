//! What the engine tells about itself, for `bartizan status`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::detector::{StateInfo, TableInfo};

/// One detector in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DetectorStatus {
    /// Its id.
    pub id: &'static str,
    /// Events that the engine took while it was there, of every kind and also those that it does not read, since the engine
    /// started. Replayed ones are included.
    pub observed: u64,
    /// Findings since the engine started, without those of the replay at its start.
    pub findings: u64,
    /// Alerts that the stream took.
    pub published: u64,
    /// Alerts that were there already: found again after a restart.
    pub duplicates: u64,
    /// Sizes, bounds, evictions and counters of its state, as of the engine's `state_seq`.
    pub state: StateInfo,
}

/// The snapshot of the detectors' state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SnapshotStatus {
    /// Sequence in EVENTS that the last written snapshot covers.
    pub seq: Option<u64>,
    /// Its size in bytes.
    pub bytes: u64,
    /// Events taken since.
    pub events_since: u64,
    /// Snapshots written since the engine started.
    pub written: u64,
    /// Writes that failed.
    pub failed: u64,
    /// The last failure.
    pub last_error: Option<String>,
}

/// How the engine's state came to be when it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// Sequence of the snapshot that was loaded.
    pub snapshot_seq: Option<u64>,
    /// Why none was loaded, though the engine had run before.
    pub snapshot_error: Option<String>,
    /// Events that were taken again, silently.
    pub replayed: u64,
    /// Everything up to here had been dealt with before.
    pub resumed_after: u64,
    /// Events between the snapshot and `resumed_after` that retention had deleted before they could be taken again.
    pub missing: u64,
}

/// The engine in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EngineInfo {
    /// It takes events now.
    pub running: bool,
    /// Last sequence of EVENTS that the detectors have taken.
    pub last_seq: u64,
    /// Last sequence whose alerts, and all before, are on disk.
    pub acked_seq: u64,
    /// Alerts that are not on disk yet.
    pub alerts_waiting: usize,
    /// Records that could not be read as events, since the engine started.
    pub undecodable: u64,
    /// The first of them: sequence and reason.
    pub first_undecodable: Option<String>,
    /// Attempts to publish alerts that failed and were made again.
    pub publish_retries: u64,
    /// Alerts that are larger than ALERTS takes, given up since the engine started. Anything but 0 is a lost alert, and
    /// `bartizan status` is degraded; which one, `last_publish_error` and the log say.
    pub refused: u64,
    /// The last failure to publish.
    pub last_publish_error: Option<String>,
    /// Attempts to write the acknowledgement cursor that failed; the cursor on disk is then older than `acked_seq`.
    pub cursor_errors: u64,
    /// Last sequence that `shared` and each detector's `state` are as after; up to half a second older than `last_seq`.
    pub state_seq: u64,
    /// Tables that all detectors share, as of `state_seq`.
    pub shared: Vec<TableInfo>,
    /// Each detector.
    pub detectors: Vec<DetectorStatus>,
    /// The snapshot.
    pub snapshot: SnapshotStatus,
    /// How the state came to be.
    pub recovery: Recovery,
}

/// A handle to the engine's numbers; clones share them.
#[derive(Debug, Clone, Default)]
pub struct EngineStatus {
    info: Arc<Mutex<EngineInfo>>,
}

impl EngineStatus {
    /// A handle of an engine that does not run yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The numbers now.
    pub fn info(&self) -> EngineInfo {
        self.lock().clone()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, EngineInfo> {
        // Numbers stay readable even if a thread panicked while it held them: no update spans an invariant.
        self.info.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
