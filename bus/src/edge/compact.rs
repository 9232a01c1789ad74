//! Giving room back while nothing runs: every stream of a data folder is sealed and rewritten where that is worth it.

use std::path::Path;

use super::{EdgeError, Folder, require_streams, sensor};
use crate::config::{BusConfig, StreamName, SyncPolicy};
use crate::jetstream::{FileMeta, FileStores, definitions};
use crate::log::inspect::inspect;
use crate::store::Store;

/// A stream's bytes on disk before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compacted {
    /// The stream.
    pub stream: String,
    /// Bytes before.
    pub before: u64,
    /// Bytes after.
    pub after: u64,
}

fn disk_bytes(data_dir: &Path, stream: &str) -> u64 {
    inspect(data_dir, stream, false).map_or(0, |found| found.segments.iter().map(|segment| segment.disk_bytes).sum())
}

/// Compacts the sensor's streams (with the limits of `config`) and those that clients made. The folder's lock must be free.
///
/// # Errors
/// There are no streams, somebody has the folder, or a stream cannot be opened.
pub fn compact(data_dir: &Path, config: &BusConfig) -> Result<Vec<Compacted>, EdgeError> {
    require_streams(data_dir)?;
    let mut done = Vec::new();
    let locked = Folder::open(data_dir, config)?;
    for stream in locked.bus().iter().flat_map(|bus| StreamName::ALL.map(|name| bus.stream(name))) {
        let name = stream.name().as_str();
        let before = disk_bytes(data_dir, name);
        stream.log().compact();
        done.push(Compacted { stream: name.to_owned(), before, after: disk_bytes(data_dir, name) });
    }
    let folder = data_dir.join("jetstream");
    let meta = FileMeta::open(&folder).map_err(|source| EdgeError::Folder { path: folder, source })?;
    let stores = FileStores::new(data_dir, SyncPolicy::Os);
    for config in definitions(&meta)? {
        let before = disk_bytes(data_dir, &config.name);
        let (store, _) = crate::jetstream::StoreFactory::open(&stores, &config).map_err(crate::jetstream::StartError::from)?;
        store.compact();
        // What cannot be closed is recovered by the next start.
        if let Err(error) = store.close() {
            tracing::warn!(stream = config.name, %error, "cannot close the stream in good order");
        }
        done.push(Compacted { after: disk_bytes(data_dir, &config.name), stream: config.name, before });
    }
    if let Err(error) = locked.close() {
        tracing::warn!(%error, "cannot close the streams in good order");
    }
    Ok(done)
}

/// What a stored message says, as clients see it.
pub fn rendered<'a>(stream: &str, message: &'a crate::store::Stored) -> std::borrow::Cow<'a, [u8]> {
    match stream.parse::<StreamName>() {
        Ok(name) => sensor::render(name, message),
        Err(_) => message.payload().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_makes_no_streams() {
        let folder = tempfile::tempdir().expect("temp folder");
        let error = compact(folder.path(), &BusConfig::default()).expect_err("there is nothing").to_string();
        assert!(error.contains("there are no streams in") && error.contains("--data-dir"), "{error}");
        std::fs::create_dir(folder.path().join("streams")).expect("a folder of the service alone");
        assert_eq!(compact(folder.path(), &BusConfig::default()).expect("nothing to do"), []);
        assert!(!folder.path().join("streams/EVENTS").exists());
    }

    #[test]
    fn the_sensors_streams_are_compacted_where_they_are() {
        let folder = tempfile::tempdir().expect("temp folder");
        drop(crate::bus::Bus::open(folder.path(), &BusConfig::default()).expect("bus"));
        let names: Vec<String> =
            compact(folder.path(), &BusConfig::default()).expect("compacted").into_iter().map(|done| done.stream).collect();
        assert_eq!(names, StreamName::ALL.map(|name| name.to_string()));
    }
}
