//! The newest messages in memory, so that consumers that keep up read no file.

use std::collections::VecDeque;

use crate::log::record;
use crate::message::Record;

/// How many bytes of messages are kept.
pub(crate) const RING_BYTES: usize = 8 * 1024 * 1024;

/// The newest messages, with dense sequences.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    records: VecDeque<Record>,
    bytes: usize,
}

fn size(record: &Record) -> usize {
    record::encoded_len(record.subject.as_str(), record.msg_id.as_deref(), &record.payload)
}

impl Ring {
    /// Adds the next message and forgets the oldest ones beyond the limit.
    pub(crate) fn push(&mut self, record: Record) {
        debug_assert!(self.records.back().is_none_or(|last| last.seq + 1 == record.seq));
        self.bytes += size(&record);
        self.records.push_back(record);
        while self.bytes > RING_BYTES
            && let Some(oldest) = self.records.pop_front()
        {
            self.bytes -= size(&oldest);
        }
    }

    /// The oldest sequence held.
    pub(crate) fn first_seq(&self) -> Option<u64> {
        self.records.front().map(|record| record.seq)
    }

    /// Messages from `seq` on; empty when `seq` is older or newer than what is held.
    pub(crate) fn from(&self, seq: u64) -> impl Iterator<Item = &Record> {
        let skip = match self.first_seq() {
            Some(first) if seq >= first => usize::try_from(seq - first).unwrap_or(usize::MAX).min(self.records.len()),
            _ => self.records.len(),
        };
        self.records.range(skip..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_within_its_bytes() -> Result<(), crate::SubjectError> {
        let mut ring = Ring::default();
        let payload = bytes::Bytes::from(vec![0; RING_BYTES / 4]);
        for seq in 10..20 {
            ring.push(Record { seq, subject: "a.b".parse()?, msg_id: None, time_ns: 0, payload: payload.clone() });
        }
        assert_eq!(ring.first_seq(), Some(17));
        assert_eq!(ring.from(18).map(|r| r.seq).collect::<Vec<_>>(), [18, 19]);
        for outside in [0, 16, 20, u64::MAX] {
            assert_eq!(ring.from(outside).count(), 0);
        }
        Ok(())
    }
}
