//! `cargo fuzz run queue_record`; the body is where the code is.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| envoy::cache::codec::fuzz_queue_record(data));
