//! Reading a stream's files beside its writer, or without one.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::meta::{self, Meta};
use super::record::{self, Decoded};
use super::sealed::{self, Table};
use super::segment::{self, FORMAT_VERSION, Form, HEADER_LEN, HeaderError};
use super::stream_dir;
use super::vfs::{Disk, VFile};
use crate::config::StreamName;
use crate::error::ReadError;
use crate::message::Record;
use crate::store::Stored;

/// How far out of order the times of records may be for [`LogReader::seek_time`] to find them all: publishers stamp what they saw
/// before they queue it, and two rings are merged within milliseconds.
const TIME_DISORDER_NS: i64 = 60_000_000_000;
/// Bytes of a raw segment read at once. A longer record enlarges the buffer for its own sake.
const CHUNK: usize = 256 * 1024;

/// Read-only view of a stream's files from any process, with or without a running writer. It takes no lock and writes nothing.
///
/// Records come in order of sequence, whole batches only. What retention deletes before it was read is left out and counted in
/// [`LogReader::skipped`]. Damage is an error once; the next call goes on behind it. Messages that were deleted one by one (JetStream
/// clients do that, the sensor's own streams never) may still be there until their segment is rewritten.
///
/// ```no_run
/// # use bartizan_bus::{LogReader, StreamName};
/// let mut log = LogReader::open("/var/lib/bartizan".as_ref(), StreamName::Alerts)?;
/// while let Some(record) = log.next()? {
///     println!("{} {}", record.seq, record.subject);
/// }
/// # Ok::<(), bartizan_bus::ReadError>(())
/// ```
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    stream: String,
    current: Option<Current>,
    /// Whole batches that were read and not handed out yet.
    ready: VecDeque<Stored>,
    /// Sequence of the next record to hand out; lower ones are passed over.
    next_seq: u64,
    /// Records before this time are passed over until one is not.
    not_before_ns: Option<i64>,
    skipped: u64,
}

/// The segment being read.
#[derive(Debug)]
struct Current {
    first_seq: u64,
    path: PathBuf,
    content: Content,
    /// Offset of damage that the caller knows of.
    reported: Option<u64>,
}

#[derive(Debug)]
enum Content {
    Raw(Cursor),
    Sealed { file: File, table: Table, next_block: usize },
}

/// What reading one batch from the current segment gave.
enum Step {
    Batch,
    /// Nothing whole is there (yet).
    AtEnd {
        /// Where the beginning of something stands.
        cut_at: Option<u64>,
    },
    Bad {
        offset: u64,
        reason: &'static str,
    },
}

impl LogReader {
    /// Opens one of the sensor's streams at its oldest record.
    ///
    /// # Errors
    /// [`ReadError::NoStream`] where the data folder holds no such stream, [`ReadError::Io`] where it may not be read.
    pub fn open(data_dir: &Path, stream: StreamName) -> Result<LogReader, ReadError> {
        Self::open_named(data_dir, stream.as_str())
    }

