//! Correlation: alerts that, in their order and joined by session and lineage, mean more than each alone.
//!
//! A consumer of ALERTS like any other: it knows alerts by their type, and detectors by the names of their rules. [`pattern`] has the
//! patterns, [`sequence`] finds them, [`engine`] runs it on the bus. `docs/correlation.md` is the operator's view.

pub mod config;
pub mod engine;
mod pattern;
mod seen;
pub mod sequence;

#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod sequence_tests;

pub use config::CorrelateConfig;
pub use engine::{CorrelateError, CorrelateInfo, CorrelateStatus, run};
pub use sequence::Correlator;
