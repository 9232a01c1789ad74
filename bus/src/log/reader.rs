//! Reading a stream's files beside its writer, or without one.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::StreamName;
use crate::error::ReadError;
use crate::log::meta::{self, Meta};
use crate::log::scan::{Scanned, Scanner};
use crate::log::segment::{self, FORMAT_VERSION, HeaderError};
use crate::log::stream_dir;
use crate::message::Record;

/// How far out of order the times of records may be for [`LogReader::seek_time`] to find them all: publishers stamp what they saw
/// before they queue it, and two rings are merged within milliseconds.
const TIME_DISORDER_NS: i64 = 60_000_000_000;

/// Read-only view of a stream's files from any process, with or without a running writer. It takes no lock and writes nothing.
///
/// Records come in order of sequence, whole batches only. What retention deletes before it was read is left out and counted in
/// [`LogReader::skipped`]. Damage is an error once; the next call goes on behind it.
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
    stream: StreamName,
    current: Option<Current>,
    /// Whole batches that were read and not handed out yet.
    ready: VecDeque<Record>,
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
    scanner: Scanner,
    /// Offset of damage that the caller knows of.
    reported: Option<u64>,
    /// The header does not read: nothing of this segment is believed.
    unreadable: bool,
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
    /// Opens a stream at its oldest record.
    ///
    /// # Errors
    /// [`ReadError::NoStream`] where the data folder holds no such stream, [`ReadError::Io`] where it may not be read.
    pub fn open(data_dir: &Path, stream: StreamName) -> Result<LogReader, ReadError> {
        let dir = stream_dir(data_dir, stream);
        match std::fs::read_dir(&dir) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadError::NoStream { path: dir }),
            Err(source) => return Err(ReadError::Io { path: dir, source }),
        }
        Ok(Self { dir, stream, current: None, ready: VecDeque::new(), next_seq: 1, not_before_ns: None, skipped: 0 })
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
        for first_seq in self.segments()?.into_iter().rev() {
            start = first_seq;
            if self.first_time(first_seq)?.is_some_and(|first| first < threshold) {
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
        let Some(&last) = self.segments()?.last() else { return self.seek_seq(1) };
        self.seek_seq(last)?;
        loop {
            match self.next() {
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
            while let Some(record) = self.ready.pop_front() {
                if record.seq < self.next_seq {
                    continue;
                }
                self.next_seq = record.seq + 1;
                match self.not_before_ns {
                    Some(not_before) if record.time_ns < not_before => {}
                    _ => {
                        self.not_before_ns = None;
                        return Ok(Some(record));
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
        let mut step = current.read_batch(&mut self.ready)?;
        if matches!(step, Step::Batch) {
            return Ok(true);
        }
        let following = self.segments()?.into_iter().find(|seq| *seq > first_seq);
        let Some(current) = &mut self.current else { return Ok(true) };
        let Some(following) = following else {
            return match step {
                Step::Bad { offset, reason } if current.reported != Some(offset) => {
                    current.reported = Some(offset);
                    Err(ReadError::Damaged { path: current.path.clone(), offset, reason: reason.to_owned(), missing: 0 })
                }
                Step::Batch | Step::AtEnd { .. } | Step::Bad { .. } => Ok(false),
            };
        };
        // The segment was closed, perhaps after it was read: what came in between is read first.
        step = current.read_batch(&mut self.ready)?;
        let reached = current.scanner.seq().max(self.next_seq);
        let (path, reported) = (current.path.clone(), current.reported.is_some());
        let damage = match step {
            Step::Batch => return Ok(true),
            Step::AtEnd { cut_at: None } => None,
            Step::AtEnd { cut_at: Some(offset) } => Some((offset, "record is cut off")),
            Step::Bad { offset, reason } => Some((offset, reason)),
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
        let gaps = Meta::load(&self.dir, self.stream).ok().flatten().map(|meta| meta.gaps).unwrap_or_default();
        meta::count_outside(&gaps, first, end.saturating_sub(1))
    }

    /// Opens the segment that holds `next_seq`, or the first one behind it; false where there is none.
    fn enter(&mut self) -> Result<bool, ReadError> {
        let segments = self.segments()?;
        let holding = segments.partition_point(|first| *first <= self.next_seq);
        let Some(&first_seq) = segments.get(holding.saturating_sub(1)) else { return Ok(false) };
        let is_last = segments.last() == Some(&first_seq);
        let path = self.dir.join(segment::file_name(first_seq));
        let file = match File::open(&path) {
            Ok(file) => file,
            // Retention was faster: look again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(source) => return Err(ReadError::Io { path, source }),
        };
        let header = segment::read_header(&file, self.stream, first_seq).map_err(|source| ReadError::Io { path: path.clone(), source })?;
        if first_seq > self.next_seq {
            // The very first segment entered tells where the stream begins; later ones, what retention took meanwhile.
            if self.next_seq > 1 {
                self.skipped += self.missing(self.next_seq, first_seq);
            }
            self.next_seq = first_seq;
        }
        match header {
            Ok(()) => {
                self.current = Some(Current { first_seq, path, scanner: Scanner::new(file, first_seq), reported: None, unreadable: false });
                Ok(true)
            }
            Err(HeaderError::Short) if is_last => Ok(false),
            Err(HeaderError::Version(found)) => Err(ReadError::Version { path, found: found.into(), supported: FORMAT_VERSION.into() }),
            Err(error) => {
                let missing = segments.get(holding.max(1)).map_or(0, |following| self.missing(self.next_seq, *following));
                let scanner = Scanner::new(file, first_seq);
                self.current = Some(Current { first_seq, path: path.clone(), scanner, reported: Some(0), unreadable: true });
                Err(ReadError::Damaged { path, offset: 0, reason: error.reason(), missing })
            }
        }
    }

    fn segments(&self) -> Result<Vec<u64>, ReadError> {
        match segment::list(&self.dir) {
            Ok(segments) => Ok(segments),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ReadError::NoStream { path: self.dir.clone() }),
            Err(source) => Err(ReadError::Io { path: self.dir.clone(), source }),
        }
    }

    /// Time of a segment's first record; `None` where it has none that can be read.
    fn first_time(&self, first_seq: u64) -> Result<Option<i64>, ReadError> {
        let path = self.dir.join(segment::file_name(first_seq));
        let read = || -> io::Result<Option<i64>> {
            let file = File::open(&path)?;
            let len = file.metadata()?.len();
            match Scanner::new(file, first_seq).next(len)? {
                Scanned::Record { record, .. } => Ok(Some(record.time_ns)),
                Scanned::End | Scanned::Incomplete | Scanned::Bad { .. } => Ok(None),
            }
        };
        match read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map_err(|source| ReadError::Io { path: path.clone(), source }),
        }
    }
}

impl Current {
    fn read_batch(&mut self, ready: &mut VecDeque<Record>) -> Result<Step, ReadError> {
        if self.unreadable {
            return Ok(Step::AtEnd { cut_at: None });
        }
        read_batch(&mut self.scanner, ready).map_err(|source| ReadError::Io { path: self.path.clone(), source })
    }
}

/// Reads one whole batch, or nothing: the scanner stays before a batch whose end is not there.
fn read_batch(scanner: &mut Scanner, ready: &mut VecDeque<Record>) -> io::Result<Step> {
    let (seq, start) = (scanner.seq(), scanner.offset());
    let mut bad_before = None;
    loop {
        let len = scanner.file().metadata()?.len();
        let mut batch = Vec::new();
        let ended = loop {
            match scanner.next(len)? {
                Scanned::Record { record, continues, .. } => {
                    batch.push(record);
                    if !continues {
                        ready.extend(batch);
                        return Ok(Step::Batch);
                    }
                }
                other => break other,
            }
        };
        let offset = scanner.offset();
        scanner.rewind(seq, start);
        match ended {
            Scanned::Bad { .. } if only_zeros(scanner.file(), offset, len)? => return Ok(Step::AtEnd { cut_at: Some(offset) }),
            // A writer that failed in the middle of a batch cuts it off again and writes another: only what does not fit twice,
            // read afresh, is damage.
            Scanned::Bad { reason } if bad_before == Some((offset, len)) => return Ok(Step::Bad { offset, reason }),
            Scanned::Bad { .. } => bad_before = Some((offset, len)),
            Scanned::Record { .. } | Scanned::End | Scanned::Incomplete => {
                return Ok(Step::AtEnd { cut_at: (offset < len || offset > start).then_some(offset) });
            }
        }
    }
}

/// Whether the file holds nothing but zeros from `from` on: space that a power cut left without its content.
fn only_zeros(file: &File, from: u64, to: u64) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let mut chunk = vec![0; 64 * 1024];
    let mut at = from;
    while at < to {
        let want = chunk.len().min((to - at) as usize);
        let read = file.read_at(&mut chunk[..want], at)?;
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
