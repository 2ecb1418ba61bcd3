//! The reference of resource types, made of their tables: Markdown pages for `docs/`, plain text for a terminal.

use std::fmt::Write;

use super::commands::PROTOCOL;
use super::{GROUPS, Group, all};
use crate::policy::params::{Rule, Type};

/// Parameters that every type takes: name, default, meaning.
const COMMON: &[(&str, &str, &str)] = &[
    ("name", "", "unique within its configcrate; a template under `foreach`"),
    ("type", "", "one of the types of this reference"),
    ("when", "true", "an expression; where it is false the resource is skipped"),
    ("foreach", "", "a list, or a template that gives one; the resource is there once for each `item`"),
    ("depends_on", "", "resources that are settled before; where one of them failed, this one is skipped"),
    ("before", "", "resources that this one is settled before"),
    ("notify", "", "resources that act once, after this one changed"),
    ("subscribes", "", "resources whose change makes this one act"),
    ("timeout", "5m", "time for check and apply together"),
    ("retries", "0", "attempts after the first that failed"),
    ("sensitive", "false", "nothing of it is logged, diffed or quoted"),
    ("noop", "false", "it is checked and reported, never changed"),
];

/// The page of a group: its file name and its Markdown.
pub fn page(group: &Group) -> (String, String) {
    let mut out = format!(
        "# {}\n\nGenerated from the parameter tables. Every type also takes the [common parameters](README.md).\n",
        group.title
    );
    for kind in group.types {
        let _ = write!(out, "\n## {}\n\n{}.\n\n", kind.name, capital(kind.meaning));
        out.push_str("| parameter | value | default | meaning |\n|---|---|---|---|\n");
        for param in kind.params {
            let default = if param.required { "required" } else { param.default };
            let (name, value) = (param.name, cell(&param.kind.expected()));
            let _ = writeln!(out, "| `{name}` | {value} | {} | {} |", cell(default), cell(param.meaning));
        }
        let rules: Vec<String> = kind.rules.iter().map(describe).collect();
        if !rules.is_empty() {
            let _ = write!(out, "\n{}.\n", rules.join("; "));
        }
        let _ = write!(out, "\n```yaml\n{}```\n", kind.example);
        if let Some(more) = more(kind) {
            let _ = write!(out, "\n{more}");
        }
    }
    (format!("{}.md", group.title.to_lowercase()), out)
}

/// The page that lists all types.
pub fn index() -> String {
    let mut out = String::from(
        "# Resource types\n\nGenerated from the parameter tables; `vigo-envoy doc TYPE` prints the same in a terminal. What policy \
         can know of its host is in [Traits](traits.md).\n\n",
    );
    out.push_str("| type | what holds | group |\n|---|---|---|\n");
    for group in GROUPS {
        let file = page(group).0;
        for kind in group.types {
            let (name, title) = (kind.name, group.title);
            let _ = writeln!(out, "| [`{name}`]({file}#{name}) | {} | [{title}]({file}) |", cell(kind.meaning));
        }
    }
    out.push_str(
        "\n## Common parameters\n\nEvery resource takes these.\n\n| parameter | default | meaning |\n|---|---|---|\n",
    );
    for (name, default, meaning) in COMMON {
        let _ = writeln!(out, "| `{name}` | {default} | {meaning} |");
    }
    out
}

/// One type for a terminal.
pub fn terminal(kind: &Type) -> String {
    let mut out = format!("{}: {}\n\n", kind.name, kind.meaning);
    let width = kind.params.iter().map(|param| param.name.len()).max().unwrap_or(0);
    for param in kind.params {
        let _ = writeln!(out, "  {:width$}  {}", param.name, param.meaning);
        let _ = write!(out, "  {:width$}  {}", "", param.kind.expected());
        let _ = match (param.required, param.default) {
            (true, _) => writeln!(out, "; required"),
            (false, "") => writeln!(out),
            (false, default) => writeln!(out, "; default: {default}"),
        };
    }
    for rule in kind.rules {
        let _ = write!(out, "\n{}.\n", describe(rule));
    }
    let _ = write!(out, "\nExample:\n\n{}", kind.example);
    if let Some(more) = more(kind) {
        let _ = write!(out, "\n{more}");
    }
    out
}

/// All types for a terminal, one line each.
pub fn terminal_index() -> String {
    let width = all().map(|kind| kind.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for group in GROUPS {
        let _ = writeln!(out, "{}:", group.title);
        for kind in group.types {
            let _ = writeln!(out, "  {:width$}  {}", kind.name, kind.meaning);
        }
    }
    out.push_str("\nEvery type also takes:\n");
    for (name, default, meaning) in COMMON {
        let default = if default.is_empty() { String::new() } else { format!(" (default {default})") };
        let _ = writeln!(out, "  {name:width$}  {meaning}{default}");
    }
    out
}

/// What a table cannot say.
fn more(kind: &Type) -> Option<&'static str> {
    (kind.name == "custom").then_some(PROTOCOL)
}

fn describe(rule: &Rule) -> String {
    let names = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
    match rule {
        Rule::AtMostOne(all) => format!("At most one of {}", names(all)),
        Rule::OneOfUnless(all, switch, word) => format!("{} is needed unless `{switch}` is `{word}`", names(all)),
        Rule::Needs(name, other) => format!("`{name}` needs `{other}`"),
        Rule::OneOfWhen(all, switch, word) => format!("{} is needed where `{switch}` is `{word}`", names(all)),
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
