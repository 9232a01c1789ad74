//! One record: bytes to values and back, without any file.

use bytes::Bytes;

use crate::message::Record;
use crate::subject::Subject;

/// Fixed part of a record.
pub(crate) const HEADER_LEN: usize = 32;
/// The `len` field counts the bytes behind `len` and `crc`.
const PREFIX_LEN: usize = 8;
/// Largest payload. NATS's own ceiling for `max_payload` recommendations is 8 MiB.
pub(crate) const MAX_PAYLOAD: usize = 8 * 1024 * 1024;
/// Subject and message id have 16-bit lengths.
pub(crate) const MAX_TEXT: usize = u16::MAX as usize;
/// Largest value that `len` can have.
const MAX_LEN: usize = HEADER_LEN - PREFIX_LEN + 2 * MAX_TEXT + MAX_PAYLOAD;

/// The record has a message id (which may be empty).
const FLAG_MSG_ID: u16 = 1 << 0;
/// The record's batch goes on with the next record.
const FLAG_CONTINUES: u16 = 1 << 1;
const KNOWN_FLAGS: u16 = FLAG_MSG_ID | FLAG_CONTINUES;

/// The values of a record that is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) seq: u64,
    pub(crate) time_ns: i64,
    pub(crate) subject: &'a str,
    pub(crate) msg_id: Option<&'a str>,
    pub(crate) payload: &'a [u8],
    pub(crate) continues: bool,
}

/// How many bytes the record takes in the log.
pub(crate) fn encoded_len(subject: &str, msg_id: Option<&str>, payload: &[u8]) -> usize {
    HEADER_LEN + subject.len() + msg_id.map_or(0, str::len) + payload.len()
}

