//! One record of a segment that is being written: bytes to values and back, without any file.

use bytes::Bytes;

use crate::store::Stored;
use crate::subject::is_subject;

/// Fixed part of a record.
pub(crate) const HEADER_LEN: usize = 32;
/// The `len` field counts the bytes behind `len` and `crc`.
const PREFIX_LEN: usize = 8;
/// Largest payload. NATS's own ceiling for `max_payload` recommendations is 8 MiB.
pub(crate) const MAX_PAYLOAD: usize = 8 * 1024 * 1024;
/// Subject and headers have 16-bit lengths; NATS's own limit for headers is 64 KiB.
pub(crate) const MAX_TEXT: usize = u16::MAX as usize;
/// Largest value that `len` can have.
const MAX_LEN: usize = HEADER_LEN - PREFIX_LEN + 2 * MAX_TEXT + MAX_PAYLOAD;

/// The middle field is a message id (which may be empty). Only in segments of version 1.
const FLAG_MSG_ID: u16 = 1 << 0;
/// The record's batch goes on with the next record.
const FLAG_CONTINUES: u16 = 1 << 1;
/// The middle field is a NATS header block.
const FLAG_HEADERS: u16 = 1 << 2;
/// Not a message but an operation on messages before it: it has the sequence of the next message and uses none up.
const FLAG_OPERATION: u16 = 1 << 3;
const KNOWN_FLAGS: u16 = FLAG_MSG_ID | FLAG_CONTINUES | FLAG_HEADERS | FLAG_OPERATION;

/// The values of a record that is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) seq: u64,
    pub(crate) time_ns: i64,
    pub(crate) subject: &'a str,
    pub(crate) headers: &'a [u8],
    pub(crate) payload: &'a [u8],
    pub(crate) continues: bool,
    pub(crate) operation: bool,
}

/// How many bytes the record takes in the log.
pub(crate) fn encoded_len(subject: &str, headers: &[u8], payload: &[u8]) -> usize {
    HEADER_LEN + subject.len() + headers.len() + payload.len()
}

/// Appends the record's bytes to `out`. The caller has checked the limits ([`MAX_TEXT`], [`MAX_PAYLOAD`]).
pub(crate) fn encode(fields: &Fields<'_>, out: &mut Vec<u8>) {
    let Fields { seq, time_ns, subject, headers, payload, continues, operation } = *fields;
    debug_assert!(subject.len() <= MAX_TEXT && headers.len() <= MAX_TEXT && payload.len() <= MAX_PAYLOAD);
    let start = out.len();
    let len = (encoded_len(subject, headers, payload) - PREFIX_LEN) as u32;
    let mut flags = 0;
    if !headers.is_empty() {
        flags |= FLAG_HEADERS;
    }
    if continues {
        flags |= FLAG_CONTINUES;
    }
    if operation {
        flags |= FLAG_OPERATION;
    }
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&len.to_le_bytes());
    header[8..16].copy_from_slice(&seq.to_le_bytes());
    header[16..24].copy_from_slice(&time_ns.to_le_bytes());
    header[24..26].copy_from_slice(&flags.to_le_bytes());
    header[26..28].copy_from_slice(&(subject.len() as u16).to_le_bytes());
    header[28..30].copy_from_slice(&(headers.len() as u16).to_le_bytes());
    out.reserve(HEADER_LEN + subject.len() + headers.len() + payload.len());
    out.extend_from_slice(&header);
    out.extend_from_slice(subject.as_bytes());
    out.extend_from_slice(headers);
    out.extend_from_slice(payload);
    let crc = checksum(&out[start..]);
    out[start + 4..start + PREFIX_LEN].copy_from_slice(&crc.to_le_bytes());
}

/// CRC-32 (IEEE) of the length and of everything behind the CRC field itself.
fn checksum(record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[..4]);
    hasher.update(&record[PREFIX_LEN..]);
    hasher.finalize()
}

/// A record's values, in the bytes they were read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) seq: u64,
    pub(crate) time_ns: i64,
    pub(crate) subject: &'a str,
    /// A header block, or in version 1 a bare message id.
    middle: &'a [u8],
    pub(crate) payload: &'a [u8],
    pub(crate) continues: bool,
    pub(crate) operation: bool,
    /// How many bytes it takes.
    pub(crate) len: usize,
    msg_id: bool,
}

