//! Giving room back while nothing runs: every stream of a data folder is sealed and rewritten where that is worth it.

use std::path::Path;

use super::{EdgeError, sensor};
use crate::bus::Bus;
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
/// Somebody has the folder, or a stream cannot be opened.
pub fn compact(data_dir: &Path, config: &BusConfig) -> Result<Vec<Compacted>, EdgeError> {
    let mut done = Vec::new();
    let bus = Bus::open(data_dir, config).map_err(crate::jetstream::StartError::from)?;
    for name in StreamName::ALL {
        let stream = bus.stream(name);
        let before = disk_bytes(data_dir, name.as_str());
        stream.log().compact();
        done.push(Compacted { stream: name.to_string(), before, after: disk_bytes(data_dir, name.as_str()) });
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
    if let Err(error) = bus.close() {
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
