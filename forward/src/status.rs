//! What an operator sees of a sink.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bartizan_bus::Stream;
use serde::Serialize;

use crate::sink::Description;

/// How many alerts that were stepped over are kept by name; the count goes on.
pub const POISON_KEPT: usize = 16;

/// What a sink is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkState {
    /// Not begun.
    Starting,
    /// Making a session.
    Connecting,
    /// In a session.
    Connected,
    /// The last session or attempt failed; waiting for the next.
    Retrying,
    /// The receiver asked for a pause.
    Throttled,
    /// A setting here or at the receiver must be changed; tried again at long intervals.
    Misconfigured,
    /// Asked to stop; waiting a bounded time for confirmations.
    Draining,
    /// Stopped in good order.
    Stopped,
    /// Given up; alerts stay in ALERTS.
    Failed,
}

/// An alert that was stepped over. It stays in ALERTS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Poison {
    /// Sequence in ALERTS.
    pub seq: u64,
    /// Message id (`<alert id>/<revision>`), where the message has one.
    pub id: Option<String>,
    /// Why.
    pub reason: String,
}

/// State of one sink. Counts are since this process began. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SinkStatus {
    /// Name from the configuration.
    pub name: String,
    /// Protocol.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Receiver.
    pub address: String,
    /// What it is doing.
    pub state: SinkState,
    /// Since when.
    pub since: String,
    /// The last thing that went wrong, kept after recovery.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<String>,
    /// What is not as it should be at the receiver although delivery works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Attempts since the last confirmation that failed.
    pub failed_attempts: u64,
    /// When the next attempt is due, while waiting for it.
    pub next_retry: Option<String>,
    /// Everything in ALERTS up to and with this sequence is settled.
    pub cursor: u64,
    /// Alerts in ALERTS behind the cursor: not yet confirmed.
    pub lag: u64,
    /// Alerts fetched and not confirmed.
    pub in_flight: u64,
    /// Hand-overs to the sink, repeats included.
    pub sent: u64,
    /// Alerts confirmed.
    pub confirmed: u64,
    /// Hand-overs of alerts that were in flight when a session ended: possible duplicates at the receiver.
    pub resent: u64,
    /// Alerts that the receiver had already and did not store again.
    pub duplicates: u64,
    /// Alerts not sent because of `min_severity`.
    pub below_min_severity: u64,
    /// Hand-overs that lacked fields to fit the receiver's limit, repeats included; each says so inside.
    pub shrunk: u64,
    /// Stored alerts that this binary cannot decode; stepped over.
    pub undecodable: u64,
    /// Alerts that the receiver refused for ever; stepped over.
    pub refused: u64,
    /// The newest of those two, at most [`POISON_KEPT`].
    pub poison: VecDeque<Poison>,
    /// Alerts that the disk no longer gives back.
    pub unreadable: u64,
    /// Alerts that retention deleted before they were settled.
    pub fell_off_retention: u64,
    /// Writes of the cursor that failed. Nothing is lost by it; a restart would repeat more.
    pub cursor_errors: u64,
}

/// A shared view of a sink's state. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StatusHandle {
    shared: Arc<Mutex<SinkStatus>>,
    stream: Stream,
}

fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

impl StatusHandle {
    pub(crate) fn new(name: String, description: Description, stream: Stream) -> Self {
        let Description { kind, address } = description;
        let status = SinkStatus {
            name,
            kind,
            address,
            state: SinkState::Starting,
            since: now(),
            last_error: None,
            last_error_at: None,
            warning: None,
            failed_attempts: 0,
            next_retry: None,
            cursor: 0,
            lag: 0,
            in_flight: 0,
            sent: 0,
            confirmed: 0,
            resent: 0,
            duplicates: 0,
            below_min_severity: 0,
            shrunk: 0,
            undecodable: 0,
            refused: 0,
            poison: VecDeque::new(),
            unreadable: 0,
            fell_off_retention: 0,
            cursor_errors: 0,
        };
        Self { shared: Arc::new(Mutex::new(status)), stream }
    }

    /// The state now.
    pub fn snapshot(&self) -> SinkStatus {
        let info = self.stream.info();
        let mut status = self.lock().clone();
        // What retention deleted is counted elsewhere and is no lag.
        status.lag = info.last_seq.saturating_sub(status.cursor.max(info.first_seq.saturating_sub(1)));
        status
    }

    fn lock(&self) -> MutexGuard<'_, SinkStatus> {
        // Every change is complete in itself, so a panic elsewhere leaves nothing half done.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut SinkStatus)) {
        change(&mut self.lock());
    }

    pub(crate) fn set_state(&self, state: SinkState) {
        self.update(|status| {
            status.next_retry = None;
            if status.state != state {
                status.state = state;
                status.since = now();
            }
        });
    }

    pub(crate) fn set_error(&self, error: String) {
        self.update(|status| {
            status.last_error = Some(error);
            status.last_error_at = Some(now());
        });
    }

    pub(crate) fn set_waiting(&self, state: SinkState, pause: Duration) {
        self.set_state(state);
        let due = jiff::SignedDuration::try_from(pause).ok().and_then(|pause| jiff::Timestamp::now().checked_add(pause).ok());
        self.update(|status| status.next_retry = due.map(|due| format!("{due:.3}")));
    }

    pub(crate) fn add_poison(&self, poison: Poison) {
        self.update(|status| {
            if status.poison.len() == POISON_KEPT {
                status.poison.pop_front();
            }
            status.poison.push_back(poison);
        });
    }
}
