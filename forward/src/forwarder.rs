//! From configuration to a running delivery: the one place that knows which type is which sink.

use std::time::Duration;

use bartizan_bus::Stream;
use tokio::sync::watch;

use crate::config::{SinkConfig, SinkType};
use crate::engine::{Engine, EngineError, EngineOptions};
use crate::status::StatusHandle;
use crate::syslog_tcp::SyslogTcp;

/// Beyond the grace period, a stop waits this long for the last confirmations.
const DRAIN_MARGIN: Duration = Duration::from_secs(2);

/// Longest stop, whatever the grace period.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// One configured sink, ready to run.
#[derive(Debug)]
pub struct Forwarder {
    engine: Engine<SyslogTcp>,
}

impl Forwarder {
    /// Opens the cursor of `config`'s sink on `stream` (ALERTS). `seed` decides the jitter of the pauses between
    /// attempts: give each process another.
    ///
    /// # Errors
    /// [`EngineError::Open`].
    pub fn new(config: &SinkConfig, stream: Stream, seed: u64) -> Result<Self, EngineError> {
        let options = EngineOptions {
            name: config.name.clone(),
            min_severity: config.min_severity,
            start: config.start,
            retry_min: config.retry_min.0,
            retry_max: config.retry_max.0,
            drain: (config.confirm_after.0 + DRAIN_MARGIN).min(DRAIN_MAX),
            seed,
        };
        match config.kind {
            SinkType::Syslog => Ok(Self { engine: Engine::new(stream, SyslogTcp::new(config, std::process::id()), options)? }),
        }
    }

    /// The sink's state, also while [`run`](Self::run) runs and after it.
    pub fn status(&self) -> StatusHandle {
        self.engine.status()
    }

    /// Delivers until `shutdown` becomes true, then waits a bounded time for confirmations.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub async fn run(self, shutdown: watch::Receiver<bool>) -> Result<(), EngineError> {
        self.engine.run(shutdown).await
    }
}
