//! Command lines of all three binaries: `argh` structures, plus what people expect and `argh` lacks.
//!
//! Beyond `argh`: `--opt=value`; common options at any level, before or after the verb; `--version` and `--help` anywhere;
//! "did you mean" for verbs and options; status 64 for a wrong command line; one line an error. Command types derive
//! `argh::FromArgs` and `argh::ArgsInfo`; a binary is `fn main() -> ExitCode { cli::main(&PROGRAM, run) }`.

mod args;
pub mod completions;
mod confirm;
mod exit;
mod hidden;
pub mod manual;
mod output;
mod progress;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use argh::{ArgsInfo, FromArgs};

use crate::sys::redaction;

pub use confirm::confirm;
pub use exit::{Exit, Failure};
pub use hidden::ask_hidden;
pub use output::{Style, Table, color_wanted, json_document, one_line, paint, print};
pub use progress::Progress;

/// A binary.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Name of the binary.
    pub name: &'static str,
    /// Options that every verb takes, at any place of the command line.
    pub options: &'static [&'static CommonOption],
}

/// An option that every verb takes.
#[derive(Debug, PartialEq, Eq)]
pub struct CommonOption {
    /// The name (`--root`), then its aliases.
    pub names: &'static [&'static str],
    /// What its value is called in the help; none for a switch.
    pub value: Option<&'static str>,
    /// One line for the help.
    pub help: &'static str,
}

/// Machine-readable output.
pub const JSON: CommonOption =
    CommonOption { names: &["--json"], value: None, help: "print one JSON document instead of text" };
/// Chains of causes below errors.
pub const VERBOSE: CommonOption =
    CommonOption { names: &["--verbose"], value: None, help: "show what lies below an error" };
/// Do not ask.
pub const YES: CommonOption =
    CommonOption { names: &["--yes"], value: None, help: "do not ask before destroying something" };
/// The server root.
pub const ROOT: CommonOption =
    CommonOption { names: &["--root", "--server-root"], value: Some("DIR"), help: "server root (default /srv/vigo)" };

/// The common options that were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Common(BTreeMap<&'static str, String>);

/// A command line that asks for no work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Early {
    /// `--help` or `--version`: the text for stdout.
    Show(String),
    /// A wrong command line.
    Wrong(Failure),
}

impl Common {
    /// Whether a switch was given.
    pub fn flag(&self, option: &CommonOption) -> bool {
        self.0.contains_key(option.names[0])
    }

    /// The value of an option.
    pub fn value(&self, option: &CommonOption) -> Option<&str> {
        self.0.get(option.names[0]).map(String::as_str)
    }

    /// The value of an option that names a file or directory.
    pub fn path(&self, option: &CommonOption) -> Option<PathBuf> {
        self.value(option).map(PathBuf::from)
    }

    /// `--json`.
    pub fn json(&self) -> bool {
        self.flag(&JSON)
    }

    /// `--verbose`.
    pub fn verbose(&self) -> bool {
        self.flag(&VERBOSE)
    }

    /// `--yes`.
    pub fn yes(&self) -> bool {
        self.flag(&YES)
    }

    /// Sets an option, as if it had been given.
    pub fn set(&mut self, option: &CommonOption, value: impl Into<String>) {
        self.0.insert(option.names[0], value.into());
    }
}

/// Runs a binary: parses the command line, works, prints the error if there is one, and says how to exit.
pub fn main<T: FromArgs + ArgsInfo>(
    program: &Program,
    work: impl FnOnce(T, &Common) -> Result<Exit, Failure>,
) -> ExitCode {
    let (result, verbose) = match parse::<T>(program, std::env::args_os().skip(1)) {
        Ok((command, common)) => (work(command, &common), common.verbose()),
        Err(Early::Show(text)) => (output::print(&text).map(|()| Exit::Done), false),
        Err(Early::Wrong(failure)) => (Err(failure), false),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            // An empty failure is a reader of stdout that went away.
            if !failure.what.is_empty() {
                eprint!("{}", redaction::clean(&failure.render(program.name, verbose)));
            }
            failure.exit.into()
        }
    }
}

/// Parses a command line without the program's name.
pub fn parse<T: FromArgs + ArgsInfo>(
    program: &Program,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<(T, Common), Early> {
    let texts: Result<Vec<String>, OsString> = arguments.into_iter().map(OsString::into_string).collect();
    let texts = texts.map_err(|bad| {
        Early::Wrong(
            Failure::usage(format!("`{}` is not UTF-8", bad.to_string_lossy()))
                .hint("rename the file, or use a path without it"),
        )
    })?;
    let info = T::get_args_info();
    let split = args::split(program, &info, &texts).map_err(Early::Wrong)?;
    if split.version {
        return Err(Early::Show(version(program)));
    }
    let strs: Vec<&str> = if split.help {
        split.verbs.iter().copied().chain(["--help"]).collect()
    } else {
        split.arguments.iter().map(String::as_str).collect()
    };
    match T::from_args(&[program.name], &strs) {
        Ok(command) => Ok((command, split.common)),
        Err(early) if early.status.is_ok() => Err(Early::Show(early.output + &args::common_help(program))),
        Err(early) => Err(Early::Wrong(args::explain(program, &split.verbs, &early.output))),
    }
}

/// Name, version, commit and target, as `--version` prints them.
pub fn version(program: &Program) -> String {
    format!("{} {} (commit {COMMIT}, {TARGET})\n", program.name, VERSION)
}

/// [`BUILD_SECONDS`] in milliseconds: where the clock of a host shows less, it is wrong.
pub fn build_ms() -> u64 {
    BUILD_SECONDS.parse::<u64>().map_or(0, |seconds| seconds * 1_000)
}

/// Version of the product.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Commit that was built; `development` in debug builds, `unknown` outside git.
pub const COMMIT: &str = env!("VIGO_BUILD_COMMIT");
/// A moment (seconds since 1970) that no correct clock can show any more. Decimal, from the build.
pub const BUILD_SECONDS: &str = env!("VIGO_BUILD_SECONDS");
/// Target triple.
pub const TARGET: &str = env!("VIGO_BUILD_TARGET");

#[cfg(test)]
mod tests;
