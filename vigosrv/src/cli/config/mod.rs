//! `vigocli config`: publish, validate and see the policy, with a server running or not; and the reference of `server.yaml`.

mod diff;
mod explain;
mod history;

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure, print};
use serde_json::{Value, json};

use super::http::{get, post, running};
use super::{config, root};
use crate::boot;
use crate::publish::{self, Source};

/// Publishes the policy below `stacks/`, checks it, or shows what is published.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "config", example = "{command_name} publish --message 'new web servers'")]
pub(super) struct Config {
    #[argh(subcommand)]
    verb: ConfigVerb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum ConfigVerb {
    Publish(Publish),
    Validate(Validate),
    Diff(diff::Diff),
    Status(Status),
    History(history::History),
    Rollback(history::Rollback),
    Trace(explain::Trace),
    Search(explain::Search),
    Tree(explain::Tree),
    ServerYaml(ServerYaml),
}

/// Checks `stacks/` and makes it what the server serves.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "publish", example = "{command_name} --message 'new web servers'")]
struct Publish {
    /// why, for the history
    #[argh(option, short = 'm', default = "String::new()")]
    message: String,
    /// check and say what would happen, change nothing
    #[argh(switch)]
    dry_run: bool,
}

/// Checks `stacks/` and changes nothing.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "validate", example = "{command_name} --root /srv/vigo")]
struct Validate {}

/// Shows what is published.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "status", example = "{command_name} --json")]
struct Status {}

/// Prints the annotated reference of server.yaml.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "server.yaml", example = "{command_name} checkin")]
struct ServerYaml {
    /// one section only
    #[argh(positional)]
    section: Option<String>,
}

pub(super) fn run(verb: Config, common: &Common) -> Result<Exit, Failure> {
    match verb.verb {
        ConfigVerb::Publish(verb) if verb.dry_run => validate(common),
        ConfigVerb::Publish(verb) => publish(&verb.message, Source::Stacks, common),
        ConfigVerb::Validate(_) => validate(common),
        ConfigVerb::Diff(_) => diff::run(common),
        ConfigVerb::Status(_) => status(common),
        ConfigVerb::History(verb) => history::history(&verb, common),
        ConfigVerb::Rollback(verb) => history::rollback(&verb, common),
        ConfigVerb::Trace(verb) => explain::trace(&verb, common),
        ConfigVerb::Search(verb) => explain::search(&verb, common),
        ConfigVerb::Tree(_) => explain::tree(common),
        ConfigVerb::ServerYaml(verb) => {
            let text = crate::config::server_yaml_reference(verb.section.as_deref())?;
            print(&text).map(|()| Exit::Done)
        }
    }
}

fn publish(message: &str, source: Source, common: &Common) -> Result<Exit, Failure> {
    let root = root(common);
    let answer = if running(&root) {
        let tree = match source {
            Source::Stacks => Value::Null,
            Source::Kept(tree) => json!(tree.to_string()),
        };
        post(common, "/api/v1/config/publish", &json!({"message": message, "tree": tree})).map_err(show_lines)?
    } else {
        boot::publish_offline(&config(common)?, source, message).map_err(show_lines)?
    };
    if common.json() {
        return print(&format!("{answer}\n")).map(|()| Exit::Done);
    }
    print(&people(&answer)).map(|()| Exit::Done)
}

fn people(answer: &Value) -> String {
    let tree = answer["tree"].as_str().unwrap_or_default();
    let short = tree.get(..12).unwrap_or(tree);
    if answer["changed"].as_bool() == Some(false) {
        return format!("nothing has changed: {short} is published already\n");
    }
    let summary = answer["summary"].as_str().unwrap_or_default();
    format!(
        "published {short} as serial {}: {summary}; {} envoys get something new\n",
        answer["serial"], answer["envoys"]
    )
}

/// A wrong policy has many errors with many lines: they go to stderr whole, and the failure says the rest in one.
fn show_lines(failure: Failure) -> Failure {
    if failure.exit != Exit::BadConfig {
        return failure;
    }
    eprintln!("{}", failure.what.trim_end());
    Failure::new(Exit::BadConfig, "the policy is wrong, nothing was published").hint("correct what is shown above")
}

fn validate(common: &Common) -> Result<Exit, Failure> {
    let (root, known) = (root(common), known_secrets(common)?);
    let (tree, n) = publish::check(publish::Site::with_secrets(&root, known))
        .map_err(|error| show_lines(boot::publish_failure(&error)))?;
    let text = if common.json() {
        format!("{}\n", json!({"schema": 1, "valid": true, "tree": tree.to_string(), "mappings": n}))
    } else {
        format!("valid: {n} mappings\n")
    };
    print(&text).map(|()| Exit::Done)
}

/// The secrets that policy may refer to.
pub(in crate::cli) fn known_secrets(common: &Common) -> Result<std::collections::BTreeSet<String>, Failure> {
    config(common)?.secrets().names().map_err(|error| Failure::failed(error.to_string()))
}

fn status(common: &Common) -> Result<Exit, Failure> {
    let root = root(common);
    let answer = if running(&root) {
        get(common, "/api/v1/config/status")?
    } else {
        let live = publish::live_tree(&root).map_err(|error| boot::publish_failure(&error))?;
        json!({"schema": 1, "live": live.map(|hash| hash.to_string()), "published": null})
    };
    if common.json() {
        return print(&format!("{answer}\n")).map(|()| Exit::Done);
    }
    let text = match answer["live"].as_str() {
        None => "nothing is published: `vigocli config publish`\n".to_string(),
        Some(live) => {
            let newest = &answer["published"];
            let word = |key: &str| newest[key].as_str().unwrap_or_default();
            match newest.is_object() {
                true => format!(
                    "{live}\nserial {}, by {} at {}: {} ({})\n",
                    newest["serial"],
                    word("author"),
                    word("at"),
                    word("message"),
                    word("summary")
                ),
                false => format!("{live}\n"),
            }
        }
    };
    print(&text).map(|()| Exit::Done)
}
