//! A stream's state in numbers.

use std::sync::atomic::Ordering;

use serde::Serialize;

use super::{Inner, lock};
use crate::config::{StreamName, SyncPolicy};

const DAY_NS: i64 = 24 * 60 * 60 * 1_000_000_000;

/// A stream's state in numbers. Counters without another word count since the stream was opened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StreamInfo {
    /// Which stream.
    pub name: StreamName,
    /// Sequence of the oldest message; one more than `last_seq` when there is none.
    pub first_seq: u64,
    /// Sequence of the newest message that was ever appended (or the last one skipped at opening); 0 before the first one.
    pub last_seq: u64,
    /// Messages held.
    pub messages: u64,
    /// Bytes of segment files.
    pub bytes: u64,
    /// Time of the first message held, Unix ns; 0 when there is none.
    pub first_time_ns: i64,
    /// Latest time of any message held, Unix ns; 0 when there is none.
    pub last_time_ns: i64,
    /// Bytes of the segments that were begun within the last day of messages; of the newest one, if it is older.
    pub recent_bytes: u64,
    /// From the first message of these to the latest message, seconds.
    pub recent_s: u64,
    /// Everything up to this sequence is on disk.
    pub synced_seq: u64,
    /// Segment files.
    pub segments: u64,
    /// Messages appended.
    pub appended_since_open: u64,
    /// Messages not appended because their message id was known.
    pub duplicates: u64,
    /// Message ids forgotten within the duplicate window because there were too many.
    pub duplicate_ids_forgotten: u64,
    /// Writes and syncs that failed; each was reported to its publisher.
    pub write_errors: u64,
    /// The last write or sync failed, and nothing was appended since.
    pub write_failing: bool,
    /// Seconds since the last write or sync that failed.
    pub seconds_since_write_error: Option<u64>,
    /// Why the stream accepts nothing more until it is opened again.
    pub failed: Option<String>,
    /// Messages that retention deleted.
    pub deleted_messages: u64,
    /// Bytes of a torn tail that were cut off when the stream was opened.
    pub truncated_at_open: u64,
    /// Sequences left out when the stream was opened, so that none that somebody may have seen is used again.
    pub skipped_sequences_at_open: u64,
    /// Messages known to have stood behind the last one that could be read when the stream was opened.
    pub lost_at_end_at_open: u64,
    /// Messages that were found unreadable because of damage, at opening or since.
    pub unreadable_messages: u64,
    /// Configured age limit in seconds.
    pub max_age_s: u64,
    /// Configured size limit in bytes.
    pub max_bytes: u64,
    /// Configured duplicate window in seconds.
    pub duplicate_window_s: u64,
    /// Configured time from append to sync in milliseconds; 0 means before the acknowledgement.
    pub sync_interval_ms: u64,
}

impl Inner {
    pub(super) fn info(&self) -> StreamInfo {
        let (mut messages, mut bytes, mut first_time_ns, mut last_time_ns) = (0, 0, None, None);
        let mut first_seq = None;
        let segments = self.segments();
        for segment in segments.iter() {
            let state = segment.state();
            bytes += state.len;
            messages += state.count;
            if state.count > 0 {
                first_seq = first_seq.or(Some(segment.first_seq));
                first_time_ns = first_time_ns.or(Some(state.first_time_ns));
                last_time_ns = last_time_ns.max(Some(state.max_time_ns));
            }
        }
        let (segment_count, last_seq) = (segments.len() as u64, self.last_seq());
        // Newest first.
        let day_ago = last_time_ns.unwrap_or(0).saturating_sub(DAY_NS);
        let (mut recent_bytes, mut recent_from) = (0, None);
        for state in segments.iter().rev().map(|segment| segment.state()).filter(|state| state.count > 0) {
            if recent_from.is_some() && state.first_time_ns < day_ago {
                break;
            }
            recent_bytes += state.len;
            recent_from = Some(state.first_time_ns);
        }
        let recent_ns = recent_from.map_or(0, |from| last_time_ns.unwrap_or(from).saturating_sub(from));
        drop(segments);
        let failed = self.failure.get().map(|failure| failure.to_error().to_string());
        StreamInfo {
            name: self.name,
            first_seq: first_seq.unwrap_or(last_seq + 1),
            last_seq,
            messages,
            bytes,
            first_time_ns: first_time_ns.unwrap_or(0),
            last_time_ns: last_time_ns.unwrap_or(0),
            recent_bytes,
            recent_s: u64::try_from(recent_ns / 1_000_000_000).unwrap_or(0),
            synced_seq: self.synced.borrow().seq,
            segments: segment_count,
            appended_since_open: self.appended(),
            duplicates: self.counters.duplicates.load(Ordering::Relaxed),
            duplicate_ids_forgotten: lock(&self.writer).dedupe.forgotten_early(),
            write_errors: self.counters.write_errors.load(Ordering::Relaxed),
            write_failing: self.counters.write_failing.load(Ordering::Relaxed),
            seconds_since_write_error: lock(&self.counters.last_write_error).map(|at| at.elapsed().as_secs()),
            failed,
            deleted_messages: self.counters.deleted_messages.load(Ordering::Relaxed),
            truncated_at_open: self.report.truncated_bytes,
            skipped_sequences_at_open: self.report.skipped_sequences,
            lost_at_end_at_open: self.report.lost_at_end,
            unreadable_messages: self.report.missing_sequences + self.counters.unreadable.load(Ordering::Relaxed),
            max_age_s: self.config.max_age.as_secs(),
            max_bytes: self.config.max_bytes,
            duplicate_window_s: self.config.duplicate_window.as_secs(),
            sync_interval_ms: match self.config.sync {
                SyncPolicy::Always | SyncPolicy::Os => 0,
                SyncPolicy::Interval(delay) => u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            },
        }
    }
}
