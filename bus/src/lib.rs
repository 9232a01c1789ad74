//! The durable event bus inside Bartizan: the event schema, segmented logs, streams and durable consumers, and NATS clients on them.
//!
//! It needs nothing else of Bartizan. `examples/embedded.rs` uses it in a program, `examples/with_nats_clients.rs` lets NATS clients at the
//! same streams ([`edge`]), `examples/serve.rs` is a server. [`Bus`] has the sensor's streams; [`log::Log`] is one durable log by itself.
//!
//! Invariants worth naming:
//!
//! - **What is acknowledged is on disk by the stream's sync policy.** [`Stream::publish`] on a stream with
//!   [`SyncPolicy::Always`] returns after `fdatasync`; with [`SyncPolicy::Interval`] the sync follows within the interval.
//! - **Order and density.** A stream's sequences start at 1, grow by one per message and are never reused. They skip only when
//!   the end of the log was lost to a power cut or to damage, and then [`StreamInfo`] says by how many.
//! - **A batch is in the log as a whole or not at all**, also when the process or the machine dies while it is written.
//! - **At least once.** A durable consumer sees every message that retention did not delete before; after a crash its cursor may
//!   be older than its last acknowledgement, never newer.
//! - **Nothing is silently dropped.** Whatever is cut off, skipped, deleted unseen, given up or refused is counted in
//!   [`StreamInfo`], [`ConsumerInfo`] or [`SubscriptionInfo`].
//! - **One value, encoded once.** Publishing encodes for the log; modules in the process share the publisher's own value by
//!   [`Delivery::read`], durable consumers too, as long as it is among the newest in memory.
//! - **Who is too slow has chosen what happens**: a [`Subscription`]'s [`Overflow`]. A durable consumer reads on from the log.
//! - **One writer per data folder** (a lock), any number of readers beside it ([`LogReader`]), which never write.
//! - **The format is a document**: `docs/bus-format.md`. The code that knows bytes is in `log/`, and only there.

pub mod budget;
pub mod edge;
pub mod event;
pub mod headers;
pub mod jetstream;
pub mod nats;
pub mod pattern;
pub mod store;
pub mod subject;

mod bus;
mod config;
mod consumer;
mod error;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod log;
mod message;
#[cfg(test)]
mod model_test;
mod stream;
mod typed;

pub use bus::{Bus, FolderLock, Holder};
pub use bytes::Bytes;
pub use config::{BusConfig, ConsumerConfig, DeliverPolicy, StreamConfig, StreamName, StreamNameError, SyncPolicy};
pub use consumer::{Consumer, ConsumerInfo};
pub use error::{OpenError, PublishError, ReadError};
pub use log::LogReader;
pub use message::{Delivery, Message, PubAck, Record};
pub use stream::{Overflow, Stream, StreamInfo, Subscription, SubscriptionConfig, SubscriptionInfo};
pub use subject::{Subject, SubjectError};
pub use typed::Typed;
