//! One of the sensor's streams: typed handles on a log, with duplicates sorted out, in-process consumers and state in numbers.
//!
//! Invariants worth naming:
//!
//! - **Publishers never wait for readers, nor readers for the disk's sync.** The one exception has a name: [`Overflow::Block`].
//! - **A reader sees a batch after it is written as a whole**: the head that consumers wait for moves last.

pub(crate) mod dedupe;
mod fan;
mod info;
mod publish;
mod read;
mod recent;
mod subscription;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::config::{ConsumerConfig, StreamConfig, StreamName, SyncPolicy};
use crate::consumer::{self, Consumer, ConsumerCell, ConsumerInfo};
use crate::error::{OpenError, PublishError, ReadError};
pub(crate) use crate::log::lock;
use crate::log::vfs::Disk;
use crate::log::{Log, LogConfig, Retention, stream_dir};
use crate::message::{Delivery, Message, PubAck, Record};
use crate::pattern::Filter;
use crate::store::{Limits, Store, StoreError};
use dedupe::{Dedupe, ids_of_window};
use fan::Fan;
pub use info::StreamInfo;
pub(crate) use read::ReadFailure;
pub use subscription::{Overflow, Subscription, SubscriptionConfig, SubscriptionInfo};

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

pub(crate) struct Inner {
    pub(crate) name: StreamName,
    pub(crate) log: Arc<Log>,
    config: StreamConfig,
    /// Held while a batch is sorted out, appended and written.
    publishing: Mutex<Dedupe>,
    duplicates: AtomicU64,
    pub(crate) head: watch::Sender<Head>,
    /// Who gets messages from memory.
    pub(crate) fan: Fan,
    pub(crate) consumer_dir: PathBuf,
    pub(crate) consumers: Mutex<BTreeMap<String, Arc<ConsumerCell>>>,
    closed: AtomicBool,
    /// Tests: what the machine's power failed before.
    crashed: AtomicBool,
}

/// A stream's settings as its log's.
fn log_config(name: StreamName, config: &StreamConfig) -> LogConfig {
    LogConfig {
        sync: config.sync,
        // At most a quarter of the stream, so that byte retention does not take everything at once.
        segment_bytes: config.segment_bytes.min(config.max_bytes / 4),
        retention: Retention::WholeSegments { max_disk_bytes: config.max_bytes },
        compression: config.compression,
        ..LogConfig::new(name.as_str(), Limits { max_age: Some(config.max_age), ..Limits::default() })
    }
}

