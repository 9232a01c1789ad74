//! What goes in and what comes out.

use bytes::Bytes;

use crate::subject::Subject;

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is about.
    pub subject: Subject,
    /// Marks duplicates within the stream's window (`Nats-Msg-Id`).
    pub msg_id: Option<String>,
    /// Unix time in nanoseconds: when what it tells about happened. Age retention and duplicate windows go by it.
    pub time_ns: i64,
    /// The content, opaque to the bus.
    pub payload: Bytes,
}

/// The stream has the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PubAck {
    /// Its sequence; for a duplicate, the sequence of the original.
    pub seq: u64,
    /// Whether the message id was seen before and nothing was appended.
    pub duplicate: bool,
}

/// A message as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its sequence in the stream.
    pub seq: u64,
    /// What it is about.
    pub subject: Subject,
    /// The publisher's message id.
    pub msg_id: Option<String>,
    /// Unix time in nanoseconds, as published.
    pub time_ns: i64,
    /// The content.
    pub payload: Bytes,
}

/// A message as a consumer receives it. Cloning it copies no payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its sequence in the stream: what to acknowledge.
    pub seq: u64,
    /// What it is about.
    pub subject: Subject,
    /// The publisher's message id.
    pub msg_id: Option<String>,
    /// Unix time in nanoseconds, as published.
    pub time_ns: i64,
    /// The content.
    pub payload: Bytes,
    /// How often it was delivered to this consumer, this time included: 1 is the first time.
    pub delivered: u32,
}

impl Delivery {
    pub(crate) fn new(record: Record, delivered: u32) -> Self {
        let Record { seq, subject, msg_id, time_ns, payload } = record;
        Self { seq, subject, msg_id, time_ns, payload, delivered }
    }
}
