//! `doc`: the reference of resource types, in the terminal, without a network.

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure, print};
use common::policy::types::{self, reference};

/// What resource types there are, and what each takes.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "doc", example = "{command_name} file")]
pub(super) struct Doc {
    /// a type; without one, all are listed
    #[argh(positional)]
    kind: Option<String>,
}

pub(super) fn run(verb: &Doc, common: &Common) -> Result<Exit, Failure> {
    let text = match &verb.kind {
        None if common.json() => return list(),
        None => reference::terminal_index(),
        Some(name) => {
            let kind = types::find(name).ok_or_else(|| Failure::new(Exit::Usage, types::unknown_type(name)))?;
            reference::terminal(kind)
        }
    };
    print(&text).map(|()| Exit::Done)
}

fn list() -> Result<Exit, Failure> {
    let names: Vec<&str> = types::all().map(|kind| kind.name).collect();
    print(&format!("{}\n", serde_json::json!({ "schema": 1, "types": names }))).map(|()| Exit::Done)
}
