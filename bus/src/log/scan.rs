//! Reading a raw segment from its beginning: what a start does with the segment that was being written, and a rewriting with a closed one.

use std::io;

use super::operation::Operation;
use super::record::{self, Decoded};
use super::segment::HEADER_LEN;
use super::vfs::VFile;

/// Bytes read at once. A longer record enlarges the buffer for its own sake.
const CHUNK: usize = 1024 * 1024;

/// Part of a file in memory, moving forward.
pub(crate) struct Window<'a> {
    file: &'a dyn VFile,
    len: u64,
    buffer: Vec<u8>,
    at: u64,
}

impl<'a> Window<'a> {
    pub(crate) fn new(file: &'a dyn VFile, len: u64) -> Self {
        Self { file, len, buffer: Vec::new(), at: 0 }
    }

    /// What the file has from `offset` on: at least `want` bytes unless it ends before.
    pub(crate) fn bytes(&mut self, offset: u64, want: usize) -> io::Result<&[u8]> {
        let behind = (self.at + self.buffer.len() as u64).saturating_sub(offset);
        let left = self.len.saturating_sub(offset);
        if offset < self.at || behind < left.min(want as u64) || self.buffer.is_empty() {
            let size = usize::try_from(left).unwrap_or(usize::MAX).min(want.max(CHUNK));
            self.buffer.resize(size, 0);
            let read = self.file.read_at(&mut self.buffer, offset)?;
            self.buffer.truncate(read);
            self.at = offset;
        }
        Ok(self.buffer.get(usize::try_from(offset - self.at).unwrap_or(usize::MAX)..).unwrap_or_default())
    }
}

/// A message as a scan meets it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) seq: u64,
    pub(crate) offset: u64,
    pub(crate) time_ns: i64,
    pub(crate) size: u64,
    pub(crate) subject: String,
}

/// What a raw segment holds.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) messages: Vec<Seen>,
    pub(crate) operations: Vec<Operation>,
    /// Up to here are whole batches.
    pub(crate) len: u64,
    /// The sequence behind the last message.
    pub(crate) end_seq: u64,
    /// Places that do not read: offset, reason, first sequence, how many messages.
    pub(crate) damage: Vec<(u64, &'static str, u64, u64)>,
    /// Bytes behind `len` are the beginning of something.
    pub(crate) torn: Option<(u64, &'static str)>,
}

/// Messages, operations, length, end and damage as they were before damage at an offset, and its reason.
type Undo = (usize, usize, u64, u64, usize, u64, &'static str);

impl Scan {
    /// Nothing whole follows the damage: it was the torn end.
    fn torn_before(mut self, undo: Undo) -> Self {
        let (messages, operations, len, end_seq, damage, offset, reason) = undo;
        self.messages.truncate(messages);
        self.operations.truncate(operations);
        self.damage.truncate(damage);
        (self.len, self.end_seq, self.torn) = (len, end_seq, Some((offset, reason)));
        self
    }
}

/// Reads a segment to its end. `highest` is the highest sequence that can be in it.
pub(crate) fn scan(file: &dyn VFile, first_seq: u64, len: u64, highest: u64) -> io::Result<Scan> {
    let mut window = Window::new(file, len);
    let mut found = Scan { len: HEADER_LEN, end_seq: first_seq, ..Scan::default() };
    let (mut offset, mut seq) = (HEADER_LEN, first_seq);
    let (mut batch, mut operations) = (Vec::new(), Vec::new());
    let mut undo: Option<Undo> = None;
    let mut want = record::HEADER_LEN;
    while offset < len {
        let bytes = window.bytes(offset, want)?;
        let have = bytes.len();
        let reason = match record::decode(bytes, seq) {
            Decoded::Record(record) => {
                if record.operation {
                    // One that names what comes behind it is none: nobody deletes what is not there yet.
                    operations.extend(Operation::decode(record.subject, record.payload).filter(|operation| operation.behind_seq() <= seq));
                } else {
                    let (time_ns, size, subject) = (record.time_ns, record.size(), record.subject.to_owned());
                    batch.push(Seen { seq, offset, time_ns, size, subject });
                    seq += 1;
                }
                offset += record.len as u64;
                want = record::HEADER_LEN;
                if !record.continues {
                    found.messages.append(&mut batch);
                    found.operations.append(&mut operations);
                    (found.len, found.end_seq) = (offset, seq);
                    undo = None;
                }
                continue;
            }
            Decoded::Incomplete { needed } if needed > have && offset + needed as u64 <= len => {
                want = needed;
                continue;
            }
            Decoded::Incomplete { .. } => "record is cut off",
            Decoded::Bad { reason } => reason,
        };
        // Whole records behind it: damage. None: the end was torn.
        let rest = window.bytes(offset, usize::try_from(len - offset).unwrap_or(usize::MAX))?;
        let most = seq.saturating_add((len - offset) / record::HEADER_LEN as u64).min(highest);
        let resume = rest.get(1..).and_then(|behind| record::find_whole_record(behind, seq..=most));
        let Some((at, next)) = resume else {
            if let Some(undo) = undo {
                return Ok(found.torn_before(undo));
            }
            found.torn = Some((offset, reason));
            return Ok(found);
        };
        // What came before counts when a whole batch follows the damage, and only then: else the end was torn here.
        undo.get_or_insert((found.messages.len(), found.operations.len(), found.len, found.end_seq, found.damage.len(), offset, reason));
        found.damage.push((offset, reason, seq, next - seq));
        found.messages.append(&mut batch);
        found.operations.append(&mut operations);
        offset += 1 + at as u64;
        seq = next;
        want = record::HEADER_LEN;
        window.buffer.clear();
    }
    if let Some(undo) = undo {
        return Ok(found.torn_before(undo));
    }
    if found.len < offset {
        found.torn = Some((found.len, "batch is cut off"));
    }
    Ok(found)
}
