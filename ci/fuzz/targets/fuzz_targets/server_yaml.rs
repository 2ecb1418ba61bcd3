//! `cargo fuzz run server_yaml`; the body is where the code is.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vigosrv::fuzz::fuzz_server_yaml(data));
