//! The manual page of a binary, from the same definitions as its `--help`. Pure: text out, the same text each time.
//!
//! The format is man(7) with a few plain macros, which groff, mandoc and BusyBox's `man` all know.

use argh::{CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality, PositionalInfo};

use super::{CommonOption, Exit, Program};

/// What an exit status means, for all binaries.
const STATUSES: [(Exit, &str); 7] = [
    (Exit::Done, "Done."),
    (Exit::Failed, "What was asked for failed."),
    (Exit::Usage, "The command line is wrong."),
    (Exit::Unreachable, "The server cannot be reached."),
    (Exit::TryAgain, "Locked or overloaded: the same command may work later."),
    (Exit::NotPermitted, "Not permitted."),
    (Exit::BadConfig, "A configuration is wrong: a restart cannot cure it."),
];

/// The page of section 8.
pub fn page(program: &Program, info: &CommandInfoWithArgs, see_also: &[&str]) -> String {
    let name = program.name;
    let about = first_sentence(info.description);
    let mut out = format!(".TH {} 8 \"\" \"Vigo\" \"Vigo\"\n", text(&name.to_uppercase()));
    out.push_str(&format!(".SH NAME\n{} \\- {}\n", text(name), text(&about)));
    out.push_str(&format!(".SH SYNOPSIS\n.B {}\n[\\fIoptions\\fR] \\fIcommand\\fR\n.RI [ arguments ]\n", text(name)));
    out.push_str(&format!(".SH DESCRIPTION\n{}\n", text(info.description)));
    out.push_str(".SH OPTIONS\nAt any place of the command line.\n");
    for option in program.options {
        out.push_str(&common_option(option));
    }
    out.push_str(&term("\\fB\\-\\-help\\fR", "Tells of a command."));
    out.push_str(&term("\\fB\\-\\-version\\fR", "Prints version, commit and target."));
    out.push_str(".SH COMMANDS\n");
    commands(&mut out, info, name);
    out.push_str(".SH EXIT STATUS\n");
    for (exit, meaning) in STATUSES {
        out.push_str(&term(&format!("\\fB{}\\fR", exit.code()), meaning));
    }
    out.push_str(".SH SEE ALSO\n");
    let pages = see_also.iter().map(|page| format!(".BR {} (8)", text(page)));
    out.push_str(&pages.collect::<Vec<_>>().join(" ,\n"));
    out.push('\n');
    out
}

/// Every command that does something, with its own options.
fn commands(out: &mut String, level: &CommandInfoWithArgs, place: &str) {
    for command in &level.commands {
        let here = format!("{place} {}", command.name);
        let info = &command.command;
        if info.commands.is_empty() || !own_flags(info).is_empty() {
            one_command(out, info, &here);
        }
        commands(out, info, &here);
    }
}

fn one_command(out: &mut String, info: &CommandInfoWithArgs, place: &str) {
    let usage = |text: String, optional| if optional { format!("[{text}]") } else { text };
    let mut words = vec![format!("\\fB{}\\fR", text(place))];
    for flag in own_flags(info) {
        let optional = !matches!(flag.optionality, Optionality::Required);
        let repeats = matches!(flag.optionality, Optionality::Repeating);
        words.push(usage(flag_text(flag), optional) + if repeats { "..." } else { "" });
    }
    for one in positionals(info) {
        let repeats = matches!(one.optionality, Optionality::Repeating | Optionality::Greedy);
        let optional = !matches!(one.optionality, Optionality::Required);
        words.push(usage(format!("\\fI{}\\fR", text(one.name)), optional) + if repeats { "..." } else { "" });
    }
    out.push_str(&format!(".SS {}\n{}\n.PP\n{}\n", quoted(place), words.join(" "), text(info.description)));
    for one in positionals(info).filter(|one| !one.description.is_empty()) {
        out.push_str(&term(&format!("\\fI{}\\fR", text(one.name)), &sentence(one.description)));
    }
    for flag in own_flags(info) {
        out.push_str(&term(&flag_text(flag), &sentence(flag.description)));
    }
    for note in info.notes {
        out.push_str(&format!(".PP\n{}\n", text(note)));
    }
    for example in info.examples {
        let example = example.replace("{command_name}", place);
        out.push_str(&format!(".PP\nExample:\n.PP\n.RS\n.nf\n{}\n.fi\n.RE\n", text(&example)));
    }
}

/// The options of a command that are shown, without those that every command has.
pub(super) fn own_flags(info: &CommandInfoWithArgs) -> Vec<&FlagInfo<'static>> {
    info.flags.iter().filter(|flag| !flag.hidden && flag.long != "--help").collect()
}

fn positionals(info: &CommandInfoWithArgs) -> impl Iterator<Item = &PositionalInfo<'static>> {
    info.positionals.iter().filter(|one| !one.hidden)
}

fn flag_text(flag: &FlagInfo<'_>) -> String {
    let short = flag.short.map(|short| format!("\\fB\\-{short}\\fR, ")).unwrap_or_default();
    match flag.kind {
        FlagInfoKind::Switch => format!("{short}\\fB{}\\fR", text(flag.long)),
        FlagInfoKind::Option { arg_name } => format!("{short}\\fB{}\\fR \\fI{}\\fR", text(flag.long), text(arg_name)),
    }
}

fn common_option(option: &CommonOption) -> String {
    let names: Vec<String> = option.names.iter().map(|name| format!("\\fB{}\\fR", text(name))).collect();
    let value = option.value.map(|value| format!(" \\fI{}\\fR", text(value))).unwrap_or_default();
    term(&format!("{}{value}", names.join(", ")), &sentence(option.help))
}

fn term(head: &str, body: &str) -> String {
    format!(".TP\n{head}\n{}\n", text(body))
}

/// The first sentence without its full stop.
pub(super) fn first_sentence(description: &str) -> String {
    let end = description.find(". ").unwrap_or(description.trim_end_matches('.').len());
    one_line(&description[..end])
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let head: String = letters.next().map(|first| first.to_uppercase().collect()).unwrap_or_default();
    let body = format!("{head}{}", letters.as_str());
    if body.is_empty() || body.ends_with(['.', ')', ':']) { body } else { body + "." }
}

fn quoted(text_: &str) -> String {
    format!("\"{}\"", text(text_).replace('"', "\\(dq"))
}

/// Text as roff wants it: nothing in it is a request or an escape.
fn text(plain: &str) -> String {
    let lines = plain.lines().map(|line| {
        let line = line.trim().replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\(ga");
        if line.starts_with('.') { format!("\\&{line}") } else { line }
    });
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}
