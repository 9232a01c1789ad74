//! The sensor: capture, projection, enrichment, and the `bartizan` program around them.