impl Record<'_> {
    /// What it counts against byte limits.
    pub(crate) fn size(&self) -> u64 {
        (self.subject.len() + self.payload.len() + self.header_block().len()) as u64 + crate::store::MESSAGE_OVERHEAD
    }

    /// Its header block.
    pub(crate) fn header_block(&self) -> std::borrow::Cow<'_, [u8]> {
        if self.msg_id {
            match std::str::from_utf8(self.middle) {
                Ok(id) => crate::headers::msg_id_block(id).into(),
                Err(_) => Vec::new().into(),
            }
        } else {
            self.middle.into()
        }
    }

    /// As a message. `bytes` are those it was read from, from its beginning; they are shared, not copied, where its format allows.
    pub(crate) fn to_stored(&self, bytes: &Bytes) -> Option<Stored> {
        let subject_end = HEADER_LEN + self.subject.len();
        let subject = bytes.slice(HEADER_LEN..subject_end);
        if self.msg_id {
            let block = self.header_block();
            let body = [&block, self.payload].concat();
            return Stored::from_parts(self.seq, self.time_ns, subject, body.into(), block.len());
        }
        Stored::from_parts(self.seq, self.time_ns, subject, bytes.slice(subject_end..self.len), self.middle.len())
    }
}

/// What the bytes at a position are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded<'a> {
    /// A whole record.
    Record(Record<'a>),
    /// The beginning of a record: at least so many bytes are needed to go on.
    Incomplete {
        /// Bytes from the record's beginning.
        needed: usize,
    },
    /// Not a record.
    Bad {
        /// Why.
        reason: &'static str,
    },
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut buffer = [0; 4];
    buffer.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(buffer)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut buffer = [0; 8];
    buffer.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(buffer)
}

/// Reads the record at the beginning of `bytes`, which must have the sequence `expected`.
pub(crate) fn decode(bytes: &[u8], expected: u64) -> Decoded<'_> {
    parse(bytes, expected, true)
}

/// The same for bytes that this process made and that no disk has seen.
pub(crate) fn decode_trusted(bytes: &[u8], expected: u64) -> Decoded<'_> {
    parse(bytes, expected, false)
}

fn parse(bytes: &[u8], expected: u64, checked: bool) -> Decoded<'_> {
    if bytes.len() < 4 {
        return Decoded::Incomplete { needed: HEADER_LEN };
    }
    let len = u32_at(bytes, 0) as usize;
    if len < HEADER_LEN - PREFIX_LEN {
        return Decoded::Bad { reason: "record length too small" };
    }
    if len > MAX_LEN {
        return Decoded::Bad { reason: "record length too large" };
    }
    // Before the CRC can be checked: a wrong sequence tells a damaged length from a record that is still being written.
    if bytes.len() >= 16 && u64_at(bytes, 8) != expected {
        return Decoded::Bad { reason: "sequence does not follow" };
    }
    let Some(bytes) = bytes.get(..PREFIX_LEN + len) else {
        return Decoded::Incomplete { needed: PREFIX_LEN + len };
    };
    if checked && checksum(bytes) != u32_at(bytes, 4) {
        return Decoded::Bad { reason: "checksum does not match" };
    }
    let flags = u16_at(bytes, 24);
    if flags & !KNOWN_FLAGS != 0 || u16_at(bytes, 30) != 0 {
        return Decoded::Bad { reason: "flags of another format version" };
    }
    let subject_end = HEADER_LEN + usize::from(u16_at(bytes, 26));
    let middle_end = subject_end + usize::from(u16_at(bytes, 28));
    let (Some(subject), Some(middle), Some(payload)) =
        (bytes.get(HEADER_LEN..subject_end), bytes.get(subject_end..middle_end), bytes.get(middle_end..))
    else {
        return Decoded::Bad { reason: "inner lengths exceed the record" };
    };
    let operation = flags & FLAG_OPERATION != 0;
    let Some(subject) = std::str::from_utf8(subject).ok().filter(|text| is_subject(text) || (operation && text.is_empty())) else {
        return Decoded::Bad { reason: "subject is not a subject" };
    };
    let msg_id = flags & FLAG_MSG_ID != 0;
    if msg_id && std::str::from_utf8(middle).is_err() {
        return Decoded::Bad { reason: "message id is not text" };
    }
    if flags & (FLAG_MSG_ID | FLAG_HEADERS) == 0 && !middle.is_empty() {
        return Decoded::Bad { reason: "headers without their flag" };
    }
    Decoded::Record(Record {
        seq: expected,
        time_ns: u64_at(bytes, 16) as i64,
        subject,
        middle,
        payload,
        continues: flags & FLAG_CONTINUES != 0,
        operation,
        len: PREFIX_LEN + len,
        msg_id,
    })
}

