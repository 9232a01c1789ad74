//! The edge bus as a service: NATS clients on the streams of a data folder, with or without a sensor beside them.
//!
//! Invariants worth naming:
//!
//! - **Nobody is served before the streams are open**, and nothing is taken after they are closed.
//! - **Who connects proves who they are**, unless the operator said otherwise: a credential is made at first start.
//! - **What the sensor stores is read as JSON**; what modules publish becomes an alert under their own name, or is refused with a reason.

mod compact;
mod credentials;
mod folder;
mod sensor;

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::bus::Bus;
use crate::config::{StreamName, SyncPolicy};
use crate::jetstream::{self, FileMeta, FileStores, JetStream, StreamStats};
use crate::nats::{self, Server, ServerConfig, ServerStats};
use crate::store::StoreError;
pub use compact::{Compacted, compact, rendered};
pub use credentials::{Credentials, CredentialsError, GENERATED_USER, module_user};
pub use folder::{Folder, require_streams};

/// Settings of the service.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// Of the server.
    pub server: ServerConfig,
    /// When streams that clients make are synced, where their metadata (`bartizan.sync`) does not say otherwise.
    pub sync: SyncPolicy,
    /// Whether clients may make no stream named as one of the sensor's (EVENTS, ALERTS, MATCHES, RESPONSES). Otherwise no sensor may ever
    /// use the data folder.
    pub keep_sensor_names: bool,
}

impl Default for EdgeConfig {
    /// 127.0.0.1:4222, nobody has to prove anything, synced every 200 ms.
    fn default() -> Self {
        Self { server: ServerConfig::default(), sync: SyncPolicy::Interval(Duration::from_millis(200)), keep_sensor_names: true }
    }
}

/// A service that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// Of the server.
    #[error(transparent)]
    Server(#[from] nats::StartError),
    /// Of the streams.
    #[error(transparent)]
    JetStream(#[from] jetstream::StartError),
    /// The folder of definitions.
    #[error("cannot use {path}: {source}; check that it is writable for this user", path = path.display())]
    Folder {
        /// Where.
        path: std::path::PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not a data folder.
    #[error("there are no streams in {path}; give the data folder with --data-dir", path = path.display())]
    NoStreams {
        /// Where.
        path: std::path::PathBuf,
    },
}

/// The service in numbers.
#[derive(Debug, Clone, Serialize)]
pub struct EdgeStats {
    /// Connections and traffic.
    pub server: ServerStats,
    /// Streams and consumers.
    pub streams: Vec<StreamStats>,
}

/// The running service.
#[derive(Debug)]
pub struct Edge {
    server: Server,
    jetstream: JetStream,
}

impl Edge {
    /// Opens the streams of the data folder, whose lock the caller has, and serves. With a bus its streams are served too.
    ///
    /// # Errors
    /// [`EdgeError`].
    pub fn start(config: EdgeConfig, data_dir: &Path, bus: Option<&Bus>) -> Result<Self, EdgeError> {
        let server = Server::bind(config.server)?;
        let folder = data_dir.join("jetstream");
        let meta = FileMeta::open(&folder).map_err(|source| EdgeError::Folder { path: folder, source })?;
        let stores = FileStores::new(data_dir, config.sync);
        let stores = if config.keep_sensor_names { stores.keeping_sensor_names() } else { stores };
        let jetstream = JetStream::start(server.router(), server.name(), Box::new(stores), Box::new(meta))?;
        if let Some(bus) = bus {
            for name in StreamName::ALL {
                let (config, builtin) = sensor::builtin(bus.stream(name));
                jetstream.register_builtin(config, bus.stream(name).log().clone(), builtin)?;
            }
        }
        server.set_jetstream(true);
        server.serve();
        Ok(Self { server, jetstream })
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The service in numbers.
    pub fn stats(&self) -> EdgeStats {
        EdgeStats { server: self.server.stats(), streams: self.jetstream.stats() }
    }

    /// Asks clients to leave, waits until they have or the grace is over, then closes.
    ///
    /// # Errors
    /// As [`Edge::close`].
    pub async fn lame_duck(&self) -> Result<(), StoreError> {
        self.server.lame_duck().await;
        self.close().await
    }

    /// Stores, syncs and closes the streams that clients made, then the connections.
    ///
    /// # Errors
    /// The first failure; everything else is closed all the same.
    pub async fn close(&self) -> Result<(), StoreError> {
        let closed = self.jetstream.close();
        self.server.shutdown().await;
        closed
    }
}
