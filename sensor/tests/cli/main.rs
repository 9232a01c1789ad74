//! The real `bartizan` program on data folders that the tests fill through the bus.

mod bus_serve;
mod doctor;
mod fixture;
mod reading_alerts;
mod reading_events;
mod reading_matches;
mod status;
mod usage;
