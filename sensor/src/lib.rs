//! The sensor: capture, projection, enrichment, and the `bartizan` program around them.
//!
//! The way of the data is [`capture`] (kernel hooks to ordered records) → [`project`] (record to owned values) → [`enrich`]
//! (who a pid is) → the bus. [`pipeline`] drives capture and [`counts`] what comes of it, [`intake`] is the seam behind it: what goes in there makes events, or goes to a
//! file and back ([`recording`]). [`daemon`] puts it together with the bus, the
//! detectors and the forwarders; [`cli`], [`config`], [`control`] and [`status`] are what an operator meets.

pub mod accounts;
mod allocator;
pub mod capture;
pub mod cli;
mod clients;
pub mod config;
pub mod control;
pub mod counts;
pub mod daemon;
pub mod delay;
pub mod doctor;
pub mod document;
pub mod enrich;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod governor;
pub mod hash;
mod host;
pub mod intake;
mod keep;
pub mod logins;
mod memory;
mod metrics;
pub mod pipeline;
pub mod project;
pub mod recording;
pub mod redact;
mod report;
pub mod status;
pub mod watch;
