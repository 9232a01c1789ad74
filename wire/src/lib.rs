//! Parsers of what a defender reads off the wire: DNS messages, TLS hellos with their fingerprints, heads of HTTP/1 messages,
//! SSH identification strings, and [`classify()`], which tells from the first bytes of a connection which of them to ask.
//!
//! Invariants worth naming:
//!
//! - **Plain functions of bytes.** No I/O, no clock, no state between calls: who holds the bytes of a direction calls again when there are more.
//! - **Any bytes are taken.** Nothing panics, and every loop ends: an input has a named limit, and each step takes at least one byte of it or
//!   follows a pointer to an earlier one.
//! - **What is allocated is bounded** by a constant or by a small multiple of the input. What a limit leaves out is counted in the result, or told
//!   by a flag of it, and never silently dropped.
//! - **An answer is final.** Of the parsers of a stream, [`Parsed::NotThis`] and [`Parsed::Complete`] stay what they are whatever bytes follow;
//!   only [`Parsed::Incomplete`] asks for more, and what it carries is a beginning of what the whole would give.
//! - **Text is safe to show.** What a peer chose is printable ASCII in every `String` of this crate: other bytes are written `\xNN`
//!   ([`escape`]), or `\DDD` in a domain name ([`dns`]).
//!
//! Out of scope: QUIC, DTLS, HTTP/2 beyond its preface, STARTTLS, the encrypted inside of an Encrypted ClientHello, reassembly of TCP segments
//! (the caller gives the bytes of one direction in their order, from the first).

#![forbid(unsafe_code)]

mod classify;
mod cursor;
pub mod dns;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod http1;
pub mod ssh;
#[cfg(test)]
mod testing;
mod text;
pub mod tls;

pub use classify::{MAX_CLASSIFIED, Protocol, classify};
pub use text::escape;

/// What the bytes of one direction of a connection gave, read from its first byte on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed<T> {
    /// These bytes do not begin what was looked for, and more of them would not change that. Says what is wrong, in words for a log.
    NotThis(&'static str),
    /// More bytes are needed. Holds what could be read so far, which is a beginning of the whole, if that is anything; a caller who cannot have
    /// more bytes takes that.
    Incomplete(Option<T>),
    /// All that was looked for.
    Complete(T),
}

impl<T> Parsed<T> {
    /// What was read, in whole or in part.
    pub fn read(self) -> Option<T> {
        match self {
            Self::NotThis(_) => None,
            Self::Incomplete(part) => part,
            Self::Complete(whole) => Some(whole),
        }
    }
}
