//! `cargo fuzz run bundle`; the body is where the code is.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| common::fuzz::fuzz_bundle(data));
