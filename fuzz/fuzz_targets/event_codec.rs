//! See `bartizan_bus::fuzzing::event_codec`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bartizan_bus::fuzzing::event_codec(data));
