//! The durable event bus inside Bartizan: the event schema, segmented logs, streams and durable consumers.

pub mod event;
pub mod subject;
