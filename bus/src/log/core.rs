//! What a log knows in memory: its segments, its subjects, what is not written yet. No file is touched here.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use roaring::RoaringBitmap;

use super::operation::Operation;
use super::record;
use super::sealed::{BlockRef, Table};
use super::segment::HEADER_LEN;
use super::subjects::{Slot, Subjects};
use super::vfs::VFile;
use crate::store::{Limits, Stored};

/// How much of what was written last is kept in memory, so that readers that keep up read no file.
pub(crate) const TAIL_BYTES: usize = 4 * 1024 * 1024;
/// An offset that is none: the record there is unreadable.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// A file with a number of its own, by which what was read from it is remembered.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) id: u64,
    pub(crate) file: Arc<dyn VFile>,
}

/// A segment whose records stand as they were written.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    /// `None` until something is written.
    pub(crate) file: Option<Opened>,
    /// Bytes in the file that hold whole batches.
    pub(crate) len: u64,
    /// Where the n-th message begins.
    pub(crate) offsets: Vec<u32>,
    /// What the n-th message is about.
    pub(crate) slots: Vec<Slot>,
    pub(crate) operations: Vec<Operation>,
    /// Written to since the last sync.
    pub(crate) dirty: bool,
}

/// A segment in its final form.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) opened: Opened,
    pub(crate) blocks: Vec<BlockRef>,
    /// Sequences, from the segment's first, that the file does not have.
    pub(crate) absent: RoaringBitmap,
    pub(crate) operations: usize,
}

#[derive(Debug)]
pub(crate) enum Body {
    Raw(Raw),
    Sealed(Arc<Sealed>),
}

/// A part of the log with consecutive sequences.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) first_seq: u64,
    /// The sequence behind its last one.
    pub(crate) end_seq: u64,
    pub(crate) body: Body,
    /// Sequences, counted from the first, that have no message (any more).
    pub(crate) deleted: Arc<RoaringBitmap>,
    /// Size of the messages held.
    pub(crate) bytes: u64,
    pub(crate) first_time_ns: i64,
    pub(crate) max_time_ns: i64,
    /// Time of the message with the last sequence, held or not.
    pub(crate) last_time_ns: i64,
    /// Bytes of the file.
    pub(crate) disk_len: u64,
    /// When a sealed segment's records were last written, Unix ns: what its age counts from.
    pub(crate) written_ns: i64,
    /// A rewriting of it failed or found nothing to gain at so many deleted messages: not tried again before there are more.
    pub(crate) tried_at: Option<u64>,
}

impl Segment {
    pub(crate) fn raw(first_seq: u64) -> Self {
        let body = Body::Raw(Raw { len: HEADER_LEN, ..Raw::default() });
        Self {
            first_seq,
            end_seq: first_seq,
            body,
            deleted: Arc::default(),
            bytes: 0,
            first_time_ns: 0,
            max_time_ns: 0,
            last_time_ns: 0,
            disk_len: 0,
            written_ns: 0,
            tried_at: None,
        }
    }

    pub(crate) fn sealed(first_seq: u64, opened: Opened, table: &Table, disk_len: u64) -> Self {
        Self {
            first_seq,
            end_seq: table.end_seq,
            deleted: Arc::new(table.absent.clone()),
            bytes: table.bytes,
            first_time_ns: table.first_time_ns,
            max_time_ns: table.max_time_ns,
            last_time_ns: table.last_time_ns,
            disk_len,
            written_ns: table.written_ns,
            tried_at: None,
            body: Body::Sealed(Arc::new(Sealed {
                opened,
                blocks: table.blocks.clone(),
                absent: table.absent.clone(),
                operations: table.operations.len(),
            })),
        }
    }

    /// Messages held.
    pub(crate) fn live(&self) -> u64 {
        (self.end_seq - self.first_seq) - self.deleted.len()
    }

    /// A sequence counted from the first one. Segments are closed long before 2³² messages.
    pub(crate) fn place(&self, seq: u64) -> u32 {
        u32::try_from(seq.saturating_sub(self.first_seq)).unwrap_or(u32::MAX)
    }

    pub(crate) fn has(&self, seq: u64) -> bool {
        (self.first_seq..self.end_seq).contains(&seq) && !self.deleted.contains(self.place(seq))
    }

