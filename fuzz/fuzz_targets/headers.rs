//! See `bartizan_bus::fuzzing::headers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bartizan_bus::fuzzing::headers(data));
