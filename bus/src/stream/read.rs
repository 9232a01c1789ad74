//! Reading: from the recent ring where the messages are still there, else from segment files.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::warn;

use super::{Inner, count, lock};
use crate::error::ReadError;
use crate::log::meta;
use crate::log::scan::{Scanned, Scanner};
use crate::log::segment::{Hole, Segment};
use crate::message::Record;

/// One call hands out at most so many bytes of payload beyond the first message.
const MAX_READ_BYTES: usize = 16 * 1024 * 1024;

/// Where a reader is in the files, so that reading on costs no search.
#[derive(Debug)]
pub(crate) struct ReadCursor {
    segment: Arc<Segment>,
    scanner: Scanner,
}

/// Why a message could not be read, and where reading can go on.
#[derive(Debug)]
pub(crate) struct ReadFailure {
    pub(crate) error: ReadError,
    /// The next sequence worth asking for; the one asked for when trying again may help.
    pub(crate) resume_at: u64,
    /// Messages between the two.
    pub(crate) missing: u64,
}

/// What a segment says about a sequence.
enum Place {
    /// It can be read, up to this length of the file.
    Here { len: u64 },
    /// It is in damaged bytes.
    Hole(Hole),
    /// Behind this segment: go on with that one. With damage if that is why.
    Behind { next_first_seq: u64, damage: Option<(PathBuf, u64, String)> },
    /// Not appended yet.
    Nowhere,
}

impl Inner {
    /// One message.
    pub(super) fn get(&self, seq: u64) -> Result<Option<Record>, ReadError> {
        let mut found = self.read_from(seq, 1, &mut None).map_err(|failure| failure.error)?;
        Ok(found.pop().filter(|record| record.seq == seq))
    }

    /// Up to `max` messages, the first of them the first one with a sequence of at least `from`.
    pub(crate) fn read_from(&self, from: u64, max: usize, cursor: &mut Option<ReadCursor>) -> Result<Vec<Record>, Box<ReadFailure>> {
        let mut out = Vec::new();
        let mut from = from.max(self.first_seq());
        let mut bytes = 0;
        while out.len() < max && bytes <= MAX_READ_BYTES {
            let before = out.len();
            for record in lock(&self.ring).from(from).take(max - out.len()) {
                bytes += record.payload.len();
                out.push(record.clone());
                if bytes > MAX_READ_BYTES {
                    break;
                }
            }
            if out.len() > before {
                // The ring holds everything up to the end.
                *cursor = None;
                break;
            }
            let Some(segment) = self.segment_of(from) else { break };
            match self.place(&segment, from) {
                Place::Here { len } => match read_segment(&segment, from, len, max - out.len(), &mut bytes, cursor, &mut out) {
                    Ok(()) => from = out.last().map_or(from, |record| record.seq + 1),
                    Err(Stumble::Deleted) if self.has_let_go_of(&segment) => from = from.max(self.first_seq()),
                    Err(_) if !out.is_empty() => break,
                    Err(Stumble::Io(source)) => {
                        let error = ReadError::Io { path: segment.path.clone(), source };
                        return Err(Box::new(ReadFailure { error, resume_at: from, missing: 0 }));
                    }
                    Err(stumble) => {
                        let (seq, offset, reason) = match stumble {
                            Stumble::Damaged { seq, offset, reason } => (seq, offset, reason),
                            Stumble::Deleted | Stumble::Io(_) => (from, 0, "segment file is missing"),
                        };
                        let hole = self.note_hole(&segment, seq, offset, reason);
                        *cursor = None;
                        return Err(failure_of_hole(&segment, &hole, from));
                    }
                },
                Place::Hole(_) | Place::Behind { damage: Some(_), .. } if !out.is_empty() => break,
                Place::Hole(hole) => return Err(failure_of_hole(&segment, &hole, from)),
                Place::Behind { next_first_seq, damage: None } => from = next_first_seq,
                Place::Behind { next_first_seq, damage: Some((path, offset, reason)) } => {
                    let missing = meta::count_outside(&self.gaps, from, next_first_seq - 1);
                    let error = ReadError::Damaged { path, offset, reason, missing };
                    return Err(Box::new(ReadFailure { error, resume_at: next_first_seq, missing }));
                }
                Place::Nowhere => break,
            }
        }
        Ok(out)
    }