    /// The first sequence held at or behind `from`.
    pub(crate) fn next_live(&self, from: u64) -> Option<u64> {
        let from = from.max(self.first_seq);
        if from >= self.end_seq {
            return None;
        }
        let start = self.place(from);
        if !self.deleted.contains(start) {
            return Some(from);
        }
        // Everything up to `low` is deleted; where the count falls behind the distance, something is held.
        let end = self.place(self.end_seq);
        let all_deleted = |upto: u32| self.deleted.range_cardinality(start..upto) == u64::from(upto - start);
        let (mut low, mut step) = (start + 1, 1_u32);
        while low.saturating_add(step) < end && all_deleted(low + step) {
            low += step;
            step = step.saturating_mul(2);
        }
        let mut high = low.saturating_add(step).min(end);
        while low < high {
            let middle = low + (high - low) / 2;
            if all_deleted(middle + 1) { low = middle + 1 } else { high = middle }
        }
        (low < end).then(|| self.first_seq + u64::from(low))
    }

    /// Messages held at or behind `from`.
    pub(crate) fn count_from(&self, from: u64) -> u64 {
        if from <= self.first_seq {
            return self.live();
        }
        if from >= self.end_seq {
            return 0;
        }
        let place = self.place(from);
        (self.end_seq - from) - self.deleted.range_cardinality(place..)
    }

    /// Whether it has a file.
    pub(crate) fn is_on_disk(&self) -> bool {
        match &self.body {
            Body::Raw(raw) => raw.file.is_some(),
            Body::Sealed(_) => true,
        }
    }

    /// Whether it says something about other segments' messages.
    pub(crate) fn has_operations(&self) -> bool {
        match &self.body {
            Body::Raw(raw) => !raw.operations.is_empty(),
            Body::Sealed(sealed) => sealed.operations > 0,
        }
    }
}

/// Bytes of a raw segment that are still in memory.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
}

/// Something to write: bytes at a place of a segment.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) segment: u64,
    pub(crate) file: Option<Opened>,
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
    /// The head that the log tells once this is written.
    pub(crate) head: u64,
    /// So many of the unwritten operations are in it.
    pub(crate) operations: usize,
}

/// Messages whose bytes do not read back.
#[derive(Debug, Clone)]
pub(crate) struct Unreadable {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
    pub(crate) reason: &'static str,
}

/// Everything behind the log's one lock.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) subjects: Subjects,
    pub(crate) limits: Limits,
    pub(crate) next_seq: u64,
    pub(crate) first_seq: u64,
    pub(crate) first_time_ns: i64,
    pub(crate) last_time_ns: i64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) removals: u64,
    /// Records of the active segment that are not written yet, and the offset of the first of them.
    pub(crate) buffer: Vec<u8>,
    pub(crate) buffer_at: u64,
    /// First sequence that is not written, or being written, yet.
    pub(crate) taken_seq: u64,
    pub(crate) tail: VecDeque<Chunk>,
    pub(crate) tail_bytes: usize,
    pub(crate) written_seq: u64,
    /// Deletions that are not written yet.
    pub(crate) unwritten_operations: Vec<Operation>,
    /// Sizes of the messages behind it.
    pub(crate) unwritten: VecDeque<u32>,
    /// The head moved and no operation tells it.
    pub(crate) head_moved: bool,
    /// The `first_seq` that the log's operations tell.
    pub(crate) head_on_disk: u64,
    /// The same for the operations that are written, and for those that are synced.
    pub(crate) head_written: u64,
    pub(crate) head_synced: u64,
    /// Sequences that no message has: never written, or skipped.
    pub(crate) gaps: Vec<(u64, u64)>,
    /// What turned out not to read back.
    pub(crate) unreadable: Vec<Unreadable>,
    /// Files to delete.
    pub(crate) garbage: Vec<PathBuf>,
    /// The folder has entries that were not synced.
    pub(crate) dir_dirty: bool,
    pub(crate) closed: bool,
    /// While it is opened: what the segments say of one another's messages.
    pub(crate) pending_operations: Vec<Operation>,
}

impl Core {
    pub(crate) fn active(&mut self) -> (&mut Segment, &mut Subjects, &mut Vec<u8>) {
        let Some(active) = self.segments.back_mut() else { unreachable!("a log always has a segment to append to") };
        (active, &mut self.subjects, &mut self.buffer)
    }

