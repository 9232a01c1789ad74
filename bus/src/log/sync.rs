//! The log's own thread: one `fdatasync` for everything appended meanwhile, and what else must wait for the disk.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::warn;

use super::append::RESERVE;
use super::core::{Body, Opened};
use super::meta::{Lost, Meta};
use super::segment::{self, Form};
use super::{Log, lock};
use crate::config::SyncPolicy;
use crate::store::StoreError;

/// With `os` nothing is synced, but closed segments are looked after this often.
const OS_ROUND: Duration = Duration::from_secs(1);

/// Wakes and stops the thread.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    control: Mutex<Control>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Control {
    /// Since when something is unsynced.
    since: Option<Instant>,
    running: bool,
    stop: bool,
}

impl Worker {
    /// Waits until a round is due; false when the thread is to end.
    fn due(&self, delay: Duration) -> bool {
        let mut control = lock(&self.control);
        loop {
            if control.stop {
                return false;
            }
            control = match control.since {
                None => self.changed.wait(control).unwrap_or_else(PoisonError::into_inner),
                Some(since) => match (since + delay).checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                    Some(left) => self.changed.wait_timeout(control, left).unwrap_or_else(PoisonError::into_inner).0,
                    None => {
                        control.since = None;
                        return true;
                    }
                },
            };
        }
    }

    /// Ends the thread; what is unsynced is left to the caller.
    pub(super) fn stop(&self) {
        lock(&self.control).stop = true;
        self.changed.notify_all();
        if let Some(thread) = lock(&self.thread).take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            warn!("the log's thread had panicked");
        }
    }
}

impl Log {
    /// Something was written.
    pub(super) fn wake(&self) {
        if !self.config.background {
            return;
        }
        let mut control = lock(&self.worker.control);
        if control.since.is_none() {
            control.since = Some(Instant::now());
            if control.running {
                self.worker.changed.notify_all();
                return;
            }
            control.running = true;
            drop(control);
            self.start_worker();
        }
    }

    fn start_worker(&self) {
        let delay = match self.config.sync {
            SyncPolicy::Always => Duration::ZERO,
            SyncPolicy::Interval(delay) => delay,
            SyncPolicy::Os => OS_ROUND,
        };
        let log: Weak<Log> = self.me.clone();
        let worker = Arc::clone(&self.worker);
        let started = std::thread::Builder::new().name(format!("log {}", self.config.name)).spawn(move || {
            while worker.due(delay) {
                let Some(log) = log.upgrade() else { break };
                log.round();
            }
        });
        match started {
            Ok(thread) => *lock(&self.worker.thread) = Some(thread),
            Err(error) => {
                warn!(stream = self.config.name, %error, "cannot start the log's thread: syncing on the publisher's until it can be");
                let mut control = lock(&self.worker.control);
                control.running = false;
                control.since = None;
                drop(control);
                self.round();
            }
        }
    }

    /// What the thread does whenever something was written.
    pub(super) fn round(&self) {
        if self.config.sync != SyncPolicy::Os && self.sync_once().is_err() {
            // Noted by `fail`; publishers are told.
            return;
        }
        let next_seq = lock(&self.core).next_seq;
        if next_seq + RESERVE / 2 > self.reserved.load(Ordering::Acquire)
            && let Err(error) = self.reserve(next_seq)
        {
            warn!(stream = self.config.name, %error, "cannot reserve sequences ahead: trying again with the next sync");
        }
        // A burst may outrun the retention tick; only the clock is its business, the size is not.
        if let Err(error) = self.retain_segments(None).and_then(|()| self.delete_garbage()) {
            warn!(stream = self.config.name, %error, "cannot delete old segments: trying again with the next sync");
        }
        self.start_rewriting();
    }

    /// Forces everything written so far to disk.
    ///
    /// One at a time: who finds nothing to sync because another is at it must not say that it is synced.
    pub(super) fn sync_once(&self) -> io::Result<()> {
        let _one_at_a_time = lock(&self.syncing);
        if let Some(failure) = self.failure.get() {
            return Err(io::Error::new(failure.source.kind(), format!("the log failed before: {}", failure.source)));
        }
        let (files, sync_dir, written_seq, head) = {
            let mut core = lock(&self.core);
            let mut files: Vec<(Opened, PathBuf)> = Vec::new();
            for segment in &mut core.segments {
                if let Body::Raw(raw) = &mut segment.body
                    && raw.dirty
                    && let Some(opened) = &raw.file
                {
                    files.push((opened.clone(), PathBuf::from(segment::file_name(segment.first_seq, Form::Raw))));
                    raw.dirty = false;
                }
            }
            (files, std::mem::take(&mut core.dir_dirty), core.written_seq, core.head_written)
        };
        let sync = || -> Result<(), (PathBuf, io::Error)> {
            for (opened, name) in &files {
                opened.file.sync().map_err(|error| (self.dir.join(name), error))?;
            }
            if sync_dir { self.vfs.sync_dir(&self.dir).map_err(|error| (self.dir.clone(), error)) } else { Ok(()) }
        };
        match sync() {
            Ok(()) => {
                self.counters.syncs.fetch_add(1, Ordering::Relaxed);
                {
                    let mut core = lock(&self.core);
                    core.head_synced = core.head_synced.max(head);
                }
                self.synced.send_if_modified(|synced| {
                    let moved = synced.seq < written_seq;
                    synced.seq = synced.seq.max(written_seq);
                    moved
                });
                if self.config.sync == SyncPolicy::Always {
                    self.durable.send_if_modified(|durable| {
                        let moved = durable.acked_seq < written_seq;
                        durable.acked_seq = durable.acked_seq.max(written_seq);
                        moved
                    });
                }
                Ok(())
            }
            Err((path, error)) => {
                let returned = io::Error::new(error.kind(), format!("cannot sync {}: {error}", path.display()));
                self.fail("sync", path, error);
                Err(returned)
            }
        }
    }

    /// Notes on disk which messages were lost to damage, before the last trace of them goes.
    pub(super) fn note_unreadable(&self) -> io::Result<()> {
        let mut meta = lock(&self.meta);
        let lost = lock(&self.core)
            .unreadable
            .iter()
            .map(|damage| Lost {
                first: damage.first,
                last: damage.last,
                file: damage.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
                offset: damage.offset,
            })
            .collect();
        if meta.unreadable == lost {
            return Ok(());
        }
        meta.unreadable = lost;
        meta.store(&*self.vfs, &self.dir)
    }

    /// Notes on disk that sequences up to `seq`, and a block more, may be handed out.
    pub(super) fn reserve(&self, seq: u64) -> Result<(), StoreError> {
        let mut meta = lock(&self.meta);
        let reserved = seq + RESERVE;
        if meta.reserved < reserved {
            let before = std::mem::replace(&mut meta.reserved, reserved);
            if let Err(error) = meta.store(&*self.vfs, &self.dir) {
                meta.reserved = before;
                return Err(self.refused("write", Meta::path(&self.dir), error));
            }
        }
        self.reserved.fetch_max(meta.reserved, Ordering::AcqRel);
        Ok(())
    }
}