    /// Opens any stream of a data folder at its oldest record.
    ///
    /// # Errors
    /// [`ReadError::NoStream`] where the data folder holds no such stream, [`ReadError::Io`] where it may not be read.
    pub fn open_named(data_dir: &Path, stream: &str) -> Result<LogReader, ReadError> {
        let dir = stream_dir(data_dir, stream);
        match std::fs::read_dir(&dir) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadError::NoStream { path: dir }),
            Err(source) => return Err(ReadError::Io { path: dir, source }),
        }
        let stream = stream.to_owned();
        Ok(Self { dir, stream, current: None, ready: VecDeque::new(), next_seq: 1, not_before_ns: None, skipped: 0 })
    }

    /// The folder of the stream's files, which change when there is something new.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many records retention deleted, or damage made unreadable, between two that were read.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// To the first record with this or a later sequence.
    ///
    /// # Errors
    /// None at present: what is wrong with the files is reported by [`LogReader::next`].
    pub fn seek_seq(&mut self, seq: u64) -> Result<(), ReadError> {
        self.current = None;
        self.ready.clear();
        self.next_seq = seq.max(1);
        self.not_before_ns = None;
        Ok(())
    }

    /// To the first record with this or a later time (Unix ns). Times may be up to a minute out of order.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub fn seek_time(&mut self, time_ns: i64) -> Result<(), ReadError> {
        let threshold = time_ns.saturating_sub(TIME_DISORDER_NS);
        let mut start = 1;
        for (first_seq, form) in self.segments()?.into_iter().rev() {
            start = first_seq;
            if self.first_time(first_seq, form)?.is_some_and(|first| first < threshold) {
                break;
            }
        }
        self.seek_seq(start)?;
        self.not_before_ns = Some(time_ns);
        Ok(())
    }

    /// Behind the last record: [`LogReader::next`] gives what is appended from now on.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub fn seek_end(&mut self) -> Result<(), ReadError> {
        let Some(&(last, _)) = self.segments()?.last() else { return self.seek_seq(1) };
        self.seek_seq(last)?;
        loop {
            match self.next_stored() {
                Ok(Some(_)) | Err(ReadError::Damaged { .. }) => {}
                Ok(None) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// The next record; `None` at the present end: call again later to follow a live writer, across new segments and retention.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] once per damaged place, [`ReadError::Io`], [`ReadError::Version`].
    #[expect(clippy::should_implement_trait, reason = "`None` is not the end for ever, as an iterator's would be")]
    pub fn next(&mut self) -> Result<Option<Record>, ReadError> {
        loop {
            match self.next_stored()? {
                None => return Ok(None),
                Some(stored) => {
                    if let Some(record) = Record::from_stored(&stored) {
                        return Ok(Some(record));
                    }
                }
            }
        }
    }

    /// The same with the message's headers as they stand.
    ///
    /// # Errors
    /// As [`LogReader::next`].
    pub fn next_stored(&mut self) -> Result<Option<Stored>, ReadError> {
        loop {
            while let Some(message) = self.ready.pop_front() {
                if message.seq < self.next_seq {
                    continue;
                }
                self.next_seq = message.seq + 1;
                match self.not_before_ns {
                    Some(not_before) if message.time_ns < not_before => {}
                    _ => {
                        self.not_before_ns = None;
                        return Ok(Some(message));
                    }
                }
            }
            if !self.read_on()? {
                return Ok(None);
            }
        }
    }

    /// Reads a batch into `ready` or moves to another segment; false at the present end.
    fn read_on(&mut self) -> Result<bool, ReadError> {
        let Some(current) = &mut self.current else { return self.enter() };
        let first_seq = current.first_seq;
        let mut step = current.read_batch(self.next_seq, &mut self.ready)?;
        if matches!(step, Step::Batch) {
            return Ok(true);
        }
        let following = self.segments()?.into_iter().map(|(seq, _)| seq).find(|seq| *seq > first_seq);
        let Some(current) = &mut self.current else { return Ok(true) };
        let Some(following) = following else {
            return match step {
                // What is whole behind it is read on.
                Step::Bad { offset, reason } => match current.resume(offset, u64::MAX) {
                    Some(missing) => {
                        self.skipped += missing;
                        Err(ReadError::Damaged { path: current.path.clone(), offset, reason: reason.to_owned(), missing })
                    }
                    None if current.reported != Some(offset) => {
                        current.reported = Some(offset);
                        Err(ReadError::Damaged { path: current.path.clone(), offset, reason: reason.to_owned(), missing: 0 })
                    }
                    None => Ok(false),
                },
                Step::Batch | Step::AtEnd { .. } => Ok(false),
            };
        };
        // The segment was closed, perhaps after it was read: what came in between is read first.
        step = current.read_batch(self.next_seq, &mut self.ready)?;
        let reached = current.reached().max(self.next_seq);
        let (path, reported) = (current.path.clone(), current.reported.is_some());
        let damage = match step {
            Step::Batch => return Ok(true),
            Step::AtEnd { cut_at: None } => None,
            Step::AtEnd { cut_at: Some(offset) } => Some((offset, "record is cut off")),
            Step::Bad { offset, reason } => match current.resume(offset, following) {
                // Whole records behind it: they are read on.
                Some(missing) => {
                    self.skipped += missing;
                    return Err(ReadError::Damaged { path, offset, reason: reason.to_owned(), missing });
                }
                None => Some((offset, reason)),
            },
        };
        let missing = self.missing(reached, following);
        self.skipped += missing;
        self.next_seq = self.next_seq.max(following);
        self.current = None;
        match damage {
            Some((offset, reason)) if !reported => Err(ReadError::Damaged { path, offset, reason: reason.to_owned(), missing }),
            _ => Ok(true),
        }
    }

    /// Messages with sequences from `first` up to, not including, `end`: what the stream's own notes do not explain.
    fn missing(&self, first: u64, end: u64) -> u64 {
        let gaps = Meta::load(&Disk, &self.dir, &self.stream).ok().flatten().map(|meta| meta.gaps).unwrap_or_default();
        meta::count_outside(&gaps, first, end.saturating_sub(1))
    }

    /// Opens the segment that holds `next_seq`, or the first one behind it; false where there is none.
    fn enter(&mut self) -> Result<bool, ReadError> {
        let segments = self.segments()?;
        let holding = segments.partition_point(|(first, _)| *first <= self.next_seq);
        let Some(&(first_seq, form)) = segments.get(holding.saturating_sub(1)) else { return Ok(false) };
        let is_last = segments.last().is_some_and(|(last, _)| *last == first_seq);
        let path = self.dir.join(segment::file_name(first_seq, form));
        let file = match File::open(&path) {
            Ok(file) => file,
            // Retention or sealing was faster: look again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(source) => return Err(ReadError::Io { path, source }),
        };
        let io_error = |source| ReadError::Io { path: path.clone(), source };
        let header = segment::read_header(&file, form, &self.stream, first_seq).map_err(io_error)?;
        if first_seq > self.next_seq {
            // The very first segment entered tells where the stream begins; later ones, what retention took meanwhile.
            if self.next_seq > 1 {
                self.skipped += self.missing(self.next_seq, first_seq);
            }
            self.next_seq = first_seq;
        }
        let failed = match header {
            Ok(()) => None,
            Err(HeaderError::Short) if is_last => return Ok(false),
            Err(HeaderError::Version(found)) => {
                return Err(ReadError::Version { path, found: found.into(), supported: FORMAT_VERSION.into() });
            }
            Err(error) => Some(error.reason()),
        };
        // Behind a header that does not read, records and blocks count that do, as for the writer.
        let content = match form {
            Form::Raw => Content::Raw(Cursor::new(file, first_seq)),
            Form::Sealed => {
                let table = match sealed::read_table(&file, first_seq).map_err(io_error)? {
                    Ok(table) => table,
                    Err(_) => sealed::rebuild_table(&file, first_seq).map_err(io_error)?.0,
                };
                Content::Sealed { file, table, next_block: 0 }
            }
        };
        self.current = Some(Current { first_seq, path: path.clone(), content, reported: None });
        match failed {
            None => Ok(true),
            Some(reason) => Err(ReadError::Damaged { path, offset: 0, reason, missing: 0 }),
        }
    }

    /// First sequences and forms of the segments, ascending; the sealed form of one that is there in both.
    fn segments(&self) -> Result<Vec<(u64, Form)>, ReadError> {
        let io_error = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => ReadError::NoStream { path: self.dir.clone() },
            _ => ReadError::Io { path: self.dir.clone(), source },
        };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(io_error)? {
            found.extend(entry.map_err(io_error)?.file_name().to_str().and_then(segment::parse_file_name));
        }
        found.sort_unstable_by_key(|(first_seq, form)| (*first_seq, std::cmp::Reverse(*form)));
        found.dedup_by_key(|(first_seq, _)| *first_seq);
        Ok(found)
    }

    /// Time of the segment's first record; `None` where it has none or does not read.
    fn first_time(&self, first_seq: u64, form: Form) -> Result<Option<i64>, ReadError> {
        let path = self.dir.join(segment::file_name(first_seq, form));
        let io_error = |source| ReadError::Io { path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error(source)),
        };
        match form {
            Form::Raw => {
                let mut cursor = Cursor::new(file, first_seq);
                let len = VFile::len(&cursor.file).map_err(io_error)?;
                let mut first = None;
                while first.is_none() {
                    match cursor.next(len).map_err(io_error)? {
                        Scanned::Message { message, .. } => first = Some(message.time_ns),
                        Scanned::Operation { .. } => {}
                        Scanned::End | Scanned::Incomplete | Scanned::Bad { .. } => break,
                    }
                }
                Ok(first)
            }
            Form::Sealed => Ok(sealed::read_table(&file, first_seq).map_err(io_error)?.ok().map(|table| table.first_time_ns)),
        }
    }
}

