//! See `bartizan_sensor::fuzzing::containers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bartizan_sensor::fuzzing::containers(data));
