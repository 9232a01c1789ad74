//! One stream: appending, syncing, reading, forgetting.
//!
//! Invariants worth naming:
//!
//! - **Publishers never wait for readers, nor readers for the disk's sync.** The writer's lock covers one `write`; readers take the
//!   locks of the recent ring and of the segment list for a few copies. Order of locks: writer, segments, segment state, ring.
//! - **A reader sees a batch after it is written as a whole**: the committed length of a segment moves last.
//! - **A sequence is handed out only below the synced reservation** in `stream.json`, so that none is ever used twice.
//! - **After a failed `fdatasync` nothing is accepted.** The kernel may have dropped the dirty pages and would report success next
//!   time; only opening again tells what is on disk.

mod append;
mod dedupe;
mod info;
mod open;
mod read;
mod retention;
mod ring;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::watch;

use crate::config::{ConsumerConfig, StreamConfig, StreamName, SyncPolicy};
use crate::consumer::{Consumer, ConsumerCell, ConsumerInfo};
use crate::error::{OpenError, PublishError, ReadError};
use crate::log::meta::Meta;
use crate::log::recover::Report;
use crate::log::segment::Segment;
use crate::message::{Delivery, Message, PubAck};
use append::Writer;
pub use info::StreamInfo;
pub(crate) use read::{ReadCursor, ReadFailure};
use ring::Ring;
use sync::Syncer;

/// An ordered, durable sequence of messages. Clones are handles to the same stream.
#[derive(Clone)]
pub struct Stream {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("name", &self.inner.name).field("last_seq", &self.inner.last_seq()).finish_non_exhaustive()
    }
}

/// What consumers wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) last_seq: u64,
    pub(crate) closed: bool,
}

/// What publishers wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) seq: u64,
    /// It will not move any more.
    pub(crate) ended: bool,
}

/// A failure that ends the stream's life as a writer.
#[derive(Debug)]
pub(crate) struct Failure {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Failure {
    fn to_error(&self) -> PublishError {
        let source = match self.source.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(self.source.kind(), self.source.to_string()),
        };
        PublishError::Io { action: self.action, path: self.path.clone(), source }
    }
}

/// What happened since the stream was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) appended: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) write_errors: AtomicU64,
    /// The last write or sync that failed.
    pub(crate) last_write_error: Mutex<Option<Instant>>,
    /// Nothing was appended since.
    pub(crate) write_failing: AtomicBool,
    pub(crate) unreadable: AtomicU64,
    pub(crate) deleted_messages: AtomicU64,
}

impl Counters {
    pub(crate) fn write_failed(&self) {
        count(&self.write_errors, 1);
        *lock(&self.last_write_error) = Some(Instant::now());
        self.write_failing.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// A poisoned lock means that another thread panicked between two assignments; what is on disk is not in question, and a stream
/// that refuses to serve because of it would lose more.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct Inner {
    pub(crate) name: StreamName,
    dir: PathBuf,
    config: StreamConfig,
    report: Report,
    /// Sequences that no message has. Fixed when the stream is opened.
    pub(crate) gaps: Vec<(u64, u64)>,
    writer: Mutex<Writer>,
    segments: RwLock<VecDeque<Arc<Segment>>>,
    ring: Mutex<Ring>,
    meta: Mutex<Meta>,
    reserved: AtomicU64,
    pub(crate) head: watch::Sender<Head>,
    synced: watch::Sender<Synced>,
    syncer: Syncer,
    failure: OnceLock<Failure>,
    retention: Mutex<()>,
    counters: Counters,
    pub(crate) consumer_dir: PathBuf,
    pub(crate) consumers: Mutex<BTreeMap<String, Arc<ConsumerCell>>>,
    closed: AtomicBool,
    /// Tests: what the machine's power failed before.
    crashed: AtomicBool,
}

impl Stream {
    /// Opens the stream in `data_dir`.
    pub(crate) fn open(data_dir: &Path, name: StreamName, config: &StreamConfig, boot_id: &str) -> Result<Self, OpenError> {
        open::open(data_dir, name, config, boot_id).map(|inner| Self { inner })
    }

    /// Which stream this is.
    pub fn name(&self) -> StreamName {
        self.inner.name
    }

    /// Appends one message to the page cache and wakes consumers. Never waits for the disk's sync.
    ///
    /// # Errors
    /// [`PublishError`]: nothing was appended.
    pub fn append(&self, message: Message) -> Result<PubAck, PublishError> {
        let acks = self.append_batch(vec![message])?;
        match acks.first() {
            Some(ack) => Ok(*ack),
            None => unreachable!("append_batch acknowledges every message it was given"),
        }
    }

    /// Appends all messages, in order and with one write, or none of them. Gives one acknowledgement per message; messages that
    /// are duplicates (also of one another) are acknowledged with the original's sequence and not appended.
    ///
    /// # Errors
    /// [`PublishError`]: nothing was appended. After [`PublishError::Full`] the stream stays usable.
    pub fn append_batch(&self, messages: Vec<Message>) -> Result<Vec<PubAck>, PublishError> {
        self.inner.append_batch(messages)
    }

    /// Appends, then waits until the message is as safe as the sync policy demands: with [`SyncPolicy::Always`] until it is
    /// synced, in one `fdatasync` with everything appended meanwhile; with [`SyncPolicy::Interval`] not at all, since the sync
    /// follows within the interval ([`Stream::wait_synced`] waits for it).
    ///
    /// # Errors
    /// [`PublishError`]. When the wait fails, the message may or may not be on disk.
    pub async fn publish(&self, message: Message) -> Result<PubAck, PublishError> {
        let ack = self.append(message)?;
        match self.inner.config.sync {
            SyncPolicy::Always => self.wait_synced(ack.seq).await?,
            SyncPolicy::Interval(_) | SyncPolicy::Os => {}
        }
        Ok(ack)
    }

