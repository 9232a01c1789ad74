//! Durable consumers: a named place in a stream that survives restarts.
//!
//! Invariants worth naming:
//!
//! - **At least once.** What is not acknowledged comes again: after its ack wait, when it is refused, and after a restart.
//! - **The cursor on disk is never ahead of the acknowledgements.** A crash loses at most the acknowledgements since the last
//!   flush, which means repetition and never loss.
//! - **Everything at or below the ack floor is acknowledged, given up or counted as lost.** Above it, only what is pending is not.
//! - **One handle per consumer**, so that nobody's acknowledgements are overtaken by somebody else's.

mod cursor;
mod store;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::config::{ConsumerConfig, DeliverPolicy, StreamName};
use crate::error::{OpenError, ReadError};
use crate::message::Delivery;
use crate::pattern::Filter;
use crate::stream::{Inner, ReadFailure, Stream, lock};
use cursor::{Cursor, Saved};
use store::Store;

/// Longest name; it becomes a file name.
const MAX_NAME: usize = 64;

/// A consumer's state in numbers. The counters survive restarts as the cursor does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConsumerInfo {
    /// Its stream.
    pub stream: StreamName,
    /// Its name.
    pub name: String,
    /// Everything up to and with this sequence is acknowledged, given up or lost.
    pub ack_floor: u64,
    /// Newest sequence that was delivered.
    pub delivered_seq: u64,
    /// Messages behind it that are still to be delivered.
    pub pending: u64,
    /// Messages delivered and not acknowledged.
    pub ack_pending: u64,
    /// Deliveries beyond a message's first.
    pub redelivered: u64,
    /// Messages given up: by [`Consumer::term`] or because they reached `max_deliver`.
    pub terminated: u64,
    /// Messages that retention deleted before this consumer had acknowledged (most: before it had seen) them.
    pub fell_off_retention: u64,
    /// Those of them that were found since the stream was opened.
    pub fell_off_since_open: u64,
    /// Messages passed over because their bytes are damaged.
    pub unreadable: u64,
    /// Whether somebody has it open.
    pub open: bool,
}

/// `<data>/consumers/<NAME>`.
pub(crate) fn dir(data_dir: &Path, stream: StreamName) -> PathBuf {
    data_dir.join("consumers").join(stream.as_str())
}

/// Every consumer that has a state file.
pub(crate) fn load_all(dir: &Path, stream: StreamName) -> Result<BTreeMap<String, Arc<ConsumerCell>>, OpenError> {
    crate::files::create_private_dir(dir).map_err(|source| OpenError::Io { action: "create folder", path: dir.to_owned(), source })?;
    let names = store::names(dir).map_err(|source| OpenError::Io { action: "list folder", path: dir.to_owned(), source })?;
    let load = |name: String| {
        let (store, saved) = Store::load(dir, stream, &name)?;
        Ok((name, Arc::new(ConsumerCell::new(store, Cursor::restore(saved)))))
    };
    names.into_iter().filter(|name| is_valid_name(name)).map(load).collect()
}

fn is_valid_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// A consumer as its stream knows it, open or not.
#[derive(Debug)]
pub(crate) struct ConsumerCell {
    cursor: Mutex<Cursor>,
    /// What had fallen off before the stream was opened.
    fell_off_before: u64,
    store: Mutex<Store>,
    in_use: AtomicBool,
}

impl ConsumerCell {
    fn new(store: Store, cursor: Cursor) -> Self {
        let fell_off_before = cursor.save().fell_off_retention;
        Self { cursor: Mutex::new(cursor), fell_off_before, store: Mutex::new(store), in_use: AtomicBool::new(false) }
    }

    /// Writes the cursor to disk, if that has not the same already.
    pub(crate) fn store(&self, sync: bool) -> io::Result<()> {
        // The store's lock first, so that an older cursor never overwrites a newer one.
        let mut store = lock(&self.store);
        let saved = lock(&self.cursor).save();
        store.write(saved, sync)
    }

    /// Writes the cursor a last time: from here on the file is the next process's.
    pub(crate) fn close(&self) -> io::Result<()> {
        let mut store = lock(&self.store);
        let saved = lock(&self.cursor).save();
        let result = store.write(saved, true);
        store.close();
        result
    }

    /// Forgets sequences that a power cut took back.
    pub(crate) fn clamp(&self, last_seq: u64) {
        lock(&self.cursor).clamp(last_seq);
    }