/// Appends the record's bytes to `out`. The caller has checked the limits ([`MAX_TEXT`], [`MAX_PAYLOAD`]).
pub(crate) fn encode(fields: &Fields<'_>, out: &mut Vec<u8>) {
    let Fields { seq, time_ns, subject, msg_id, payload, continues } = *fields;
    debug_assert!(subject.len() <= MAX_TEXT && msg_id.is_none_or(|id| id.len() <= MAX_TEXT) && payload.len() <= MAX_PAYLOAD);
    let start = out.len();
    let len = (encoded_len(subject, msg_id, payload) - PREFIX_LEN) as u32;
    let mut flags = 0;
    if msg_id.is_some() {
        flags |= FLAG_MSG_ID;
    }
    if continues {
        flags |= FLAG_CONTINUES;
    }
    let msg_id = msg_id.unwrap_or_default();
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&time_ns.to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&(subject.len() as u16).to_le_bytes());
    out.extend_from_slice(&(msg_id.len() as u16).to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(subject.as_bytes());
    out.extend_from_slice(msg_id.as_bytes());
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

/// What the bytes at a position are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// A whole record.
    Record {
        /// The record.
        record: Record,
        /// Whether its batch goes on.
        continues: bool,
        /// How many bytes it takes.
        len: usize,
    },
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
pub(crate) fn decode(bytes: &[u8], expected: u64) -> Decoded {
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
    if checksum(bytes) != u32_at(bytes, 4) {
        return Decoded::Bad { reason: "checksum does not match" };
    }
    let flags = u16_at(bytes, 24);
    if flags & !KNOWN_FLAGS != 0 || u16_at(bytes, 30) != 0 {
        return Decoded::Bad { reason: "flags of another format version" };
    }
    let subject_end = HEADER_LEN + usize::from(u16_at(bytes, 26));
    let msg_id_end = subject_end + usize::from(u16_at(bytes, 28));
    let (Some(subject), Some(msg_id), Some(payload)) =
        (bytes.get(HEADER_LEN..subject_end), bytes.get(subject_end..msg_id_end), bytes.get(msg_id_end..))
    else {
        return Decoded::Bad { reason: "inner lengths exceed the record" };
    };
    let Some(subject) = std::str::from_utf8(subject).ok().and_then(|text| text.parse::<Subject>().ok()) else {
        return Decoded::Bad { reason: "subject is not a subject" };
    };
    let Ok(msg_id) = std::str::from_utf8(msg_id) else {
        return Decoded::Bad { reason: "message id is not text" };
    };
    if flags & FLAG_MSG_ID == 0 && !msg_id.is_empty() {
        return Decoded::Bad { reason: "message id without its flag" };
    }
    Decoded::Record {
        record: Record {
            seq: expected,
            subject,
            msg_id: (flags & FLAG_MSG_ID != 0).then(|| msg_id.to_owned()),
            time_ns: u64_at(bytes, 16) as i64,
            payload: Bytes::copy_from_slice(payload),
        },
        continues: flags & FLAG_CONTINUES != 0,
        len: PREFIX_LEN + len,
    }
}

/// Whether a whole record with a sequence in `sequences` begins somewhere in `bytes`; gives the highest such sequence.
///
/// Tells damage (acknowledged records follow) from a torn tail (nothing follows). A payload could imitate a record; the price
/// would be a segment that is closed early and sequences that are skipped, never a record that is invented.
pub(crate) fn highest_whole_record(bytes: &[u8], sequences: std::ops::RangeInclusive<u64>) -> Option<u64> {
    (0..bytes.len().saturating_sub(HEADER_LEN - 1))
        .filter_map(|at| {
            let seq = u64_at(bytes, at + 8);
            (sequences.contains(&seq) && matches!(decode(&bytes[at..], seq), Decoded::Record { .. })).then_some(seq)
        })
        .max()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arbitrary_record() -> impl Strategy<Value = (Record, bool)> {
        let subject = proptest::collection::vec("[a-z0-9_-]{1,12}", 1..5).prop_map(|tokens| tokens.join("."));
        let payload = proptest::collection::vec(any::<u8>(), 0..300);
        (any::<u64>(), subject, proptest::option::of(".{0,40}"), any::<i64>(), payload, any::<bool>()).prop_map(
            |(seq, subject, msg_id, time_ns, payload, continues)| {
                let subject = subject.parse().expect("generated subjects are valid");
                (Record { seq, subject, msg_id, time_ns, payload: payload.into() }, continues)
            },
        )
    }

    fn bytes_of(record: &Record, continues: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let Record { seq, subject, msg_id, time_ns, payload } = record;
        let fields = Fields { seq: *seq, time_ns: *time_ns, subject: subject.as_str(), msg_id: msg_id.as_deref(), payload, continues };
        encode(&fields, &mut out);
        out
    }

    #[test]
    fn zeros_are_not_a_record() {
        assert!(matches!(decode(&[0; 64], 0), Decoded::Bad { .. }));
    }

    proptest! {
        #[test]
        fn reads_back_what_was_written((record, continues) in arbitrary_record(), behind in proptest::collection::vec(any::<u8>(), 0..50)) {
            let mut bytes = bytes_of(&record, continues);
            let len = bytes.len();
            prop_assert_eq!(len, encoded_len(record.subject.as_str(), record.msg_id.as_deref(), &record.payload));
            bytes.extend(behind);
            prop_assert_eq!(decode(&bytes, record.seq), Decoded::Record { record, continues, len });
        }

        #[test]
        fn every_prefix_is_incomplete((record, continues) in arbitrary_record(), cut in any::<prop::sample::Index>()) {
            let bytes = bytes_of(&record, continues);
            let cut = cut.index(bytes.len());
            match decode(&bytes[..cut], record.seq) {
                Decoded::Incomplete { needed } => prop_assert!(needed > cut && needed <= bytes.len()),
                other => prop_assert!(false, "a prefix of {} bytes gave {:?}", cut, other),
            }
        }

        #[test]
        fn a_flipped_bit_is_never_a_record((record, continues) in arbitrary_record(), bit in any::<prop::sample::Index>()) {
            let mut bytes = bytes_of(&record, continues);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let is_record = matches!(decode(&bytes, record.seq), Decoded::Record { .. });
            prop_assert!(!is_record);
        }

        #[test]
        fn random_bytes_are_never_a_record(bytes in proptest::collection::vec(any::<u8>(), 0..600), seq in any::<u64>()) {
            let is_record = matches!(decode(&bytes, seq), Decoded::Record { .. });
            prop_assert!(!is_record);
            prop_assert_eq!(highest_whole_record(&bytes, 0..=u64::MAX), None);
        }

        #[test]
        fn plausible_headers_never_panic(
            len in 0u32..2000, crc in any::<u32>(), seq in any::<u64>(), lens in any::<(u16, u16)>(),
            tail in proptest::collection::vec(any::<u8>(), 0..2000), fix in any::<bool>(),
        ) {
            let mut bytes = Vec::new();
            bytes.extend(len.to_le_bytes());
            bytes.extend(crc.to_le_bytes());
            bytes.extend(seq.to_le_bytes());
            bytes.extend([0; 10]);
            bytes.extend(lens.0.to_le_bytes());
            bytes.extend(lens.1.to_le_bytes());
            bytes.extend(&tail);
            // With a right checksum the inner lengths are what has to hold.
            if fix && let Some(whole) = bytes.get(..8 + len as usize).filter(|_| len >= 24) {
                let crc = checksum(whole).to_le_bytes();
                bytes[4..8].copy_from_slice(&crc);
            }
            if let Decoded::Record { record, .. } = decode(&bytes, seq) {
                prop_assert!(fix);
                prop_assert!(!record.subject.as_str().is_empty());
            }
        }

        #[test]
        fn finds_a_whole_record_behind_garbage((record, continues) in arbitrary_record(), before in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = before;
            bytes.extend(bytes_of(&record, continues));
            prop_assert_eq!(highest_whole_record(&bytes, record.seq..=record.seq), Some(record.seq));
        }
    }
}
