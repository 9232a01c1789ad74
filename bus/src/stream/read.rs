//! Reading a stream for in-process consumers.

use super::Inner;
use crate::error::ReadError;
use crate::message::Record;
use crate::pattern::Filter;
use crate::store::{Hint, Store};

/// One call hands out at most so many bytes of payload beyond the first message.
const MAX_READ_BYTES: usize = 16 * 1024 * 1024;

/// Why a message could not be read, and where reading can go on.
#[derive(Debug)]
pub(crate) struct ReadFailure {
    pub(crate) error: ReadError,
    /// The next sequence worth asking for; the one asked for when trying again may help.
    pub(crate) resume_at: u64,
    /// Messages between the two.
    pub(crate) missing: u64,
}

impl Inner {
    /// One message.
    pub(super) fn get(&self, seq: u64) -> Result<Option<Record>, ReadError> {
        if let Some((error, ..)) = self.log.damage_in(seq, seq) {
            return Err(error);
        }
        Ok(self.log.get(seq)?.and_then(|stored| Record::from_stored(&stored)))
    }

    /// Up to `max` messages, the first of them the first one with a sequence of at least `from`.
    pub(crate) fn read_from(&self, from: u64, max: usize) -> Result<Vec<Record>, Box<ReadFailure>> {
        let (all, mut hint) = (Filter::all(), Hint::default());
        let last_seq = self.last_seq();
        let mut out: Vec<Record> = Vec::new();
        let (mut from, mut bytes) = (from, 0);
        while out.len() < max && bytes <= MAX_READ_BYTES && from <= last_seq {
            let next = match self.log.next(from, &all, &mut hint) {
                Ok(next) => next.filter(|stored| stored.seq <= last_seq),
                // Noted by the log; found again below, with all that is known of it.
                Err(ReadError::Damaged { .. }) => continue,
                Err(_) if !out.is_empty() => break,
                Err(error) => return Err(Box::new(ReadFailure { error, resume_at: from, missing: 0 })),
            };
            let seq = next.as_ref().map_or(last_seq + 1, |stored| stored.seq);
            if seq > from
                && let Some((error, missing)) = self.log.damage_in(from, seq - 1)
            {
                if out.is_empty() {
                    return Err(Box::new(ReadFailure { error, resume_at: seq, missing }));
                }
                break;
            }
            let Some(record) = next.as_ref().and_then(Record::from_stored) else { break };
            from = record.seq + 1;
            bytes += record.payload.len();
            out.push(record);
        }
        Ok(out)
    }
}