    /// The segment that has or would have this sequence, or the next one.
    pub(crate) fn segment_at(&self, seq: u64) -> Option<usize> {
        let at = self.segments.partition_point(|segment| segment.end_seq <= seq);
        (at < self.segments.len()).then_some(at)
    }

    pub(crate) fn by_first_seq(&mut self, first_seq: u64) -> Option<&mut Segment> {
        let at = self.segments.binary_search_by_key(&first_seq, |segment| segment.first_seq).ok()?;
        self.segments.get_mut(at)
    }

    pub(crate) fn has(&self, seq: u64) -> bool {
        seq >= self.first_seq && self.segment_at(seq).is_some_and(|at| self.segments[at].has(seq))
    }

    /// Counts a message out. The caller knows its subject and size. False where it is not held.
    pub(crate) fn remove(&mut self, seq: u64, subject: &str, size: u64) -> bool {
        if seq < self.first_seq {
            return false;
        }
        let Some(at) = self.segment_at(seq).filter(|at| self.segments[*at].has(seq)) else { return false };
        let segment = &mut self.segments[at];
        let place = segment.place(seq);
        Arc::make_mut(&mut segment.deleted).insert(place);
        segment.bytes = segment.bytes.saturating_sub(size);
        self.subjects.remove(subject, seq);
        self.messages -= 1;
        self.bytes = self.bytes.saturating_sub(size);
        self.removals += 1;
        true
    }

    /// Moves `first_seq` to the first message held. True when it moved, and `first_time_ns` must be found out.
    pub(crate) fn advance_head(&mut self) -> bool {
        let before = self.first_seq;
        let mut seq = before;
        loop {
            let Some(at) = self.segment_at(seq) else {
                seq = self.next_seq;
                break;
            };
            let segment = &self.segments[at];
            if let Some(found) = segment.next_live(seq) {
                seq = found;
                break;
            }
            seq = segment.end_seq.max(seq + 1);
            if at + 1 == self.segments.len() {
                seq = self.next_seq;
                break;
            }
        }
        self.first_seq = seq;
        self.drop_dead_front();
        seq != before
    }

    /// Lets go of the oldest segments while they hold nothing; what they say about older messages is of no use any more.
    pub(crate) fn drop_dead_front(&mut self) {
        while self.segments.len() > 1
            && let Some(front) = self.segments.front().filter(|front| front.live() == 0 && front.end_seq <= self.first_seq)
        {
            let first_seq = front.first_seq;
            // Bytes may be on their way to the disk; and the last file of all stays, because it tells how far the sequences came.
            if !front.is_on_disk() || !self.segments.iter().skip(1).any(Segment::is_on_disk) {
                break;
            }
            self.forget(first_seq);
        }
    }

    /// Takes a segment out of the list; its file is garbage.
    pub(crate) fn forget(&mut self, first_seq: u64) {
        let Ok(at) = self.segments.binary_search_by_key(&first_seq, |segment| segment.first_seq) else { return };
        let Some(segment) = self.segments.remove(at) else { return };
        let form = match segment.body {
            Body::Raw(raw) => {
                self.unreference(&raw);
                super::segment::Form::Raw
            }
            Body::Sealed(_) => super::segment::Form::Sealed,
        };
        self.garbage.push(PathBuf::from(super::segment::file_name(first_seq, form)));
        self.drop_chunks(first_seq);
    }

    /// A raw index is let go of.
    pub(crate) fn unreference(&mut self, raw: &Raw) {
        for slot in &raw.slots {
            if *slot != NOWHERE {
                self.subjects.unreference(*slot, 1);
            }
        }
    }

    pub(crate) fn drop_chunks(&mut self, segment: u64) {
        self.tail.retain(|chunk| chunk.segment != segment);
        self.tail_bytes = self.tail.iter().map(|chunk| chunk.bytes.len()).sum();
    }

    /// What of this segment stands at or behind `offset`, and what of later ones, is not in memory any more.
    pub(crate) fn drop_chunks_behind(&mut self, segment: u64, offset: u64) {
        self.tail.retain(|chunk| (chunk.segment, chunk.offset) < (segment, offset));
        self.tail_bytes = self.tail.iter().map(|chunk| chunk.bytes.len()).sum();
    }

    /// Whether the active segment is the one that begins here.
    pub(crate) fn is_active(&self, first_seq: u64) -> bool {
        self.segments.back().is_some_and(|active| active.first_seq == first_seq)
    }

