//! See `bartizan_bus::fuzzing::shredded`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bartizan_bus::fuzzing::shredded(data));