    pub(crate) fn info(&self, stream: &Inner, name: &str) -> ConsumerInfo {
        let cursor = lock(&self.cursor);
        let Saved { delivered_seq, pending, redelivered, terminated, fell_off_retention, unreadable } = cursor.save();
        ConsumerInfo {
            stream: stream.name,
            name: name.to_owned(),
            ack_floor: cursor.ack_floor(),
            delivered_seq,
            pending: stream.count_after(delivered_seq),
            ack_pending: pending.len() as u64,
            redelivered,
            terminated,
            fell_off_retention,
            fell_off_since_open: fell_off_retention.saturating_sub(self.fell_off_before),
            unreadable,
            open: self.in_use.load(Ordering::Acquire),
        }
    }
}

/// The handle to a durable consumer. Dropping it leaves the consumer where it is.
#[derive(Debug)]
pub struct Consumer {
    stream: Stream,
    name: String,
    config: ConsumerConfig,
    cell: Arc<ConsumerCell>,
    /// An error met after messages that had to be handed out first.
    deferred: Option<ReadError>,
}

impl Consumer {
    pub(crate) fn open(stream: Stream, name: &str, config: ConsumerConfig) -> Result<Self, OpenError> {
        if !is_valid_name(name) {
            return Err(OpenError::InvalidName { name: name.to_owned() });
        }
        let inner = &stream.inner;
        let cell = {
            let mut consumers = lock(&inner.consumers);
            if inner.is_closed() {
                return Err(OpenError::Closed { stream: inner.name });
            }
            match consumers.get(name) {
                Some(cell) => Arc::clone(cell),
                None => {
                    let delivered_seq = match config.deliver {
                        DeliverPolicy::All => inner.first_seq() - 1,
                        DeliverPolicy::New => inner.last_seq(),
                        DeliverPolicy::BySequence(seq) => seq.saturating_sub(1).clamp(inner.first_seq() - 1, inner.last_seq()),
                    };
                    let io_error =
                        |source| OpenError::Io { action: "write the state of a new consumer in", path: inner.consumer_dir.clone(), source };
                    let store = Store::new(&inner.consumer_dir, inner.name, name);
                    store.begin_anew().map_err(io_error)?;
                    let cell = Arc::new(ConsumerCell::new(store, Cursor::starting_after(delivered_seq)));
                    // Where a new consumer begins must not change with a power cut.
                    cell.store(true).map_err(io_error)?;
                    consumers.insert(name.to_owned(), Arc::clone(&cell));
                    cell
                }
            }
        };
        if cell.in_use.swap(true, Ordering::AcqRel) {
            return Err(OpenError::InUse { stream: inner.name, name: name.to_owned() });
        }
        lock(&cell.cursor).make_all_due(Instant::now());
        inner.fan.enter();
        Ok(Self { stream, name: name.to_owned(), config, cell, deferred: None })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Up to `max` messages in order: redeliveries that are due first, then new ones. Waits until at least one is there.
    /// A `max` of 0 waits for nothing. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] once per damaged place, after which fetching goes on behind it; [`ReadError::Closed`] when the bus
    /// was shut down; [`ReadError::Io`], after which the same messages are tried again.
    pub async fn fetch(&mut self, max: usize) -> Result<Vec<Delivery>, ReadError> {
        let mut head = self.stream.inner.head.subscribe();
        loop {
            head.borrow_and_update();
            let fetched = self.try_fetch(max)?;
            if !fetched.is_empty() || max == 0 {
                return Ok(fetched);
            }
            let due = lock(&self.cell.cursor).next_due();
            let redelivery = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = head.changed() => if changed.is_err() {
                    return Err(ReadError::Closed { stream: self.stream.name() });
                },
                () = redelivery => {}
            }
        }
    }

    /// The same without waiting; empty when there is nothing to deliver now.
    ///
    /// # Errors
    /// As [`Consumer::fetch`].
    pub fn try_fetch(&mut self, max: usize) -> Result<Vec<Delivery>, ReadError> {
        if self.stream.inner.is_closed() {
            return Err(ReadError::Closed { stream: self.stream.name() });
        }
        if let Some(error) = self.deferred.take() {
            return Err(error);
        }
        let now = Instant::now();
        let mut out = Vec::new();
        self.pass_what_retention_took();
        let result = match self.redeliver(now, max, &mut out) {
            Ok(()) => self.deliver_new(now, max, &mut out),
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => Ok(out),
            Err(error) if out.is_empty() => Err(error),
            Err(error) => {
                self.deferred = Some(error);
                Ok(out)
            }
        }
    }

    fn pass_what_retention_took(&self) {
        let inner = &self.stream.inner;
        lock(&self.cell.cursor).pass_deleted(inner.first_seq(), &inner.log.gaps());
    }

