//! The NATS protocol over the bus: core publish and subscribe here, streams in `crate::jetstream`.

pub mod route;
