//! Names and limits: what a stream keeps and for how long, how a consumer is served.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// The four streams of a Bartizan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamName {
    /// What the sensor saw.
    Events,
    /// What detectors concluded.
    Alerts,
    /// What correlation concluded.
    Matches,
    /// What was done about it.
    Responses,
}

/// Text that does not name a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a stream: use one of EVENTS, ALERTS, MATCHES, RESPONSES")]
pub struct StreamNameError(String);

impl StreamName {
    /// Every stream, in the order in which data flows.
    pub const ALL: [StreamName; 4] = [StreamName::Events, StreamName::Alerts, StreamName::Matches, StreamName::Responses];

    /// The name as it stands in NATS, in folder names and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "EVENTS",
            Self::Alerts => "ALERTS",
            Self::Matches => "MATCHES",
            Self::Responses => "RESPONSES",
        }
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StreamName {
    type Err = StreamNameError;

    fn from_str(text: &str) -> Result<Self, StreamNameError> {
        Self::ALL.into_iter().find(|name| name.as_str() == text).ok_or_else(|| StreamNameError(text.to_owned()))
    }
}

impl Serialize for StreamName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// When appended messages are forced to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// At once: a publisher's acknowledgement waits for an `fdatasync` that it shares with every publisher waiting then.
    Always,
    /// At most this long after the append; a publisher's acknowledgement does not wait.
    Interval(Duration),
    /// When the operating system likes: a kill loses nothing, a power cut up to what Linux holds back (30 s by default).
    Os,
}

/// Limits and durability of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamConfig {
    /// Messages older than this are deleted, a whole segment at a time. A segment's age counts from its newest message's time or
    /// its last write, whichever is later.
    pub max_age: Duration,
    /// Oldest segments are deleted while the stream holds more bytes than this. The segment being written is never deleted.
    pub max_bytes: u64,
    /// A segment is closed and the next one begun when it has reached this many bytes.
    pub segment_bytes: u64,
    /// When appended messages are forced to disk.
    pub sync: SyncPolicy,
    /// zstd level of closed segments; `None` leaves them as they were written.
    pub compression: Option<i32>,
    /// A message id seen within this time (by message time) marks a duplicate.
    pub duplicate_window: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MIB: u64 = 1024 * 1024;

impl StreamConfig {
    /// EVENTS: 7 days, 2 GiB (where the caller has no [`crate::budget::Budget`] for its disk), synced every 200 ms, 2 minutes of duplicate window.
    pub fn events() -> Self {
        Self {
            max_age: 7 * DAY,
            max_bytes: 2048 * MIB,
            segment_bytes: 32 * MIB,
            sync: SyncPolicy::Interval(Duration::from_millis(200)),
            compression: Some(3),
            duplicate_window: Duration::from_secs(120),
        }
    }

    /// ALERTS: 30 days, 256 MiB, synced before the acknowledgement, one day of duplicate window (a detector that
    /// restarts reads its events again and finds the same alerts again).
    pub fn alerts() -> Self {
        Self {
            max_age: 30 * DAY,
            max_bytes: 256 * MIB,
            segment_bytes: 8 * MIB,
            sync: SyncPolicy::Always,
            compression: Some(3),
            duplicate_window: DAY,
        }
    }

    /// MATCHES: 7 days, otherwise as ALERTS.
    pub fn matches() -> Self {
        Self { max_age: 7 * DAY, ..Self::alerts() }
    }

    /// RESPONSES: as ALERTS.
    pub fn responses() -> Self {
        Self::alerts()
    }
}

/// Limits and durability of all streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusConfig {
    /// EVENTS.
    pub events: StreamConfig,
    /// ALERTS.
    pub alerts: StreamConfig,
    /// MATCHES.
    pub matches: StreamConfig,
    /// RESPONSES.
    pub responses: StreamConfig,
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            events: StreamConfig::events(),
            alerts: StreamConfig::alerts(),
            matches: StreamConfig::matches(),
            responses: StreamConfig::responses(),
        }
    }
}

impl BusConfig {
    /// The configuration of one stream.
    pub fn stream(&self, name: StreamName) -> &StreamConfig {
        match name {
            StreamName::Events => &self.events,
            StreamName::Alerts => &self.alerts,
            StreamName::Matches => &self.matches,
            StreamName::Responses => &self.responses,
        }
    }
}

/// Where a consumer begins that did not exist before. One that exists goes on where it left off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliverPolicy {
    /// At the oldest message.
    All,
    /// After the newest message.
    New,
    /// At this sequence; at the oldest message when it is older, at the next one appended when it is beyond the end.
    BySequence(u64),
}

/// How a consumer is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerConfig {
    /// Where it begins when it is created.
    pub deliver: DeliverPolicy,
    /// A message not acknowledged within this time is delivered again.
    pub ack_wait: Duration,
    /// After so many deliveries without an acknowledgement a message is given up and counted as terminated. `None`: never.
    pub max_deliver: Option<u32>,
    /// No new messages are delivered while so many are unacknowledged.
    pub max_ack_pending: usize,
    /// Whether [`crate::Consumer::flush_acks`] syncs the cursor to disk. Otherwise the bus does, every few seconds.
    pub sync_acks: bool,
}

impl Default for ConsumerConfig {
    /// JetStream's defaults: all messages, 30 s of ack wait, no delivery limit, 1000 unacknowledged messages.
    fn default() -> Self {
        Self { deliver: DeliverPolicy::All, ack_wait: Duration::from_secs(30), max_deliver: None, max_ack_pending: 1000, sync_acks: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_names_read_back_and_nothing_else_does() {
        for name in StreamName::ALL {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        assert!("events".parse::<StreamName>().is_err());
        assert!("".parse::<StreamName>().is_err());
    }
}
