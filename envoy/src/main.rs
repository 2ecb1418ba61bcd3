//! The binary `vigo-envoy`.

use std::process::ExitCode;

fn main() -> ExitCode {
    common::cli::main(&envoy::cli::PROGRAM, envoy::cli::work)
}