/// Where in `bytes` a whole record with a sequence in `sequences` begins, and its sequence: the first such place.
///
/// Tells damage (acknowledged records follow) from a torn tail (nothing follows), and is where reading resumes behind damage. A
/// payload could imitate a record; it would have to be hit by damage in just the right place to be taken for one.
pub(crate) fn find_whole_record(bytes: &[u8], sequences: std::ops::RangeInclusive<u64>) -> Option<(usize, u64)> {
    (0..bytes.len().saturating_sub(HEADER_LEN - 1)).find_map(|at| {
        let seq = u64_at(bytes, at + 8);
        (sequences.contains(&seq) && matches!(decode(&bytes[at..], seq), Decoded::Record(_))).then_some((at, seq))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    struct Made {
        seq: u64,
        subject: String,
        headers: Vec<u8>,
        time_ns: i64,
        payload: Vec<u8>,
        continues: bool,
        operation: bool,
    }

    fn made() -> impl Strategy<Value = Made> {
        let subject = proptest::collection::vec("[a-z0-9_-]{1,12}", 1..5).prop_map(|tokens| tokens.join("."));
        let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max);
        (any::<u64>(), subject, bytes(60), any::<i64>(), bytes(300), any::<bool>(), any::<bool>()).prop_map(
            |(seq, subject, headers, time_ns, payload, continues, operation)| Made {
                seq,
                subject,
                headers,
                time_ns,
                payload,
                continues,
                operation,
            },
        )
    }

    fn bytes_of(made: &Made) -> Vec<u8> {
        let mut out = Vec::new();
        let Made { seq, subject, headers, time_ns, payload, continues, operation } = made;
        let (seq, time_ns, continues, operation) = (*seq, *time_ns, *continues, *operation);
        encode(&Fields { seq, time_ns, subject, headers, payload, continues, operation }, &mut out);
        out
    }

    fn is_record(bytes: &[u8], seq: u64) -> bool {
        matches!(decode(bytes, seq), Decoded::Record(_))
    }

    #[test]
    fn zeros_are_not_a_record() {
        assert!(matches!(decode(&[0; 64], 0), Decoded::Bad { .. }));
    }

    proptest! {
        #[test]
        fn reads_back_what_was_written(made in made(), behind in proptest::collection::vec(any::<u8>(), 0..50)) {
            let mut bytes = bytes_of(&made);
            let len = bytes.len();
            prop_assert_eq!(len, encoded_len(&made.subject, &made.headers, &made.payload));
            bytes.extend(behind);
            match decode(&bytes, made.seq) {
                Decoded::Record(record) => {
                    prop_assert_eq!((record.seq, record.time_ns, record.len), (made.seq, made.time_ns, len));
                    prop_assert_eq!((record.continues, record.operation), (made.continues, made.operation));
                    let stored = record.to_stored(&Bytes::copy_from_slice(&bytes)).expect("the parts fit");
                    prop_assert_eq!((stored.subject(), stored.headers(), stored.payload()), (&made.subject[..], &made.headers[..], &made.payload[..]));
                    prop_assert_eq!(stored.size(), record.size());
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn every_prefix_is_incomplete(made in made(), cut in any::<prop::sample::Index>()) {
            let bytes = bytes_of(&made);
            let cut = cut.index(bytes.len());
            match decode(&bytes[..cut], made.seq) {
                Decoded::Incomplete { needed } => prop_assert!(needed > cut && needed <= bytes.len()),
                other => prop_assert!(false, "a prefix of {} bytes gave {:?}", cut, other),
            }
        }

        #[test]
        fn a_flipped_bit_is_never_a_record(made in made(), bit in any::<prop::sample::Index>()) {
            let mut bytes = bytes_of(&made);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!is_record(&bytes, made.seq));
        }

        #[test]
        fn random_bytes_are_never_a_record(bytes in proptest::collection::vec(any::<u8>(), 0..600), seq in any::<u64>()) {
            prop_assert!(!is_record(&bytes, seq));
            prop_assert_eq!(find_whole_record(&bytes, 0..=u64::MAX), None);
        }

        #[test]
        fn plausible_headers_never_panic(
            len in 0u32..2000, seq in any::<u64>(), lens in any::<(u16, u16)>(), flags in 0u16..32,
            tail in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            let mut bytes = Vec::new();
            bytes.extend(len.to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(seq.to_le_bytes());
            bytes.extend([0; 8]);
            bytes.extend(flags.to_le_bytes());
            bytes.extend(lens.0.to_le_bytes());
            bytes.extend(lens.1.to_le_bytes());
            bytes.extend([0; 2]);
            bytes.extend(&tail);
            // With a right checksum the inner lengths are what has to hold.
            if let Some(whole) = bytes.get(..8 + len as usize).filter(|_| len >= 24) {
                let crc = checksum(whole).to_le_bytes();
                bytes[4..8].copy_from_slice(&crc);
            }
            let shared = Bytes::copy_from_slice(&bytes);
            if let Decoded::Record(record) = decode(&bytes, seq) {
                prop_assert!(record.to_stored(&shared).is_some());
            }
        }

        #[test]
        fn finds_a_whole_record_behind_garbage(made in made(), before in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = before;
            let at = bytes.len();
            bytes.extend(bytes_of(&made));
            prop_assert_eq!(find_whole_record(&bytes, made.seq..=made.seq), Some((at, made.seq)));
        }
    }
}
