//! Checked reading of records. The kernel is trusted to mean well, not to be the kernel this was built with: a stale
//! object or a damaged ring must give an error that is counted, never undefined behaviour.

use zerocopy::FromBytes;

use super::{ABI_VERSION, Header, KINDS, Kind, Record, Span};

/// A whole record, for looking up its spans.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    /// The bytes of `span`; `None` when it lies outside the record.
    pub fn get(&self, span: Span) -> Option<&'a [u8]> {
        let start = usize::from(span.offset);
        self.0.get(start..start + usize::from(span.len))
    }
}

/// Bytes that are no record of this ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// Fewer bytes than the header, or than the kind's fixed part.
    Short {
        /// Bytes there are.
        have: usize,
        /// Bytes there must be.
        need: usize,
    },
    /// The header's length is not the record's.
    Length {
        /// Length in the header.
        header: u32,
        /// Length in the ring.
        ring: usize,
    },
    /// Made by another version of the kernel object.
    Abi(u16),
    /// A kind that this build does not know.
    Kind(u16),
    /// Not aligned to eight bytes.
    Unaligned,
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Short { have, need } => write!(f, "record of {have} bytes where at least {need} are needed"),
            Self::Length { header, ring } => write!(f, "record says {header} bytes and the ring holds {ring}"),
            Self::Abi(found) => write!(f, "record of ABI {found}; this binary reads ABI {ABI_VERSION}: rebuild it with its kernel object"),
            Self::Kind(raw) => write!(f, "record of unknown kind {raw}"),
            Self::Unaligned => f.write_str("record is not aligned to eight bytes"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Reads one ring record.
///
/// # Errors
/// [`DecodeError`] when `bytes` are not exactly one record of this ABI.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, DecodeError> {
    let need = size_of::<Header>();
    if bytes.len() < need {
        return Err(DecodeError::Short { have: bytes.len(), need });
    }
    let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| DecodeError::Unaligned)?;
    if header.abi != ABI_VERSION {
        return Err(DecodeError::Abi(header.abi));
    }
    let kind = Kind::from_raw(header.kind).ok_or(DecodeError::Kind(header.kind))?;
    if header.len as usize != bytes.len() {
        return Err(DecodeError::Length { header: header.len, ring: bytes.len() });
    }
    let need = KINDS.iter().find(|info| info.kind == kind).map_or(usize::MAX, |info| info.fixed);
    if bytes.len() < need {
        return Err(DecodeError::Short { have: bytes.len(), need });
    }
    Record::with_kind(kind, bytes).ok_or(DecodeError::Unaligned)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use zerocopy::{FromZeros, IntoBytes};

    use super::*;
    use crate::abi::{Connect, Exec};

    /// Ring records are 8-aligned; a `Vec<u8>` need not be.
    fn aligned(bytes: &[u8]) -> Vec<u64> {
        let mut words = vec![0_u64; bytes.len().div_ceil(8)];
        words.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        words
    }

    fn connect() -> Connect {
        let mut record = Connect::new_zeroed();
        record.header.abi = ABI_VERSION;
        record.header.kind = Kind::Connect as u16;
        record.header.len = size_of::<Connect>() as u32;
        record.header.tgid = 42;
        record
    }

    #[test]
    fn a_whole_record_is_read_back() {
        let record = connect();
        let Ok(Record::Connect(read, _)) = decode(record.as_bytes()) else { panic!("not decoded") };
        assert_eq!(read.header.tgid, 42);
    }

    #[test]
    fn every_prefix_and_every_wrong_length_is_refused() {
        let record = connect();
        let words = aligned(record.as_bytes());
        for len in 0..size_of::<Connect>() {
            assert!(decode(&words.as_bytes()[..len]).is_err(), "{len} bytes were taken for a record");
        }
    }

    #[test]
    fn foreign_kinds_and_versions_are_named() {
        let mut record = connect();
        record.header.kind = 999;
        assert_eq!(decode(record.as_bytes()).unwrap_err(), DecodeError::Kind(999));
        let mut record = connect();
        record.header.abi = 77;
        assert_eq!(decode(record.as_bytes()).unwrap_err(), DecodeError::Abi(77));
    }

    #[test]
    fn a_span_outside_the_record_is_nothing() {
        let mut record = Exec::new_zeroed();
        record.header.abi = ABI_VERSION;
        record.header.kind = Kind::Exec as u16;
        record.header.len = size_of::<Exec>() as u32;
        record.argv = Span { offset: 60_000, len: 60_000 };
        let Ok(Record::Exec(read, bytes)) = decode(record.as_bytes()) else { panic!("not decoded") };
        assert_eq!(bytes.get(read.argv), None);
        assert_eq!(bytes.get(Span { offset: 0, len: 4 }).map(<[u8]>::len), Some(4));
    }

    #[test]
    fn random_bytes_never_panic() {
        // A small fixed generator: the property needs many shapes, not good randomness.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..20_000_usize {
            let words: Vec<u64> = (0..round % 120)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state
                })
                .collect();
            let mut words = words;
            if round % 2 == 0 && words.len() >= 8 {
                let len = (words.len() * 8) as u64;
                words[0] = len | ((1 + (round as u64 / 2) % 6) << 32);
                words[2] = u64::from(ABI_VERSION) << 48;
            }
            if let Ok(Record::Exec(exec, bytes)) = decode(words.as_bytes()) {
                let _ = (bytes.get(exec.argv), bytes.get(exec.image.exe));
            }
        }
    }
}
