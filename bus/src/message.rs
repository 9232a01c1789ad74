//! What goes in and what comes out.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

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
    /// What the publisher encoded into the payload, if it is in memory.
    pub(crate) value: Value,
}

impl Delivery {
    /// Of a message read from the log.
    pub(crate) fn new(record: Record) -> Self {
        let Record { seq, subject, msg_id, time_ns, payload } = record;
        Self { seq, subject, msg_id, time_ns, payload, delivered: 1, value: Value::default() }
    }

    /// Of a message that was just published.
    pub(crate) fn published(seq: u64, message: &Message, value: Value) -> Self {
        let Message { subject, msg_id, time_ns, payload } = message;
        Self { seq, subject: subject.clone(), msg_id: msg_id.clone(), time_ns: *time_ns, payload: payload.clone(), delivered: 1, value }
    }
}

/// A value of the schema that modules of this process share. Two are equal whatever they are: the payload beside them tells.
#[derive(Clone, Default)]
pub(crate) struct Value(Option<Arc<dyn Any + Send + Sync>>);

impl Value {
    pub(crate) fn of<T: Any + Send + Sync>(value: &Arc<T>) -> Self {
        Self(Some(Arc::clone(value) as Arc<dyn Any + Send + Sync>))
    }

    pub(crate) fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        Arc::downcast(self.0.clone()?).ok()
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "shared" } else { "encoded" })
    }
}

impl PartialEq for Value {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Value {}
