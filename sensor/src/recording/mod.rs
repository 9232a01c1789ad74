//! A recording: everything that capture learned, in a file, so that a problem of the field becomes a test.
//!
//! `docs/recording.md` describes the file. Invariants worth naming:
//!
//! - **A replay sees what the sensor would have seen**: the file holds [`Input`](crate::intake::Input)s, bytes of the kernel as they came,
//!   and goes in where capture goes in. No clock and no file of the replaying machine has a say in the events.
//! - **A damaged or cut file is told as one**, with the byte where it is; what is before that can be had.
//! - **Foreign bytes never panic and never ask for more memory than [`format::PLAIN_MAX`] of them.**

mod codec;
mod containers;
mod format;
mod read;
pub mod record;
pub mod replay;
mod totals;
mod write;

pub use codec::{decode, encode};
pub use format::{FORMAT, Header};
pub use read::{ReadError, Reader};
pub use totals::Totals;
pub use write::{WriteError, Writer};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use format::{BlockKind, LEVEL, block_head, prelude};

#[cfg(test)]
mod tests;
