//! `vigocli backup create`.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure, Progress, print};
use common::rng::SystemRng;
use common::sys::Clock;
use common::units::human_bytes;
use serde_json::json;

use super::password::Password;
use crate::backup::{self, Layout, Request};
use crate::cli::{SERVER_YAML, config_for_secrets};

/// Makes an archive of the server: database, policy, secrets, keys, configuration. The server may run.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "create", example = "{command_name} /mnt/safe/vigo.tar.gz --encrypt")]
pub(super) struct Create {
    /// the archive (default: vigo-backup-TIME.tar.gz in paths.snapshots)
    #[argh(positional)]
    file: Option<PathBuf>,
    /// encrypt it under a password
    #[argh(switch)]
    encrypt: bool,
    /// replace an archive of that name
    #[argh(switch)]
    force: bool,
    /// read the password from the first line of a file (else VIGO_BACKUP_PASSWORD, else a prompt)
    #[argh(option)]
    password_file: Option<PathBuf>,
}

pub(super) fn run(verb: &Create, common: &Common) -> Result<Exit, Failure> {
    let config = config_for_secrets(common)?;
    if !config.root.is_dir() {
        let text = format!("{} is no server root: it is not there", config.root.display());
        return Err(Failure::failed(text).hint("name the root with `--root DIR`"));
    }
    let file = verb.file.clone().unwrap_or_else(|| {
        let suffix = if verb.encrypt { ".enc" } else { "" };
        config.snapshots.join(format!("vigo-backup-{}.tar.gz{suffix}", super::stamp()))
    });
    if verb.password_file.is_some() && !verb.encrypt {
        return Err(Failure::usage("a password is given and `--encrypt` is not"));
    }
    let password = match verb.encrypt {
        true => Some(Password { file: verb.password_file.clone() }.choose()?),
        false => None,
    };
    let layout = Layout::of(&config, common.path(&SERVER_YAML).as_deref());
    let tls = config.root.join("tls");
    // A server that never started has no identity; what it has is archived all the same.
    let server_id = if tls.join("identity_key").exists() {
        backup::server_id_of(&tls).map_err(|why| Failure::failed(format!("{}: {why}", tls.display())))?
    } else {
        String::new()
    };
    let request = Request {
        layout: &layout,
        file: &file,
        force: verb.force,
        password: password.as_ref().map(|password| password.as_slice()),
        created: Clock::system().now().wall.to_string(),
        hostname: common::sys::net::hostname(),
        server_id,
    };
    let mut progress = Progress::new("archiving");
    let created = backup::create(&request, &mut SystemRng::default(), &mut |done, total| progress.show(done, total))?;
    drop(progress);
    let manifest = &created.manifest;
    for skipped in &manifest.skipped {
        eprintln!("vigocli: not archived: {}", common::cli::one_line(skipped));
    }
    if !verb.encrypt {
        eprintln!(
            "vigocli: the archive holds the keys and secrets of this server: keep it as safe as the server (or use --encrypt)"
        );
    }
    if common.json() {
        let document = json!({
            "schema": 1, "file": file, "bytes": created.bytes, "sha256": created.sha256, "encrypted": verb.encrypt,
            "members": manifest.members.len(), "envoys": manifest.database.as_ref().map(|facts| facts.envoys),
            "skipped": manifest.skipped,
        });
        return print(&format!("{document}\n")).map(|()| Exit::Done);
    }
    let envoys = match &manifest.database {
        Some(facts) => format!("{} envoys", facts.envoys),
        None => "no database".to_string(),
    };
    print(&format!(
        "wrote {} ({}): {} files, {envoys}\n",
        file.display(),
        human_bytes(created.bytes),
        manifest.members.len()
    ))?;
    Ok(Exit::Done)
}
