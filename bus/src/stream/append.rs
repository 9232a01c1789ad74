//! The writer: duplicates out, sequences on, one write, then everybody may see it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::error;

use super::dedupe::Dedupe;
use super::{Failure, Inner, count, lock};
use crate::config::SyncPolicy;
use crate::error::PublishError;
use crate::log::record::{self, Fields, MAX_PAYLOAD, MAX_TEXT};
use crate::log::segment::{self, SEGMENT_HEADER_LEN, Segment, SegmentState};
use crate::message::{Message, PubAck, Record};

/// Largest batch: what one write holds in memory at a time.
const MAX_BATCH_BYTES: usize = 64 * 1024 * 1024;
/// A segment ends after this share of the stream's `max_age`, so that age retention has something to delete.
const AGE_SHARES: u32 = 8;

/// What only the one who appends touches.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(super) active: Arc<File>,
    pub(super) segment: Arc<Segment>,
    pub(super) next_seq: u64,
    /// Closed segments that were not synced yet.
    pub(super) unsynced: Vec<(Arc<File>, PathBuf)>,
    /// A segment was created and the folder not synced yet.
    pub(super) dir_unsynced: bool,
    pub(super) dedupe: Dedupe,
    buffer: Vec<u8>,
    /// Tests: the next write stops after so many bytes, as on a full disk.
    #[cfg(test)]
    pub(super) room: Option<usize>,
}

impl Writer {
    pub(super) fn new(active: File, segment: Arc<Segment>, next_seq: u64, dedupe: Dedupe) -> Self {
        Self {
            active: Arc::new(active),
            segment,
            next_seq,
            unsynced: Vec::new(),
            dir_unsynced: true,
            dedupe,
            buffer: Vec::new(),
            #[cfg(test)]
            room: None,
        }
    }

    #[cfg(not(test))]
    fn write(&mut self, offset: u64) -> io::Result<()> {
        self.active.write_all_at(&self.buffer, offset)
    }

    #[cfg(test)]
    fn write(&mut self, offset: u64) -> io::Result<()> {
        match self.room.take() {
            Some(room) if room < self.buffer.len() => {
                self.active.write_all_at(&self.buffer[..room], offset)?;
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => self.active.write_all_at(&self.buffer, offset),
        }
    }
}

/// What each message of a batch becomes.
enum Fate {
    Duplicate(u64),
    /// Appended as the n-th of the batch's new messages.
    New(usize),
    /// Has the message id of the batch's n-th new message.
    DuplicateOfNew(usize),
}

fn check_size(what: &'static str, bytes: usize, max: usize) -> Result<(), PublishError> {
    if bytes <= max { Ok(()) } else { Err(PublishError::TooLarge { what, bytes: bytes as u64, max: max as u64 }) }
}

/// No room on the disk, in the quota or under the process's file size limit: the one kind of failure that passes.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

impl Inner {
    pub(super) fn append_batch(&self, messages: Vec<Message>) -> Result<Vec<PubAck>, PublishError> {
        let mut total = 0;
        for Message { subject, msg_id, time_ns: _, payload } in &messages {
            check_size("subject", subject.as_str().len(), MAX_TEXT)?;
            check_size("message id", msg_id.as_deref().map_or(0, str::len), MAX_TEXT)?;
            check_size("payload", payload.len(), MAX_PAYLOAD)?;
            total += record::encoded_len(subject.as_str(), msg_id.as_deref(), payload);
        }
        check_size("batch", total, MAX_BATCH_BYTES)?;

        let mut writer = lock(&self.writer);
        if self.is_closed() {
            return Err(PublishError::Closed { stream: self.name });
        }
        if let Some(failure) = self.failure.get() {
            return Err(failure.to_error());
        }
        let (fates, fresh) = sort_out(&writer.dedupe, messages);
        let first_seq = writer.next_seq;
        if !fresh.is_empty() {
            self.append_fresh(&mut writer, fresh)?;
        }
        let duplicates = fates.iter().filter(|fate| !matches!(fate, Fate::New(_))).count();
        count(&self.counters.duplicates, duplicates as u64);
        let acks = fates.iter().map(|fate| match *fate {
            Fate::Duplicate(seq) => PubAck { seq, duplicate: true },
            Fate::New(n) => PubAck { seq: first_seq + n as u64, duplicate: false },
            Fate::DuplicateOfNew(n) => PubAck { seq: first_seq + n as u64, duplicate: true },
        });
        Ok(acks.collect())
    }

    fn append_fresh(&self, writer: &mut Writer, fresh: Vec<Message>) -> Result<(), PublishError> {
        let last_seq = writer.next_seq + fresh.len() as u64 - 1;
        if last_seq > self.reserved.load(Ordering::Acquire) {
            // The syncer reserves ahead; only a burst of a whole block between two of its rounds gets here and waits for a sync.
            self.reserve(last_seq).map_err(|source| self.refused("write", crate::log::meta::Meta::path(&self.dir), source))?;
        }
        writer.buffer.clear();
        for (n, message) in fresh.iter().enumerate() {
            let fields = Fields {
                seq: writer.next_seq + n as u64,
                time_ns: message.time_ns,
                subject: message.subject.as_str(),
                msg_id: message.msg_id.as_deref(),
                payload: &message.payload,
                continues: n + 1 < fresh.len(),
            };
            record::encode(&fields, &mut writer.buffer);
        }
        self.roll_if_due(writer, fresh.first().map_or(0, |message| message.time_ns))?;

        let offset = writer.segment.state().len;
        if let Err(source) = writer.write(offset) {
            let path = writer.segment.path.clone();
            if let Err(uncut) = writer.active.set_len(offset) {
                // What was written in part would be taken for records by whoever reads the file next.
                self.fail("cut a failed write off", path.clone(), uncut);
            }
            return Err(self.refused("append to", path, source));
        }
        self.commit(writer, offset, fresh);
        Ok(())
    }

