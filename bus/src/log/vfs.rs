//! The disk as the log sees it, so that tests can put one in its place that fills up, fails and forgets what was not synced.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use crate::files;

/// Only the owner reads what hosts do.
const FILE_MODE: u32 = 0o600;

/// Files and folders. Every change of a folder's entries is durable once [`Vfs::sync_dir`] returned.
pub trait Vfs: Send + Sync + Debug {
    /// Creates the folder and its missing parents, private to the owner.
    ///
    /// # Errors
    /// What the system said; so for all other methods.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Names of the files in the folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VFile>>;
    /// Creates an empty file, or empties an existing one.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VFile>>;
    /// Gives a file another name, in one step, replacing what has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Deletes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Deletes a folder and all in it.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Forces the folder's entries to disk.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Unix time of the file's last change, in nanoseconds.
    fn modified_ns(&self, path: &Path) -> io::Result<i64>;
}

/// An open file.
pub trait VFile: Send + Sync + Debug {
    /// Reads into all of `buffer` where the file is long enough; gives how many bytes it read.
    ///
    /// # Errors
    /// What the system said; so for all other methods.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of it.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts off or extends with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// How many bytes it has.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has none.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Forces its content to disk.
    fn sync(&self) -> io::Result<()>;
}

/// The machine's own disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Vfs for Disk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        files::create_private_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn VFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn VFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(FILE_MODE).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        files::sync_dir(dir)
    }

    fn modified_ns(&self, path: &Path) -> io::Result<i64> {
        let since = std::fs::metadata(path)?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl VFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match FileExt::read_at(self, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Reads a whole file.
pub(crate) fn read(vfs: &dyn Vfs, path: &Path) -> io::Result<Vec<u8>> {
    let file = vfs.open(path)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Replaces `path` by a file with these bytes in one step: a reader (and a later start) sees the old content or the new one,
/// never a mixture. With `sync` that also holds for a power cut.
pub(crate) fn replace(vfs: &dyn Vfs, path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let temporary = temporary(path);
    let file = vfs.create(&temporary)?;
    file.write_at(bytes, 0)?;
    if sync {
        file.sync()?;
    }
    vfs.rename(&temporary, path)?;
    match path.parent() {
        Some(dir) if sync => vfs.sync_dir(dir),
        _ => Ok(()),
    }
}

/// Where a replacement of `path` is written first.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    path.with_added_extension("tmp")
}