    fn redeliver(&self, now: Instant, max: usize, out: &mut Vec<Delivery>) -> Result<(), ReadError> {
        while out.len() < max {
            let Some((seq, deliveries)) = lock(&self.cell.cursor).take_due(now, self.config.max_deliver) else { break };
            match self.stream.inner.read(seq, 1, &Filter::all()) {
                Ok(mut read) => match read.found.pop().filter(|delivery| delivery.seq == seq) {
                    Some(delivery) => {
                        lock(&self.cell.cursor).delivered(seq, now + self.config.ack_wait);
                        out.push(Delivery { delivered: deliveries + 1, ..Arc::unwrap_or_clone(delivery) });
                    }
                    None => lock(&self.cell.cursor).lost(seq),
                },
                Err(failure) => {
                    let mut cursor = lock(&self.cell.cursor);
                    match &failure.error {
                        ReadError::Damaged { .. } => cursor.unreadable(seq),
                        _ => cursor.wait_until(seq, now + self.config.ack_wait),
                    }
                    return Err(failure.error);
                }
            }
        }
        Ok(())
    }

    fn deliver_new(&mut self, now: Instant, max: usize, out: &mut Vec<Delivery>) -> Result<(), ReadError> {
        let (from, room) = {
            let cursor = lock(&self.cell.cursor);
            (cursor.delivered_seq() + 1, self.config.max_ack_pending.saturating_sub(cursor.ack_pending()))
        };
        let want = room.min(max - out.len().min(max));
        if want == 0 {
            return Ok(());
        }
        match self.stream.inner.read(from, want, &Filter::all()) {
            Ok(read) => {
                let mut cursor = lock(&self.cell.cursor);
                for delivery in read.found {
                    cursor.delivered(delivery.seq, now + self.config.ack_wait);
                    out.push(Arc::unwrap_or_clone(delivery));
                }
                Ok(())
            }
            Err(failure) => {
                let ReadFailure { error, resume_at, missing } = *failure;
                lock(&self.cell.cursor).pass_unreadable(resume_at - 1, missing);
                Err(error)
            }
        }
    }

    /// Acknowledges this message. Unknown and already acknowledged sequences are ignored.
    pub fn ack(&mut self, seq: u64) {
        lock(&self.cell.cursor).ack(seq);
    }

    /// Acknowledges everything up to and with `seq` (JetStream's `AckAll`), also what was not delivered yet.
    pub fn ack_through(&mut self, seq: u64) {
        lock(&self.cell.cursor).ack_through(seq.min(self.stream.inner.last_seq()));
    }

    /// Asks for this message again, after `delay` or at once.
    pub fn nak(&mut self, seq: u64, delay: Option<Duration>) {
        lock(&self.cell.cursor).wait_until(seq, Instant::now() + delay.unwrap_or_default());
    }

    /// Gives this message up: never again, and counted.
    pub fn term(&mut self, seq: u64) {
        lock(&self.cell.cursor).term(seq);
    }

    /// Restarts the ack wait of this message.
    pub fn in_progress(&mut self, seq: u64) {
        lock(&self.cell.cursor).wait_until(seq, Instant::now() + self.config.ack_wait);
    }

    /// Everything up to and with this sequence is acknowledged (or given up, or lost and counted).
    pub fn ack_floor(&self) -> u64 {
        lock(&self.cell.cursor).ack_floor()
    }

    /// Writes the cursor to disk now: it survives a kill, and with `sync_acks` a power cut. Without, the bus syncs it every few
    /// seconds. After a crash the cursor may be older than the last acknowledgement, never newer.
    ///
    /// # Errors
    /// What the system said; the cursor on disk stays as it was.
    pub fn flush_acks(&mut self) -> io::Result<()> {
        if self.stream.inner.is_closed() {
            return Err(io::Error::other(ReadError::Closed { stream: self.stream.name() }));
        }
        self.cell.store(self.config.sync_acks)
    }

    /// The consumer's state in numbers.
    pub fn info(&self) -> ConsumerInfo {
        self.cell.info(&self.stream.inner, &self.name)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // Closing the bus has stored it already, and the folder may be another process's by now.
        if !self.stream.inner.is_closed()
            && let Err(error) = self.cell.store(false)
        {
            tracing::warn!(stream = %self.stream.name(), consumer = self.name, %error, "cannot write the consumer's cursor: some messages will come again");
        }
        self.stream.inner.fan.leave();
        self.cell.in_use.store(false, Ordering::Release);
    }
}
