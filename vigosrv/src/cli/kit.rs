//! `vigocli secrets key`: the recovery kit, out of a server and into one. Neither a value nor a private key is ever printed.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure, confirm, print};
use common::rng::SystemRng;
use common::sys::{Clock, file};
use serde_json::json;

use super::secrets::{failed, settle};
use crate::config::ServerConfig;
use crate::keys::{self, Kit, KitError, Surroundings};
use crate::store::read::Reader;

/// Works on the master key and the recovery kit.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "key", example = "{command_name} export kit.txt")]
pub(super) struct Key {
    #[argh(subcommand)]
    verb: KeyVerb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum KeyVerb {
    Export(Export),
    Import(Import),
}

/// Writes the recovery kit to a new file (0600), to be kept offline: master key and fingerprints of this server.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "export", example = "{command_name} kit.txt --new-recovery-key")]
struct Export {
    /// the file to write; it must not be there
    #[argh(positional)]
    file: PathBuf,
    /// also a fresh recovery key, by which a rebuilt server gets its envoys back; its private half goes into this kit only
    #[argh(switch)]
    new_recovery_key: bool,
    /// kit with the present recovery key, which must vouch for the new one before envoys that have it
    #[argh(option)]
    old_kit: Option<PathBuf>,
}

/// Puts the master key of a kit (or of a bare key file) in place, and takes back the secrets that were lost without it.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "import", example = "{command_name} kit.txt")]
struct Import {
    /// the kit
    #[argh(positional)]
    file: PathBuf,
}

pub(super) fn run(verb: Key, config: &ServerConfig, common: &Common) -> Result<Exit, Failure> {
    match verb.verb {
        KeyVerb::Export(verb) => export(&verb, config, common),
        KeyVerb::Import(verb) => import(&verb, config, common),
    }
}

fn export(verb: &Export, config: &ServerConfig, common: &Common) -> Result<Exit, Failure> {
    let epoch = epoch(config)?;
    let before = keys::recovery_public(config)?;
    let old = verb.old_kit.as_deref().map(Kit::read).transpose().map_err(kit_failure)?.and_then(|kit| kit.recovery);
    if verb.new_recovery_key && before.key.is_some() && old.as_ref().map(|key| key.public()) != before.key {
        confirm(
            common,
            "make a recovery key that no kit vouches for: envoys that have the present one keep it (say --old-kit KIT)",
        )?;
    }
    let now = Clock::system().now().wall;
    let hostname = Surroundings::of_host(config, now).hostname;
    let recovery = verb.new_recovery_key.then(|| keys::new_recovery_key(&mut SystemRng::default()));
    let kit = keys::make_kit(config, hostname, epoch, now, recovery).map_err(|error| {
        Failure::from(error).hint("the keys are made by the first start of the server, or by `vigocli config publish`")
    })?;
    let cannot = |error: common::sys::FileError| Failure::failed(error.to_string());
    file::write_new(&verb.file, kit.text().as_bytes(), 0o600, None).map_err(cannot)?;
    // The private half is safe first: a public one that nobody can sign for would only mislead.
    if let Some(recovery) = &kit.recovery {
        keys::put_recovery_public(config, &recovery.public(), old.as_ref())?;
    }
    let has = if kit.recovery.is_some() { "the master key and a new recovery key" } else { "the master key" };
    let text = if common.json() {
        let (file, id) = (verb.file.display().to_string(), kit.server_id().to_string());
        format!("{}\n", json!({"schema": 1, "file": file, "server_id": id, "recovery_key": kit.recovery.is_some()}))
    } else {
        let learn = match (&kit.recovery, before.key) {
            (Some(_), _) => {
                "\nenvoys learn the recovery key when they connect after the next start: restart the server\n"
            }
            (None, None) => {
                "\nthis server has no recovery key: after the loss of everything its envoys come back by hand only; \
                 --new-recovery-key makes one\n"
            }
            (None, Some(_)) => "\n",
        };
        format!("wrote {} with {has}: keep it where the server is not{learn}", verb.file.display())
    };
    print(&text).map(|()| Exit::Done)
}

fn import(verb: &Import, config: &ServerConfig, common: &Common) -> Result<Exit, Failure> {
    let key = Kit::read_master(&verb.file).map_err(kit_failure)?;
    keys::make_directories(config)?;
    let done = config.secrets().import(&key, &mut SystemRng::default()).map_err(failed)?;
    let answer = if done.back.is_empty() { json!({"envoys": 0}) } else { settle(common)? };
    let text = if common.json() {
        let envoys = &answer["envoys"];
        format!("{}\n", json!({"schema": 1, "encrypted": done.encrypted, "back": done.back, "envoys": envoys}))
    } else {
        let back = if done.back.is_empty() { "none was lost".into() } else { done.back.join(", ") };
        format!(
            "the master key is in place; {} secrets encrypted under it anew; taken back from .lost/: {back}\n",
            done.encrypted
        )
    };
    print(&text).map(|()| Exit::Done)
}

pub(super) fn kit_failure(error: KitError) -> Failure {
    Failure::new(Exit::BadConfig, error.to_string())
}

/// As the database of this root has it, with a server running or not.
pub(super) fn epoch(config: &ServerConfig) -> Result<u64, Failure> {
    if !config.database.exists() {
        return Ok(1);
    }
    let epoch = Reader::open(&config.database).and_then(|reader| reader.epoch());
    epoch.map_err(|error| Failure::failed(error.to_string()))
}
