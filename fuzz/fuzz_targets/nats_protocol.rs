//! See `bartizan_bus::fuzzing::nats_protocol`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bartizan_bus::fuzzing::nats_protocol(data));
