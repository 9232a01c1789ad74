//! From configuration to a running delivery: the one place that knows which type is which sink.

use std::time::Duration;

use bartizan_bus::Stream;
use tokio::sync::watch;

use crate::config::{Protocol, SinkConfig};
use crate::engine::{Engine, EngineError, EngineOptions};
use crate::nats::NatsSink;
use crate::status::StatusHandle;
use crate::syslog_tcp::SyslogTcp;

/// Beyond the grace period, a stop waits this long for the last confirmations.
const DRAIN_MARGIN: Duration = Duration::from_secs(2);

/// Longest stop, whatever the grace period.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// One configured sink, ready to run.
#[derive(Debug)]
pub struct Forwarder(Running);

/// The engine of each type of sink.
#[derive(Debug)]
enum Running {
    Syslog(Box<Engine<SyslogTcp>>),
    Nats(Box<Engine<NatsSink>>),
}

impl Forwarder {
    /// Opens the cursor of `config`'s sink on `stream` (ALERTS). `seed` decides the jitter of the pauses between
    /// attempts: give each process another.
    ///
    /// # Errors
    /// [`EngineError::Open`].
    pub fn new(config: &SinkConfig, stream: Stream, seed: u64) -> Result<Self, EngineError> {
        let last_answer = match &config.protocol {
            Protocol::Syslog(syslog) => syslog.confirm_after,
            Protocol::Nats(nats) => nats.ack_timeout,
        };
        let options = EngineOptions {
            name: config.name.clone(),
            min_severity: config.min_severity,
            start: config.start,
            retry_min: config.retry_min.0,
            retry_max: config.retry_max.0,
            retry_config: config.retry_config.0,
            drain: (last_answer.0 + DRAIN_MARGIN).min(DRAIN_MAX),
            seed,
        };
        Ok(Self(match &config.protocol {
            Protocol::Syslog(syslog) => {
                let sink = SyslogTcp::new(&config.address, config.connect_timeout, syslog, std::process::id());
                Running::Syslog(Box::new(Engine::new(stream, sink, options)?))
            }
            Protocol::Nats(nats) => Running::Nats(Box::new(Engine::new(stream, NatsSink::new(config, nats), options)?)),
        }))
    }

    /// The sink's state, also while [`run`](Self::run) runs and after it.
    pub fn status(&self) -> StatusHandle {
        match &self.0 {
            Running::Syslog(engine) => engine.status(),
            Running::Nats(engine) => engine.status(),
        }
    }

    /// Delivers until `shutdown` becomes true, then waits a bounded time for confirmations.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub async fn run(self, shutdown: watch::Receiver<bool>) -> Result<(), EngineError> {
        match self.0 {
            Running::Syslog(engine) => engine.run(shutdown).await,
            Running::Nats(engine) => engine.run(shutdown).await,
        }
    }
}
