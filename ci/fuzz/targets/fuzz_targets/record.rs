//! `cargo fuzz run record`; the body is where the code is.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| common::fuzz::fuzz_record(data));
