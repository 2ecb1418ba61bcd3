//! Manual pages and completions of all three binaries, as files of a folder. What is in `packaging/manual` is made by it.

use argh::{ArgsInfo, CommandInfoWithArgs};
use common::cli::Program;
use common::cli::completions::{Shell, script};
use common::cli::manual::page;

/// Every file: its path in the folder, and its content.
pub fn files() -> Vec<(String, String)> {
    let programs: [(&Program, CommandInfoWithArgs); 3] = [
        (&vigosrv::boot::commands::PROGRAM, vigosrv::boot::commands::Top::get_args_info()),
        (&vigosrv::cli::PROGRAM, vigosrv::cli::Top::get_args_info()),
        (&envoy::cli::PROGRAM, envoy::cli::Top::get_args_info()),
    ];
    let mut files = Vec::new();
    for (program, info) in &programs {
        let others: Vec<&str> = programs.iter().map(|(other, _)| other.name).filter(|n| *n != program.name).collect();
        files.push((format!("man/man8/{}.8", program.name), page(program, info, &others)));
        for shell in Shell::ALL {
            let path = format!("completions/{}/{}", shell.name(), shell.file_name(program.name));
            files.push((path, script(program, info, shell)));
        }
    }
    files
}