    /// The last segment that begins at or before `seq`.
    fn segment_of(&self, seq: u64) -> Option<Arc<Segment>> {
        let segments = self.segments();
        let behind = segments.partition_point(|segment| segment.first_seq <= seq);
        segments.get(behind.saturating_sub(1)).map(Arc::clone)
    }

    /// Whether retention has deleted the segment; waits for a deletion that is under way.
    fn has_let_go_of(&self, segment: &Arc<Segment>) -> bool {
        drop(lock(&self.retention));
        !self.segments().iter().any(|held| Arc::ptr_eq(held, segment))
    }

    fn place(&self, segment: &Arc<Segment>, seq: u64) -> Place {
        // The list first: a segment that is not the last one in it does not grow any more.
        let next_first_seq = {
            let segments = self.segments();
            let behind = segments.partition_point(|other| other.first_seq <= segment.first_seq);
            segments.get(behind).map(|next| next.first_seq)
        };
        let state = segment.state();
        if seq < segment.first_seq + state.count {
            return match state.hole_at(seq) {
                Some(hole) => Place::Hole(hole.clone()),
                None => Place::Here { len: state.len },
            };
        }
        match next_first_seq {
            None => Place::Nowhere,
            Some(next_first_seq) => {
                let damage = state.damage.as_ref().map(|damage| (segment.path.clone(), damage.offset, damage.reason.clone()));
                Place::Behind { next_first_seq, damage }
            }
        }
    }

    /// Remembers damage found while reading: the messages up to the next one whose place is known cannot be read.
    fn note_hole(&self, segment: &Segment, seq: u64, offset: u64, reason: &'static str) -> Hole {
        let (hole, new) = segment.state().add_hole(segment.first_seq, seq, offset, reason);
        if new {
            count(&self.counters.unreadable, hole.end_seq - hole.seq);
            warn!(stream = %self.name, path = %segment.path.display(), offset, reason, messages = hole.end_seq - hole.seq, "segment is damaged");
        }
        hole
    }
}

fn failure_of_hole(segment: &Segment, hole: &Hole, from: u64) -> Box<ReadFailure> {
    let missing = hole.end_seq - from.max(hole.seq);
    let (path, offset, reason) = (segment.path.clone(), hole.offset, hole.reason.to_owned());
    Box::new(ReadFailure { error: ReadError::Damaged { path, offset, reason, missing }, resume_at: hole.end_seq, missing })
}

/// Why reading a segment ended early.
enum Stumble {
    /// The file is gone.
    Deleted,
    Io(io::Error),
    Damaged {
        seq: u64,
        offset: u64,
        reason: &'static str,
    },
}

/// Reads messages from `from` on, which is in this segment.
fn read_segment(
    segment: &Arc<Segment>,
    from: u64,
    len: u64,
    max: usize,
    bytes: &mut usize,
    cursor: &mut Option<ReadCursor>,
    out: &mut Vec<Record>,
) -> Result<(), Stumble> {
    let reading_on = cursor.take().filter(|cursor| Arc::ptr_eq(&cursor.segment, segment) && cursor.scanner.seq() == from);
    let mut scanner = match reading_on {
        Some(cursor) => cursor.scanner,
        None => {
            let file = File::open(&segment.path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Stumble::Deleted,
                _ => Stumble::Io(error),
            })?;
            match segment.state().nearest(from) {
                Some((seq, offset)) => Scanner::at(file, seq, offset),
                None => Scanner::new(file, segment.first_seq),
            }
        }
    };
    let begin = out.len();
    let end = begin + max;
    while out.len() < end && *bytes <= MAX_READ_BYTES {
        let (seq, offset) = (scanner.seq(), scanner.offset());
        match scanner.next(len).map_err(Stumble::Io)? {
            Scanned::Record { record, offset, .. } => {
                if seq < from {
                    segment.state().note_offset(seq, offset);
                    continue;
                }
                *bytes += record.payload.len();
                out.push(record);
            }
            Scanned::End if out.len() == begin => {
                return Err(Stumble::Damaged { seq, offset, reason: "segment ends before its last record" });
            }
            Scanned::End => break,
            Scanned::Incomplete => return Err(Stumble::Damaged { seq, offset, reason: "record is cut off" }),
            Scanned::Bad { reason } => return Err(Stumble::Damaged { seq, offset, reason }),
        }
    }
    *cursor = Some(ReadCursor { segment: Arc::clone(segment), scanner });
    Ok(())
}