    /// A message of a raw segment, where its bytes are in memory.
    pub(crate) fn in_memory(&self, segment: u64, seq: u64, offset: u64) -> Option<Stored> {
        if self.is_active(segment) && offset >= self.buffer_at {
            let bytes = self.buffer.get(usize::try_from(offset - self.buffer_at).ok()?..)?;
            return match record::decode(bytes, seq) {
                record::Decoded::Record(found) => found.to_stored(&Bytes::copy_from_slice(&bytes[..found.len])),
                _ => None,
            };
        }
        let behind = self.tail.partition_point(|chunk| (chunk.segment, chunk.offset) <= (segment, offset));
        let chunk = self.tail.get(behind.checked_sub(1)?).filter(|chunk| chunk.segment == segment)?;
        let at = usize::try_from(offset - chunk.offset).ok().filter(|at| *at < chunk.bytes.len())?;
        match record::decode_trusted(&chunk.bytes[at..], seq) {
            record::Decoded::Record(found) => found.to_stored(&chunk.bytes.slice(at..at + found.len)),
            _ => None,
        }
    }

    /// Hands out what is to be written, as part of the tail from now on; begins the next segment when this one is long enough.
    pub(crate) fn take(&mut self, segment_limit: u64) -> Option<Write> {
        if std::mem::take(&mut self.head_moved) {
            self.note_head();
        }
        if self.buffer.is_empty() {
            return None;
        }
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        let offset = self.buffer_at;
        self.buffer_at += bytes.len() as u64;
        self.taken_seq = self.next_seq;
        let Some(active) = self.segments.back() else { unreachable!("a log always has a segment to append to") };
        let Body::Raw(raw) = &active.body else { unreachable!("the active segment is raw") };
        let write = Write {
            segment: active.first_seq,
            file: raw.file.clone(),
            offset,
            bytes: bytes.clone(),
            head: self.head_on_disk,
            operations: self.unwritten_operations.len(),
        };
        let len = bytes.len();
        self.tail_bytes += len;
        self.tail.push_back(Chunk { segment: active.first_seq, offset, bytes });
        while self.tail_bytes > TAIL_BYTES && self.tail.len() > 1 {
            if let Some(oldest) = self.tail.pop_front() {
                self.tail_bytes -= oldest.bytes.len();
                self.reuse(oldest.bytes, len);
            }
        }
        if self.buffer_at >= segment_limit {
            self.roll();
        }
        Some(write)
    }

    /// The memory of a chunk that nobody reads any more is the next buffer, where it is of a size with what was written last: fresh pages
    /// for each write would cost more than the write.
    fn reuse(&mut self, bytes: Bytes, len: usize) {
        if self.buffer.capacity() > 0 {
            return;
        }
        if let Ok(mut free) = bytes.try_into_mut()
            && free.capacity() <= 2 * len
        {
            free.clear();
            self.buffer = free.into();
        }
    }

    /// Begins the next segment. Its file is created when something is written to it.
    pub(crate) fn roll(&mut self) {
        // One without messages goes on: the next would have its name.
        if self.segments.back().is_some_and(|active| active.end_seq == active.first_seq) {
            return;
        }
        self.segments.push_back(Segment::raw(self.next_seq));
        self.buffer_at = HEADER_LEN;
        self.note_head();
    }

    /// Says in the log where it begins, if it does not yet.
    pub(crate) fn note_head(&mut self) {
        if self.head_on_disk < self.first_seq && self.first_seq > 1 {
            self.operate(Operation::Head { first_seq: self.first_seq }, false);
            self.head_on_disk = self.first_seq;
        }
    }

    /// Appends an operation to the buffer.
    pub(crate) fn operate(&mut self, operation: Operation, continues: bool) {
        let (seq, time_ns) = (self.next_seq, self.last_time_ns);
        let (active, _, buffer) = self.active();
        let payload = operation.encode();
        let fields =
            record::Fields { seq, time_ns, subject: operation.subject(), headers: b"", payload: &payload, continues, operation: true };
        record::encode(&fields, buffer);
        if let Body::Raw(raw) = &mut active.body {
            raw.operations.push(operation.clone());
        }
        if matches!(operation, Operation::Delete { .. }) {
            self.unwritten_operations.push(operation);
        }
    }
}
