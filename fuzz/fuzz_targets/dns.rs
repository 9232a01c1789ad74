//! See `bartizan_wire::fuzzing::dns`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bartizan_wire::fuzzing::dns(data));
