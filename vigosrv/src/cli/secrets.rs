//! `vigocli secrets`: sets and reads the secrets of a root, with a server running or not. Values come from a file, from standard
//! input or from a prompt, never from the command line.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure, ask_hidden, confirm, print};
use common::limits;
use common::rng::SystemRng;
use common::sys::{Clock, file};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::http::{post, running};
use super::{config_for_secrets, kit, root};
use crate::boot;
use crate::keys;
use crate::secrets::{Opened, Place, SecretError};

/// Sets, shows and rotates the secrets that policy refers to.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "secrets", example = "{command_name} set prod/db/password")]
pub(super) struct Secrets {
    #[argh(subcommand)]
    verb: SecretsVerb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum SecretsVerb {
    Set(Set),
    Get(Get),
    List(List),
    Rm(Rm),
    Rotate(Rotate),
    Check(Check),
    Key(kit::Key),
}

/// Sets a secret to what comes by standard input or a prompt, without its last line break.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "set", example = "{command_name} prod/db/password < password.txt")]
struct Set {
    /// such as prod/db/password
    #[argh(positional)]
    path: String,
    /// read the value from here, exactly as it is
    #[argh(option)]
    file: Option<PathBuf>,
}

/// Prints the value of a secret, exactly as it is.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "get", example = "{command_name} prod/db/password")]
struct Get {
    /// such as prod/db/password
    #[argh(positional)]
    path: String,
}

/// Lists paths and versions, never values.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "list", example = "{command_name}")]
struct List {}

/// Removes a secret. Envoys that have it go on with it; a policy that refers to it is not published again.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "rm", example = "{command_name} prod/db/password")]
struct Rm {
    /// such as prod/db/password
    #[argh(positional)]
    path: String,
}

/// Encrypts every secret under a new master key. The values stay, and no envoy notices.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "rotate", example = "{command_name}")]
struct Rotate {}

/// Opens every secret, and names those that do not open.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "check", example = "{command_name} --json")]
struct Check {}

pub(super) fn run(verb: Secrets, common: &Common) -> Result<Exit, Failure> {
    let config = config_for_secrets(common)?;
    let place = config.secrets();
    match verb.verb {
        SecretsVerb::Set(verb) => {
            let value = value(&verb)?;
            keys::prepare_master(&config, &mut SystemRng::default())?;
            let now = Clock::system().now().wall;
            place.set(&verb.path, &value, now, &mut SystemRng::default()).map_err(failed)?;
            told(&format!("set {}", verb.path), &settle(common)?, common)
        }
        SecretsVerb::Get(verb) => {
            let secret = place.get(&verb.path).map_err(failed)?;
            // Set as text, so it is text.
            let text = Zeroizing::new(String::from_utf8_lossy(&secret.value).into_owned());
            if common.json() {
                let document = json!({"schema": 1, "path": verb.path, "version": secret.version, "value": *text});
                return print(&format!("{document}\n")).map(|()| Exit::Done);
            }
            print(&text).map(|()| Exit::Done)
        }
        SecretsVerb::List(_) => list(&place, common),
        SecretsVerb::Rm(verb) => {
            confirm(common, &format!("remove the secret {}", verb.path))?;
            place.remove(&verb.path).map_err(failed)?;
            told(&format!("removed {}", verb.path), &settle(common)?, common)
        }
        SecretsVerb::Rotate(_) => {
            let n = place.rotate(&mut SystemRng::default()).map_err(failed)?;
            let text = if common.json() {
                format!("{}\n", json!({"schema": 1, "encrypted": n}))
            } else {
                format!("{n} secrets are encrypted under a new master key; export it anew for your recovery kit\n")
            };
            print(&text).map(|()| Exit::Done)
        }
        SecretsVerb::Check(_) => check(&place, common),
        SecretsVerb::Key(verb) => kit::run(verb, &config, common),
    }
}

pub(super) fn failed(error: SecretError) -> Failure {
    let exit = match error {
        SecretError::Busy(_) => Exit::TryAgain,
        SecretError::Path(_) | SecretError::Value(_) => Exit::Usage,
        _ => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}

fn value(verb: &Set) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let cannot = |error: &dyn std::fmt::Display| Failure::failed(format!("the value cannot be read: {error}"));
    if let Some(path) = &verb.file {
        return file::read_bounded(path, limits::SECRET_BYTES_MAX as u64).map(Zeroizing::new).map_err(|e| cannot(&e));
    }
    let mut value = Zeroizing::new(Vec::new());
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        let text = ask_hidden(&format!("value of {}: ", verb.path)).map_err(|e| cannot(&e))?;
        value.extend_from_slice(text.as_bytes());
    } else {
        stdin.lock().take(limits::SECRET_BYTES_MAX as u64 + 2).read_to_end(&mut value).map_err(|e| cannot(&e))?;
    }
    if value.ends_with(b"\n") {
        value.pop();
    }
    Ok(value)
}

/// Gives the envoys that the change concerns a new serial.
pub(super) fn settle(common: &Common) -> Result<Value, Failure> {
    if running(&root(common)) {
        post(common, "/api/v1/secrets/changed", &json!({}))
    } else {
        boot::settle_secrets_offline(&config_for_secrets(common)?)
    }
}

fn told(what: &str, answer: &Value, common: &Common) -> Result<Exit, Failure> {
    let text = match (common.json(), answer["envoys"].as_u64().unwrap_or(0)) {
        (true, _) => format!("{answer}\n"),
        (false, 0) => format!("{what}; no envoy's policy refers to it\n"),
        (false, n) => format!("{what}; {n} envoys get it at their next check-in\n"),
    };
    print(&text).map(|()| Exit::Done)
}

fn list(place: &Place, common: &Common) -> Result<Exit, Failure> {
    let opened = place.open().map_err(failed)?;
    if common.json() {
        let all = opened.vault.versions().map(|(path, version)| json!({"path": path, "version": version}));
        let document = json!({"schema": 1, "secrets": all.collect::<Vec<_>>(), "bad": problems(&opened)});
        return print(&format!("{document}\n")).map(|()| Exit::Done);
    }
    let good = opened.vault.versions().map(|(path, version)| format!("{path}  (version {version})\n"));
    let bad = opened.problems().map(|(path, why)| format!("{path}  DOES NOT OPEN: {why}\n"));
    let text: String = good.chain(bad).collect();
    print(if text.is_empty() { "no secrets\n" } else { &text }).map(|()| Exit::Done)
}

fn check(place: &Place, common: &Common) -> Result<Exit, Failure> {
    let opened = place.open().map_err(failed)?;
    let (n, n_bad) = (opened.vault.len(), opened.unusable().count());
    let text = if common.json() {
        format!("{}\n", json!({"schema": 1, "open": n, "bad": problems(&opened)}))
    } else {
        let line = |path: &str, why: &str| format!("{path}: {why}; set it again with `vigocli secrets set {path}`\n");
        let bad = opened.problems().map(|(path, why)| line(path, &why));
        let cure = if n_bad == 0 { "" } else { "with their key they come back: `vigocli secrets key import KIT`\n" };
        format!("{n} secrets open, {n_bad} do not\n") + &bad.collect::<String>() + cure
    };
    print(&text)?;
    Ok(if n_bad == 0 { Exit::Done } else { Exit::Failed })
}

fn problems(opened: &Opened) -> Vec<Value> {
    opened.problems().map(|(path, why)| json!({"path": path, "problem": why})).collect()
}
