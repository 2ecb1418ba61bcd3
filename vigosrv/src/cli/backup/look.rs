//! `vigocli backup inspect`, `verify`, `list` and `download`.

use std::path::{Path, PathBuf};

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure, Progress, Table, color_wanted, print};
use common::sys::Clock;
use common::time::Wall;
use common::units::{human_bytes, nearest};
use serde_json::{Value, json};

use super::password::Password;
use super::{host, scratch};
use crate::api::archive_document;
use crate::backup::{self, Archive, Looked, Manifest, PARTS, Proof, Proofs, Scratch, Sidecar};
use crate::cli::{config_for_secrets, root};

/// Prints what an archive says of itself, without unpacking it.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "inspect", example = "{command_name} vigo.tar.gz --table")]
pub(super) struct Inspect {
    /// the archive
    #[argh(positional)]
    file: PathBuf,
    /// for people
    #[argh(switch)]
    table: bool,
    /// read the password from a file
    #[argh(option)]
    password_file: Option<PathBuf>,
}

/// Checks everything that can be checked of an archive. Exit status: 0 good, 1 with warnings, 2 not to be restored.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "verify", example = "{command_name} vigo.tar.gz")]
pub(super) struct Verify {
    /// the archive
    #[argh(positional)]
    file: PathBuf,
    /// read the password from a file
    #[argh(option)]
    password_file: Option<PathBuf>,
}

/// Lists the archives in paths.snapshots.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "list", example = "{command_name}")]
pub(super) struct List {}

/// Copies an archive out of paths.snapshots, with its .sha256.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "download", example = "{command_name} vigo-backup-2026-11-21T020000Z.tar.gz -o /mnt/usb/")]
pub(super) struct Download {
    /// name of the archive
    #[argh(positional)]
    name: String,
    /// where to; a directory, or a file that is not there (default: here)
    #[argh(option, short = 'o')]
    output: Option<PathBuf>,
}

pub(super) fn inspect(verb: &Inspect, common: &Common) -> Result<Exit, Failure> {
    let password = Password { file: verb.password_file.clone() };
    let manifest = backup::inspect(&verb.file, &mut password.asker(verb.file.clone()))?;
    if verb.table && !common.json() {
        return print(&table(&manifest)).map(|()| Exit::Done);
    }
    let text = String::from_utf8_lossy(&manifest.encode()).into_owned();
    print(&text).map(|()| Exit::Done)
}

fn table(manifest: &Manifest) -> String {
    let mut text = format!(
        "made      {} on {} by version {}\nroot      {}\nserver    {}\n",
        manifest.created, manifest.hostname, manifest.version, manifest.root, manifest.server_id
    );
    if let Some(facts) = &manifest.database {
        text += &format!(
            "database  {} envoys, epoch {}, serial {}, schema {}\n",
            facts.envoys, facts.epoch, facts.serial, facts.schema
        );
    }
    let mut table = Table::new(&["PART", "FILES", "BYTES"]).right(1).right(2);
    for part in PARTS {
        let (n, bytes) = manifest.members_of(part).fold((0, 0), |(n, bytes), member| (n + 1, bytes + member.size));
        if n > 0 {
            table.row([part.name().to_string(), n.to_string(), human_bytes(bytes)]);
        }
    }
    text += &table.render(color_wanted());
    for skipped in &manifest.skipped {
        text += &format!("not archived: {}\n", common::cli::one_line(skipped));
    }
    text
}

pub(super) fn verify(verb: &Verify, common: &Common) -> Result<Exit, Failure> {
    let (archive, looked) = match check(&verb.file, &Password { file: verb.password_file.clone() }) {
        Ok(found) => found,
        Err(failure) if common.json() => {
            let document = json!({"schema": 1, "file": verb.file, "grade": "error", "problem": failure.what});
            print(&format!("{document}\n"))?;
            return Ok(Exit::Other(2));
        }
        Err(failure) => return Err(Failure { exit: Exit::Other(2), ..failure }),
    };
    let mut warnings = looked.warnings.clone();
    if archive.sidecar == Sidecar::Missing {
        warnings.push("there is no .sha256 beside it: whether the file is the one that was made cannot be told".into());
    }
    warnings.extend(looked.closed.iter().map(|(name, why)| format!("the secret {name} does not open: {why}")));
    warnings.extend(archive.manifest.skipped.iter().map(|skipped| format!("not archived: {skipped}")));
    note_proof(&archive, &verb.file, "verify", common);
    let grade = if warnings.is_empty() { "good" } else { "warning" };
    let facts = archive.manifest.database.as_ref();
    let text = if common.json() {
        let document = json!({
            "schema": 1, "file": verb.file, "grade": grade, "warnings": warnings, "sha256": archive.sha256,
            "encrypted": archive.encrypted, "members": archive.manifest.members.len(),
            "envoys": facts.map(|facts| facts.envoys), "secrets": looked.secrets,
        });
        format!("{document}\n")
    } else {
        let lines: String = warnings.iter().map(|line| format!("warning: {}\n", common::cli::one_line(line))).collect();
        let envoys = facts.map_or(0, |facts| facts.envoys);
        let n = archive.manifest.members.len();
        format!("{lines}{grade}: {n} members, database whole with {envoys} envoys, {} secrets open\n", looked.secrets)
    };
    print(&text)?;
    Ok(if warnings.is_empty() { Exit::Done } else { Exit::Other(1) })
}

