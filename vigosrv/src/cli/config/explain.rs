//! `config trace`, `config search` and `config tree`: questions about `stacks/`, answered without a server.

use argh::{ArgsInfo, FromArgs};
use common::bundle::Value;
use common::cli::{Common, Exit, Failure, Table, color_wanted, one_line, print};
use common::policy::value::to_json;
use common::yaml::Error;
use serde_json::json;

use super::{root, show_lines};
use crate::boot;
use crate::policy::{self, Found, TracedVar};
use crate::publish::{self, PublishError};

/// Shows what a host gets, and the file and line that each value and configcrate comes from.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "trace", example = "{command_name} web-1.prod.example.com")]
pub(super) struct Trace {
    /// host name
    #[argh(positional)]
    host: String,
}

/// Finds names and lines of the policy that contain a text.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "search", example = "{command_name} sshd_config")]
pub(super) struct Search {
    /// the text; case does not matter
    #[argh(positional)]
    text: String,
}

/// Lists everything that the policy defines, file by file.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "tree", example = "{command_name}")]
pub(super) struct Tree {}

fn invalid(errors: Vec<Error>) -> Failure {
    show_lines(boot::publish_failure(&PublishError::Invalid(errors)))
}

fn stacks(common: &Common) -> Result<policy::Tree, Failure> {
    publish::read_stacks(&root(common)).map_err(|error| boot::publish_failure(&error))
}

pub(super) fn trace(verb: &Trace, common: &Common) -> Result<Exit, Failure> {
    let failed = |error| show_lines(boot::publish_failure(&error));
    let trace = publish::trace(&root(common), &verb.host).map_err(failed)?;
    let Some(trace) = trace else {
        return Err(Failure::failed(format!("no mapping matches `{}`", verb.host))
            .hint("add one below stacks/envoys/; `vigocli config tree` lists the patterns that there are"));
    };
    if common.json() {
        let var = |var: &TracedVar| {
            json!({
                "name": var.name, "value": to_json(&var.value), "source": var.source, "overrides": var.overrides,
            })
        };
        let crates = trace.crates.iter().map(|one| {
            let resources = one.resources.iter();
            let resources = resources.map(|(name, kind, place)| json!({"name": name, "type": kind, "place": place}));
            json!({
                "name": one.name, "place": one.place, "asked_by": one.asked_by,
                "resources": resources.collect::<Vec<_>>(), "defaults": one.defaults.iter().map(var).collect::<Vec<_>>(),
            })
        });
        let document = json!({
            "schema": 1, "host": verb.host, "mapping": trace.mapping, "pattern": trace.pattern,
            "environment": trace.environment, "configcrates": crates.collect::<Vec<_>>(),
            "vars": trace.vars.iter().map(var).collect::<Vec<_>>(),
        });
        return print(&format!("{document}\n")).map(|()| Exit::Done);
    }
    let mut out = format!("{}: pattern `{}` of {}\n", verb.host, trace.pattern, trace.mapping);
    if !trace.environment.is_empty() {
        out += &format!("environment {}\n", trace.environment);
    }
    out += "\nvariables, after precedence:\n";
    trace.vars.iter().for_each(|var| lines_of(var, "  ", &mut out));
    out += "\nconfigcrates, in order:\n";
    for one in &trace.crates {
        out += &format!("  {}  {}, asked for by {}\n", one.name, one.place, one.asked_by.join(", "));
        one.defaults.iter().for_each(|var| lines_of(var, "    ", &mut out));
        for (name, kind, place) in &one.resources {
            out += &format!("    {name} ({kind})  {place}\n");
        }
    }
    print(&out).map(|()| Exit::Done)
}

fn lines_of(var: &TracedVar, indent: &str, out: &mut String) {
    *out += &format!("{indent}{} = {}  {}\n", var.name, text_of(&var.value), var.source);
    for place in &var.overrides {
        *out += &format!("{indent}  overrides {place}\n");
    }
}

fn text_of(value: &Value) -> String {
    one_line(&to_json(value).to_string())
}

pub(super) fn search(verb: &Search, common: &Common) -> Result<Exit, Failure> {
    let found = policy::search(&stacks(common)?, &verb.text).map_err(invalid)?;
    if found.is_empty() && !common.json() {
        return Err(Failure::failed(format!("nothing in stacks/ contains `{}`", verb.text)));
    }
    show(&found, common)
}

pub(super) fn tree(common: &Common) -> Result<Exit, Failure> {
    show(&policy::outline(&stacks(common)?).map_err(invalid)?, common)
}

fn show(found: &[Found], common: &Common) -> Result<Exit, Failure> {
    if common.json() {
        let rows = found.iter().map(|one| json!({"place": one.place, "kind": one.kind, "name": one.name}));
        let document = json!({"schema": 1, "found": rows.collect::<Vec<_>>()});
        return print(&format!("{document}\n")).map(|()| Exit::Done);
    }
    let mut table = Table::new(&["PLACE", "KIND", "NAME"]);
    found.iter().for_each(|one| table.row([one.place.clone(), one.kind.to_string(), one_line(&one.name)]));
    print(&table.render(color_wanted())).map(|()| Exit::Done)
}
