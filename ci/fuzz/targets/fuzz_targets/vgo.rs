//! `cargo fuzz run vgo`; the body is where the code is.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vigosrv::fuzz::fuzz_vgo(data));
