//! `cargo fuzz run frames`; the body is where the code is.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| common::net::fuzz_frames(data));
