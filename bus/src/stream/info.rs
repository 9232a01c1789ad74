//! A stream's state in numbers.

use std::sync::atomic::Ordering;

use serde::Serialize;

use super::{Inner, lock};
use crate::config::{StreamName, SyncPolicy};
use crate::store::Store;

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
    /// Those of them that are compressed.
    pub sealed_segments: u64,
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
    /// Configured time from append to sync in milliseconds; 0 means before the acknowledgement, 2⁶⁴-1 whenever the operating system likes.
    pub sync_interval_ms: u64,
}

impl Inner {
    pub(super) fn info(&self) -> StreamInfo {
        let (state, files, counters) = (self.log.state(), self.log.files(DAY_NS), self.log.counters());
        let report = self.log.report();
        StreamInfo {
            name: self.name,
            first_seq: state.first_seq,
            last_seq: self.last_seq(),
            messages: state.messages,
            bytes: files.bytes,
            first_time_ns: state.first_time_ns,
            last_time_ns: if state.messages == 0 { 0 } else { files.newest_time_ns },
            recent_bytes: files.recent_bytes,
            recent_s: files.recent_s,
            synced_seq: self.log.synced_seq(),
            segments: files.segments,
            sealed_segments: files.sealed,
            appended_since_open: counters.appended.load(Ordering::Relaxed),
            duplicates: self.duplicates.load(Ordering::Relaxed),
            duplicate_ids_forgotten: lock(&self.publishing).forgotten_early(),
            write_errors: counters.write_errors.load(Ordering::Relaxed),
            write_failing: counters.write_failing.load(Ordering::Relaxed),
            seconds_since_write_error: lock(&counters.last_write_error).map(|at| at.elapsed().as_secs()),
            failed: self.log.failed(),
            deleted_messages: counters.deleted.load(Ordering::Relaxed),
            truncated_at_open: report.truncated_bytes,
            skipped_sequences_at_open: report.skipped_sequences,
            lost_at_end_at_open: 0,
            unreadable_messages: report.missing_sequences + counters.unreadable.load(Ordering::Relaxed),
            max_age_s: self.config.max_age.as_secs(),
            max_bytes: self.config.max_bytes,
            duplicate_window_s: self.config.duplicate_window.as_secs(),
            sync_interval_ms: match self.config.sync {
                SyncPolicy::Always => 0,
                SyncPolicy::Interval(delay) => u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                SyncPolicy::Os => u64::MAX,
            },
        }
    }
}
