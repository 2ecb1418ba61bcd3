//! The walk over a command line before `argh` sees it. Knows every verb and option from `ArgsInfo`, so it can take out the
//! common options, split `--opt=value`, and say what was probably meant.

use argh::{CommandInfoWithArgs, FlagInfoKind};

use super::{Common, CommonOption, Failure, Program};
use crate::units::nearest;

/// A command line taken apart.
#[derive(Debug, Default)]
pub(super) struct Split {
    /// What `argh` gets.
    pub arguments: Vec<String>,
    /// The verbs among them.
    pub verbs: Vec<&'static str>,
    /// Common options.
    pub common: Common,
    /// `--help` was there.
    pub help: bool,
    /// `--version` was there.
    pub version: bool,
}

/// Takes a command line apart.
pub(super) fn split(program: &Program, info: &CommandInfoWithArgs, texts: &[String]) -> Result<Split, Failure> {
    let (mut out, mut level, mut texts) = (Split::default(), info, texts.iter());
    while let Some(text) = texts.next() {
        if text == "--" {
            out.arguments.push(text.clone());
            out.arguments.extend(texts.cloned());
            break;
        }
        if !text.starts_with('-') || text == "-" {
            verb_or_positional(program, &mut out, &mut level, text)?;
            continue;
        }
        let (name, inline) = match text.split_once('=') {
            Some((name, value)) if text.starts_with("--") => (name, Some(value.to_string())),
            _ => (text.as_str(), None),
        };
        match name {
            "--help" | "-h" => out.help = true,
            "--version" | "-V" => out.version = true,
            _ => {
                let takes = takes_value(program, level, name)
                    .ok_or_else(|| unknown_option(program, &out.verbs, level, name))?;
                let value = match (takes, inline) {
                    (false, Some(_)) => {
                        return Err(wrong(program, &out.verbs, format!("option `{name}` takes no value")));
                    }
                    (false, None) => None,
                    (true, Some(value)) => Some(value),
                    (true, None) => {
                        let missing = || wrong(program, &out.verbs, format!("option `{name}` needs a value"));
                        Some(texts.next().ok_or_else(missing)?.clone())
                    }
                };
                keep(program, &mut out, level, name, value)?;
            }
        }
    }
    Ok(out)
}

/// The help on common options, below what `argh` prints.
pub(super) fn common_help(program: &Program) -> String {
    let mut out = String::from("\nCommon options (at any place):\n");
    let line = |names: &str, help: &str| format!("  {names:<16}  {help}\n");
    for option in program.options {
        let value = option.value.map(|value| format!(" {value}")).unwrap_or_default();
        out.push_str(&line(&format!("{}{value}", option.names[0]), option.help));
    }
    out.push_str(&line("--version", "print version, commit and target"));
    out
}

/// An error text of `argh` as one line.
pub(super) fn explain(program: &Program, verbs: &[&str], text: &str) -> Failure {
    let text = text.trim().replace("\n    ", " ").replace('\n', "; ");
    let text = text.strip_suffix('.').unwrap_or(&text);
    let text = match text.split_once("One of the following subcommands must be present: help ") {
        Some((before, names)) => format!("{before}expected one of: {}", names.replace(' ', ", ")),
        None => text
            .replace("Required positional arguments not provided:", "missing argument")
            .replace("Required options not provided:", "missing option"),
    };
    wrong(program, verbs, text)
}

fn verb_or_positional(
    program: &Program,
    out: &mut Split,
    level: &mut &CommandInfoWithArgs,
    text: &str,
) -> Result<(), Failure> {
    out.arguments.push(text.to_string());
    if level.commands.is_empty() {
        return Ok(());
    }
    if text == "help" {
        // `vigocli help envoys` is `vigocli envoys --help`.
        out.help = true;
        return Ok(());
    }
    match level.commands.iter().find(|command| command.name == text) {
        Some(found) => {
            out.verbs.push(found.name);
            *level = &found.command;
            Ok(())
        }
        None if !level.positionals.is_empty() => Ok(()),
        None => {
            let names = level.commands.iter().map(|command| command.name);
            let failure = Failure::usage(format!("{}: unknown command `{text}`", place(program, &out.verbs)));
            Err(match nearest(text, names.clone()) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure.hint(format!("expected one of: {}", names.collect::<Vec<_>>().join(", "))),
            })
        }
    }
}

/// Whether the option takes a value; `None` when it is not known here. An option of the verb hides a common one.
fn takes_value(program: &Program, level: &CommandInfoWithArgs, name: &str) -> Option<bool> {
    let own = level.flags.iter().find(|flag| is_named(flag, name)).map(|flag| flag.kind != FlagInfoKind::Switch);
    own.or_else(|| common_option(program, name).map(|option| option.value.is_some()))
}

fn keep(
    program: &Program,
    out: &mut Split,
    level: &CommandInfoWithArgs,
    name: &str,
    value: Option<String>,
) -> Result<(), Failure> {
    let own = level.flags.iter().any(|flag| is_named(flag, name));
    match common_option(program, name).filter(|_| !own) {
        None => {
            out.arguments.push(name.to_string());
            out.arguments.extend(value);
        }
        Some(option) => {
            if option.value.is_some() && out.common.flag(option) {
                return Err(wrong(program, &out.verbs, format!("option `{name}` is given twice")));
            }
            out.common.set(option, value.unwrap_or_default());
        }
    }
    Ok(())
}

fn is_named(flag: &argh::FlagInfo<'_>, name: &str) -> bool {
    let short = || flag.short.is_some_and(|short| name.strip_prefix('-') == Some(short.encode_utf8(&mut [0; 4])));
    flag.long == name || short()
}

fn common_option(program: &Program, name: &str) -> Option<&'static CommonOption> {
    program.options.iter().copied().find(|option| option.names.contains(&name))
}

fn unknown_option(program: &Program, verbs: &[&str], level: &CommandInfoWithArgs, name: &str) -> Failure {
    let own = level.flags.iter().filter(|flag| !flag.hidden).map(|flag| flag.long);
    let common = program.options.iter().flat_map(|option| option.names.iter().copied());
    let failure = Failure::usage(format!("{}: unknown option `{name}`", place(program, verbs)));
    match nearest(name, own.chain(common).chain(["--help", "--version"])) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint(format!("run `{} --help`", place(program, verbs))),
    }
}

fn wrong(program: &Program, verbs: &[&str], what: String) -> Failure {
    let place = place(program, verbs);
    Failure::usage(format!("{place}: {what}")).hint(format!("run `{place} --help`"))
}

fn place(program: &Program, verbs: &[&str]) -> String {
    [&[program.name], verbs].concat().join(" ")
}
