//! Delivery of alerts to SIEMs: one delivery engine, one file per sink.
//!
//! Invariants worth naming:
//!
//! - **The cursor moves only over what is settled.** An alert is settled when the sink confirmed it, or when it was
//!   stepped over by name (undecodable, refused for ever by the receiver, below the sink's `min_severity`). Everything
//!   else is sent again: at least once, with the same alert id and revision, so that a receiver can tell a repeat.
//! - **The engine knows no protocol and a sink knows no stream.** They meet in [`Sink`]: sessions, items, confirmations
//!   and the error classes of [`SinkError`].
//! - **A slow or absent receiver costs lag, never an alert.** Attempts are unlimited; what waits, waits in ALERTS on
//!   disk; what is in flight is bounded in number and bytes ([`WINDOW_ITEMS`], [`WINDOW_BYTES`]).
//! - **A message is whole or it is not sent.** What exceeds the receiver's limit loses named fields in a fixed order and
//!   says so inside; JSON is never cut in the middle.
//! - **Nothing is silently off.** Every count, the last error and the next attempt are in [`SinkStatus`].
//! - **Encoders, windows, confirmation and the classes of a hub's errors are sans-I/O**: bytes, counters and instants are
//!   passed in; sockets, clocks and the disk stay in the engine, in `tcp` and in `nats::session`.

mod backoff;
mod config;
mod confirm;
mod engine;
mod forwarder;
mod nats;
mod shrink;
mod sink;
mod status;
mod syslog;
mod syslog_tcp;
mod tcp;
mod window;

pub use backoff::Backoff;
pub use config::{
    Address, AppName, ClientCertificate, ConfigError, DEFAULT_MAX_MESSAGE_BYTES, Domain, DurationSetting, Facility, FilePath, Framing,
    HubStream, KeyError, Login, MAX_MAX_MESSAGE_BYTES, MIN_MAX_MESSAGE_BYTES, NatsConfig, Protocol, SinkConfig, SinkName, SinkType, Start,
    SubjectPrefix, SyslogConfig, TextError, TlsConfig, validate,
};
pub use engine::{Engine, EngineError, EngineOptions, WINDOW_BYTES, WINDOW_ITEMS};
pub use forwarder::Forwarder;
pub use nats::NatsSink;
pub use shrink::{Shrunk, render_alert};
pub use sink::{Description, Item, Rejected, Sink, SinkCounts, SinkError};
pub use status::{POISON_KEPT, Poison, SinkState, SinkStatus, StatusHandle};
pub use syslog::{SD_ID, SyslogEncoder};
pub use syslog_tcp::SyslogTcp;
pub use tcp::TcpOptions;
