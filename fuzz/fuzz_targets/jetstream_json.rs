//! See `bartizan_bus::fuzzing::jetstream_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bartizan_bus::fuzzing::jetstream_json(data));
