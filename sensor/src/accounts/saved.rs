//! What the account files said last, kept for the next run: what became of them while no sensor ran is told by it. A file of the data folder,
//! replaced as a whole. It has no password and no hash: a keyed digest of each hash, and the key.

use std::io;
use std::path::{Path, PathBuf};

use bartizan_bus::event::AccountFile;
use minicbor::{Decode, Encode};

use super::parse::Entries;
use crate::keep;

/// Raised when the file's meaning changes; an older one is then passed over.
const VERSION: u32 = 1;
/// A longer file is none of ours: three files of 8 MiB take less.
const MAX_BYTES: u64 = 1 << 28;
/// Bytes of the key.
pub(super) const KEY_BYTES: usize = 32;

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Saved {
    #[n(0)]
    version: u32,
    /// Makes the digests.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) key: [u8; KEY_BYTES],
    /// What each file said.
    #[n(2)]
    pub(super) files: Vec<(AccountFile, Entries)>,
}

impl Saved {
    pub(super) fn new(key: [u8; KEY_BYTES], files: Vec<(AccountFile, Entries)>) -> Self {
        Self { version: VERSION, key, files }
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct SavedFile(PathBuf);

impl SavedFile {
    /// The file in a data folder.
    pub(super) fn new(data_dir: &Path) -> Self {
        Self(data_dir.join("accounts"))
    }

    /// What an earlier run left; nothing when there is no file.
    ///
    /// # Errors
    /// A sentence: what is wrong with the file, and what that means.
    pub(super) fn load(&self) -> Result<Option<Saved>, String> {
        let problem = |what: String| {
            format!("{}: {what}; what became of the host's accounts since the last run of Bartizan is not told", self.0.display())
        };
        let Some(bytes) = keep::read(&self.0, MAX_BYTES).map_err(|error| problem(error.to_string()))? else { return Ok(None) };
        match minicbor::decode::<Saved>(&bytes) {
            Ok(saved) if saved.version == VERSION => Ok(Some(saved)),
            Ok(saved) => Err(problem(format!("version {} is not known", saved.version))),
            Err(error) => Err(problem(format!("it is damaged ({error})"))),
        }
    }

    /// Writes it, on the disk: after a power cut it is the last run that it speaks of.
    ///
    /// # Errors
    /// The folder takes no more, say.
    pub(super) fn store(&self, saved: &Saved) -> io::Result<()> {
        keep::replace(&self.0, &minicbor::to_vec(saved).map_err(io::Error::other)?, true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn foreign_bytes_are_a_sentence(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("accounts"), &bytes).unwrap();
            if let Err(sentence) = SavedFile::new(folder.path()).load() {
                prop_assert!(sentence.contains("accounts"));
            }
        }
    }
}
