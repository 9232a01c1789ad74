//! A temporary folder that stays when its test failed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A folder that goes with its owner, unless the test panics: then it stays, and its place is printed.
#[derive(Debug)]
pub struct Folder {
    inner: tempfile::TempDir,
}

impl Folder {
    /// An empty folder that other users may enter (an attacker or a server with another user works in it).
    ///
    /// # Panics
    /// It cannot be made.
    #[track_caller]
    pub fn new() -> Self {
        let made = tempfile::Builder::new().prefix("bartizan-test-").tempdir();
        let inner = made.unwrap_or_else(|error| panic!("cannot make a temporary folder in {}: {error}", std::env::temp_dir().display()));
        let opened = fs::set_permissions(inner.path(), fs::Permissions::from_mode(0o755));
        opened.unwrap_or_else(|error| panic!("cannot open {} to others: {error}", inner.path().display()));
        Self { inner }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.inner.path()
    }

    /// A path within.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file within and returns its path.
    ///
    /// # Panics
    /// It cannot be written.
    #[track_caller]
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        path
    }

    /// Writes a file within that everybody may execute.
    ///
    /// # Panics
    /// It cannot be written.
    #[track_caller]
    pub fn program(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.write(name, text);
        let allowed = fs::set_permissions(&path, fs::Permissions::from_mode(0o755));
        allowed.unwrap_or_else(|error| panic!("cannot make {} executable: {error}", path.display()));
        path
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.inner.disable_cleanup(true);
            eprintln!("the test's files stay in {}", self.path().display());
        }
    }
}
