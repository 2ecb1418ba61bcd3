//! The binary `vigocli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    common::cli::main(&vigosrv::cli::PROGRAM, vigosrv::cli::run)
}
