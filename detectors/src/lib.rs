//! Bartizan's detectors: plain functions from [`SecurityEvent`](bartizan_bus::event::SecurityEvent)s to
//! [`Alert`](bartizan_bus::event::Alert)s, and the engine that runs them on the bus.
//!
//! Invariants worth naming:
//!
//! - **The same events give the same alerts**, live or replayed, busy or idle: a detector has no clock, no randomness
//!   and does no I/O. Time is the event's time. Only [`engine`] touches the bus, the disk and the clock.
//! - **An event is acknowledged only when the alerts of it and of all before it are on disk**; no detector waits for that.
//! - **An alert's id follows from detector, rule and entity alone**, so that what is found again after a crash is the
//!   same alert, and the stream drops it.
//! - **Every table has a bound**, and what made room is counted and shown.

pub mod auth_fortress;
pub mod config;
pub mod correlate;
pub mod detector;
pub mod engine;
pub mod lineage;
pub mod network_guardian;
pub mod panel;
pub mod period;
pub mod runtime_watcher;
pub mod snapshot;
pub mod status;

#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod testing;

pub use config::Config;
pub use detector::{Detector, Finding, Findings};
pub use engine::{EngineError, EngineReport, run};
pub use lineage::Lineage;
pub use status::EngineStatus;

/// Every detector that the configuration leaves on.
pub fn detectors(config: &Config) -> Vec<Box<dyn Detector>> {
    let mut all: Vec<Box<dyn Detector>> = Vec::new();
    if config.runtime_watcher.enabled {
        all.push(Box::new(runtime_watcher::RuntimeWatcher::new(&config.runtime_watcher)));
    }
    if config.network_guardian.enabled {
        all.push(Box::new(network_guardian::NetworkGuardian::new(&config.network_guardian)));
    }
    if config.auth_fortress.enabled {
        all.push(Box::new(auth_fortress::AuthFortress::new(&config.auth_fortress)));
    }
    all
}
