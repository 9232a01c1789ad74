//! The record ABI between the kernel programs of this crate and the user space that reads them.
//!
//! Invariants worth naming:
//!
//! - **One list defines an event.** [`events!`](abi) in `abi/events.rs` names every record kind with its number, its fixed
//!   part and its ring. Counters, decoding, hook tables and docs derive from it, and matches on [`abi::Kind`] are
//!   exhaustive, so a new kind does not compile until every place has an answer for it.
//! - **Only integers and byte arrays cross the boundary**, in `#[repr(C)]` structs without implicit padding, which constant
//!   assertions prove for both targets. No `bool`, no `enum`, no `Option`.
//! - **A record is a 64-byte header, a fixed part and only the bytes of its tail that are used.** Strings are
//!   [`abi::Span`]s into the record and are bounds-checked before they are looked at. (A failed exec has no tail but a small
//!   fixed room for its path.)
//! - **Nothing about the kernel's layout is compiled in.** [`layout`] is the one list of structure members that programs
//!   read; user space resolves it from the running kernel's BTF and hands it over before load.
#![no_std]

pub mod abi;
pub mod layout;
