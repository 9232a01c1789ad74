//! What a log says about messages before it: operations, stored as records among the messages.

use super::varint::{self, Reader};

const DELETE: u8 = 1;
const HEAD: u8 = 2;

/// An operation on messages that are already in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    /// These messages of one subject are deleted: sequence and size.
    Delete {
        /// What they were about, so that counting needs no reading.
        subject: String,
        /// Ascending.
        messages: Vec<(u64, u64)>,
    },
    /// Everything before this sequence is deleted.
    Head {
        /// The first sequence that is not.
        first_seq: u64,
    },
}

impl Operation {
    /// The record's subject.
    pub(crate) fn subject(&self) -> &str {
        match self {
            Self::Delete { subject, .. } => subject,
            Self::Head { .. } => "",
        }
    }

    /// The record's payload.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Delete { subject: _, messages } => {
                out.push(DELETE);
                varint::put(&mut out, messages.len() as u64);
                let mut before = 0;
                for (seq, size) in messages {
                    varint::put(&mut out, seq.wrapping_sub(before));
                    varint::put(&mut out, *size);
                    before = *seq;
                }
            }
            Self::Head { first_seq } => {
                out.push(HEAD);
                varint::put(&mut out, *first_seq);
            }
        }
        out
    }

    /// Reads it back; `None` where the bytes are not one, or one of a newer format.
    pub(crate) fn decode(subject: &str, payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let operation = match reader.take(1)? {
            [DELETE] => {
                let count = reader.count()?;
                let mut messages = Vec::with_capacity(count);
                let mut before = 0_u64;
                for _ in 0..count {
                    before = before.checked_add(reader.number()?)?;
                    messages.push((before, reader.number()?));
                }
                Self::Delete { subject: subject.to_owned(), messages }
            }
            [HEAD] => Self::Head { first_seq: reader.number()? },
            _ => return None,
        };
        reader.0.is_empty().then_some(operation)
    }

    /// The first sequence that it says nothing about.
    pub(crate) fn behind_seq(&self) -> u64 {
        match self {
            Self::Delete { messages, .. } => messages.last().map_or(1, |(seq, _)| seq.saturating_add(1)),
            Self::Head { first_seq } => *first_seq,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_back() {
        for operation in [
            Operation::Head { first_seq: u64::MAX },
            Operation::Delete { subject: "a.b".to_owned(), messages: vec![(1, 30), (9, 1_000_000), (u64::MAX, 31)] },
            Operation::Delete { subject: "a".to_owned(), messages: vec![] },
        ] {
            assert_eq!(Operation::decode(operation.subject(), &operation.encode()), Some(operation));
        }
        assert_eq!(Operation::decode("", &[]), None);
        assert_eq!(Operation::decode("", &[3, 0]), None);
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Operation::decode("a", &bytes);
        }
    }
}
