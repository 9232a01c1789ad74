//! A consumer's state on disk.
//!
//! Two files: `<name>.json` is replaced with a sync and so survives a power cut; `<name>.fast` is replaced without one, which is
//! cheap, survives a kill, and may be empty or garbage after a power cut. Each begins with a checksum; the valid one of the higher
//! generation counts.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cursor::Saved;
use crate::config::StreamName;
use crate::error::OpenError;
use crate::files;

const VERSION: u32 = 1;
const SYNCED: &str = "json";
const FAST: &str = "fast";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    version: u32,
    stream: String,
    name: String,
    generation: u64,
    cursor: Saved,
}

/// Writes one consumer's state.
#[derive(Debug)]
pub(crate) struct Store {
    synced_path: PathBuf,
    fast_path: PathBuf,
    stream: StreamName,
    name: String,
    generation: u64,
    /// What either file holds at least.
    written: Option<Saved>,
    /// What the synced file holds.
    synced: Option<Saved>,
    /// The folder is not ours any more.
    closed: bool,
}

/// Why a file does not count.
enum Unusable {
    Missing,
    Damaged(String),
    Version(u32),
}

fn encode(content: &Content) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(content)?;
    let mut bytes = format!("{:08x}\n", crc32fast::hash(&json)).into_bytes();
    bytes.extend(json);
    bytes.push(b'\n');
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Content, Unusable> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let damaged = |reason: &str| Unusable::Damaged(reason.to_owned());
    let json = bytes.get(9..bytes.len().saturating_sub(1)).ok_or_else(|| damaged("it is too short"))?;
    if bytes[..9] != *format!("{:08x}\n", crc32fast::hash(json)).as_bytes() || bytes.last() != Some(&b'\n') {
        return Err(damaged("its checksum does not match"));
    }
    let Version { version } = serde_json::from_slice(json).map_err(|error| damaged(&error.to_string()))?;
    if version > VERSION {
        return Err(Unusable::Version(version));
    }
    serde_json::from_slice(json).map_err(|error| damaged(&error.to_string()))
}

fn read(path: &Path) -> Result<Result<Content, Unusable>, OpenError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Err(Unusable::Missing)),
        Err(source) => Err(OpenError::Io { action: "read", path: path.to_owned(), source }),
    }
}

/// Names of the consumers that have a synced state file: one is written when a consumer is created.
pub(crate) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        names.extend(name.to_str().and_then(|name| name.strip_suffix(".json")).map(str::to_owned));
    }
    Ok(names)
}

impl Store {
    pub(crate) fn new(dir: &Path, stream: StreamName, name: &str) -> Self {
        Self {
            synced_path: dir.join(format!("{name}.{SYNCED}")),
            fast_path: dir.join(format!("{name}.{FAST}")),
            stream,
            name: name.to_owned(),
            generation: 0,
            written: None,
            synced: None,
            closed: false,
        }
    }

