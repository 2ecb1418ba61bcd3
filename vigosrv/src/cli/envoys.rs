//! `vigocli nodes`, `envoys ...` and `traits`.

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure, Style, Table, color_wanted, confirm, print};
use common::policy::trait_keys;
use common::units::human_duration;
use serde_json::{Value, json};

use super::http::{encode, get, post};

/// Lists the envoys (short for `envoys list`).
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "nodes", example = "{command_name} 'web-*' --status offline")]
pub(super) struct Nodes {
    /// host names, as a pattern
    #[argh(positional)]
    pattern: Option<String>,
    /// only those with this status
    #[argh(option)]
    status: Option<String>,
    /// also those that are revoked
    #[argh(switch)]
    revoked: bool,
    /// sort by hostname, status or last_seen
    #[argh(option)]
    sort: Option<String>,
}

/// Lists envoys, shows one, or does something to it.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "envoys", example = "{command_name} show web-1.example.com")]
pub(super) struct Envoys {
    #[argh(subcommand)]
    verb: EnvoysVerb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum EnvoysVerb {
    List(List),
    Show(Show),
    Push(Push),
    Revoke(Revoke),
    Approve(Approve),
    Rename(Rename),
    Rekey(Rekey),
    Invite(Invite),
    Rebootstrap(Rebootstrap),
}

/// Lists the envoys.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "list", example = "{command_name} 'web-*' --json")]
struct List {
    /// host names, as a pattern
    #[argh(positional)]
    pattern: Option<String>,
    /// only those with this status
    #[argh(option)]
    status: Option<String>,
    /// also those that are revoked
    #[argh(switch)]
    revoked: bool,
    /// sort by hostname, status or last_seen
    #[argh(option)]
    sort: Option<String>,
}

/// Shows one envoy.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "show", example = "{command_name} web-1.example.com")]
struct Show {
    /// host name or UUID
    #[argh(positional)]
    envoy: String,
}

/// Tells envoys that hold a connection to check in now.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "push", example = "{command_name} web-1.example.com")]
struct Push {
    /// host name or UUID
    #[argh(positional)]
    envoy: Option<String>,
    /// every envoy
    #[argh(switch)]
    all: bool,
}

/// Bars an envoy at once and for ever.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "revoke", example = "{command_name} web-1.example.com --reason stolen --yes")]
struct Revoke {
    /// host name or UUID
    #[argh(positional)]
    envoy: String,
    /// why, for the audit log
    #[argh(option, default = "String::new()")]
    reason: String,
}

/// Gives a pending or reviewed envoy its full standing.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "approve", example = "{command_name} web-1.example.com")]
struct Approve {
    /// host name or UUID
    #[argh(positional)]
    envoy: String,
}

/// Gives an envoy another host name.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "rename", example = "{command_name} web-1.example.com web-2.example.com")]
struct Rename {
    /// host name or UUID
    #[argh(positional)]
    envoy: String,
    /// the new name
    #[argh(positional)]
    hostname: String,
}

/// Has an envoy make another key that its secrets are sealed to, at its next check-in; they are sealed anew.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "rekey", example = "{command_name} web-1.example.com")]
struct Rekey {
    /// host name or UUID
    #[argh(positional)]
    envoy: String,
}

/// Makes a one-time token and prints the line that enrolls a host with it.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "invite", example = "{command_name} --hostname web-1.example.com --ttl 1h")]
struct Invite {
    /// bind the token to this host name
    #[argh(option)]
    hostname: Option<String>,
    /// let a new key take the place of this envoy
    #[argh(option)]
    replace: Option<String>,
    /// how long the token is good (default 24h)
    #[argh(option)]
    ttl: Option<String>,
}

/// Moves envoys to another server by a signed statement; without --address they learn this server's present keys.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "rebootstrap",
    example = "{command_name} --all --address new.example.com:1530 --ca-file ca.pem --identity-key HEX --policy-key HEX --yes"
)]
struct Rebootstrap {
    /// host name or UUID
    #[argh(positional)]
    envoy: Option<String>,
    /// every envoy
    #[argh(switch)]
    all: bool,
    /// host:port of the other server
    #[argh(option)]
    address: Option<String>,
    /// PEM file of its CA
    #[argh(option)]
    ca_file: Option<std::path::PathBuf>,
    /// its identity key, 64 hexadecimal digits
    #[argh(option)]
    identity_key: Option<String>,
    /// its policy key, 64 hexadecimal digits
    #[argh(option)]
    policy_key: Option<String>,
}

/// Shows what an envoy found out about its host.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "traits", example = "{command_name} web-1.example.com os.distro")]
pub(super) struct Traits {
    /// host name or UUID
    #[argh(positional)]
    envoy: String,
    /// a path into the tree, such as os.distro
    #[argh(positional)]
    path: Option<String>,
}

