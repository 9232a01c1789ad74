//! The log on disk: segments, the operations in them, recovery, retention, compression. `docs/bus-format.md` in code.
//!
//! Invariants worth naming:
//!
//! - **Inside a raw segment sequences are dense**: the n-th message has the segment's first sequence plus n. What does not fit is damage.
//! - **A record counts only with its whole batch.** All records of a batch but the last carry the "continues" flag; recovery cuts
//!   off a batch without its end.
//! - **A message is deleted in the log, too**: an operation says so, and stays until no file has the message any more.
//! - **Recovery cuts off only what no whole record follows.** Damage with whole records behind it costs the messages in it, is counted
//!   and named; the rest is served.
//! - **A sequence is handed out only below the synced reservation** in `stream.json`, so that none is ever used twice.
//! - **After a failed `fdatasync` nothing is accepted.** The kernel may have dropped the dirty pages and would report success next
//!   time; only opening again tells what is on disk.
//! - Order of locks: `io`, `syncing`, `meta`, `core`, then `cache` or `tables`. No write and no sync happens under `core`.

mod append;
mod block;
#[cfg(test)]
mod busy;
mod cache;
mod core;
pub mod inspect;
pub(crate) mod meta;
mod open;
mod operation;
mod read;
mod reader;
pub(crate) mod record;
mod remove;
mod rewrite;
mod scan;
pub(crate) mod sealed;
pub(crate) mod segment;
pub(crate) mod shred;
#[cfg(test)]
mod sim;
mod store;
mod subjects;
mod sync;
#[cfg(test)]
mod tests;
mod varint;
pub mod vfs;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

#[cfg(test)]
pub(crate) use self::core::TAIL_BYTES;
use self::core::{Core, Opened, Unreadable};
use crate::config::SyncPolicy;
use crate::error::{OpenError, ReadError};
use crate::files;
use crate::store::{Durable, Limits, StoreError};
use cache::Cache;
use meta::Meta;
pub use reader::LogReader;
use sync::Worker;
use vfs::{Disk, VFile, Vfs};

/// How a log forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Message by message, as JetStream does.
    Exact,
    /// A whole segment at a time, oldest first: what the sensor's streams do, which have millions of messages. A segment's age counts
    /// from its newest message's time or its last write, whichever is later.
    WholeSegments {
        /// The log's files have at most so many bytes. The segment being written is never deleted.
        max_disk_bytes: u64,
    },
}

/// A log's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// The stream's name.
    pub name: String,
    /// When appended messages are forced to disk.
    pub sync: SyncPolicy,
    /// A segment is closed and the next one begun when it has reached this many bytes; at most 1 GiB.
    pub segment_bytes: u64,
    /// What is kept.
    pub limits: Limits,
    /// How it is forgotten.
    pub retention: Retention,
    /// zstd level of closed segments; `None` leaves them as they were written.
    pub compression: Option<i32>,
    /// Whether the log starts threads for syncing and sealing. Without, `flush` syncs where the policy is `always`, and [`Store::compact`](crate::store::Store::compact) seals: for simulations.
    pub background: bool,
}

impl LogConfig {
    /// A log with exact retention, compressed, synced every 200 ms.
    pub fn new(name: &str, limits: Limits) -> Self {
        Self {
            name: name.to_owned(),
            sync: SyncPolicy::Interval(Duration::from_millis(200)),
            segment_bytes: 32 * 1024 * 1024,
            limits,
            retention: Retention::Exact,
            compression: Some(3),
            background: true,
        }
    }
}

/// A log's files in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Files {
    /// Bytes of all segments.
    pub bytes: u64,
    /// Segment files.
    pub segments: u64,
    /// Those of them that are sealed.
    pub sealed: u64,
    /// Bytes of the newest segments.
    pub recent_bytes: u64,
    /// From the first message of these to the latest message, seconds.
    pub recent_s: u64,
    /// Latest time of any message held, Unix ns.
    pub newest_time_ns: i64,
}

/// `<data>/streams/<NAME>`.
pub fn stream_dir(data_dir: &Path, name: &str) -> PathBuf {
    data_dir.join("streams").join(name)
}

/// Where in a raw segment the last record ends that has at most this sequence.
#[cfg(test)]
pub(crate) fn end_of(file: &std::fs::File, first_seq: u64, seq: u64) -> u64 {
    let len = VFile::len(file).expect("length");
    let found = scan::scan(file, first_seq, len, u64::MAX).expect("readable");
    let messages = found.messages.iter().take_while(|message| message.seq <= seq);
    let end = |message: &scan::Seen| message.offset + record::HEADER_LEN as u64 + message.size - crate::store::MESSAGE_OVERHEAD;
    messages.last().map_or(segment::HEADER_LEN, end)
}

/// What opening found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Bytes of a torn tail that were cut off.
    pub truncated_bytes: u64,
    /// Sequences between the last message on disk and the next one.
    pub skipped_sequences: u64,
    /// Messages that cannot be read because their bytes are damaged.
    pub missing_sequences: u64,
    /// Segments with damage.
    pub damaged_segments: u64,
    /// Files that were renamed to `.damaged`.
    pub set_aside: u64,
    close_last: bool,
}

