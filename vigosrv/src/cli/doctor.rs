//! `vigocli doctor`: looks at everything that can be looked at from outside, and says what to do. Exit codes of a monitoring
//! plugin.

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure, Style, color_wanted, paint, print};
use common::crypto::KEY_FILE_BYTES_MAX;
use common::sys::{Clock, file};
use serde_json::{Value, json};

use super::http::get;
use super::status::{replica_in_words, replica_is_bad};
use crate::api::TARGETS;
use crate::backup;
use crate::config::ServerConfig;
use crate::keys;
use crate::publish;
use crate::store::{check_log, check_whole};

/// Free space below which the database will soon refuse results.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// Checks configuration, keys, policy, space and the running server. Exit status: 0 good, 1 warnings, 2 errors.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "doctor", example = "{command_name} --json")]
pub(super) struct Doctor {}

struct Finding {
    check: &'static str,
    grade: Grade,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Good,
    Warning,
    Error,
}

pub(super) fn run(_: Doctor, common: &Common) -> Result<Exit, Failure> {
    let root = super::root(common);
    let mut findings = Vec::new();
    let mut add = |check, grade, text: String| findings.push(Finding { check, grade, text });
    match super::config(common) {
        Ok(_) => add("configuration", Grade::Good, "valid".into()),
        Err(failure) => add("configuration", Grade::Error, failure.what),
    }
    for name in ["secrets/.master.key", "tls/ca_key", "tls/key", "tls/identity_key", "tls/policy_key"] {
        let path = root.join(name);
        if !path.exists() {
            add("keys", Grade::Error, format!("{} is missing: restore it from a backup", path.display()));
        } else if let Err(error) = file::check_private(&path) {
            add("keys", Grade::Error, error.to_string());
        } else {
            add("keys", Grade::Good, format!("{name} is there and private"));
        }
    }
    if let Ok(config) = super::config(common) {
        match config.secrets().open() {
            Ok(opened) if opened.unusable().next().is_none() => {
                add("secrets", Grade::Good, format!("{} open", opened.vault.len()))
            }
            Ok(opened) => {
                let names: Vec<&str> = opened.unusable().collect();
                let text = format!(
                    "these do not open, set them again with `vigocli secrets set PATH`, or bring their key back with `vigocli \
                     secrets key import KIT`: {}",
                    names.join(", ")
                );
                add("secrets", Grade::Error, text);
            }
            Err(error) => add("secrets", Grade::Error, error.to_string()),
        }
    }
    if let Ok(config) = super::config(common) {
        backups(&config, &mut add);
    }
    match (publish::live_tree(&root), publish::validate(&root)) {
        (Err(error), _) => add("policy", Grade::Error, error.to_string()),
        (Ok(None), _) => {
            add(
                "policy",
                Grade::Warning,
                "nothing is published: envoys keep what they have; `vigocli config publish`".into(),
            );
        }
        (Ok(Some(live)), Ok(compiled)) if compiled.tree_hash() != live => {
            add("policy", Grade::Warning, "stacks/ differs from what is published: `vigocli config publish`".into());
        }
        (Ok(Some(_)), Ok(_)) => add("policy", Grade::Good, "stacks/ is published".into()),
        (Ok(Some(_)), Err(error)) => {
            let first = error.to_string();
            let first = first.lines().next().unwrap_or_default();
            add("policy", Grade::Warning, format!("stacks/ cannot be published: {first}"));
        }
    }
    let free = backup::free_bytes(&root);
    let grade = if free.is_some_and(|free| free < FREE_BYTES_MIN) { Grade::Warning } else { Grade::Good };
    if let Some(free) = free {
        add("space", grade, format!("{} free", common::units::human_bytes(free)));
    }
    if !TARGETS.iter().any(|(_, name)| root.join("agents").join(name).is_file()) {
        add("agents", Grade::Warning, "no agent binary can be installed from here: `vigocli agents add FILE`".into());
    }
    match get(common, "/api/v1/status") {
        Ok(status) => server(&status, &mut add),
        Err(failure) => {
            add("server", Grade::Warning, failure.what);
            // With a server running it is the server's to say: it checks after every shutdown that was not clean.
            match super::config(common).map(|config| config.database) {
                Ok(database) if database.is_file() => {
                    match check_log(&database).and_then(|()| check_whole(&database)) {
                        Ok(()) => add("database", Grade::Good, "whole".into()),
                        Err(error) => add("database", Grade::Error, error.to_string()),
                    }
                }
                _ => {}
            }
        }
    }
    show(&findings, common)
}