    /// The bytes are in the file: now they count.
    fn commit(&self, writer: &mut Writer, mut offset: u64, fresh: Vec<Message>) {
        let appended = fresh.len() as u64;
        {
            let mut state = writer.segment.state();
            let mut ring = lock(&self.ring);
            for Message { subject, msg_id, time_ns, payload } in fresh {
                let seq = writer.next_seq;
                writer.next_seq += 1;
                state.note_offset(seq, offset);
                state.add(time_ns);
                offset += record::encoded_len(subject.as_str(), msg_id.as_deref(), &payload) as u64;
                if let Some(msg_id) = &msg_id {
                    writer.dedupe.insert(msg_id, seq, time_ns);
                }
                ring.push(Record { seq, subject, msg_id, time_ns, payload });
            }
            state.len = offset;
        }
        // One huge batch must not keep its memory for ever.
        writer.buffer.clear();
        writer.buffer.shrink_to(1024 * 1024);
        count(&self.counters.appended, appended);
        self.counters.write_failing.store(false, Ordering::Relaxed);
        let last_seq = writer.next_seq - 1;
        self.head.send_modify(|head| head.last_seq = last_seq);
        self.syncer.wake();
    }

    fn roll_if_due(&self, writer: &mut Writer, time_ns: i64) -> Result<(), PublishError> {
        let (len, first_time_ns) = {
            let state = writer.segment.state();
            (state.len, state.first_time_ns)
        };
        let has_records = len > SEGMENT_HEADER_LEN;
        let too_long = len + writer.buffer.len() as u64 > self.segment_limit();
        let too_old = time_ns.saturating_sub(first_time_ns) > self.age_share_ns();
        if has_records && (too_long || too_old) {
            self.roll(writer).map_err(|source| self.refused("create a segment in", self.dir.clone(), source))?;
        }
        Ok(())
    }

    /// Closes the active segment and begins the next one. Both are synced by the next sync, and no sequence counts as synced before.
    pub(super) fn roll(&self, writer: &mut Writer) -> io::Result<()> {
        let file = segment::create(&self.dir, self.name, writer.next_seq)?;
        let next = Arc::new(Segment::new(&self.dir, writer.next_seq, SegmentState::empty()));
        let closed = std::mem::replace(&mut writer.active, Arc::new(file));
        writer.unsynced.push((closed, writer.segment.path.clone()));
        writer.segment = Arc::clone(&next);
        writer.dir_unsynced = true;
        self.segments_mut().push_back(next);
        self.syncer.wake();
        Ok(())
    }

    /// A segment is at most a quarter of the stream, so that byte retention does not take everything at once.
    fn segment_limit(&self) -> u64 {
        self.config.segment_bytes.min(self.config.max_bytes / 4)
    }

    pub(super) fn age_share_ns(&self) -> i64 {
        i64::try_from((self.config.max_age / AGE_SHARES).as_nanos()).unwrap_or(i64::MAX)
    }

    /// How many sequences are reserved ahead: enough for many rounds of the syncer.
    pub(super) fn reserve_block(policy: SyncPolicy) -> u64 {
        match policy {
            SyncPolicy::Always => 1 << 12,
            SyncPolicy::Interval(_) | SyncPolicy::Os => 1 << 20,
        }
    }

    /// Notes on disk that sequences up to `seq`, and a block more, may be handed out.
    pub(super) fn reserve(&self, seq: u64) -> io::Result<()> {
        let mut meta = lock(&self.meta);
        let reserved = seq + Self::reserve_block(self.config.sync);
        if meta.reserved < reserved {
            let before = std::mem::replace(&mut meta.reserved, reserved);
            if let Err(error) = meta.store(&self.dir) {
                meta.reserved = before;
                return Err(error);
            }
        }
        self.reserved.fetch_max(meta.reserved, Ordering::AcqRel);
        Ok(())
    }

    fn refused(&self, action: &'static str, path: PathBuf, source: io::Error) -> PublishError {
        self.counters.write_failed();
        if is_full(&source) { PublishError::Full { path, source } } else { PublishError::Io { action, path, source } }
    }

    /// Ends the stream's life as a writer: see the module's invariants.
    pub(super) fn fail(&self, action: &'static str, path: PathBuf, source: io::Error) {
        error!(stream = %self.name, path = %path.display(), %source, "cannot {action} the log: the stream accepts nothing more until restart");
        self.counters.write_failed();
        // The first failure is the one that explains the others.
        let _ = self.failure.set(Failure { action, path, source });
        self.synced.send_modify(|synced| synced.ended = true);
    }
}

/// Tells duplicates, of stored messages and of one another, from new messages.
fn sort_out(dedupe: &Dedupe, messages: Vec<Message>) -> (Vec<Fate>, Vec<Message>) {
    let mut fates = Vec::with_capacity(messages.len());
    let mut fresh: Vec<Message> = Vec::with_capacity(messages.len());
    let mut batch: HashMap<String, usize> = HashMap::new();
    for message in messages {
        if let Some(msg_id) = &message.msg_id {
            if let Some(seq) = dedupe.find(msg_id, message.time_ns) {
                fates.push(Fate::Duplicate(seq));
                continue;
            }
            if let Some(n) = batch.get(msg_id) {
                fates.push(Fate::DuplicateOfNew(*n));
                continue;
            }
            batch.insert(msg_id.clone(), fresh.len());
        }
        fates.push(Fate::New(fresh.len()));
        fresh.push(message);
    }
    (fates, fresh)
}
