//! Forgetting: whole segments, the oldest first, never the one being written.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use super::{Inner, count, lock};
use crate::log::meta::Summary;
use crate::log::segment::Segment;

/// What a segment's age counts from: its newest message, and no earlier than its last write, so that events of a host whose clock
/// stood wrong, or old events that are replayed into the bus, are kept as long as others.
fn newest_ns(segment: &Segment) -> io::Result<i64> {
    let path = &segment.path;
    let written = match std::fs::metadata(path).and_then(|metadata| metadata.modified()) {
        Ok(written) => written,
        // Somebody else deleted it: nothing to keep.
        Err(error) if error.kind() == io::ErrorKind::NotFound => UNIX_EPOCH,
        Err(error) => return Err(io::Error::new(error.kind(), format!("cannot look at {}: {error}", path.display()))),
    };
    let written_ns = written.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
    Ok(segment.state().max_time_ns.max(written_ns))
}

impl Inner {
    /// Deletes what is beyond the limits; by age only when it is told what time it is.
    pub(super) fn enforce_retention(&self, now_ns: Option<i64>) -> io::Result<()> {
        let _one_at_a_time = lock(&self.retention);
        if self.is_closed() {
            return Ok(());
        }
        let max_age_ns = i64::try_from(self.config.max_age.as_nanos()).unwrap_or(i64::MAX);
        if let Some(now_ns) = now_ns {
            let mut writer = lock(&self.writer);
            // On a quiet stream no append would ever close the segment, and it could never be deleted.
            let has_records = writer.segment.state().count > 0;
            let is_quiet = has_records && now_ns.saturating_sub(newest_ns(&writer.segment)?) > self.age_share_ns();
            if is_quiet && self.failure.get().is_none() {
                self.roll(&mut writer)?;
            }
        }
        let before = self.segments().len();
        while let Some(oldest) = self.beyond_limits(now_ns, max_age_ns)? {
            self.delete(&oldest)?;
        }
        if self.segments().len() != before {
            self.note_segments();
        }
        Ok(())
    }

    /// The oldest segment, when it is to be deleted.
    fn beyond_limits(&self, now_ns: Option<i64>, max_age_ns: i64) -> io::Result<Option<Arc<Segment>>> {
        let (oldest, bytes) = {
            let segments = self.segments();
            let Some(oldest) = segments.front().filter(|_| segments.len() > 1) else { return Ok(None) };
            (Arc::clone(oldest), segments.iter().map(|segment| segment.state().len).sum::<u64>())
        };
        let too_old = match now_ns {
            Some(now_ns) => now_ns.saturating_sub(newest_ns(&oldest)?) > max_age_ns,
            None => false,
        };
        Ok((too_old || bytes > self.config.max_bytes).then_some(oldest))
    }

    fn delete(&self, oldest: &Arc<Segment>) -> io::Result<()> {
        for path in [oldest.torn_path(), oldest.path.clone()] {
            match std::fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io::Error::new(error.kind(), format!("cannot delete {}: {error}", path.display()))),
            }
        }
        let mut segments = self.segments_mut();
        if segments.front().is_some_and(|front| Arc::ptr_eq(front, oldest)) {
            segments.pop_front();
        }
        count(&self.counters.deleted_messages, oldest.state().count);
        Ok(())
    }

    /// What is known of the segments that a start may believe: closed ones that are synced and whole; with `closing` all of them.
    pub(super) fn summaries(&self, closing: bool) -> Vec<Summary> {
        let synced = self.synced.borrow().seq;
        let segments = self.segments();
        let closed = segments.len() - usize::from(!closing);
        let whole = segments.iter().take(closed).filter_map(|segment| {
            let state = segment.state();
            let end_seq = segment.first_seq + state.count;
            (state.damage.is_none() && !state.has_holes() && end_seq <= synced + 1).then_some(Summary {
                first_seq: segment.first_seq,
                count: state.count,
                len: state.len,
                first_time_ns: state.first_time_ns,
                max_time_ns: state.max_time_ns,
            })
        });
        whole.collect()
    }

    /// Where reading begins: at the oldest message, or at the oldest damage, so that it is reported.
    pub(crate) fn first_seq(&self) -> u64 {
        let segments = self.segments();
        let worth_reading = |segment: &&Arc<Segment>| {
            let state = segment.state();
            state.count > 0 || state.damage.is_some()
        };
        segments.iter().find(worth_reading).map_or_else(|| self.last_seq() + 1, |segment| segment.first_seq)
    }

    /// Messages held with a sequence above `seq`.
    pub(crate) fn count_after(&self, seq: u64) -> u64 {
        let segments = self.segments();
        segments.iter().map(|segment| segment.end_seq().saturating_sub(segment.first_seq.max(seq.saturating_add(1)))).sum()
    }

    /// How many messages were appended by this process.
    pub(super) fn appended(&self) -> u64 {
        self.counters.appended.load(Ordering::Relaxed)
    }
}
