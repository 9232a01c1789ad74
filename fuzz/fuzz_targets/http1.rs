//! See `bartizan_wire::fuzzing::http1`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bartizan_wire::fuzzing::http1(data));