fn backups(config: &ServerConfig, add: &mut dyn FnMut(&'static str, Grade, String)) {
    let health = backup::Health::of(&config.snapshots);
    let key = file::read_bounded(&config.master_key, KEY_FILE_BYTES_MAX).ok().map(|text| backup::key_id(&text));
    let warnings = health.warnings(&config.snapshots, key.as_deref(), Clock::system().now().wall);
    if warnings.is_empty() {
        let (name, _) = health.newest.unwrap_or_default();
        add("backups", Grade::Good, format!("{name} is the newest, and what is there was proved to be good"));
    }
    warnings.into_iter().for_each(|text| add("backups", Grade::Warning, text));
    if let Ok(public) = keys::recovery_public(config)
        && public.key.is_none()
    {
        let text = "there is no recovery key: after the loss of everything each envoy must be enrolled by hand; \
                    `vigocli secrets key export FILE --new-recovery-key`";
        add("backups", Grade::Warning, text.into());
    }
}

fn server(status: &Value, add: &mut dyn FnMut(&'static str, Grade, String)) {
    let is = |key: &str| status[key].as_bool() == Some(true);
    if is("stepped_down") {
        add("server", Grade::Error, "envoys have met a higher epoch: this server is read-only".into());
    }
    if is("disk_full") {
        add("server", Grade::Error, "the disk is full: results stay with the agents until there is room".into());
    }
    if let Some(damage) = status["database_damage"].as_str() {
        add("database", Grade::Error, damage.to_string());
    }
    if is("review") {
        add("server", Grade::Warning, "revocations may be lost in a restore: see `vigocli events`".into());
    }
    let envoys = &status["envoys"];
    add(
        "server",
        Grade::Good,
        format!("running, {envoys} envoys, epoch {}, serial {}", status["epoch"], status["serial"]),
    );
    let replica = &status["replica"];
    if replica.is_object() {
        let grade = if replica_is_bad(replica) { Grade::Warning } else { Grade::Good };
        add("replica", grade, replica_in_words(replica));
    }
    for note in status["notes"].as_array().into_iter().flatten() {
        add("server", Grade::Warning, note.as_str().unwrap_or_default().to_string());
    }
}

fn show(findings: &[Finding], common: &Common) -> Result<Exit, Failure> {
    let word = |grade| match grade {
        Grade::Good => "good",
        Grade::Warning => "warning",
        Grade::Error => "error",
    };
    let text = if common.json() {
        let rows: Vec<Value> = findings
            .iter()
            .map(|finding| json!({"check": finding.check, "grade": word(finding.grade), "text": finding.text}))
            .collect();
        format!("{}\n", json!({"schema": 1, "findings": rows}))
    } else {
        let line = |finding: &Finding| {
            let style = match finding.grade {
                Grade::Good => Style::Good,
                Grade::Warning => Style::Warn,
                Grade::Error => Style::Bad,
            };
            let grade = paint(&format!("{:<8}", word(finding.grade)), style, color_wanted());
            format!("{grade} {:<14} {}\n", finding.check, finding.text)
        };
        findings.iter().map(line).collect()
    };
    print(&text)?;
    Ok(match findings.iter().map(|finding| finding.grade).max() {
        Some(Grade::Error) => Exit::Other(2),
        Some(Grade::Warning) => Exit::Other(1),
        _ => Exit::Done,
    })
}
