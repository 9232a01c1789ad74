//! One segment file: its name, its header, and what is known about it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::StreamName;
use crate::files;
use crate::log::record::HEADER_LEN;

/// Length of a segment's header: the offset of its first record.
pub(crate) const SEGMENT_HEADER_LEN: u64 = 64;
/// Newest format version this code reads and the one it writes.
pub(crate) const FORMAT_VERSION: u16 = 1;
const MAGIC: [u8; 8] = *b"BARTZLOG";
const SUFFIX: &str = ".seg";
/// One index entry per so many bytes: a search reads at most this much.
const INDEX_STEP: u64 = 64 * 1024;

/// `<first sequence, 20 digits>.seg`.
pub(crate) fn file_name(first_seq: u64) -> String {
    format!("{first_seq:020}{SUFFIX}")
}

/// The first sequence that a segment's file name tells; `None` for any other file.
pub(crate) fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// First sequences of the segments in a stream's folder, ascending.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        found.extend(entry?.file_name().to_str().and_then(parse_file_name));
    }
    found.sort_unstable();
    Ok(found)
}

/// Why a header is not this segment's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// Shorter than a header.
    Short,
    /// Written by a newer Bartizan.
    Version(u16),
    /// Anything else.
    Bad(&'static str),
}

impl HeaderError {
    /// In words.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Short => "segment header is cut off".to_owned(),
            Self::Version(found) => format!("segment header has version {found}"),
            Self::Bad(reason) => (*reason).to_owned(),
        }
    }
}

/// The header's bytes.
pub(crate) fn encode_header(stream: StreamName, first_seq: u64) -> [u8; SEGMENT_HEADER_LEN as usize] {
    let mut bytes = [0; SEGMENT_HEADER_LEN as usize];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    let name = stream.as_str().as_bytes();
    bytes[16..16 + name.len()].copy_from_slice(name);
    bytes[32..40].copy_from_slice(&first_seq.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Checks that `bytes` begin with the header of this segment.
pub(crate) fn check_header(bytes: &[u8], stream: StreamName, first_seq: u64) -> Result<(), HeaderError> {
    let Some(bytes) = bytes.get(..SEGMENT_HEADER_LEN as usize) else { return Err(HeaderError::Short) };
    if bytes[..8] != MAGIC {
        return Err(HeaderError::Bad("not a segment: magic number is missing"));
    }
    if crc32fast::hash(&bytes[..60]).to_le_bytes() != bytes[60..] {
        return Err(HeaderError::Bad("checksum of the segment header does not match"));
    }
    match u16::from_le_bytes([bytes[8], bytes[9]]) {
        FORMAT_VERSION => {}
        found if found > FORMAT_VERSION => return Err(HeaderError::Version(found)),
        _ => return Err(HeaderError::Bad("segment header has version 0")),
    }
    if bytes[..60] != encode_header(stream, first_seq)[..60] {
        return Err(HeaderError::Bad("segment header names another stream or sequence"));
    }
    Ok(())
}

/// Reads and checks the header of an open segment.
pub(crate) fn read_header(file: &File, stream: StreamName, first_seq: u64) -> io::Result<Result<(), HeaderError>> {
    let mut bytes = [0; SEGMENT_HEADER_LEN as usize];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => Ok(check_header(&bytes, stream, first_seq)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Err(HeaderError::Short)),
        Err(error) => Err(error),
    }
}

/// Creates an empty segment. It appears under its name with a whole header or not at all.
pub(crate) fn create(dir: &Path, stream: StreamName, first_seq: u64) -> io::Result<File> {
    let path = dir.join(file_name(first_seq));
    files::replace(&path, &encode_header(stream, first_seq), false)?;
    files::open_private(&path)
}

/// Where bytes stop being records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Offset in the segment.
    pub(crate) offset: u64,
    /// What does not fit.
    pub(crate) reason: String,
}

/// Records that turned out unreadable after the segment was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hole {
    /// First sequence that cannot be read.
    pub(crate) seq: u64,
    /// First sequence behind it that can (or is not there yet).
    pub(crate) end_seq: u64,
    /// Where the damage begins.
    pub(crate) offset: u64,
    /// What does not fit.
    pub(crate) reason: &'static str,
}

/// What is known about a segment's records.
#[derive(Debug, Clone, Default)]
pub(crate) struct SegmentState {
    /// Bytes that hold whole batches, header included; nobody reads beyond.
    pub(crate) len: u64,
    /// Records in them.
    pub(crate) count: u64,
    /// Time of the first record.
    pub(crate) first_time_ns: i64,
    /// Latest time of any record: what age retention goes by.
    pub(crate) max_time_ns: i64,
    /// (sequence, offset) of some records, ascending.
    index: Vec<(u64, u64)>,
    /// Damage behind `len`.
    pub(crate) damage: Option<Damage>,
    /// Damage before `len`; at most one per index entry.
    holes: Vec<Hole>,
}

impl SegmentState {
    /// A segment without records.
    pub(crate) fn empty() -> Self {
        Self { len: SEGMENT_HEADER_LEN, ..Self::default() }
    }

    /// A segment that was read before.
    pub(crate) fn summarized(len: u64, count: u64, first_time_ns: i64, max_time_ns: i64) -> Self {
        Self { len, count, first_time_ns, max_time_ns, ..Self::default() }
    }

