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
//! - Order of locks: `io`, `meta`, `core`, then `cache` or `tables`. No write and no sync happens under `core`.

mod append;
mod block;
mod cache;
mod core;
pub(crate) mod meta;
mod open;
mod operation;
mod read;
pub(crate) mod record;
mod remove;
mod rewrite;
mod scan;
mod sealed;
pub(crate) mod segment;
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

use crate::config::SyncPolicy;
use crate::error::OpenError;
use crate::store::{Durable, Limits, StoreError};
use cache::Cache;
use self::core::{Core, Opened};
use meta::Meta;
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
    /// Whether the log starts threads for syncing and sealing. Without, `flush` syncs where the policy is `always`, and [`Log::compact`] seals: for simulations.
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
    pub(crate) fn write_failed(&self) {
        self.write_errors.fetch_add(1, Ordering::Relaxed);
        *lock(&self.last_write_error) = Some(Instant::now());
        self.write_failing.store(true, Ordering::Relaxed);
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
    counters: Counters,
}

impl Log {
    /// Opens the log in a folder of its own, creating it when it is missing, and recovers what is there. `boot_id` changes with every
    /// boot of the machine: with the same one as last time the page cache has kept all that was written; an empty one equals none.
    ///
    /// # Errors
    /// What stands in the way, and where.
    pub fn open(dir: &Path, config: LogConfig, boot_id: &str) -> Result<Arc<Self>, OpenError> {
        Self::open_on(Arc::new(Disk), dir, config, boot_id)
    }

    /// The same on another disk.
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

    /// Its settings.
    pub fn config(&self) -> &LogConfig {
        &self.config
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
        }
        let written = self.write_out();
        lock(&self.core).closed = true;
        self.stop_threads();
        let synced = self.sync_once().map_err(|source| StoreError::Io { action: "sync", path: self.dir.clone(), source });
        self.durable.send_modify(|durable| durable.ended = true);
        self.synced.send_modify(|synced| synced.ended = true);
        written.and(synced)?;
        let last_seq = {
            let core = lock(&self.core);
            core.segments.iter().map(|segment| segment.end_seq).max().unwrap_or(1) - 1
        };
        let mut meta = lock(&self.meta);
        meta.clean_last_seq = Some(last_seq);
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
