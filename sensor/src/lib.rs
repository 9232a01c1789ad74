//! The sensor: capture, projection, enrichment, and the `bartizan` program around them.

pub mod cli;
pub mod config;
pub mod control;
pub mod status;

pub mod capture;
pub mod daemon;
pub mod enrich;
pub mod pipeline;
pub mod project;
mod report;
