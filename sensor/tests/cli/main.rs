//! The real `bartizan` program on data folders that the tests fill through the bus.

mod doctor;
mod fixture;
mod reading_alerts;
mod reading_events;
mod reading_matches;
mod status;
mod usage;
