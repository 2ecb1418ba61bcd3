//! The binary `vigosrv`.

use std::process::ExitCode;

use vigosrv::boot::commands;

fn main() -> ExitCode {
    common::cli::main(&commands::PROGRAM, commands::work)
}
