//! One stream.

use std::io;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use tokio::sync::watch;

use crate::config::{ConsumerConfig, StreamConfig, StreamName};
use crate::consumer::{Consumer, ConsumerInfo};
use crate::error::{OpenError, PublishError, ReadError};
use crate::message::{Delivery, Message, PubAck, Record};

/// An ordered, durable sequence of messages. Clones are handles to the same stream.
#[derive(Debug, Clone)]
pub struct Stream {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    name: StreamName,
    config: StreamConfig,
    pub(crate) records: Mutex<Vec<Record>>,
    pub(crate) last: watch::Sender<u64>,
}

/// A stream's state in numbers.
#[derive(Debug, Clone, Serialize)]
pub struct StreamInfo {
    /// Which stream.
    pub name: StreamName,
    /// Oldest sequence.
    pub first_seq: u64,
    /// Newest sequence.
    pub last_seq: u64,
    /// Messages held.
    pub messages: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Time of the oldest message, Unix ns.
    pub first_time_ns: i64,
    /// Time of the newest message, Unix ns.
    pub last_time_ns: i64,
    /// Everything up to here is on disk.
    pub synced_seq: u64,
    /// Segment files.
    pub segments: u64,
    /// Messages appended by this process.
    pub appended_since_open: u64,
    /// Failed writes.
    pub write_errors: u64,
    /// Bytes of a torn tail that were cut off when the stream was opened.
    pub truncated_at_open: u64,
    /// Sequences that were left out when the stream was opened.
    pub skipped_sequences_at_open: u64,
    /// Configured age limit in seconds.
    pub max_age_s: u64,
    /// Configured size limit in bytes.
    pub max_bytes: u64,
}

impl Stream {
    pub(crate) fn new(name: StreamName, config: StreamConfig) -> Self {
        Self { inner: Arc::new(Inner { name, config, records: Mutex::default(), last: watch::Sender::new(0) }) }
    }

    fn records(&self) -> std::sync::MutexGuard<'_, Vec<Record>> {
        self.inner.records.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Which stream this is.
    pub fn name(&self) -> StreamName {
        self.inner.name
    }

    /// Appends one message.
    ///
    /// # Errors
    /// [`PublishError`]: nothing was appended.
    pub fn append(&self, message: Message) -> Result<PubAck, PublishError> {
        let acks = self.append_batch(vec![message])?;
        Ok(acks[0])
    }

    /// Appends all messages or none.
    ///
    /// # Errors
    /// [`PublishError`]: nothing was appended.
    pub fn append_batch(&self, messages: Vec<Message>) -> Result<Vec<PubAck>, PublishError> {
        let mut records = self.records();
        let mut acks = Vec::new();
        for Message { subject, msg_id, time_ns, payload } in messages {
            if msg_id.is_some()
                && let Some(old) = records.iter().find(|r| r.msg_id == msg_id)
            {
                acks.push(PubAck { seq: old.seq, duplicate: true });
                continue;
            }
            let seq = records.len() as u64 + 1;
            records.push(Record { seq, subject, msg_id, time_ns, payload });
            acks.push(PubAck { seq, duplicate: false });
        }
        self.inner.last.send_replace(records.len() as u64);
        Ok(acks)
    }

    /// Appends, then waits as the sync policy demands.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn publish(&self, message: Message) -> Result<PubAck, PublishError> {
        self.append(message)
    }

    /// Waits until `seq` is on disk.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn wait_synced(&self, _seq: u64) -> Result<(), PublishError> {
        Ok(())
    }

    /// Everything up to this sequence is on disk.
    pub fn synced_seq(&self) -> u64 {
        self.records().len() as u64
    }

    /// The stream's state in numbers.
    pub fn info(&self) -> StreamInfo {
        let records = self.records();
        let n = records.len() as u64;
        StreamInfo {
            name: self.inner.name,
            first_seq: 1,
            last_seq: n,
            messages: n,
            bytes: 0,
            first_time_ns: records.first().map_or(0, |r| r.time_ns),
            last_time_ns: records.last().map_or(0, |r| r.time_ns),
            synced_seq: n,
            segments: 1,
            appended_since_open: n,
            write_errors: 0,
            truncated_at_open: 0,
            skipped_sequences_at_open: 0,
            max_age_s: self.inner.config.max_age.as_secs(),
            max_bytes: self.inner.config.max_bytes,
        }
    }

    /// One message.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn get(&self, seq: u64) -> Result<Option<Delivery>, ReadError> {
        Ok(self.records().iter().find(|r| r.seq == seq).map(|r| Delivery::new(r.clone(), 1)))
    }

    /// Deletes what is beyond the limits.
    ///
    /// # Errors
    /// What the system said.
    pub fn enforce_retention(&self, _now_ns: i64) -> io::Result<()> {
        Ok(())
    }

    /// Creates the durable consumer or opens it where it left off.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn consumer(&self, name: &str, config: ConsumerConfig) -> Result<Consumer, OpenError> {
        Ok(Consumer::new(self.clone(), name, config))
    }

    /// Every durable consumer of this stream.
    pub fn consumers(&self) -> Vec<ConsumerInfo> {
        Vec::new()
    }
}
