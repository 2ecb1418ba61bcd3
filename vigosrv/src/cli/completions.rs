//! `vigocli completions`: what a shell needs to complete the words of this program.

use argh::{ArgsInfo, FromArgs};
use common::cli::completions::{Shell, script};
use common::cli::{Exit, Failure, print};

use super::{PROGRAM, Top};

/// Prints the completions of this program for a shell.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "completions", example = "{command_name} bash >/etc/bash_completion.d/vigocli")]
pub(super) struct Completions {
    /// bash, fish or zsh
    #[argh(positional)]
    shell: String,
}

pub(super) fn run(verb: &Completions) -> Result<Exit, Failure> {
    let shell = Shell::parse(&verb.shell)?;
    print(&script(&PROGRAM, &Top::get_args_info(), shell)).map(|()| Exit::Done)
}
