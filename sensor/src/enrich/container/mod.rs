//! Containers: which one a process is in, and what its runtime keeps of it on the host.
//!
//! Invariants worth naming:
//!
//! - **No daemon is asked.** The id is in the control group's path ([`id`]); name, image and pod are in files that the runtime writes
//!   anyway ([`runtime`]).
//! - **Events never wait.** [`known`] is asked on the way; what it does not know, a thread of its own reads ([`reader`]). Until then events
//!   have the id and the runtime, later ones the rest.
//! - **A container cannot choose what is read.** Only files of root are believed, or of the user whose containers they describe; no path
//!   comes from a container but an id of a checked form; a container in a container is not looked up at all.
//! - **Everything is bounded**: ids that are remembered, lookups that wait, bytes that are read, strings that are kept.

pub mod id;
pub mod known;
pub mod reader;
pub mod runtime;

pub use id::{Place, Runtime, of_path};
pub use known::{Known, KnownReport};
