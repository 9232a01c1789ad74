//! The writer: sequences on, what is beyond the limits out, one write for everything that waits.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::core::{Body, Core, NOWHERE, Opened, Segment, Write};
use super::operation::Operation;
use super::record::{self, Fields, MAX_PAYLOAD, MAX_TEXT};
use super::segment::{self, Form, HEADER_LEN};
use super::{Failure, Log, lock};
use crate::config::SyncPolicy;
use crate::store::{MESSAGE_OVERHEAD, Put, Store, StoreError};

/// Largest batch: what one write holds in memory at a time.
const MAX_BATCH_BYTES: usize = 64 * 1024 * 1024;
/// So much may wait unwritten before the publisher writes it, asked or not.
const BUFFER_BYTES: usize = 1024 * 1024;
/// How many sequences are reserved ahead: enough for many rounds of the syncer.
pub(crate) const RESERVE: u64 = 1 << 20;

fn check_size(what: &'static str, bytes: usize, max: usize) -> Result<(), StoreError> {
    if bytes <= max { Ok(()) } else { Err(StoreError::TooLarge { what, bytes: bytes as u64, max: max as u64 }) }
}

/// No room on the disk, in the quota or under the process's file size limit: the one kind of failure that passes.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

impl Log {
    pub(super) fn append_batch(&self, batch: &[Put<'_>]) -> Result<u64, StoreError> {
        let mut total = 0;
        for Put { subject, headers, payload, time_ns: _ } in batch {
            check_size("subject", subject.len(), MAX_TEXT)?;
            check_size("header block", headers.len(), MAX_TEXT)?;
            check_size("payload", payload.len(), MAX_PAYLOAD)?;
            total += record::encoded_len(subject, headers, payload);
        }
        check_size("batch", total, MAX_BATCH_BYTES)?;

        let mut core = loop {
            let core = lock(&self.core);
            if core.closed {
                return Err(StoreError::Closed);
            }
            if let Some(failure) = self.failure.get() {
                return Err(failure.to_error());
            }
            let last_seq = core.next_seq + batch.len() as u64 - 1;
            if last_seq <= self.reserved.load(Ordering::Acquire) {
                break core;
            }
            // The syncer reserves ahead; only a burst of a whole block between two of its rounds gets here and waits for a sync. Without
            // the lock: whoever holds the notes on the log may want it.
            drop(core);
            self.reserve(last_seq)?;
        };
        let first_seq = core.next_seq;
        for (n, put) in batch.iter().enumerate() {
            self.put(&mut core, put, n + 1 < batch.len());
        }
        let waiting = core.buffer.len();
        drop(core);
        self.counters.appended.fetch_add(batch.len() as u64, Ordering::Relaxed);
        if waiting >= BUFFER_BYTES {
            self.write_out()?;
        }
        Ok(first_seq)
    }

    fn put(&self, core: &mut Core, put: &Put<'_>, continues: bool) {
        let Put { subject, headers, payload, time_ns } = *put;
        let size = (subject.len() + headers.len() + payload.len()) as u64 + MESSAGE_OVERHEAD;
        let seq = core.next_seq;
        let victim = victim_of(core, subject);
        let at = core.buffer_at + core.buffer.len() as u64;
        let (active, subjects, buffer) = core.active();
        let fields = Fields { seq, time_ns, subject, headers, payload, continues: continues || victim.is_some(), operation: false };
        record::encode(&fields, buffer);
        let slot = subjects.add(subject, seq, size);
        let Body::Raw(raw) = &mut active.body else { unreachable!("the active segment is raw") };
        raw.offsets.push(u32::try_from(at).unwrap_or(NOWHERE));
        raw.slots.push(slot);
        if active.end_seq == active.first_seq {
            (active.first_time_ns, active.max_time_ns) = (time_ns, time_ns);
        }
        active.max_time_ns = active.max_time_ns.max(time_ns);
        active.last_time_ns = time_ns;
        active.end_seq += 1;
        active.bytes += size;
        core.next_seq += 1;
        core.unwritten.push_back(u32::try_from(size).unwrap_or(u32::MAX));
        core.last_time_ns = time_ns;
        core.bytes += size;
        if core.messages == 0 {
            (core.first_seq, core.first_time_ns) = (seq, time_ns);
        }
        core.messages += 1;
        if let Some((victim, size)) = victim {
            self.remove_known(core, victim, subject, size);
            core.operate(Operation::Delete { subject: subject.to_owned(), messages: vec![(victim, size)] }, continues);
        }
        self.enforce_size(core);
    }

    /// Writes what waits; who comes meanwhile waits and finds its own written too.
    pub(super) fn write_out(&self) -> Result<(), StoreError> {
        let _one_at_a_time = lock(&self.io);
        loop {
            let write = lock(&self.core).take(self.config.segment_bytes);
            let Some(write) = write else { break };
            let len = write.offset + write.bytes.len() as u64;
            match self.write(&write) {
                Ok(opened) => self.written(&write, opened, len),
                Err((action, path, source)) => return Err(self.lose(&write, action, path, source)),
            }
        }
        Ok(())
    }

    fn write(&self, write: &Write) -> Result<Option<Opened>, (&'static str, std::path::PathBuf, io::Error)> {
        let path = self.dir.join(segment::file_name(write.segment, Form::Raw));
        let result = match &write.file {
            Some(opened) => opened.file.write_at(&write.bytes, write.offset).map(|()| None),
            None => self.vfs.create(&path).and_then(|file| {
                // One write for header and records: what a kill leaves of a new segment begins with its header.
                let header = segment::encode_header(Form::Raw, &self.config.name, write.segment);
                file.write_at(&header, 0)?;
                file.write_at(&write.bytes, write.offset)?;
                Ok(Some(self.opened(file)))
            }),
        };
        result.map_err(|error| ("append to", path, error))
    }

    fn written(&self, write: &Write, opened: Option<Opened>, len: u64) {
        let mut core = lock(&self.core);
        if opened.is_some() {
            core.dir_dirty = true;
        }
        let newly = usize::try_from(core.taken_seq - 1 - core.written_seq).unwrap_or(usize::MAX).min(core.unwritten.len());
        core.unwritten.drain(..newly);
        core.written_seq = core.taken_seq - 1;
        core.head_written = write.head;
        core.unwritten_operations.drain(..write.operations);
        let written_seq = core.written_seq;
        if let Some(Segment { body: Body::Raw(raw), disk_len, .. }) = core.by_first_seq(write.segment) {
            raw.len = len;
            raw.dirty = true;
            *disk_len = len;
            if opened.is_some() {
                raw.file = opened;
            }
        }
        drop(core);
        self.counters.write_failing.store(false, Ordering::Relaxed);
        if self.config.sync != SyncPolicy::Always {
            self.durable.send_modify(|durable| durable.acked_seq = durable.acked_seq.max(written_seq));
        }
        self.wake();
    }

    /// A write failed: what it held, and all that was appended since, is gone, as if it had never been; its sequences stay unused.
    fn lose(&self, write: &Write, action: &'static str, path: std::path::PathBuf, source: io::Error) -> StoreError {
        let mut core = lock(&self.core);
        let first_lost = core.written_seq + 1;
        core.buffer.clear();
        core.buffer.shrink_to(BUFFER_BYTES);
        let next_seq = core.next_seq;
        let mut seq = next_seq;
        while seq > first_lost {
            seq -= 1;
            let Some(at) = core.segments.iter().rposition(|segment| segment.first_seq <= seq && seq < segment.end_seq) else { continue };
            let core = &mut *core;
            let Core { segments, subjects, .. } = core;
            let segment = &mut segments[at];
            let (place, held) = (segment.place(seq), segment.has(seq));
            let Body::Raw(raw) = &mut segment.body else { continue };
            raw.offsets.pop();
            if let Some(slot) = raw.slots.pop().filter(|slot| *slot != NOWHERE) {
                if held {
                    let name = subjects.get(slot).name.clone();
                    subjects.remove(&name, seq);
                }
                subjects.unreference(slot, 1);
            }
            segment.end_seq = seq;
            Arc::make_mut(&mut segment.deleted).remove(place);
            let size = core.unwritten.pop_back().map_or(0, u64::from);
            if held {
                segment.bytes = segment.bytes.saturating_sub(size);
                core.bytes = core.bytes.saturating_sub(size);
                core.messages -= 1;
                core.removals += 1;
            }
        }
        let (written_len, file) = match core.by_first_seq(write.segment) {
            Some(Segment { body: Body::Raw(raw), .. }) => {
                // What is cut off below stays cut off only when that is synced, too.
                raw.dirty = raw.file.is_some();
                (raw.len, raw.file.clone())
            }
            _ => (write.offset, None),
        };
        core.drop_chunks_behind(write.segment, written_len);
        if first_lost < next_seq {
            match core.gaps.last_mut() {
                Some((_, last)) if *last + 1 == first_lost => *last = next_seq - 1,
                _ => core.gaps.push((first_lost, next_seq - 1)),
            }
            self.counters.lost.fetch_add(next_seq - first_lost, Ordering::Relaxed);
        }
        // Sequences are dense inside a segment: the next message begins another, unless none was lost.
        core.segments.retain(|segment| segment.is_on_disk() || segment.end_seq > segment.first_seq);
        let goes_on = core.segments.back().and_then(|last| match &last.body {
            Body::Raw(raw) if last.end_seq == next_seq && raw.file.is_some() => Some(raw.len),
            _ => None,
        });
        match goes_on {
            Some(len) => core.buffer_at = len,
            None => {
                core.segments.push_back(Segment::raw(next_seq));
                core.buffer_at = HEADER_LEN;
            }
        }
        core.head_on_disk = core.head_written;
        core.taken_seq = next_seq;
        core.written_seq = next_seq - 1;
        if core.messages == 0 {
            core.first_seq = next_seq;
        }
        // What was deleted stays deleted: the log says it again.
        core.head_moved = true;
        for operation in std::mem::take(&mut core.unwritten_operations) {
            core.operate(operation, false);
        }
        core.dir_dirty = true;
        drop(core);
        if file.is_none() {
            // The segment's first write failed: its file holds nothing that counts, and may not even be there.
            let removed = self.vfs.remove(&self.dir.join(segment::file_name(write.segment, Form::Raw)));
            if let Err(error) = removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }) {
                self.fail("remove the beginning of", path.clone(), error);
            }
        }
        if let Some(opened) = file
            && let Err(uncut) = opened.file.set_len(written_len)
        {
            // What was written in part would be taken for records by whoever reads the file next.
            self.fail("cut a failed write off", path.clone(), uncut);
        }
        self.refused(action, path, source)
    }

    pub(super) fn refused(&self, action: &'static str, path: std::path::PathBuf, source: io::Error) -> StoreError {
        let first = self.counters.write_failed();
        let failure = Failure { action, path, source };
        let error = failure.to_refusal();
        if first {
            // Once, until a write works again: publishers are told each time.
            tracing::warn!(stream = self.config.name, "publications are refused: {error}");
        }
        *lock(&self.last_failure) = Some(failure);
        error
    }

    /// What [`Store::flush`](crate::store::Store::flush) does, for who appended the message with this sequence: also fails where another's
    /// flush had tried to write it and failed.
    pub(crate) fn flush_own(&self, seq: u64) -> Result<(), StoreError> {
        self.flush()?;
        self.check_kept(seq)
    }

    /// Fails where this message was appended and could not be written.
    pub(super) fn check_kept(&self, seq: u64) -> Result<(), StoreError> {
        if !self.lost(seq) {
            return Ok(());
        }
        Err(match &*lock(&self.last_failure) {
            Some(failure) => failure.to_refusal(),
            None => StoreError::Io { action: "append to", path: self.dir.clone(), source: io::Error::other("its write failed") },
        })
    }

    /// Ends the log's life as a writer: the kernel may have dropped the dirty pages, and would report success next time.
    pub(super) fn fail(&self, action: &'static str, path: std::path::PathBuf, source: io::Error) {
        tracing::error!(stream = self.config.name, path = %path.display(), %source, "cannot {action} the log: the stream accepts nothing more until restart");
        self.counters.write_failed();
        // The first failure is the one that explains the others.
        let _ = self.failure.set(Failure { action, path, source });
        self.durable.send_modify(|durable| durable.ended = true);
        self.synced.send_modify(|synced| synced.ended = true);
    }
}

/// What must go so that one more message of this subject may come: its oldest one.
fn victim_of(core: &Core, subject: &str) -> Option<(u64, u64)> {
    let max = core.limits.max_msgs_per_subject?;
    let held = &core.subjects.get(core.subjects.find(subject)?).messages;
    if (held.len() as u64) < max { None } else { held.front().map(|(seq, size)| (*seq, u64::from(*size))) }
}
