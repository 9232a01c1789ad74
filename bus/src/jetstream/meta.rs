//! Where definitions and consumers' places are kept: small named blobs.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::files;
use crate::log::lock;

/// Small blobs under names of one or two parts.
pub trait MetaStore: Send + Sync {
    /// Stores a blob; with `sync` it survives a power cut once this has returned.
    ///
    /// # Errors
    /// What the system said; what was there before is there still.
    fn put(&self, folder: &str, name: &str, bytes: &[u8], sync: bool) -> io::Result<()>;

    /// A blob.
    ///
    /// # Errors
    /// What the system said.
    fn get(&self, folder: &str, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Names in a folder.
    ///
    /// # Errors
    /// What the system said.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Forgets a blob, for ever once this has returned.
    ///
    /// # Errors
    /// What the system said.
    fn remove(&self, folder: &str, name: &str) -> io::Result<()>;

    /// Forgets a folder.
    ///
    /// # Errors
    /// What the system said.
    fn remove_folder(&self, folder: &str) -> io::Result<()>;
}

/// In files, replaced as a whole.
#[derive(Debug)]
pub struct FileMeta {
    dir: PathBuf,
}

impl FileMeta {
    /// In this folder, which is created when it is missing.
    ///
    /// # Errors
    /// What the system said.
    pub fn open(dir: &Path) -> io::Result<Self> {
        files::create_private_dir(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }
}

fn missing_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl MetaStore for FileMeta {
    fn put(&self, folder: &str, name: &str, bytes: &[u8], sync: bool) -> io::Result<()> {
        let dir = self.dir.join(folder);
        if sync {
            files::create_private_dir(&dir)?;
            for parent in dir.ancestors().skip(1).take_while(|parent| parent.starts_with(&self.dir)) {
                files::sync_dir(parent)?;
            }
        }
        files::replace(&dir.join(name), bytes, sync)
    }

    fn get(&self, folder: &str, name: &str) -> io::Result<Option<Vec<u8>>> {
        missing_is_none(std::fs::read(self.dir.join(folder).join(name)))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let Some(entries) = missing_is_none(std::fs::read_dir(self.dir.join(folder)))? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry?.file_name().into_string().ok().filter(|name| !name.ends_with(".tmp")));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn remove(&self, folder: &str, name: &str) -> io::Result<()> {
        let dir = self.dir.join(folder);
        if missing_is_none(std::fs::remove_file(dir.join(name)))?.is_some() {
            files::sync_dir(&dir)?;
        }
        Ok(())
    }

    fn remove_folder(&self, folder: &str) -> io::Result<()> {
        missing_is_none(std::fs::remove_dir_all(self.dir.join(folder)))?;
        files::sync_dir(&self.dir)
    }
}

/// In memory.
#[derive(Debug, Default)]
pub struct MemoryMeta(Mutex<BTreeMap<(String, String), Vec<u8>>>);

impl MetaStore for MemoryMeta {
    fn put(&self, folder: &str, name: &str, bytes: &[u8], _: bool) -> io::Result<()> {
        lock(&self.0).insert((folder.to_owned(), name.to_owned()), bytes.to_vec());
        Ok(())
    }

    fn get(&self, folder: &str, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(lock(&self.0).get(&(folder.to_owned(), name.to_owned())).cloned())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        Ok(lock(&self.0).keys().filter(|(of, _)| of == folder).map(|(_, name)| name.clone()).collect())
    }

    fn remove(&self, folder: &str, name: &str) -> io::Result<()> {
        lock(&self.0).remove(&(folder.to_owned(), name.to_owned()));
        Ok(())
    }

    fn remove_folder(&self, folder: &str) -> io::Result<()> {
        lock(&self.0).retain(|(of, _), _| of != folder);
        Ok(())
    }
}
