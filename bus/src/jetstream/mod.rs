//! JetStream over [`crate::store::Store`] and [`crate::nats::route::Router`].
