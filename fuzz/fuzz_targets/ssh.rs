//! See `bartizan_wire::fuzzing::ssh`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bartizan_wire::fuzzing::ssh(data));
