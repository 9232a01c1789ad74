//! Reading a stream inside the process: what was published last from memory, the rest from the log.

use std::sync::Arc;

use super::Inner;
use crate::error::ReadError;
use crate::message::{Delivery, Record};
use crate::pattern::Filter;
use crate::store::{Hint, Store};

/// One call hands out at most so many bytes of payload beyond the first message.
pub(super) const MAX_READ_BYTES: usize = 16 * 1024 * 1024;

/// Why a message could not be read, and where reading can go on.
#[derive(Debug)]
pub(crate) struct ReadFailure {
    pub(crate) error: ReadError,
    /// The next sequence worth asking for; the one asked for when trying again may help.
    pub(crate) resume_at: u64,
    /// Messages between the two.
    pub(crate) missing: u64,
}

/// Some messages in order.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) found: Vec<Arc<Delivery>>,
    /// Everything that matches and has a lower sequence is among them.
    pub(crate) next_seq: u64,
    /// Whether they were read back from the log.
    pub(crate) from_log: bool,
}

impl Inner {
    /// One message.
    pub(super) fn get(&self, seq: u64) -> Result<Option<Record>, ReadError> {
        if let Some((error, ..)) = self.log.damage_in(seq, seq) {
            return Err(error);
        }
        Ok(self.log.get(seq)?.and_then(|stored| Record::from_stored(&stored)))
    }

    /// Up to `max` messages that match, the first of them the first one with a sequence of at least `from`.
    pub(crate) fn read(&self, from: u64, max: usize, filter: &Filter) -> Result<Read, Box<ReadFailure>> {
        let (mut hint, last_seq) = (Hint::default(), self.last_seq());
        if let Some(read) = self.fan.recent(from, max, filter, last_seq) {
            return Ok(read);
        }
        let mut read = Read { found: Vec::new(), next_seq: from, from_log: true };
        let mut bytes = 0;
        while read.found.len() < max && bytes <= MAX_READ_BYTES && read.next_seq <= last_seq {
            let next = match self.log.next(read.next_seq, filter, &mut hint) {
                Ok(next) => next.filter(|stored| stored.seq <= last_seq),
                // Noted by the log; found again below, with all that is known of it.
                Err(ReadError::Damaged { .. }) => continue,
                Err(_) if !read.found.is_empty() => break,
                Err(error) => return Err(Box::new(ReadFailure { error, resume_at: from, missing: 0 })),
            };
            let seq = next.as_ref().map_or(last_seq + 1, |stored| stored.seq);
            if seq > read.next_seq
                && let Some((error, missing)) = self.log.damage_in(read.next_seq, seq - 1)
            {
                if read.found.is_empty() {
                    return Err(Box::new(ReadFailure { error, resume_at: seq, missing }));
                }
                break;
            }
            read.next_seq = seq;
            let Some(stored) = next.as_ref() else { break };
            let Some(record) = Record::from_stored(stored) else {
                if read.found.is_empty() {
                    let reason = format!("message {seq} has the subject {:?}, which is none", stored.subject());
                    let error = ReadError::Damaged { path: self.log.dir().to_owned(), offset: 0, reason, missing: 1 };
                    return Err(Box::new(ReadFailure { error, resume_at: seq + 1, missing: 1 }));
                }
                break;
            };
            read.next_seq = seq + 1;
            bytes += record.payload.len();
            read.found.push(Arc::new(Delivery::new(record)));
        }
        Ok(read)
    }
}