/// Unpacks an archive into a scratch directory, looks at it, and removes it again.
fn check(file: &Path, password: &Password) -> Result<(Archive, Looked), Failure> {
    let dir = Scratch::new(scratch(file))?;
    let mut progress = Progress::new("verifying");
    let mut asker = password.asker(file.to_path_buf());
    let staged = backup::stage(file, dir, &mut asker, &|_, _| true, &mut |done, total| progress.show(done, total))?;
    let looked = backup::look(&staged, file)?;
    Ok((staged.archive, looked))
}

/// Metrics and `doctor` of the server on this host say when an archive of it was proved last. An archive that is looked at
/// elsewhere is proved all the same.
pub(super) fn note_proof(archive: &Archive, file: &Path, kind: &str, common: &Common) {
    let Ok(config) = config_for_secrets(common) else { return };
    let root = root(common);
    let own = backup::server_id_of(&root.join("tls")).ok();
    if !root.is_dir() || own.is_some_and(|own| own != archive.manifest.server_id) {
        return;
    }
    let proof = Proof {
        archive: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        sha256: archive.sha256.clone(),
        kind: kind.to_string(),
        at: Clock::system().now().wall.to_string(),
        master_key_id: archive.manifest.master_key_id.clone(),
    };
    if let Err(error) = Proofs::add(&config.snapshots, proof) {
        eprintln!("vigocli: that it is good cannot be noted on {}: {error}", host().hostname);
    }
}

pub(super) fn list(common: &Common) -> Result<Exit, Failure> {
    let config = config_for_secrets(common)?;
    let all = backup::list(&config.snapshots)?;
    let proofs = Proofs::read(&config.snapshots).proofs;
    let proved = |name: &str| proofs.iter().rev().find(|proof| proof.archive == name).map(|proof| proof.at.clone());
    if common.json() {
        let rows: Vec<Value> = all.iter().map(|one| archive_document(one, &proofs)).collect();
        let document = json!({"schema": 1, "directory": config.snapshots, "archives": rows});
        return print(&format!("{document}\n")).map(|()| Exit::Done);
    }
    if all.is_empty() {
        return print(&format!("no archives in {}\n", config.snapshots.display())).map(|()| Exit::Done);
    }
    let mut table = Table::new(&["NAME", "BYTES", "WRITTEN", "PROVED"]).right(1);
    for one in &all {
        let proved = proved(&one.name).unwrap_or_else(|| "never".to_string());
        table.row([one.name.clone(), human_bytes(one.bytes), Wall(one.modified_ms).to_string(), proved]);
    }
    print(&table.render(color_wanted())).map(|()| Exit::Done)
}

pub(super) fn download(verb: &Download, common: &Common) -> Result<Exit, Failure> {
    let config = config_for_secrets(common)?;
    let all = backup::list(&config.snapshots)?;
    if !all.iter().any(|one| one.name == verb.name) {
        let near = nearest(&verb.name, all.iter().map(|one| one.name.as_str()));
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`vigocli backup list` shows all".to_string(),
        };
        let text = format!("there is no archive `{}` in {}", verb.name, config.snapshots.display());
        return Err(Failure::failed(text).hint(hint));
    }
    let output = verb.output.clone().unwrap_or_else(|| PathBuf::from("."));
    let target = if output.is_dir() { output.join(&verb.name) } else { output };
    let from = config.snapshots.join(&verb.name);
    copy_new(&from, &target)?;
    let sidecar = backup::sidecar_path(&from);
    if sidecar.is_file() {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let text = std::fs::read_to_string(&sidecar).map_err(|error| cannot("read", &sidecar, &error))?;
        let hash = text.split_whitespace().next().unwrap_or_default();
        common::sys::file::write_new(
            &backup::sidecar_path(&target),
            format!("{hash}  {name}\n").as_bytes(),
            0o600,
            None,
        )
        .map_err(|error| Failure::failed(error.to_string()))?;
    }
    print(&format!("wrote {}\n", target.display())).map(|()| Exit::Done)
}

/// Never over a file that is there; nothing is left of a copy that failed.
fn copy_new(from: &Path, to: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut source = std::fs::File::open(from).map_err(|error| cannot("read", from, &error))?;
    let mut options = std::fs::File::options();
    let mut target =
        options.write(true).create_new(true).mode(0o600).open(to).map_err(|error| cannot("write", to, &error))?;
    let copied = std::io::copy(&mut source, &mut target).and_then(|_| target.sync_all());
    copied.map_err(|error| {
        let _ = std::fs::remove_file(to);
        cannot("write", to, &error)
    })
}

fn cannot(action: &'static str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(common::sys::FileError::new(action, path, error).to_string())
}
