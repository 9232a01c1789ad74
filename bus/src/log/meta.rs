//! `stream.json`: what a stream must know that its segments cannot tell.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::StreamName;
use crate::error::OpenError;
use crate::files;
use crate::log::segment::SegmentState;

const VERSION: u32 = 1;
const FILE: &str = "stream.json";
/// Holes older than these are forgotten first; each costs a power cut, so the bound is generous.
const MAX_GAPS: usize = 64;

/// What is known of a closed segment, so that a start need not read it. Believed only while the file has exactly this length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) first_seq: u64,
    pub(crate) count: u64,
    pub(crate) len: u64,
    pub(crate) first_time_ns: i64,
    pub(crate) max_time_ns: i64,
}

impl Summary {
    /// As a segment's state.
    pub(crate) fn state(&self) -> SegmentState {
        let Self { first_seq: _, count, len, first_time_ns, max_time_ns } = *self;
        SegmentState::summarized(len, count, first_time_ns, max_time_ns)
    }
}

/// The stream's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    version: u32,
    stream: String,
    /// No sequence above this one was ever handed out. Synced before the first of them is.
    pub(crate) reserved: u64,
    /// Kernel's boot id of the run that wrote this.
    pub(crate) boot_id: String,
    /// Last sequence when the stream was closed in good order; absent while it is open.
    pub(crate) clean_last_seq: Option<u64>,
    /// Sequences (first, last) that no message ever had or that nobody can have seen.
    pub(crate) gaps: Vec<(u64, u64)>,
    /// Closed segments.
    pub(crate) segments: Vec<Summary>,
}

impl Meta {
    /// Of a stream that has nothing yet.
    pub(crate) fn new(stream: StreamName) -> Self {
        Self {
            version: VERSION,
            stream: stream.as_str().to_owned(),
            reserved: 0,
            boot_id: String::new(),
            clean_last_seq: None,
            gaps: Vec::new(),
            segments: Vec::new(),
        }
    }

    /// Where it is kept.
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join(FILE)
    }

    /// Reads it; `None` where there is none.
    pub(crate) fn load(dir: &Path, stream: StreamName) -> Result<Option<Self>, OpenError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let path = Self::path(dir);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(OpenError::Io { action: "read", path, source }),
        };
        let damaged = |error: serde_json::Error| OpenError::Damaged { path: path.clone(), reason: error.to_string() };
        let Version { version } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if version > VERSION {
            return Err(OpenError::Version { path, found: version, supported: VERSION });
        }
        let meta: Self = serde_json::from_slice(&bytes).map_err(damaged)?;
        if meta.stream != stream.as_str() {
            let reason = format!("it belongs to stream {:?}", meta.stream);
            return Err(OpenError::Damaged { path, reason });
        }
        Ok(Some(meta))
    }

    /// Writes and syncs it.
    pub(crate) fn store(&self, dir: &Path) -> io::Result<()> {
        files::replace(&Self::path(dir), &serde_json::to_vec_pretty(self)?, true)
    }

    /// Notes that no message has a sequence from `first` to `last`.
    pub(crate) fn add_gap(&mut self, first: u64, last: u64) {
        if first <= last {
            self.gaps.push((first, last));
            let surplus = self.gaps.len().saturating_sub(MAX_GAPS);
            self.gaps.drain(..surplus);
        }
    }
}

/// How many sequences from `first` to `last` (both included) belong to no gap.
pub(crate) fn count_outside(gaps: &[(u64, u64)], first: u64, last: u64) -> u64 {
    if first > last {
        return 0;
    }
    let in_gaps: u64 = gaps.iter().map(|&(a, b)| (b.min(last) + 1).saturating_sub(a.max(first))).sum();
    (last - first + 1).saturating_sub(in_gaps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_in_gaps_are_not_counted() {
        let gaps = [(5, 9), (20, 29)];
        assert_eq!(count_outside(&gaps, 1, 4), 4);
        assert_eq!(count_outside(&gaps, 1, 10), 5);
        assert_eq!(count_outside(&gaps, 6, 24), 10);
        assert_eq!(count_outside(&gaps, 5, 9), 0);
        assert_eq!(count_outside(&gaps, 10, 9), 0);
    }

    #[test]
    fn reads_back_and_names_what_is_wrong() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        assert!(Meta::load(dir.path(), StreamName::Events)?.is_none());
        let mut meta = Meta::new(StreamName::Events);
        meta.add_gap(3, 7);
        meta.add_gap(9, 8);
        meta.store(dir.path())?;
        assert_eq!(Meta::load(dir.path(), StreamName::Events)?, Some(meta));
        assert!(matches!(Meta::load(dir.path(), StreamName::Alerts), Err(OpenError::Damaged { .. })));
        std::fs::write(Meta::path(dir.path()), "{\"version\":2,\"shape\":\"unknown\"}")?;
        assert!(matches!(Meta::load(dir.path(), StreamName::Events), Err(OpenError::Version { found: 2, .. })));
        std::fs::write(Meta::path(dir.path()), "{\"version\":1,")?;
        assert!(matches!(Meta::load(dir.path(), StreamName::Events), Err(OpenError::Damaged { .. })));
        Ok(())
    }
}