pub(super) fn nodes(verb: Nodes, common: &Common) -> Result<Exit, Failure> {
    let Nodes { pattern, status, revoked, sort } = verb;
    list(&List { pattern, status, revoked, sort }, common)
}

pub(super) fn run(verb: Envoys, common: &Common) -> Result<Exit, Failure> {
    match verb.verb {
        EnvoysVerb::List(verb) => list(&verb, common),
        EnvoysVerb::Show(verb) => show(&verb, common),
        EnvoysVerb::Push(verb) => push(verb, common),
        EnvoysVerb::Revoke(verb) => {
            confirm(common, &format!("bar {} from this server for ever", verb.envoy))?;
            act(common, &verb.envoy, "revoke", &json!({"reason": verb.reason}), "revoked")
        }
        EnvoysVerb::Approve(verb) => act(common, &verb.envoy, "approve", &json!({}), "approved"),
        EnvoysVerb::Rename(verb) => act(common, &verb.envoy, "rename", &json!({"hostname": verb.hostname}), "renamed"),
        EnvoysVerb::Rekey(verb) => {
            act(common, &verb.envoy, "rekey", &json!({}), "makes another key at its next check-in")
        }
        EnvoysVerb::Invite(verb) => invite(verb, common),
        EnvoysVerb::Rebootstrap(verb) => rebootstrap(verb, common),
    }
}

fn list(verb: &List, common: &Common) -> Result<Exit, Failure> {
    let mut path = "/api/v1/envoys?".to_string();
    for (key, value) in [("name", &verb.pattern), ("status", &verb.status), ("sort", &verb.sort)] {
        if let Some(value) = value {
            path.push_str(&format!("{key}={}&", encode(value)));
        }
    }
    if verb.revoked {
        path.push_str("revoked=true");
    }
    let answer = get(common, &path)?;
    if common.json() {
        return print(&format!("{answer}\n")).map(|()| Exit::Done);
    }
    let mut table =
        Table::new(&["HOSTNAME", "STATUS", "COMPLIANCE", "LAST SEEN", "SERIAL", "CHANGED", "FAILED", "NOTE"])
            .right(4)
            .right(5)
            .right(6);
    for row in answer["envoys"].as_array().into_iter().flatten() {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_string();
        let count = |key: &str| row["counts"][key].to_string();
        let style = match row["compliance"].as_str() {
            Some("compliant") => Style::Good,
            Some("drifted") => Style::Warn,
            Some("failed") => Style::Bad,
            _ => Style::Dim,
        };
        let failed = row["counts"]["failed"].as_u64().unwrap_or(0) + row["counts"]["blocked"].as_u64().unwrap_or(0);
        table.styled_row([
            (text("hostname"), Style::Plain),
            (text("status"), style),
            (text("compliance"), style),
            (ago(row), Style::Plain),
            (row["serial"].to_string(), Style::Plain),
            (count("changed"), Style::Plain),
            (failed.to_string(), Style::Plain),
            (note(row), Style::Dim),
        ]);
    }
    print(&table.render(color_wanted())).map(|()| Exit::Done)
}

fn ago(row: &Value) -> String {
    match row["seen_ms_ago"].as_u64() {
        Some(ms) => format!("{} ago", human_duration(ms)),
        None => "never".into(),
    }
}

fn note(row: &Value) -> String {
    let mut notes = Vec::new();
    if row["kept_cached"].as_bool() == Some(true) {
        notes.push("keeps its cached policy".to_string());
    }
    if row["state"] == "pending" {
        notes.push("pending approval".to_string());
    }
    let queued = row["queued"]["urgent"].as_u64().unwrap_or(0);
    if queued > 0 {
        notes.push(format!("{queued} urgent results waiting"));
    }
    notes.join(", ")
}

fn show(verb: &Show, common: &Common) -> Result<Exit, Failure> {
    let answer = get(common, &format!("/api/v1/envoys/{}", encode(&verb.envoy)))?;
    if common.json() {
        return print(&format!("{answer}\n")).map(|()| Exit::Done);
    }
    let envoy = &answer["envoy"];
    let mut out = String::new();
    for (label, value) in [
        ("hostname", envoy["hostname"].clone()),
        ("uuid", envoy["uuid"].clone()),
        ("standing", envoy["state"].clone()),
        ("status", envoy["status"].clone()),
        ("compliance", envoy["compliance"].clone()),
        ("last seen", json!(format!("{} ({})", envoy["last_seen"].as_str().unwrap_or_default(), ago(envoy)))),
        ("serial", envoy["serial"].clone()),
        ("bundle", envoy["bundle"].clone()),
        ("agent", envoy["agent_version"].clone()),
        ("stored urgent", envoy["watermark"]["urgent"].clone()),
        ("stored routine", envoy["watermark"]["routine"].clone()),
        ("note", json!(note(envoy))),
    ] {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        out.push_str(&format!("{label:<15} {text}\n"));
    }
    let counts = &envoy["counts"];
    out.push_str(&format!(
        "{:<15} {} ok, {} changed, {} skipped, {} failed, {} blocked\n",
        "last run", counts["ok"], counts["changed"], counts["skipped"], counts["failed"], counts["blocked"]
    ));
    print(&out).map(|()| Exit::Done)
}

