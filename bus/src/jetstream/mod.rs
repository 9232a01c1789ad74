//! JetStream over [`crate::store::Store`] and [`crate::nats::route::Router`].

/// The JetStream API level that is really here: 1 is nats-server 2.11's.
pub const API_LEVEL: u64 = 1;