impl Report {
    /// Whether the log ended in good order.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// A failure that ends the log's life as a writer.
#[derive(Debug)]
pub(crate) struct Failure {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Failure {
    fn to_error(&self) -> StoreError {
        let source = match self.source.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(self.source.kind(), self.source.to_string()),
        };
        StoreError::Io { action: self.action, path: self.path.clone(), source }
    }

    /// Of a write that was refused and may work later.
    fn to_refusal(&self) -> StoreError {
        match self.to_error() {
            StoreError::Io { action: _, path, source } if append::is_full(&source) => StoreError::Full { path, source },
            error => error,
        }
    }
}

/// What happened since the log was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) appended: AtomicU64,
    pub(crate) write_errors: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) last_write_error: Mutex<Option<Instant>>,
    /// Nothing was written since.
    pub(crate) write_failing: AtomicBool,
    pub(crate) unreadable: AtomicU64,
    pub(crate) deleted: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) sealed: AtomicU64,
}

impl Counters {
    /// True when the write before had worked.
    pub(crate) fn write_failed(&self) -> bool {
        self.write_errors.fetch_add(1, Ordering::Relaxed);
        *lock(&self.last_write_error) = Some(Instant::now());
        !self.write_failing.swap(true, Ordering::Relaxed)
    }
}

/// What is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) seq: u64,
    /// It will not move any more.
    pub(crate) ended: bool,
}

/// A poisoned lock means that another thread panicked between two assignments; what is on disk is not in question, and a log
/// that refuses to serve because of it would lose more.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One stream's messages on disk. See [`crate::store::Store`] for what it does.
#[derive(Debug)]
pub struct Log {
    me: Weak<Log>,
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    config: LogConfig,
    report: Report,
    core: Mutex<Core>,
    io: Mutex<()>,
    syncing: Mutex<()>,
    meta: Mutex<Meta>,
    reserved: AtomicU64,
    cache: Mutex<Cache>,
    tables: Mutex<VecDeque<(u64, Arc<sealed::Table>)>>,
    next_file: AtomicU64,
    durable: watch::Sender<Durable>,
    synced: watch::Sender<Synced>,
    worker: Arc<Worker>,
    rewriter: Mutex<Option<JoinHandle<()>>>,
    rewriting: AtomicBool,
    stopping: AtomicBool,
    failure: OnceLock<Failure>,
    /// The last write that failed, which may be over.
    last_failure: Mutex<Option<Failure>>,
    counters: Counters,
}

impl Log {
    /// Opens the log in a folder of its own, creating it when it is missing, and recovers what is there. Nobody else may have it open:
    /// [`FolderLock`](crate::FolderLock) sees to that.
    ///
    /// # Errors
    /// What stands in the way, and where.
    pub fn open(dir: &Path, config: LogConfig) -> Result<Arc<Self>, OpenError> {
        Self::open_on(Arc::new(Disk), dir, config, &files::boot_id())
    }

