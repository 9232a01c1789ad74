//! The snapshot file: the state of all detectors after one sequence of EVENTS, at `<data>/detectors/state`.
//!
//! Layout, little-endian: 8 bytes magic, 4 bytes version, 4 bytes CRC-32 of what follows, 8 bytes length of what
//! follows, then CBOR. The file is written beside its place, synced, and renamed over it: it is whole or it is the
//! one before.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};

const MAGIC: [u8; 8] = *b"BZDETSNP";
/// Raised whenever the state of any detector changes its meaning: an older snapshot is then rebuilt from events.
const VERSION: u32 = 1;
const HEADER: usize = 24;
/// A longer file is not a snapshot: the tables' bounds keep it well below.
const MAX_BYTES: u64 = 1 << 30;

/// State of all detectors.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Snapshot {
    /// Last sequence of EVENTS that is in it.
    #[n(0)]
    pub seq: u64,
    /// The lineage table.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub lineage: Vec<u8>,
    /// Each detector's state by its id, as sequences of bytes.
    #[n(2)]
    pub detectors: BTreeMap<String, minicbor::bytes::ByteVec>,
}

/// A snapshot that cannot be used. The state is then rebuilt from the stored events.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It cannot be read or written.
    #[error("cannot {what} the detectors' state at {path}: {source}; check that the folder belongs to this user and has room", path = path.display())]
    Io {
        /// `read` or `write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("the detectors' state at {path} is damaged ({reason}); it is rebuilt from the stored events, nothing needs to be done", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Another version of Bartizan wrote it.
    #[error("the detectors' state at {path} has version {found} and this binary reads {VERSION}; it is rebuilt from the stored events, nothing needs to be done", path = path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// Path of the snapshot below a data folder.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("detectors").join("state")
}

impl Snapshot {
    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        match minicbor::encode(self, &mut bytes) {
            Ok(()) => {}
            // Writing to memory has no failing operation, and no field has a failing encoder.
            Err(error) => unreachable!("encoding into memory failed: {error}"),
        }
        let crc = crc32fast::hash(&bytes[HEADER..]);
        let length = (bytes.len() - HEADER) as u64;
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes[16..24].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    /// Reads a file's bytes; `path` is for the error.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] or [`SnapshotError::Version`].
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, SnapshotError> {
        let damaged = |reason: &str| SnapshotError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
        let (header, body) = bytes.split_at_checked(HEADER).ok_or_else(|| damaged("it is shorter than its header"))?;
        if header[..8] != MAGIC {
            return Err(damaged("it does not begin as a snapshot does"));
        }
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let found = word(8);
        if found != VERSION {
            return Err(SnapshotError::Version { path: path.to_owned(), found });
        }
        let length = u64::from(word(16)) | u64::from(word(20)) << 32;
        if length != body.len() as u64 {
            return Err(damaged("its length is not what its header says"));
        }
        if crc32fast::hash(body) != word(12) {
            return Err(damaged("its checksum does not match"));
        }
        minicbor::decode(body).map_err(|error| damaged(&error.to_string()))
    }
}

/// Reads the snapshot of a data folder; `None` when there is none.
///
/// # Errors
/// [`SnapshotError`].
pub fn load(data_dir: &Path) -> Result<Option<Snapshot>, SnapshotError> {
    let path = path(data_dir);
    let io = |source| SnapshotError::Io { what: "read", path: path.clone(), source };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(io)?;
    Snapshot::from_bytes(&bytes, &path).map(Some)
}

/// Writes a snapshot's bytes in the place of the one before. Returns when they are on disk.
///
/// # Errors
/// [`SnapshotError::Io`].
pub fn store(data_dir: &Path, bytes: &[u8]) -> Result<(), SnapshotError> {
    let path = path(data_dir);
    let write = || {
        let dir = path.parent().unwrap_or(data_dir);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let beside = path.with_extension("new");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|source| SnapshotError::Io { what: "write", path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Snapshot {
        Snapshot { seq: 77, lineage: vec![1, 2, 3], detectors: BTreeMap::from([("d".to_owned(), vec![4, 5].into())]) }
    }

    #[test]
    fn what_is_stored_is_loaded_and_replaced() {
        let dir = tempfile::tempdir().expect("temporary folder");
        assert!(load(dir.path()).expect("readable").is_none());
        store(dir.path(), &sample().to_bytes()).expect("stored");
        let later = Snapshot { seq: 78, ..sample() };
        store(dir.path(), &later.to_bytes()).expect("stored");
        assert_eq!(load(dir.path()).expect("readable"), Some(later));
        assert_eq!(fs::read_dir(dir.path().join("detectors")).expect("folder").count(), 1);
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = sample().to_bytes();
        bytes[8] = 9;
        let error = Snapshot::from_bytes(&bytes, Path::new("/x/state")).expect_err("refused");
        assert!(matches!(error, SnapshotError::Version { found: 9, .. }));
    }

    proptest! {
        #[test]
        fn any_changed_or_missing_byte_is_noticed(at in any::<prop::sample::Index>(), flip in 1u8..=255, cut in any::<prop::sample::Index>()) {
            let whole = sample().to_bytes();
            let mut changed = whole.clone();
            let at = at.index(changed.len());
            changed[at] ^= flip;
            prop_assert!(Snapshot::from_bytes(&changed, Path::new("x")).is_err());
            prop_assert!(Snapshot::from_bytes(&whole[..cut.index(whole.len())], Path::new("x")).is_err());
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Snapshot::from_bytes(&bytes, Path::new("x")).is_err());
        }
    }
}
