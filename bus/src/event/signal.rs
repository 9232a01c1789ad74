//! What processes do to each other: the body of `process.signal`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::Serialize;

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum SignalResult {
    /// It waits for its process, or has reached it.
    #[n(0)]
    Delivered,
    /// The process ignores or blocks it so that nothing comes of it.
    #[n(1)]
    Ignored,
    /// It waited already: the two are one.
    #[n(2)]
    AlreadyPending,
    /// Too many wait: the sender was told.
    #[n(3)]
    Overflow,
    /// Too many wait: it was sent without what belongs to it.
    #[n(4)]
    LostInfo,
}

/// Body of `process.signal`: a process sent a signal to another process. The event's subject is the sender, its target is who gets it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, JsonSchema)]
#[cbor(map)]
pub struct Signal {
    /// Its name, such as `SIGKILL` or `SIGRTMIN+1`.
    #[n(0)]
    pub signal: String,
    /// `si_code`: 0 `kill`, -1 `sigqueue`, -6 `tkill`. A sender can write any other one below 0.
    #[n(1)]
    pub code: i32,
    /// What became of it.
    #[n(2)]
    pub result: SignalResult,
    /// To one thread of the target and not to all of it.
    #[n(3)]
    pub to_thread: bool,
}