    /// Waits until everything up to and with `seq` is on disk.
    ///
    /// # Errors
    /// [`PublishError::Io`] when the sync failed, [`PublishError::Closed`] when the stream was closed before.
    pub async fn wait_synced(&self, seq: u64) -> Result<(), PublishError> {
        let mut synced = self.inner.synced.subscribe();
        let reached = synced.wait_for(|synced| synced.seq >= seq || synced.ended).await.map(|synced| synced.seq >= seq);
        match (reached, self.inner.failure.get()) {
            (Ok(true), _) => Ok(()),
            (_, Some(failure)) => Err(failure.to_error()),
            (_, None) => Err(PublishError::Closed { stream: self.inner.name }),
        }
    }

    /// Everything up to and with this sequence is on disk.
    pub fn synced_seq(&self) -> u64 {
        self.inner.synced.borrow().seq
    }

    /// The stream's state in numbers.
    pub fn info(&self) -> StreamInfo {
        self.inner.info()
    }

    /// One message by its sequence; `None` where there is none (any more, or yet).
    ///
    /// # Errors
    /// [`ReadError::Damaged`] when its bytes do not read back, [`ReadError::Io`] when they cannot be read.
    pub fn get(&self, seq: u64) -> Result<Option<Delivery>, ReadError> {
        Ok(self.inner.get(seq)?.map(|record| Delivery::new(record, 1)))
    }

    /// Deletes whole segments that are older than `max_age` at `now_ns` (Unix ns), and the oldest ones while the stream is larger
    /// than `max_bytes`. A segment's age counts from its newest message's time or its last write, whichever is later. The bus does
    /// this every few seconds by itself.
    ///
    /// # Errors
    /// What the system said; segments that could not be deleted stay in the stream.
    pub fn enforce_retention(&self, now_ns: i64) -> io::Result<()> {
        self.inner.enforce_retention(Some(now_ns))
    }

    /// Creates the durable consumer, or opens it where it left off. Only one handle may exist at a time.
    ///
    /// # Errors
    /// [`OpenError::InvalidName`], [`OpenError::InUse`], [`OpenError::Damaged`] (its state file), [`OpenError::Io`].
    pub fn consumer(&self, name: &str, config: ConsumerConfig) -> Result<Consumer, OpenError> {
        Consumer::open(self.clone(), name, config)
    }

    /// Every durable consumer of this stream, also those that nobody has open.
    pub fn consumers(&self) -> Vec<ConsumerInfo> {
        let cells: Vec<_> = lock(&self.inner.consumers).iter().map(|(name, cell)| (name.clone(), Arc::clone(cell))).collect();
        cells.into_iter().map(|(name, cell)| cell.info(&self.inner, &name)).collect()
    }
}

impl Inner {
    pub(crate) fn last_seq(&self) -> u64 {
        self.head.borrow().last_seq
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn segments(&self) -> std::sync::RwLockReadGuard<'_, VecDeque<Arc<Segment>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn segments_mut(&self) -> std::sync::RwLockWriteGuard<'_, VecDeque<Arc<Segment>>> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses further messages, syncs, and notes that the stream ended in good order. Closing twice does nothing.
    pub(crate) fn close(&self) -> io::Result<()> {
        {
            // Under the writer's lock: a batch is either in before, and synced below, or refused.
            let _writer = lock(&self.writer);
            if self.closed.swap(true, Ordering::AcqRel) {
                return Ok(());
            }
        }
        self.syncer.stop();
        // Whoever enforces retention just now ends first; whoever comes later sees that the stream is closed.
        drop(lock(&self.retention));
        let result = if self.crashed.load(Ordering::Acquire) { Ok(()) } else { self.finish() };
        self.synced.send_modify(|synced| synced.ended = true);
        self.head.send_modify(|head| head.closed = true);
        result
    }

    fn finish(&self) -> io::Result<()> {
        let synced = self.sync_once();
        let cells: Vec<_> = lock(&self.consumers).values().cloned().collect();
        let mut stored = Ok(());
        for cell in cells {
            // Each is closed whatever happens to the others.
            let closed = cell.close();
            stored = stored.and(closed);
        }
        synced?;
        stored?;
        let mut meta = lock(&self.meta);
        meta.segments = self.summaries(true);
        meta.clean_last_seq = Some(self.last_seq());
        meta.store(&self.dir)
    }

    /// Syncs the cursors of all consumers; each that fails is tried again with the next call.
    pub(crate) fn store_consumers(&self) {
        let cells: Vec<_> = lock(&self.consumers).iter().map(|(name, cell)| (name.clone(), Arc::clone(cell))).collect();
        for (consumer, cell) in cells {
            if let Err(error) = cell.store(true) {
                tracing::warn!(stream = %self.name, consumer, %error, "cannot write the consumer's cursor: after a crash some messages would come again");
            }
        }
    }

    /// Syncs without waiting for the interval.
    #[cfg(test)]
    pub(crate) fn sync_now(&self) -> io::Result<()> {
        self.sync_once()
    }

    /// Ends the stream as a power cut would: nothing more is synced or noted.
    #[cfg(test)]
    pub(crate) fn crash(&self) {
        self.crashed.store(true, Ordering::Release);
    }
}
