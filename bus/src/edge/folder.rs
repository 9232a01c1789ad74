//! A data folder of a sensor, or of the service alone.

use std::path::Path;

use super::EdgeError;
use crate::bus::{Bus, FolderLock};
use crate::config::{BusConfig, StreamName};
use crate::log::inspect::stream_names;

/// For who looks at streams and makes none: refuses what is no data folder.
///
/// # Errors
/// [`EdgeError::NoStreams`].
pub fn require_streams(data_dir: &Path) -> Result<(), EdgeError> {
    if data_dir.join("streams").is_dir() { Ok(()) } else { Err(EdgeError::NoStreams { path: data_dir.to_owned() }) }
}

/// A locked data folder, with the sensor's streams where a sensor has stored something in it.
#[derive(Debug)]
pub struct Folder {
    bus: Option<Bus>,
    /// The bus has one of its own.
    _lock: Option<FolderLock>,
}

impl Folder {
    /// Locks the folder and opens the sensor's streams, with the limits of `config`, if they are there. Makes none.
    ///
    /// # Errors
    /// Somebody has the folder, it cannot be read, or a stream cannot be opened.
    pub fn open(data_dir: &Path, config: &BusConfig) -> Result<Self, EdgeError> {
        let names = stream_names(data_dir).map_err(|source| EdgeError::Folder { path: data_dir.to_owned(), source })?;
        if names.iter().any(|name| name == StreamName::Events.as_str()) {
            let bus = Bus::open(data_dir, config).map_err(crate::jetstream::StartError::from)?;
            return Ok(Self { bus: Some(bus), _lock: None });
        }
        let lock = FolderLock::take(data_dir).map_err(crate::jetstream::StartError::from)?;
        Ok(Self { bus: None, _lock: Some(lock) })
    }

    /// The sensor's streams.
    pub fn bus(&self) -> Option<&Bus> {
        self.bus.as_ref()
    }

    /// Syncs and closes the sensor's streams.
    ///
    /// # Errors
    /// The first failure; what could not be closed is recovered by the next start.
    pub fn close(self) -> std::io::Result<()> {
        self.bus.as_ref().map_or(Ok(()), Bus::close)
    }
}
