//! Segment files: their names, their headers, and where the records of one that is not sealed stand.

use std::io;

use super::vfs::VFile;

/// Length of a segment's header: the offset of its first record or block.
pub(crate) const HEADER_LEN: u64 = 64;
/// Newest format version this code reads, and the one it writes. Versions 1 (no headers, no operations, nothing sealed) and 2 (no contents
/// taken apart) are read.
pub(crate) const FORMAT_VERSION: u16 = 3;

/// The two forms of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Form {
    /// Records one behind the other, as they were written.
    Raw,
    /// Compressed blocks and a table of contents; written once.
    Sealed,
}

impl Form {
    const fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Raw => b"BARTZLOG",
            Self::Sealed => b"BARTZSEA",
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::Raw => ".seg",
            Self::Sealed => ".sealed",
        }
    }
}

/// `<first sequence, 20 digits>.seg` or `.sealed`.
pub(crate) fn file_name(first_seq: u64, form: Form) -> String {
    format!("{first_seq:020}{}", form.suffix())
}

/// First sequence and form that a segment's file name tells; `None` for any other file.
pub(crate) fn parse_file_name(name: &str) -> Option<(u64, Form)> {
    let (digits, form) = [Form::Raw, Form::Sealed].into_iter().find_map(|form| Some((name.strip_suffix(form.suffix())?, form)))?;
    let first_seq = (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()?;
    Some((first_seq, form))
}

/// First sequences of the raw segments in a stream's folder, ascending.
#[cfg(test)]
pub(crate) fn list(dir: &std::path::Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        found.extend(entry?.file_name().to_str().and_then(parse_file_name).filter(|(_, form)| *form == Form::Raw).map(|(seq, _)| seq));
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

/// The stream's name in 16 bytes: padded, or its first 12 bytes and the CRC-32 of all of it.
fn name_field(stream: &str) -> [u8; 16] {
    let mut field = [0; 16];
    let name = stream.as_bytes();
    if name.len() <= field.len() {
        field[..name.len()].copy_from_slice(name);
    } else {
        field[..12].copy_from_slice(&name[..12]);
        field[12..].copy_from_slice(&crc32fast::hash(name).to_le_bytes());
    }
    field
}

/// The header's bytes.
pub(crate) fn encode_header(form: Form, stream: &str, first_seq: u64) -> [u8; HEADER_LEN as usize] {
    header_of_version(form, stream, first_seq, FORMAT_VERSION)
}

fn header_of_version(form: Form, stream: &str, first_seq: u64, version: u16) -> [u8; HEADER_LEN as usize] {
    let mut bytes = [0; HEADER_LEN as usize];
    bytes[..8].copy_from_slice(form.magic());
    bytes[8..10].copy_from_slice(&version.to_le_bytes());
    bytes[16..32].copy_from_slice(&name_field(stream));
    bytes[32..40].copy_from_slice(&first_seq.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Checks that `bytes` begin with the header of this segment.
pub(crate) fn check_header(bytes: &[u8], form: Form, stream: &str, first_seq: u64) -> Result<(), HeaderError> {
    let Some(bytes) = bytes.get(..HEADER_LEN as usize) else { return Err(HeaderError::Short) };
    if bytes[..8] != *form.magic() {
        return Err(HeaderError::Bad("not a segment: magic number is missing"));
    }
    if crc32fast::hash(&bytes[..60]).to_le_bytes() != bytes[60..] {
        return Err(HeaderError::Bad("checksum of the segment header does not match"));
    }
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    match version {
        1..=FORMAT_VERSION => {}
        0 => return Err(HeaderError::Bad("segment header has version 0")),
        found => return Err(HeaderError::Version(found)),
    }
    if bytes[..60] != header_of_version(form, stream, first_seq, version)[..60] {
        return Err(HeaderError::Bad("segment header names another stream or sequence"));
    }
    Ok(())
}

/// Reads and checks the header of an open segment.
pub(crate) fn read_header(file: &dyn VFile, form: Form, stream: &str, first_seq: u64) -> io::Result<Result<(), HeaderError>> {
    let mut bytes = [0; HEADER_LEN as usize];
    let read = file.read_at(&mut bytes, 0)?;
    Ok(check_header(&bytes[..read], form, stream, first_seq))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_sort_as_their_sequences() {
        assert_eq!(file_name(1, Form::Raw), "00000000000000000001.seg");
        for form in [Form::Raw, Form::Sealed] {
            assert_eq!(parse_file_name(&file_name(u64::MAX, form)), Some((u64::MAX, form)));
        }
        for other in [
            "1.seg",
            "00000000000000000001.seg.torn",
            "00000000000000000001.sealed.tmp",
            "+0000000000000000001.seg",
            "99999999999999999999.seg",
        ] {
            assert_eq!(parse_file_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_header_belongs_to_one_stream_and_sequence() {
        let bytes = encode_header(Form::Raw, "ALERTS", 7);
        assert_eq!(check_header(&bytes, Form::Raw, "ALERTS", 7), Ok(()));
        assert_eq!(check_header(&header_of_version(Form::Raw, "ALERTS", 7, 1), Form::Raw, "ALERTS", 7), Ok(()));
        for (form, stream, first_seq) in [(Form::Raw, "EVENTS", 7), (Form::Raw, "ALERTS", 8), (Form::Sealed, "ALERTS", 7)] {
            assert!(matches!(check_header(&bytes, form, stream, first_seq), Err(HeaderError::Bad(_))));
        }
        assert_eq!(check_header(&bytes[..63], Form::Raw, "ALERTS", 7), Err(HeaderError::Short));
        let (a, b) = ("a-stream-with-a-long-name-1", "a-stream-with-a-long-name-2");
        assert!(check_header(&encode_header(Form::Raw, a, 7), Form::Raw, b, 7).is_err());
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let newer = FORMAT_VERSION + 1;
        let bytes = header_of_version(Form::Raw, "ALERTS", 7, newer);
        assert_eq!(check_header(&bytes, Form::Raw, "ALERTS", 7), Err(HeaderError::Version(newer)));
        assert_eq!(check_header(&header_of_version(Form::Sealed, "ALERTS", 7, 2), Form::Sealed, "ALERTS", 7), Ok(()));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_in_a_header_is_noticed(bit in 0usize..512, first_seq in any::<u64>()) {
            let mut bytes = encode_header(Form::Raw, "EVENTS", first_seq);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(check_header(&bytes, Form::Raw, "EVENTS", first_seq).is_err());
        }
    }
}