impl Current {
    fn read_batch(&mut self, from: u64, ready: &mut VecDeque<Stored>) -> Result<Step, ReadError> {
        let io_error = |source| ReadError::Io { path: self.path.clone(), source };
        match &mut self.content {
            Content::Raw(cursor) => read_batch(cursor, ready).map_err(io_error),
            Content::Sealed { file, table, next_block } => {
                // Blocks before the one that is wanted are not unpacked.
                while table.blocks.get(*next_block).is_some_and(|block| block.last_seq < from) {
                    *next_block += 1;
                }
                let Some(at) = table.blocks.get(*next_block) else { return Ok(Step::AtEnd { cut_at: None }) };
                match sealed::read_block(file, at).map_err(io_error)? {
                    Ok(block) => {
                        *next_block += 1;
                        ready.extend((0..block.len()).filter_map(|n| block.get(n)));
                        Ok(Step::Batch)
                    }
                    Err(reason) => Ok(Step::Bad { offset: at.offset, reason }),
                }
            }
        }
    }

    /// Where reading the closed segment has come to.
    fn reached(&self) -> u64 {
        match &self.content {
            Content::Raw(cursor) => cursor.seq,
            Content::Sealed { table, .. } => table.end_seq,
        }
    }

    /// Goes behind damage at `offset` to the next whole record of this segment, which ends before `following`; gives how many messages
    /// are between.
    fn resume(&mut self, offset: u64, following: u64) -> Option<u64> {
        match &mut self.content {
            Content::Sealed { table, next_block, .. } => {
                let damaged = table.blocks.get(*next_block)?;
                *next_block += 1;
                Some(damaged.count.into())
            }
            Content::Raw(cursor) => {
                let len = VFile::len(&cursor.file).ok()?;
                let mut rest = vec![0; usize::try_from(len.checked_sub(offset)?).ok()?];
                let read = VFile::read_at(&cursor.file, &mut rest, offset).ok()?;
                let behind = rest.get(1..read)?;
                let (at, seq) = record::find_whole_record(behind, cursor.seq..=following.checked_sub(1)?)?;
                let missing = seq - cursor.seq;
                cursor.rewind(seq, offset + 1 + at as u64);
                Some(missing)
            }
        }
    }
}