fn act(common: &Common, envoy: &str, action: &str, body: &Value, done: &str) -> Result<Exit, Failure> {
    let answer = post(common, &format!("/api/v1/envoys/{}/{action}", encode(envoy)), body)?;
    let text = if common.json() { format!("{answer}\n") } else { format!("{envoy} {done}\n") };
    print(&text).map(|()| Exit::Done)
}

fn push(verb: Push, common: &Common) -> Result<Exit, Failure> {
    let path = one_or_all(verb.envoy.as_deref(), verb.all, "push")?;
    reached(common, &post(common, &path, &json!({}))?)
}

/// The path of an action on one envoy or on all, when exactly one of the two was asked for.
fn one_or_all(envoy: Option<&str>, all: bool, action: &str) -> Result<String, Failure> {
    match (envoy, all) {
        (Some(envoy), false) => Ok(format!("/api/v1/envoys/{}/{action}", encode(envoy))),
        (None, true) => Ok(format!("/api/v1/envoys/{action}")),
        _ => Err(Failure::usage("name one envoy, or say --all").hint(format!("vigocli envoys {action} --help"))),
    }
}

fn reached(common: &Common, answer: &Value) -> Result<Exit, Failure> {
    if common.json() {
        return print(&format!("{answer}\n")).map(|()| Exit::Done);
    }
    let text = format!("{} reached now, {} at their next contact\n", answer["reached"], answer["later"]);
    print(&text).map(|()| Exit::Done)
}

fn invite(verb: Invite, common: &Common) -> Result<Exit, Failure> {
    if verb.hostname.is_some() && verb.replace.is_some() {
        return Err(Failure::usage("--replace names the host already").hint("leave --hostname out"));
    }
    let replace = verb.replace.is_some();
    let mut body = json!({"replace": replace});
    if let Some(hostname) = verb.replace.or(verb.hostname) {
        body["hostname"] = json!(hostname);
    }
    if let Some(ttl) = verb.ttl {
        body["ttl"] = json!(ttl);
    }
    let answer = post(common, "/api/v1/tokens", &body)?;
    if common.json() {
        return print(&format!("{answer}\n")).map(|()| Exit::Done);
    }
    let text = |key: &str| answer[key].as_str().unwrap_or_default().to_string();
    let good = human_duration(answer["ttl_ms"].as_u64().unwrap_or(0));
    let out = format!(
        "Good for one host, for {good}. Where the agent is installed already:\n\n  {}\n\nWhere it is not:\n\n  {}\n",
        text("enroll"),
        text("bootstrap")
    );
    print(&out).map(|()| Exit::Done)
}

fn rebootstrap(verb: Rebootstrap, common: &Common) -> Result<Exit, Failure> {
    let path = one_or_all(verb.envoy.as_deref(), verb.all, "rebootstrap")?;
    let mut body = json!({});
    for (key, value) in
        [("address", verb.address), ("identity_key", verb.identity_key), ("policy_key", verb.policy_key)]
    {
        if let Some(value) = value {
            body[key] = json!(value);
        }
    }
    if let Some(file) = verb.ca_file {
        let pem = std::fs::read_to_string(&file).map_err(|error| {
            Failure::failed(format!("{}: {error}", file.display())).hint("name the PEM file of the CA")
        })?;
        body["ca_pem"] = json!(pem);
    }
    let who = verb.envoy.as_deref().unwrap_or("every envoy");
    confirm(common, &format!("move {who} to {}", body["address"].as_str().unwrap_or("this server's present keys")))?;
    reached(common, &post(common, &path, &body)?)
}

pub(super) fn traits(verb: Traits, common: &Common) -> Result<Exit, Failure> {
    let answer = get(common, &format!("/api/v1/envoys/{}/traits", encode(&verb.envoy)))?;
    let value = trait_keys::find(&answer["traits"], verb.path.as_deref().unwrap_or_default())
        .map_err(|(what, cure)| Failure::failed(what).hint(cure))?;
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    print(&format!("{text}\n")).map(|()| Exit::Done)
}
