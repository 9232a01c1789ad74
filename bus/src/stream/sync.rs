//! The syncing thread: one `fdatasync` for everything appended meanwhile, and what else must wait for the disk.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::warn;

use super::{Inner, lock};
use crate::config::SyncPolicy;
use crate::files;

/// Wakes and stops the syncing thread.
#[derive(Debug, Default)]
pub(crate) struct Syncer {
    control: Mutex<Control>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Control {
    /// Since when something is unsynced.
    since: Option<Instant>,
    stop: bool,
}

impl Syncer {
    /// Something was appended.
    pub(super) fn wake(&self) {
        let mut control = lock(&self.control);
        if control.since.is_none() {
            control.since = Some(Instant::now());
            self.changed.notify_all();
        }
    }

    /// Ends the thread; what is unsynced is left to the caller.
    pub(super) fn stop(&self) {
        lock(&self.control).stop = true;
        self.changed.notify_all();
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            warn!("the syncing thread had panicked");
        }
    }

    /// Waits until a sync is due; false when the thread is to end.
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
}

impl Inner {
    /// Starts the thread. It ends when the stream is closed.
    pub(super) fn start_syncer(self: &Arc<Self>) -> io::Result<()> {
        let delay = match self.config.sync {
            SyncPolicy::Always | SyncPolicy::Os => Duration::ZERO,
            SyncPolicy::Interval(delay) => delay,
        };
        let inner = Arc::clone(self);
        let name = format!("sync {}", self.name.as_str().to_lowercase());
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            while inner.syncer.due(delay) {
                inner.sync_round();
            }
        })?;
        *lock(&self.syncer.thread) = Some(thread);
        Ok(())
    }

    fn sync_round(&self) {
        let segments_before = self.segments().len();
        if self.sync_once().is_err() {
            // Noted by `fail`; publishers are told.
            return;
        }
        let next_seq = lock(&self.writer).next_seq;
        let half = Self::reserve_block(self.config.sync) / 2;
        if next_seq + half > self.reserved.load(Ordering::Acquire)
            && let Err(error) = self.reserve(next_seq)
        {
            warn!(stream = %self.name, %error, "cannot reserve sequences ahead: trying again with the next sync");
        }
        // A burst may outrun the bus's own retention tick; only the clock is its business, the size is not.
        if let Err(error) = self.enforce_retention(None) {
            warn!(stream = %self.name, %error, "cannot delete old segments: trying again with the next sync");
        }
        if self.segments().len() != segments_before || lock(&self.meta).segments.len() + 1 < self.segments().len() {
            self.note_segments();
        }
    }

    /// Notes closed segments in `stream.json`, so that the next start need not read them. Only a start is slower without it.
    pub(super) fn note_segments(&self) {
        let mut meta = lock(&self.meta);
        let summaries = self.summaries(false);
        if meta.segments == summaries {
            return;
        }
        meta.segments = summaries;
        if let Err(error) = meta.store(&self.dir) {
            warn!(stream = %self.name, %error, "cannot write the stream's notes: the next start reads its segments instead");
        }
    }

    /// Forces everything appended so far to disk.
    pub(super) fn sync_once(&self) -> io::Result<()> {
        if let Some(failure) = self.failure.get() {
            return Err(io::Error::new(failure.source.kind(), format!("the log failed before: {}", failure.source)));
        }
        let (files, sync_dir, last_seq) = {
            let mut writer = lock(&self.writer);
            let mut files = std::mem::take(&mut writer.unsynced);
            files.push((Arc::clone(&writer.active), writer.segment.path.clone()));
            (files, std::mem::take(&mut writer.dir_unsynced), writer.next_seq - 1)
        };
        let sync = || -> Result<(), (PathBuf, io::Error)> {
            for (file, path) in &files {
                file.sync_data().map_err(|error| (path.clone(), error))?;
            }
            if sync_dir { files::sync_dir(&self.dir).map_err(|error| (self.dir.clone(), error)) } else { Ok(()) }
        };
        match sync() {
            Ok(()) => {
                self.synced.send_modify(|synced| synced.seq = synced.seq.max(last_seq));
                Ok(())
            }
            Err((path, error)) => {
                let returned = io::Error::new(error.kind(), format!("cannot sync {}: {error}", path.display()));
                self.fail("sync", path, error);
                Err(returned)
            }
        }
    }
}
