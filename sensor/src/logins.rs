//! Which running process belongs to which login, kept for the next run of the sensor: the kernel does not know it, and a session
//! may be older than the sensor. A file of the data folder, replaced as a whole; it speaks of one boot.

use std::io;
use std::path::{Path, PathBuf};

use bartizan_bus::event::{EventId, ExecId};
use minicbor::{Decode, Encode};

use crate::keep;

/// Raised when the file's meaning changes; an older one is then passed over.
const VERSION: u32 = 1;
/// A longer file is none of ours: the process table's bound keeps it below.
const MAX_BYTES: u64 = 1 << 30;

#[derive(Encode, Decode)]
#[cbor(map)]
struct Saved {
    #[n(0)]
    version: u32,
    #[n(1)]
    logins: Vec<(ExecId, EventId)>,
}

/// The file.
#[derive(Debug)]
pub struct LoginsFile {
    path: PathBuf,
    /// What it holds now.
    stored: Vec<(ExecId, EventId)>,
}

impl LoginsFile {
    /// The file in a data folder.
    pub fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join("logins"), stored: Vec::new() }
    }

    /// What an earlier run left; nothing when there is no file.
    ///
    /// # Errors
    /// A sentence: what is wrong with the file, and what that means.
    pub fn load(&self) -> Result<Vec<(ExecId, EventId)>, String> {
        let problem = |what: String| {
            format!("{}: {what}; processes of sessions that are open now belong to no login until their next one", self.path.display())
        };
        let Some(bytes) = keep::read(&self.path, MAX_BYTES).map_err(|error| problem(error.to_string()))? else { return Ok(Vec::new()) };
        match minicbor::decode::<Saved>(&bytes) {
            Ok(Saved { version: VERSION, logins }) => Ok(logins),
            Ok(Saved { version, logins: _ }) => Err(problem(format!("version {version} is not known"))),
            Err(error) => Err(problem(format!("it is damaged ({error})"))),
        }
    }

    /// Writes `logins` unless they are what the file holds.
    ///
    /// # Errors
    /// The folder takes no more, say.
    pub fn store(&mut self, mut logins: Vec<(ExecId, EventId)>) -> io::Result<()> {
        logins.sort_unstable();
        if logins == self.stored {
            return Ok(());
        }
        // Not synced: after a power cut the boot is another one, and the file says nothing any more.
        let bytes = minicbor::to_vec(Saved { version: VERSION, logins: logins.clone() }).map_err(io::Error::other)?;
        keep::replace(&self.path, &bytes, false)?;
        self.stored = logins;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use bartizan_bus::event::BootId;
    use proptest::prelude::*;

    use super::*;

    fn login(pid: u32) -> (ExecId, EventId) {
        (ExecId { boot: BootId(1), start_ns: 5, pid, exec: 2 }, EventId([pid as u8; 20]))
    }

    #[test]
    fn what_is_stored_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = LoginsFile::new(folder.path());
        assert_eq!(file.load(), Ok(Vec::new()));
        file.store(vec![login(9), login(3)]).unwrap();
        assert_eq!(LoginsFile::new(folder.path()).load(), Ok(vec![login(3), login(9)]));
        file.store(Vec::new()).unwrap();
        assert_eq!(file.load(), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_a_sentence(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("logins"), &bytes).unwrap();
            if let Err(sentence) = LoginsFile::new(folder.path()).load() {
                prop_assert!(sentence.contains("logins"));
            }
        }
    }
}
