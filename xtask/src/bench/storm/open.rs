//! Files opened and closed: one kind that a sensor must tell (for writing), one that it should leave alone (for reading, watched by nobody).

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Folder of the files that are opened for writing, below the storm's own: a peer that watches by folder is told of it.
pub(in crate::bench) const WATCHED: &str = "watched";
/// Folder of those that are only read.
const PLAIN: &str = "plain";

/// A file for each thread, so that threads do not wait for each other's inode.
#[derive(Debug)]
pub(super) struct Files {
    by_thread: Vec<PathBuf>,
    write: bool,
}

impl Files {
    /// Makes them below `folder`; with `write` they are opened for writing later on.
    pub(super) fn make(folder: &Path, threads: u64, write: bool) -> Result<Self> {
        let folder = folder.join(if write { WATCHED } else { PLAIN });
        std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let make = |thread| {
            let path = folder.join(format!("{thread}"));
            File::create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
            Ok(path)
        };
        Ok(Self { by_thread: (0..threads).map(make).collect::<Result<_>>()?, write })
    }

    /// One open and close; nothing is read or written.
    pub(super) fn each(&self, thread: u64) -> Result<()> {
        let path = self.by_thread.get(thread as usize).context("a thread without a file")?;
        let file = OpenOptions::new().read(!self.write).write(self.write).open(path);
        file.map(drop).with_context(|| format!("{} cannot be opened", path.display()))
    }
}
