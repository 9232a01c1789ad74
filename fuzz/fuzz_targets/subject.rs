//! See `bartizan_bus::fuzzing::subject`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bartizan_bus::fuzzing::subject(data));
