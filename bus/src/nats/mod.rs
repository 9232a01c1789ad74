//! The NATS protocol over the bus: core publish and subscribe here, streams in [`crate::jetstream`].
//!
//! Invariants worth naming:
//!
//! - **What bytes mean is decided without a socket** (`parse`, `connection`); `server` moves bytes and watches clocks.
//! - **One publisher's messages reach one subscription in order.** Nothing is promised between subscriptions.
//! - **Nobody waits for a slow reader**: what is to be sent to a connection is bounded, and a connection beyond its bound is closed and
//!   counted. Publishers are held back for milliseconds, never for ever.
//! - **A publisher's batch is what one read brought.** Receivers are woken once behind it, not once a message.

pub mod auth;
mod config;
pub(crate) mod connection;
pub(crate) mod outbound;
pub(crate) mod parse;
pub mod route;
pub(crate) mod server;
pub(crate) mod shared;
pub(crate) mod sublist;
mod tls;

pub use config::{ServerConfig, TlsConfig};
pub use connection::Described;
pub(crate) use connection::INBOX;
pub use outbound::CloseReason;
pub use server::{Server, StartError};
pub use shared::{ConnectionStats, NATS_VERSION, ServerStats};
pub use tls::TlsError;