/// What stands at a cursor's position.
enum Scanned {
    Message {
        message: Stored,
        continues: bool,
    },
    Operation {
        continues: bool,
    },
    /// The limit, exactly.
    End,
    /// The limit cuts a record.
    Incomplete,
    Bad {
        reason: &'static str,
    },
}

/// A position in a raw segment and what was read ahead of it.
#[derive(Debug)]
struct Cursor {
    file: File,
    offset: u64,
    seq: u64,
    buffer: Bytes,
    buffer_offset: u64,
}

impl Cursor {
    fn new(file: File, first_seq: u64) -> Self {
        Self { file, offset: HEADER_LEN, seq: first_seq, buffer: Bytes::new(), buffer_offset: HEADER_LEN }
    }

    /// Goes back to a record, or forgets what was read ahead when that is the present one: bytes that were still being written
    /// when they were read must be read again.
    fn rewind(&mut self, seq: u64, offset: u64) {
        self.offset = offset;
        self.seq = seq;
        self.buffer = Bytes::new();
        self.buffer_offset = offset;
    }

    /// Reads the next record that ends at or before `limit`.
    fn next(&mut self, limit: u64) -> io::Result<Scanned> {
        if self.offset >= limit {
            return Ok(Scanned::End);
        }
        loop {
            let start = usize::try_from(self.offset - self.buffer_offset).unwrap_or(usize::MAX).min(self.buffer.len());
            let ahead = self.buffer.slice(start..);
            match record::decode(&ahead, self.seq) {
                Decoded::Record(record) => {
                    if self.offset + record.len as u64 > limit {
                        return Ok(Scanned::Incomplete);
                    }
                    let continues = record.continues;
                    self.offset += record.len as u64;
                    if record.operation {
                        return Ok(Scanned::Operation { continues });
                    }
                    self.seq += 1;
                    return Ok(match record.to_stored(&ahead.slice(..record.len)) {
                        Some(message) => Scanned::Message { message, continues },
                        None => Scanned::Bad { reason: "record does not fit its lengths" },
                    });
                }
                Decoded::Bad { reason } => return Ok(Scanned::Bad { reason }),
                Decoded::Incomplete { needed } => {
                    let had = ahead.len() as u64;
                    if self.offset + had >= limit || self.fill(needed, limit)? <= had {
                        return Ok(Scanned::Incomplete);
                    }
                }
            }
        }
    }

