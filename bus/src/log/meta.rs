//! `stream.json`: what a stream must know that its segments cannot tell.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::vfs::{self, Vfs};
use crate::error::OpenError;

const VERSION: u32 = 2;
const FILE: &str = "stream.json";
/// Holes older than these are forgotten first; each costs a power cut, so the bound is generous.
const MAX_GAPS: usize = 64;

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
    /// Messages that were lost to damage, and where they stood.
    #[serde(default)]
    pub(crate) unreadable: Vec<Lost>,
}

/// Messages that were lost to damage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lost {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) file: String,
    pub(crate) offset: u64,
}

impl Meta {
    /// Of a stream that has nothing yet.
    pub(crate) fn new(stream: &str) -> Self {
        Self {
            version: VERSION,
            stream: stream.to_owned(),
            reserved: 0,
            boot_id: String::new(),
            clean_last_seq: None,
            gaps: Vec::new(),
            unreadable: Vec::new(),
        }
    }

    /// Where it is kept.
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join(FILE)
    }

    /// Reads it; `None` where there is none.
    pub(crate) fn load(vfs: &dyn Vfs, dir: &Path, stream: &str) -> Result<Option<Self>, OpenError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let path = Self::path(dir);
        let bytes = match vfs::read(vfs, &path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(OpenError::Io { action: "read", path, source }),
        };
        let damaged = |error: serde_json::Error| OpenError::Damaged { path: path.clone(), reason: error.to_string() };
        let Version { version } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if version > VERSION {
            return Err(OpenError::Version { path, found: version, supported: VERSION });
        }
        let mut meta: Self = serde_json::from_slice(&bytes).map_err(damaged)?;
        meta.version = VERSION;
        if meta.stream != stream {
            let reason = format!("it belongs to stream {:?}", meta.stream);
            return Err(OpenError::Damaged { path, reason });
        }
        Ok(Some(meta))
    }

    /// Writes and syncs it.
    pub(crate) fn store(&self, vfs: &dyn Vfs, dir: &Path) -> io::Result<()> {
        vfs::replace(vfs, &Self::path(dir), &serde_json::to_vec_pretty(self)?, true)
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

impl Meta {
    /// Notes the newest of these.
    pub(crate) fn set_gaps(&mut self, gaps: &[(u64, u64)]) {
        self.gaps = gaps[gaps.len().saturating_sub(MAX_GAPS)..].to_vec();
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
        use super::super::vfs::Disk;
        let dir = tempfile::tempdir()?;
        let load = |stream| Meta::load(&Disk, dir.path(), stream);
        assert!(load("EVENTS")?.is_none());
        let mut meta = Meta::new("EVENTS");
        meta.add_gap(3, 7);
        meta.add_gap(9, 8);
        meta.store(&Disk, dir.path())?;
        assert_eq!(load("EVENTS")?, Some(meta.clone()));
        assert!(matches!(load("ALERTS"), Err(OpenError::Damaged { .. })));
        let before = r#"{"version":1,"stream":"EVENTS","reserved":0,"boot_id":"","clean_last_seq":null,"gaps":[[3,7]],"segments":[]}"#;
        std::fs::write(Meta::path(dir.path()), before)?;
        assert_eq!(load("EVENTS")?, Some(meta), "version 1 had notes of segments besides");
        std::fs::write(Meta::path(dir.path()), "{\"version\":3,\"shape\":\"unknown\"}")?;
        assert!(matches!(load("EVENTS"), Err(OpenError::Version { found: 3, .. })));
        std::fs::write(Meta::path(dir.path()), "{\"version\":1,")?;
        assert!(matches!(load("EVENTS"), Err(OpenError::Damaged { .. })));
        Ok(())
    }
}
