//! `cargo fuzz run policy_tree`; the body is where the code is.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vigosrv::fuzz::fuzz_policy_tree(data));