    /// Removes what a consumer of the same name left when its synced file was moved away: it would count as newer.
    pub(crate) fn begin_anew(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.fast_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Refuses to write from here on.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Reads a consumer's state back.
    pub(crate) fn load(dir: &Path, stream: StreamName, name: &str) -> Result<(Self, Saved), OpenError> {
        let mut store = Self::new(dir, stream, name);
        let (synced, fast) = (read(&store.synced_path)?, read(&store.fast_path)?);
        for (path, content) in [(&store.synced_path, &synced), (&store.fast_path, &fast)] {
            match content {
                Err(Unusable::Version(found)) => {
                    return Err(OpenError::Version { path: path.clone(), found: *found, supported: VERSION });
                }
                Ok(content) if content.stream != stream.as_str() || content.name != name => {
                    let reason = format!("it belongs to consumer {:?} of stream {:?}", content.name, content.stream);
                    return Err(OpenError::Damaged { path: path.clone(), reason });
                }
                Ok(_) | Err(Unusable::Missing | Unusable::Damaged(_)) => {}
            }
        }
        let newest = match (synced, fast) {
            (Ok(synced), Ok(fast)) if fast.generation > synced.generation => fast,
            (Ok(synced), _) => synced,
            (Err(Unusable::Damaged(reason)), Ok(fast)) => {
                tracing::warn!(path = %store.synced_path.display(), reason, "consumer state is damaged: going on with its unsynced copy");
                fast
            }
            (Err(Unusable::Damaged(reason)), Err(_)) => return Err(OpenError::Damaged { path: store.synced_path, reason }),
            (Err(Unusable::Missing | Unusable::Version(_)), _) => {
                return Err(OpenError::Damaged { path: store.synced_path, reason: "it is missing".to_owned() });
            }
        };
        store.generation = newest.generation;
        store.written = Some(newest.cursor.clone());
        Ok((store, newest.cursor))
    }

    /// Writes the state, if it is not there already.
    pub(crate) fn write(&mut self, saved: Saved, sync: bool) -> io::Result<()> {
        if self.closed {
            return Err(io::Error::other(format!(
                "consumer {} of stream {} is closed because the bus was shut down",
                self.name, self.stream
            )));
        }
        // The synced file may be older than the fast one and still equal: it counts only while it is the newest.
        if self.written.as_ref() == Some(&saved) && (!sync || self.synced.as_ref() == Some(&saved)) {
            return Ok(());
        }
        let generation = self.generation + 1;
        let content =
            Content { version: VERSION, stream: self.stream.as_str().to_owned(), name: self.name.clone(), generation, cursor: saved };
        files::replace(if sync { &self.synced_path } else { &self.fast_path }, &encode(&content)?, sync)?;
        self.generation = generation;
        if sync {
            self.synced = Some(content.cursor.clone());
        }
        self.written = Some(content.cursor);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(delivered_seq: u64) -> Saved {
        Saved { delivered_seq, pending: vec![(delivered_seq, 2)], ..Saved::default() }
    }

    fn load(dir: &Path) -> Result<Saved, OpenError> {
        Store::load(dir, StreamName::Alerts, "siem").map(|(_, saved)| saved)
    }

    #[test]
    fn the_newest_whole_file_counts() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let mut store = Store::new(dir.path(), StreamName::Alerts, "siem");
        store.write(at(1), true)?;
        store.write(at(2), false)?;
        assert_eq!(load(dir.path())?, at(2));
        store.write(at(3), true)?;
        assert_eq!(load(dir.path())?, at(3));
        store.write(at(4), false)?;
        // A power cut may leave the unsynced file empty.
        std::fs::write(&store.fast_path, "")?;
        assert_eq!(load(dir.path())?, at(3));
        assert_eq!(names(dir.path())?, ["siem"]);
        std::fs::write(&store.synced_path, "")?;
        assert!(matches!(load(dir.path()), Err(OpenError::Damaged { .. })));
        Ok(())
    }

    #[test]
    fn going_back_to_an_earlier_state_is_written_too() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let mut store = Store::new(dir.path(), StreamName::Alerts, "siem");
        store.write(at(1), true)?;
        store.write(at(2), false)?;
        store.write(at(1), false)?;
        assert_eq!(load(dir.path())?, at(1));
        Ok(())
    }

    #[test]
    fn a_newer_format_is_refused() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let json = "{\"version\":9,\"else\":true}";
        std::fs::write(dir.path().join("siem.json"), format!("{:08x}\n{json}\n", crc32fast::hash(json.as_bytes())))?;
        assert!(matches!(load(dir.path()), Err(OpenError::Version { found: 9, .. })));
        Ok(())
    }

    proptest! {
        #[test]
        fn damaged_state_is_never_believed(bit in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>()) {
            let content = Content { version: 1, stream: "ALERTS".to_owned(), name: "siem".to_owned(), generation: 3, cursor: at(77) };
            let bytes = encode(&content).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert!(decode(&bytes).is_ok_and(|read| read == content));
            let mut flipped = bytes.clone();
            let bit = bit.index(bytes.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&flipped).is_err());
            prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }
}
