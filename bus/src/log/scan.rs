//! Reading records of one segment in order, in large chunks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::log::record::{self, Decoded};
use crate::log::segment::SEGMENT_HEADER_LEN;
use crate::message::Record;

/// Bytes read at once. A longer record enlarges the buffer for its own sake.
const CHUNK: u64 = 256 * 1024;

/// What stands at the scanner's position.
#[derive(Debug)]
pub(crate) enum Scanned {
    /// A whole record; the scanner has moved behind it.
    Record {
        /// The record.
        record: Record,
        /// Where it begins.
        offset: u64,
        /// Whether its batch goes on.
        continues: bool,
    },
    /// The limit, exactly.
    End,
    /// The limit cuts a record.
    Incomplete,
    /// Not a record.
    Bad {
        /// Why.
        reason: &'static str,
    },
}

/// A position in a segment and what was read ahead of it.
#[derive(Debug)]
pub(crate) struct Scanner {
    file: File,
    offset: u64,
    seq: u64,
    buffer: Vec<u8>,
    buffer_offset: u64,
}

impl Scanner {
    /// At the segment's first record.
    pub(crate) fn new(file: File, first_seq: u64) -> Self {
        Self::at(file, first_seq, SEGMENT_HEADER_LEN)
    }

    /// At the record `seq`, which begins at `offset`.
    pub(crate) fn at(file: File, seq: u64, offset: u64) -> Self {
        Self { file, offset, seq, buffer: Vec::new(), buffer_offset: offset }
    }

    /// Where the next record begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The sequence of the next record.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// The file that is read.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Goes back to a record, or forgets what was read ahead when that is the present one: bytes that were still being written
    /// when they were read must be read again.
    pub(crate) fn rewind(&mut self, seq: u64, offset: u64) {
        self.offset = offset;
        self.seq = seq;
        self.buffer.clear();
        self.buffer_offset = offset;
    }

    /// Reads the next record that ends at or before `limit`.
    pub(crate) fn next(&mut self, limit: u64) -> io::Result<Scanned> {
        if self.offset >= limit {
            return Ok(Scanned::End);
        }
        loop {
            let start = (self.offset - self.buffer_offset) as usize;
            let ahead = self.buffer.get(start..).unwrap_or_default();
            match record::decode(ahead, self.seq) {
                Decoded::Record { record, continues, len } => {
                    let offset = self.offset;
                    if offset + len as u64 > limit {
                        return Ok(Scanned::Incomplete);
                    }
                    self.offset += len as u64;
                    self.seq += 1;
                    return Ok(Scanned::Record { record, offset, continues });
                }
                Decoded::Bad { reason } => return Ok(Scanned::Bad { reason }),
                Decoded::Incomplete { needed } => {
                    let had = ahead.len() as u64;
                    if self.offset + had >= limit || self.fill(needed as u64, limit)? <= had {
                        return Ok(Scanned::Incomplete);
                    }
                }
            }
        }
    }

    /// Reads ahead from the present offset; returns how many bytes are there now.
    fn fill(&mut self, needed: u64, limit: u64) -> io::Result<u64> {
        let want = needed.max(CHUNK).min(limit - self.offset) as usize;
        self.buffer.resize(want, 0);
        self.buffer_offset = self.offset;
        let mut filled = 0;
        while filled < want {
            match self.file.read_at(&mut self.buffer[filled..], self.offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.buffer.clear();
                    return Err(error);
                }
            }
        }
        self.buffer.truncate(filled);
        Ok(filled as u64)
    }
}
