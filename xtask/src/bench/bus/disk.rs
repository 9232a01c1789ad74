//! How fast the disk under the bench is, in the same run: what a sync costs before any server is asked for one.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::super::stats::percentile;

/// Each size is synced so often.
const TIMES: usize = 100;

/// Microseconds of one appending write and its fdatasync.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sync {
    pub(super) bytes: usize,
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// Writes and syncs a file in this folder, in two sizes: one message, and a group of a thousand.
///
/// # Errors
/// The disk refuses.
pub(super) fn measure(folder: &Path) -> Result<Vec<Sync>> {
    let path = folder.join("sync");
    let measured = [512, 300_000].into_iter().map(|bytes| measure_one(&path, bytes)).collect();
    std::fs::remove_file(&path).with_context(|| format!("{} cannot be removed", path.display()))?;
    measured
}

fn measure_one(path: &Path, bytes: usize) -> Result<Sync> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    let mut file = file.with_context(|| format!("{} cannot be written: make room on the disk", path.display()))?;
    let block = vec![0x5A; bytes];
    let mut times = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let before = Instant::now();
        file.write_all(&block).and_then(|()| file.sync_data()).with_context(|| format!("{} cannot be synced", path.display()))?;
        times.push(before.elapsed());
    }
    let us = |percent| percentile(times.iter().map(Duration::as_secs_f64), percent).unwrap_or_default() * 1e6;
    Ok(Sync { bytes, p50: us(50.0), p99: us(99.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_takes_time_and_leaves_nothing() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let syncs = measure(folder.path())?;
        assert!(syncs.len() == 2 && syncs.iter().all(|sync| sync.p50 > 0.0 && sync.p99 >= sync.p50), "{syncs:?}");
        assert_eq!(std::fs::read_dir(folder.path())?.count(), 0);
        Ok(())
    }
}