impl Stream {
    /// Opens the stream in `data_dir`.
    pub(crate) fn open(data_dir: &Path, name: StreamName, config: &StreamConfig, boot_id: &str) -> Result<Self, OpenError> {
        let log = Log::open_on(Arc::new(Disk), &stream_dir(data_dir, name.as_str()), log_config(name, config), boot_id)?;
        let mut dedupe = Dedupe::new(config.duplicate_window);
        ids_of_window(&*log, log.newest_time_ns(), config.duplicate_window, |id, seq, time_ns| {
            id.into_iter().for_each(|id| dedupe.insert(id, seq, time_ns));
        });
        let last_seq = log.state().last_seq;
        let consumer_dir = consumer::dir(data_dir, name);
        let consumers = consumer::load_all(&consumer_dir, name)?;
        for cell in consumers.values() {
            cell.clamp(last_seq);
        }
        let inner = Inner {
            name,
            log,
            config: config.clone(),
            publishing: Mutex::new(dedupe),
            duplicates: AtomicU64::new(0),
            head: watch::Sender::new(Head { last_seq, closed: false }),
            fan: Fan::default(),
            consumer_dir,
            consumers: Mutex::new(consumers),
            closed: AtomicBool::new(false),
            crashed: AtomicBool::new(false),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Which stream this is.
    pub fn name(&self) -> StreamName {
        self.inner.name
    }

    /// The log that it is kept in, for whoever serves it under other names (JetStream).
    pub fn log(&self) -> &Arc<Log> {
        &self.inner.log
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
        self.inner.append_batch(&messages, &[])
    }

    /// Appends, then waits until the message is as safe as the sync policy demands: with [`SyncPolicy::Always`] until it is
    /// synced, in one `fdatasync` with everything appended meanwhile; with the others not at all, since the sync
    /// follows within the interval ([`Stream::wait_synced`] waits for it).
    ///
    /// # Errors
    /// [`PublishError`]. When the wait fails, the message may or may not be on disk.
    pub async fn publish(&self, message: Message) -> Result<PubAck, PublishError> {
        let ack = self.append(message)?;
        self.wait_published(ack.seq).await?;
        Ok(ack)
    }

    /// Waits until this message is as safe as the sync policy demands.
    pub(crate) async fn wait_published(&self, seq: u64) -> Result<(), PublishError> {
        match self.inner.config.sync {
            SyncPolicy::Always => self.wait_synced(seq).await,
            SyncPolicy::Interval(_) | SyncPolicy::Os => Ok(()),
        }
    }

    /// Waits until everything up to and with `seq` is on disk.
    ///
    /// # Errors
    /// [`PublishError::Io`] when the sync failed, [`PublishError::Closed`] when the stream was closed before.
    pub async fn wait_synced(&self, seq: u64) -> Result<(), PublishError> {
        self.inner.log.wait_synced(seq).await.map_err(|error| self.inner.publish_error(error))
    }

    /// Everything up to and with this sequence is on disk.
    pub fn synced_seq(&self) -> u64 {
        self.inner.log.synced_seq()
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
        Ok(self.inner.get(seq)?.map(Delivery::new))
    }

    /// Deletes whole segments that are older than `max_age` at `now_ns` (Unix ns), and the oldest ones while the stream's files are larger
    /// than `max_bytes`. A segment's age counts from its newest message's time or its last write, whichever is later. The bus does
    /// this every few seconds by itself.
    ///
    /// # Errors
    /// What the system said; segments that could not be deleted stay in the stream.
    pub fn enforce_retention(&self, now_ns: i64) -> io::Result<()> {
        self.inner.log.expire(now_ns).map_err(io::Error::other)
    }

    /// Creates the durable consumer, or opens it where it left off. Only one handle may exist at a time.
    ///
    /// # Errors
    /// [`OpenError::InvalidName`], [`OpenError::InUse`], [`OpenError::Damaged`] (its state file), [`OpenError::Io`].
    pub fn consumer(&self, name: &str, config: ConsumerConfig) -> Result<Consumer, OpenError> {
        Consumer::open(self.clone(), name, config)
    }

    /// Subscribes to what is published from now on, for as long as the subscription lives. `name` is what it is called in [`SubscriptionInfo`].
    pub fn subscribe(&self, name: &str, config: SubscriptionConfig) -> Subscription {
        Subscription::new(self.clone(), name, config)
    }

    /// Every subscription that lives.
    pub fn subscriptions(&self) -> Vec<SubscriptionInfo> {
        self.inner.fan.infos()
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

    pub(crate) fn first_seq(&self) -> u64 {
        self.log.state().first_seq
    }

    /// Messages held with a sequence above `seq`.
    pub(crate) fn count_after(&self, seq: u64) -> u64 {
        self.log.count(seq.saturating_add(1), &Filter::all()).unwrap_or_default()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn publish_error(&self, error: StoreError) -> PublishError {
        match error {
            StoreError::Full { path, source } => PublishError::Full { path, source },
            StoreError::TooLarge { what, bytes, max } => PublishError::TooLarge { what, bytes, max },
            StoreError::Io { action, path, source } => PublishError::Io { action, path, source },
            StoreError::Closed => PublishError::Closed { stream: self.name },
            StoreError::Read(error) => {
                PublishError::Io { action: "read", path: self.log.dir().to_owned(), source: io::Error::other(error) }
            }
        }
    }

    /// Refuses further messages, syncs, and notes that the stream ended in good order. Closing twice does nothing.
    pub(crate) fn close(&self) -> io::Result<()> {
        {
            // A batch is either in before, and synced below, or refused.
            let _publishing = lock(&self.publishing);
            if self.closed.swap(true, Ordering::AcqRel) {
                return Ok(());
            }
        }
        self.fan.close();
        let result = if self.crashed.load(Ordering::Acquire) { Ok(()) } else { self.finish() };
        self.head.send_modify(|head| head.closed = true);
        result
    }

    fn finish(&self) -> io::Result<()> {
        let cells: Vec<_> = lock(&self.consumers).values().cloned().collect();
        // What consumers acknowledge is on disk before they say so.
        let synced = self.log.sync_now();
        let mut stored = Ok(());
        for cell in cells {
            // Each is closed whatever happens to the others.
            let closed = cell.close();
            stored = stored.and(closed);
        }
        let closed = self.log.close().map_err(io::Error::other);
        synced?;
        stored?;
        closed
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

    /// Ends the stream as a power cut would: nothing more is synced or noted.
    #[cfg(test)]
    pub(crate) fn crash(&self) {
        self.crashed.store(true, Ordering::Release);
        self.log.crash();
    }
}

impl Record {
    /// As the log has it.
    pub(crate) fn from_stored(stored: &crate::store::Stored) -> Option<Self> {
        Some(Self {
            seq: stored.seq,
            subject: stored.subject().parse().ok()?,
            msg_id: crate::headers::get(stored.headers(), crate::headers::MSG_ID).map(str::to_owned),
            time_ns: stored.time_ns,
            payload: stored.payload_bytes(),
        })
    }
}
