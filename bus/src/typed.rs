//! Publishing and reading the schema's own types: encoded once, for the log; modules in the process share the value.

use std::sync::Arc;

use crate::bus::Bus;
use crate::config::StreamName;
use crate::error::PublishError;
use crate::event::{
    Alert, CodecError, PatternMatch, SecurityEvent, decode_alert, decode_event, decode_match, encode_alert, encode_event, encode_match,
};
use crate::message::{Delivery, Message, PubAck, Value};
use crate::stream::Stream;

/// A type of the schema, which has a stream of its own.
pub trait Typed: Sized + Send + Sync + 'static {
    /// Where it is published.
    const STREAM: StreamName;

    /// The message that it is stored as.
    fn message(&self) -> Message;

    /// Reads it from the payload of such a message.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are empty, from a newer schema, or damaged.
    fn decode(payload: &[u8]) -> Result<Self, CodecError>;
}

impl Typed for SecurityEvent {
    const STREAM: StreamName = StreamName::Events;

    fn message(&self) -> Message {
        Message { subject: self.subject(), msg_id: None, time_ns: self.time.wall_ns, payload: encode_event(self).into() }
    }

    fn decode(payload: &[u8]) -> Result<Self, CodecError> {
        decode_event(payload)
    }
}

impl Typed for Alert {
    const STREAM: StreamName = StreamName::Alerts;

    fn message(&self) -> Message {
        Message { subject: self.subject(), msg_id: Some(self.msg_id()), time_ns: self.time.wall_ns, payload: encode_alert(self).into() }
    }

    fn decode(payload: &[u8]) -> Result<Self, CodecError> {
        decode_alert(payload)
    }
}

impl Typed for PatternMatch {
    const STREAM: StreamName = StreamName::Matches;

    fn message(&self) -> Message {
        Message { subject: self.subject(), msg_id: Some(self.msg_id()), time_ns: self.time.wall_ns, payload: encode_match(self).into() }
    }

    fn decode(payload: &[u8]) -> Result<Self, CodecError> {
        decode_match(payload)
    }
}

impl Bus {
    /// Publishes to the stream of its type, as [`Stream::publish`] does. Whoever consumes or subscribes in this process gets the same
    /// value, not a copy, from [`Delivery::read`], unless it is so far behind that it reads the log.
    ///
    /// # Errors
    /// As [`Stream::publish`].
    pub async fn publish<T: Typed>(&self, value: &Arc<T>) -> Result<PubAck, PublishError> {
        let stream = self.stream(T::STREAM);
        let ack = self.append(value)?;
        stream.wait_published(ack.seq).await?;
        Ok(ack)
    }

    /// The same without waiting for the disk's sync, as [`Stream::append`] does.
    ///
    /// # Errors
    /// As [`Stream::append`].
    pub fn append<T: Typed>(&self, value: &Arc<T>) -> Result<PubAck, PublishError> {
        self.stream(T::STREAM).append_typed(std::slice::from_ref(value)).map(|acks| match acks.first() {
            Some(ack) => *ack,
            None => unreachable!("append_typed acknowledges every value it was given"),
        })
    }
}

impl Stream {
    /// Appends all values, in order and with one write, or none of them, as [`Stream::append_batch`] does with messages. The stream
    /// should be that of their type.
    ///
    /// # Errors
    /// As [`Stream::append_batch`].
    pub fn append_typed<T: Typed>(&self, values: &[Arc<T>]) -> Result<Vec<PubAck>, PublishError> {
        let messages: Vec<Message> = values.iter().map(|value| value.message()).collect();
        let shared: Vec<Value> = values.iter().map(Value::of).collect();
        self.inner.append_batch(&messages, &shared)
    }
}

impl Delivery {
    /// What was published: the publisher's own value where that is still in memory, else decoded from the payload.
    ///
    /// # Errors
    /// As [`Typed::decode`].
    pub fn read<T: Typed>(&self) -> Result<Arc<T>, CodecError> {
        match self.value.get() {
            Some(value) => Ok(value),
            None => T::decode(&self.payload).map(Arc::new),
        }
    }
}
