//! See `bartizan_wire::fuzzing::tls`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bartizan_wire::fuzzing::tls(data));