    /// Takes note of the next record. `len` is for the caller to move, when its batch is whole.
    pub(crate) fn add(&mut self, time_ns: i64) {
        if self.count == 0 {
            self.first_time_ns = time_ns;
            self.max_time_ns = time_ns;
        }
        self.max_time_ns = self.max_time_ns.max(time_ns);
        self.count += 1;
    }

    /// Remembers where a record is, if no near one is remembered.
    pub(crate) fn note_offset(&mut self, seq: u64, offset: u64) {
        if self.index.last().is_none_or(|(_, last)| offset >= last + INDEX_STEP) {
            self.index.push((seq, offset));
        }
    }

    /// The remembered record nearest before (or at) `seq`.
    pub(crate) fn nearest(&self, seq: u64) -> Option<(u64, u64)> {
        let after = self.index.partition_point(|(s, _)| *s <= seq);
        after.checked_sub(1).map(|at| self.index[at])
    }

    /// Notes that the record `seq` does not read: what follows it up to the next remembered offset cannot be found either. Also
    /// tells whether that is news.
    pub(crate) fn add_hole(&mut self, first_seq: u64, seq: u64, offset: u64, reason: &'static str) -> (Hole, bool) {
        if let Some(known) = self.hole_at(seq) {
            return (known.clone(), false);
        }
        let after = self.index.partition_point(|(s, _)| *s <= seq);
        let end_seq = match self.index.get(after) {
            Some((next, _)) => *next,
            None => {
                // Records appended from here on are found again.
                let end_seq = first_seq + self.count;
                self.index.push((end_seq, self.len));
                end_seq
            }
        };
        let hole = Hole { seq, end_seq, offset, reason };
        self.holes.push(hole.clone());
        (hole, true)
    }

    /// The hole that this sequence is in.
    pub(crate) fn hole_at(&self, seq: u64) -> Option<&Hole> {
        self.holes.iter().find(|hole| (hole.seq..hole.end_seq).contains(&seq))
    }

    /// Whether records turned out unreadable.
    pub(crate) fn has_holes(&self) -> bool {
        !self.holes.is_empty()
    }

    /// Whether the file can hold what a summary claims.
    pub(crate) fn plausible(&self) -> bool {
        self.len >= SEGMENT_HEADER_LEN && self.count.saturating_mul(HEADER_LEN as u64) <= self.len - SEGMENT_HEADER_LEN
    }
}

/// A segment of an open stream, shared by its writer and its readers.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) first_seq: u64,
    state: Mutex<SegmentState>,
}

impl Segment {
    pub(crate) fn new(dir: &Path, first_seq: u64, state: SegmentState) -> Self {
        Self { path: dir.join(file_name(first_seq)), first_seq, state: Mutex::new(state) }
    }

    /// Held for a few assignments at a time; no I/O under it.
    pub(crate) fn state(&self) -> MutexGuard<'_, SegmentState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sequence behind the last record.
    pub(crate) fn end_seq(&self) -> u64 {
        self.first_seq + self.state().count
    }

    /// Where torn bytes of this segment are kept.
    pub(crate) fn torn_path(&self) -> PathBuf {
        self.path.with_added_extension("torn")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_sort_as_their_sequences() {
        assert_eq!(file_name(1), "00000000000000000001.seg");
        assert_eq!(parse_file_name(&file_name(u64::MAX)), Some(u64::MAX));
        for other in [
            "1.seg",
            "00000000000000000001.seg.torn",
            "00000000000000000001.seg.tmp",
            "+0000000000000000001.seg",
            "99999999999999999999.seg",
        ] {
            assert_eq!(parse_file_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_header_belongs_to_one_stream_and_sequence() {
        let bytes = encode_header(StreamName::Alerts, 7);
        assert_eq!(check_header(&bytes, StreamName::Alerts, 7), Ok(()));
        assert!(matches!(check_header(&bytes, StreamName::Events, 7), Err(HeaderError::Bad(_))));
        assert!(matches!(check_header(&bytes, StreamName::Alerts, 8), Err(HeaderError::Bad(_))));
        assert_eq!(check_header(&bytes[..63], StreamName::Alerts, 7), Err(HeaderError::Short));
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = encode_header(StreamName::Alerts, 7);
        bytes[8] = 2;
        let crc = crc32fast::hash(&bytes[..60]).to_le_bytes();
        bytes[60..].copy_from_slice(&crc);
        assert_eq!(check_header(&bytes, StreamName::Alerts, 7), Err(HeaderError::Version(2)));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_in_a_header_is_noticed(bit in 0usize..512, first_seq in any::<u64>()) {
            let mut bytes = encode_header(StreamName::Events, first_seq);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(check_header(&bytes, StreamName::Events, first_seq).is_err());
        }

        #[test]
        fn the_index_never_points_behind_what_is_sought(offsets in proptest::collection::vec(32u64..100_000, 1..60), sought in 0usize..80) {
            let mut state = SegmentState::empty();
            let mut all = Vec::new();
            let mut offset = SEGMENT_HEADER_LEN;
            for (n, step) in offsets.iter().enumerate() {
                state.note_offset(10 + n as u64, offset);
                all.push((10 + n as u64, offset));
                offset += step;
            }
            let seq = 10 + sought as u64;
            let nearest = state.nearest(seq).expect("the first record is always indexed");
            prop_assert!(nearest.0 <= seq && all.contains(&nearest));
        }
    }
}