    /// Reads ahead from the present offset; returns how many bytes are there now.
    fn fill(&mut self, needed: usize, limit: u64) -> io::Result<u64> {
        let want = needed.max(CHUNK).min(usize::try_from(limit - self.offset).unwrap_or(usize::MAX));
        let mut buffer = vec![0; want];
        let read = VFile::read_at(&self.file, &mut buffer, self.offset)?;
        buffer.truncate(read);
        self.buffer = buffer.into();
        self.buffer_offset = self.offset;
        Ok(read as u64)
    }
}

/// Reads one whole batch, or nothing: the cursor stays before a batch whose end is not there.
fn read_batch(cursor: &mut Cursor, ready: &mut VecDeque<Stored>) -> io::Result<Step> {
    let (mut seq, mut start) = (cursor.seq, cursor.offset);
    let mut bad_before = None;
    loop {
        let len = VFile::len(&cursor.file)?;
        let mut batch = Vec::new();
        let ended = loop {
            let continues = match cursor.next(len)? {
                Scanned::Message { message, continues } => {
                    batch.push(message);
                    continues
                }
                Scanned::Operation { continues } => continues,
                other => break other,
            };
            if !continues {
                if batch.is_empty() {
                    // Nothing but operations: they are behind us.
                    (seq, start) = (cursor.seq, cursor.offset);
                    continue;
                }
                ready.extend(batch);
                return Ok(Step::Batch);
            }
        };
        let offset = cursor.offset;
        cursor.rewind(seq, start);
        match ended {
            Scanned::Bad { .. } if only_zeros(&cursor.file, offset, len)? => return Ok(Step::AtEnd { cut_at: Some(offset) }),
            // A writer that failed in the middle of a batch cuts it off again and writes another: only what does not fit twice,
            // read afresh, is damage.
            Scanned::Bad { reason } if bad_before == Some((offset, len)) => return Ok(Step::Bad { offset, reason }),
            Scanned::Bad { .. } => bad_before = Some((offset, len)),
            Scanned::Message { .. } | Scanned::Operation { .. } | Scanned::End | Scanned::Incomplete => {
                return Ok(Step::AtEnd { cut_at: (offset < len || offset > start).then_some(offset) });
            }
        }
    }
}

/// Whether the file holds nothing but zeros from `from` on: space that a power cut left without its content.
fn only_zeros(file: &File, from: u64, to: u64) -> io::Result<bool> {
    let mut chunk = vec![0; 64 * 1024];
    let mut at = from;
    while at < to {
        let want = chunk.len().min(usize::try_from(to - at).unwrap_or(usize::MAX));
        let read = VFile::read_at(file, &mut chunk[..want], at)?;
        if read == 0 {
            break;
        }
        if chunk[..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += read as u64;
    }
    Ok(true)
}
