//! What an operator writes under `[[forward]]`, checked key by key.
//!
//! `keys` reads the table with every key that there is; what each sink type makes of its own is in a file of its own.

mod keys;
mod nats;
mod syslog;
#[cfg(test)]
mod tests;
mod values;

use std::collections::HashSet;
use std::time::Duration;

use bartizan_bus::event::Severity;
use serde::Deserialize;

pub use keys::KeyError;
pub use nats::{ClientCertificate, Domain, HubStream, Login, NatsConfig, SubjectPrefix, TlsConfig};
pub use syslog::{AppName, DEFAULT_MAX_MESSAGE_BYTES, Facility, Framing, MAX_MAX_MESSAGE_BYTES, MIN_MAX_MESSAGE_BYTES, SyslogConfig};
pub use values::{Address, DurationSetting, FilePath, SinkName, Start, TextError};

/// One `[[forward]]` table: where alerts go and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "keys::Keys")]
pub struct SinkConfig {
    /// Name of the sink; also of its durable consumer, `forward-<name>`. Renaming it starts a new cursor.
    pub name: SinkName,
    /// Receiver.
    pub address: Address,
    /// Alerts below this are not sent to this sink; they are counted.
    pub min_severity: Severity,
    /// Where a sink begins that has no cursor yet.
    pub start: Start,
    /// Longest wait for a connection to one address. Default 5 s.
    pub connect_timeout: DurationSetting,
    /// First pause between attempts; doubles up to `retry_max`. Default 1 s.
    pub retry_min: DurationSetting,
    /// Longest pause between attempts. Default 30 s.
    pub retry_max: DurationSetting,
    /// Pause after an error that somebody must mend, here or at the receiver. Default 5 min.
    pub retry_config: DurationSetting,
    /// What the protocol needs besides.
    pub protocol: Protocol,
}

/// The part of a [`SinkConfig`] that belongs to one type of sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// `type = "syslog"`.
    Syslog(SyslogConfig),
    /// `type = "nats"`.
    Nats(NatsConfig),
}

impl Protocol {
    /// The type that it belongs to.
    pub fn kind(&self) -> SinkType {
        match self {
            Self::Syslog(_) => SinkType::Syslog,
            Self::Nats(_) => SinkType::Nats,
        }
    }
}

/// Value of `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkType {
    /// RFC 5424 syslog over TCP (RFC 6587), alerts as JSON.
    Syslog,
    /// A NATS JetStream stream, alerts as JSON.
    Nats,
}

impl SinkType {
    /// The value of `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syslog => "syslog",
            Self::Nats => "nats",
        }
    }
}

impl SinkConfig {
    /// A sink with every key that both types have at its default.
    pub fn new(name: SinkName, address: Address, protocol: Protocol) -> Self {
        let seconds = |seconds| DurationSetting(Duration::from_secs(seconds));
        Self {
            name,
            address,
            min_severity: Severity::default(),
            start: Start::default(),
            connect_timeout: seconds(5),
            retry_min: seconds(1),
            retry_max: seconds(30),
            retry_config: seconds(300),
            protocol,
        }
    }
}

/// Settings that are each valid but do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Two sinks of one name would share one cursor.
    #[error("two [[forward]] tables have name = \"{name}\": each sink needs a name of its own, because its cursor is kept under it")]
    DuplicateName {
        /// The name.
        name: SinkName,
    },
    /// `max_message_bytes` out of range.
    #[error(
        "max_message_bytes = {found} of [[forward]] \"{name}\" is out of range: allowed are {MIN_MAX_MESSAGE_BYTES} to {MAX_MAX_MESSAGE_BYTES}"
    )]
    MaxMessageBytes {
        /// Sink.
        name: SinkName,
        /// Configured value.
        found: usize,
    },
    /// `retry_min` above `retry_max`.
    #[error("retry_min of [[forward]] \"{name}\" is longer than its retry_max: lower retry_min or raise retry_max")]
    RetryOrder {
        /// Sink.
        name: SinkName,
    },
}

/// Checks what no single table can tell, and ranges: unique names, order of pauses.
///
/// # Errors
/// The first [`ConfigError`] found.
pub fn validate(sinks: &[SinkConfig]) -> Result<(), ConfigError> {
    let mut names = HashSet::new();
    for sink in sinks {
        let name = || sink.name.clone();
        if !names.insert(&sink.name) {
            return Err(ConfigError::DuplicateName { name: name() });
        }
        if let Protocol::Syslog(syslog) = &sink.protocol
            && !(MIN_MAX_MESSAGE_BYTES..=MAX_MAX_MESSAGE_BYTES).contains(&syslog.max_message_bytes)
        {
            return Err(ConfigError::MaxMessageBytes { name: name(), found: syslog.max_message_bytes });
        }
        if sink.retry_min.0 > sink.retry_max.0 {
            return Err(ConfigError::RetryOrder { name: name() });
        }
    }
    Ok(())
}
