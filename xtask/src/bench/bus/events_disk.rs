//! Bytes on disk for each event of a real sensor: the place of that measurement.
//!
//! It will replay a corpus of at least ten million recorded events into EVENTS and weigh the folder (indexes and the active segment
//! included), beside nats-server's file store with `compression: s2`. Goals: at most 60 B an event, and at least six times less than
//! nats-server.

use anyhow::Result;

use super::Bench;

/// Bytes for each event, at most.
pub(super) const GOAL_BYTES: f64 = 60.0;
/// Times smaller than nats-server's, at least.
pub(super) const GOAL_RATIO: f64 = 6.0;

/// There is no corpus yet: says so and measures nothing.
///
/// # Errors
/// None yet.
pub(super) fn measure(_bench: &Bench<'_>) -> Result<Option<String>> {
    eprintln!(
        "      nothing is measured: there is no corpus of events yet (goals: at most {GOAL_BYTES} B an event, {GOAL_RATIO} times less than nats-server)"
    );
    Ok(None)
}
