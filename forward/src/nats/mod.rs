//! The NATS sink: each alert a message in a JetStream stream, confirmed by the stream's own acknowledgement.
//!
//! async-nats would reconnect by itself and repeat on its own terms. Here the engine owns repetition, so a session is
//! exactly one connection: when it ends, the client ends with it, and what was not acknowledged is sent again in the
//! next one. `Nats-Msg-Id` makes the repeat harmless.

mod connect;
mod errors;
mod hub;
mod secrets;
mod session;

use std::sync::Arc;

use bartizan_bus::event::Severity;

use crate::config::{Address, DurationSetting, NatsConfig, SinkConfig, SinkName, SinkType};
use crate::sink::{Description, Item, Sink, SinkCounts, SinkError};
use session::Session;

/// Alerts as JSON in a stream of a NATS JetStream hub.
#[derive(Debug)]
pub struct NatsSink {
    settings: Settings,
    session: Option<Session>,
    counts: SinkCounts,
    warning: Option<String>,
    /// Largest message in bytes that is tried, after the hub refused a larger one that its stated limits allow.
    cap: Option<usize>,
}

/// What a session is made from.
#[derive(Debug)]
struct Settings {
    name: SinkName,
    addresses: Vec<Address>,
    min_severity: Severity,
    connect_timeout: DurationSetting,
    nats: NatsConfig,
}

impl NatsSink {
    /// A sink as configured; `nats` is the part of `config` that belongs to this type.
    pub fn new(config: &SinkConfig, nats: &NatsConfig) -> Self {
        let addresses = std::iter::once(&config.address).chain(&nats.fallback_addresses).cloned().collect();
        let settings = Settings {
            name: config.name.clone(),
            addresses,
            min_severity: config.min_severity,
            connect_timeout: config.connect_timeout,
            nats: nats.clone(),
        };
        Self { settings, session: None, counts: SinkCounts::default(), warning: None, cap: None }
    }

    /// Runs `step` on the session. After an error there is none: the engine may pause before it opens the next, and
    /// nothing of the old one must be left working meanwhile.
    fn after<T>(&mut self, result: Result<T, SinkError>) -> Result<T, SinkError> {
        if result.is_err()
            && let Some(session) = self.session.take()
        {
            self.cap = session.cap();
        }
        result
    }
}

fn no_session() -> SinkError {
    SinkError::retry("there is no connection")
}

impl Sink for NatsSink {
    fn describe(&self) -> Description {
        let Settings { addresses, nats, .. } = &self.settings;
        let address = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Description { kind: SinkType::Nats.as_str(), address: format!("{} on {address}", nats.stream) }
    }

    fn counts(&self) -> SinkCounts {
        self.counts
    }

    fn warning(&self) -> Option<String> {
        self.warning.clone()
    }

    async fn open(&mut self) -> Result<(), SinkError> {
        self.session = None;
        let mut refused: Option<SinkError> = None;
        for address in &self.settings.addresses {
            match Session::open(&self.settings, address, self.cap).await {
                Ok((session, warning)) => {
                    (self.session, self.warning) = (Some(session), warning);
                    return Ok(());
                }
                // A server that says what must be changed says more than one that is not there.
                Err(error) if matches!(refused, Some(SinkError::Config { .. })) && !matches!(error, SinkError::Config { .. }) => {}
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(no_session))
    }

    async fn send(&mut self, items: &[Arc<Item>]) -> Result<(), SinkError> {
        for item in items {
            let session = self.session.as_mut().ok_or_else(no_session)?;
            let sent = session.send(item).await;
            if self.after(sent)? {
                self.counts.shrunk += 1;
            }
        }
        Ok(())
    }

    async fn confirmed(&mut self) -> Result<Vec<u64>, SinkError> {
        let session = self.session.as_mut().ok_or_else(no_session)?;
        let confirmed = session.confirmed().await;
        self.counts.duplicates += session.take_duplicates();
        self.after(confirmed)
    }

    async fn close(&mut self) {
        // The last handle ends the client, which closes the connection. Nothing unconfirmed is waited for: it is sent again.
        self.session = None;
    }
}