    /// The same on another disk. `boot_id` changes with every boot of the machine: with the same one as last time the page cache has kept
    /// all that was written; an empty one equals none.
    ///
    /// # Errors
    /// What stands in the way, and where.
    pub fn open_on(vfs: Arc<dyn Vfs>, dir: &Path, config: LogConfig, boot_id: &str) -> Result<Arc<Self>, OpenError> {
        let open::Found { mut core, meta, report, next_file } = open::open(&*vfs, dir, &config, boot_id)?;
        let operations = std::mem::take(&mut core.pending_operations);
        let acked_seq = core.next_seq - 1;
        let log = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            vfs,
            dir: dir.to_owned(),
            config,
            report,
            core: Mutex::new(core),
            io: Mutex::new(()),
            syncing: Mutex::new(()),
            reserved: AtomicU64::new(meta.reserved),
            meta: Mutex::new(meta),
            cache: Mutex::default(),
            tables: Mutex::default(),
            next_file: AtomicU64::new(next_file + 1),
            durable: watch::Sender::new(Durable { acked_seq, ended: false }),
            synced: watch::Sender::new(Synced { seq: acked_seq, ended: false }),
            worker: Arc::default(),
            rewriter: Mutex::default(),
            rewriting: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            failure: OnceLock::new(),
            last_failure: Mutex::default(),
            counters: Counters::default(),
        });
        log.apply(&mut lock(&log.core), operations);
        if log.config.background {
            log.start_rewriting();
        }
        Ok(log)
    }

    fn opened(&self, file: Arc<dyn VFile>) -> Opened {
        Opened { id: self.next_file.fetch_add(1, Ordering::Relaxed), file }
    }

    /// What opening found.
    pub fn report(&self) -> Report {
        self.report
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Waits until everything up to and with `seq` is on disk.
    ///
    /// # Errors
    /// The sync failed, the log was closed before, or the message could not be written.
    pub async fn wait_synced(&self, seq: u64) -> Result<(), StoreError> {
        let mut synced = self.synced.subscribe();
        let reached = synced.wait_for(|synced| synced.seq >= seq || synced.ended).await.map(|synced| synced.seq >= seq);
        match (reached, self.failure.get()) {
            (Ok(true), _) => self.check_kept(seq),
            (_, Some(failure)) => Err(failure.to_error()),
            (_, None) => Err(StoreError::Closed),
        }
    }

    /// Syncs without waiting for the interval.
    ///
    /// # Errors
    /// The sync failed, now or before.
    pub fn sync_now(&self) -> io::Result<()> {
        self.sync_once()
    }

    /// Why the log accepts nothing more until it is opened again.
    pub fn failed(&self) -> Option<String> {
        self.failure.get().map(|failure| failure.to_error().to_string())
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Ranges (first, last) of sequences that no message ever had.
    pub fn gaps(&self) -> Vec<(u64, u64)> {
        lock(&self.core).gaps.clone()
    }

    /// Latest time of any message held, Unix ns; 0 without one.
    pub fn newest_time_ns(&self) -> i64 {
        let core = lock(&self.core);
        core.segments.iter().filter(|segment| segment.live() > 0).map(|segment| segment.max_time_ns).max().unwrap_or(0)
    }

    /// The first damage known among these sequences, and how many messages all that is known there costs.
    pub(crate) fn damage_in(&self, first: u64, last: u64) -> Option<(ReadError, u64)> {
        let core = lock(&self.core);
        let mut found = core.unreadable.iter().filter(|damage| damage.first <= last && damage.last >= first);
        let cost = |damage: &Unreadable| damage.last.min(last) + 1 - damage.first.max(first);
        let nearest = found.next()?;
        let missing = cost(nearest) + found.map(cost).sum::<u64>();
        let Unreadable { path, offset, reason, .. } = nearest.clone();
        Some((ReadError::Damaged { path, offset, reason: reason.to_owned(), missing }, missing))
    }

    /// Its files in numbers; `recent` are the segments begun within so many nanoseconds of messages.
    pub fn files(&self, recent_ns: i64) -> Files {
        let core = lock(&self.core);
        let mut files = Files { newest_time_ns: 0, ..Files::default() };
        for segment in &core.segments {
            files.bytes += segment.disk_len;
            files.segments += u64::from(segment.disk_len > 0);
            files.sealed += u64::from(matches!(segment.body, self::core::Body::Sealed(_)));
            if segment.live() > 0 {
                files.newest_time_ns = files.newest_time_ns.max(segment.max_time_ns);
            }
        }
        let since = files.newest_time_ns.saturating_sub(recent_ns);
        let mut recent_from = None;
        for segment in core.segments.iter().rev().filter(|segment| segment.live() > 0) {
            if recent_from.is_some() && segment.first_time_ns < since {
                break;
            }
            files.recent_bytes += segment.disk_len;
            recent_from = Some(segment.first_time_ns);
        }
        let recent = recent_from.map_or(0, |from| files.newest_time_ns.saturating_sub(from));
        files.recent_s = u64::try_from(recent / 1_000_000_000).unwrap_or(0);
        files
    }

    /// Its settings.
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Puts another file in the place of the one that is being written.
    #[cfg(test)]
    pub(crate) fn replace_active(&self, file: std::fs::File) {
        let opened = self.opened(Arc::new(file));
        let mut core = lock(&self.core);
        if let Some(self::core::Segment { body: self::core::Body::Raw(raw), .. }) = core.segments.back_mut() {
            raw.file = Some(opened);
            raw.dirty = true;
        }
    }

    /// Ends the log as a power cut would: nothing more is synced or noted.
    #[cfg(test)]
    pub(crate) fn crash(&self) {
        lock(&self.core).closed = true;
        self.stop_threads();
    }

    fn stop_threads(&self) {
        self.stopping.store(true, Ordering::Release);
        self.worker.stop();
        let rewriter = lock(&self.rewriter).take();
        if let Some(thread) = rewriter
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::warn!(stream = self.config.name, "the sealing thread had panicked");
        }
    }

    /// Syncs everything, notes that the log ended in good order, and refuses further messages. Closing twice does nothing.
    fn shut(&self) -> Result<(), StoreError> {
        {
            let mut core = lock(&self.core);
            if core.closed {
                return Ok(());
            }
            core.note_head();
            // First of all: what is taken is written and synced below.
            core.closed = true;
        }
        let written = self.write_out();
        self.stop_threads();
        let synced = self.sync_once().map_err(|source| StoreError::Io { action: "sync", path: self.dir.clone(), source });
        self.durable.send_modify(|durable| durable.ended = true);
        self.synced.send_modify(|synced| synced.ended = true);
        written.and(synced)?;
        let mut meta = lock(&self.meta);
        {
            let core = lock(&self.core);
            meta.clean_last_seq = Some(core.next_seq - 1);
            meta.set_gaps(&core.gaps);
        }
        meta.store(&*self.vfs, &self.dir).map_err(|source| StoreError::Io { action: "write", path: Meta::path(&self.dir), source })
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Err(error) = self.shut() {
            tracing::warn!(stream = self.config.name, %error, "cannot close the log in good order: the next start recovers it");
        }
    }
}
