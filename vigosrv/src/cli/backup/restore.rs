//! `vigocli backup restore`: unpack, look, say what will differ, and then all together or not at all.

use std::path::{Path, PathBuf};

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure, Progress, ROOT, confirm, print};
use common::sys::Lock;
use common::units::human_bytes;
use serde_json::{Value, json};

use super::password::Password;
use super::{host, scratch, stamp};
use crate::backup::{
    self, Choice, Finding, Host, Looked, Part, Plan, Restoration, Scratch, Weight, free_root, parse_parts,
};
use crate::config::lock_root;

/// Restores an archive into a server root. The old state is taken aside, and comes back if anything fails.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "restore", example = "{command_name} vigo.tar.gz --target /srv/vigo")]
pub(super) struct Restore {
    /// the archive
    #[argh(positional)]
    file: Option<PathBuf>,
    /// the database alone, out of the replica that backup.url names
    #[argh(switch)]
    from_litestream: bool,
    /// with --from-litestream: the state of this moment, such as 2027-01-31T12:00:00Z (default: the newest)
    #[argh(option)]
    pub timestamp: Option<String>,
    /// the server root to restore into (default: --root)
    #[argh(option)]
    pub target: Option<PathBuf>,
    /// the database only, with the keys and secrets that are there
    #[argh(switch)]
    db_only: bool,
    /// only these parts: db,stacks,secrets,tls,bolt,license,config
    #[argh(option)]
    only: Option<String>,
    /// all parts but these
    #[argh(option)]
    without: Option<String>,
    /// do all checks, say what would happen, and write nothing
    #[argh(switch)]
    dry_run: bool,
    /// refuse an archive that is not encrypted
    #[argh(switch)]
    decrypt: bool,
    /// leave a server for staging: loopback only, and nothing that reaches other systems
    #[argh(switch)]
    isolated: bool,
    /// read the password from a file
    #[argh(option)]
    password_file: Option<PathBuf>,
}

pub(super) fn run(verb: &Restore, common: &Common) -> Result<Exit, Failure> {
    let choice = choice(verb)?;
    let root = target(verb, common)?;
    if verb.from_litestream {
        plain(verb)?;
        return super::replica::restore(verb, common);
    }
    let Some(file) = verb.file.as_deref() else {
        return Err(Failure::usage("name an archive, or `--from-litestream`"));
    };
    if verb.timestamp.is_some() {
        return Err(Failure::usage("`--timestamp` goes with `--from-litestream`"));
    }
    let host = host();
    let password = Password { file: verb.password_file.clone() };
    if verb.decrypt {
        encrypted_only(file)?;
    }
    if verb.dry_run {
        let plan = unpack(file, Scratch::new(scratch(file))?, &password, &root, &choice, verb.isolated, &host)?;
        return dry_run(&plan, file, &host, common);
    }
    // Before anything is read: a server that runs is told of first.
    let fresh = !root.exists();
    let begun = begin(&root, common, file);
    let done = begun.and_then(|_lock| {
        let plan = unpack(file, Scratch::new(free_root(&root))?, &password, &root, &choice, verb.isolated, &host)?;
        let looked = backup::look(&plan.staged, file)?;
        blocked(&plan.findings(&host, &looked))?;
        let restored = backup::apply(&plan, file, &stamp())?;
        Ok((plan, looked, restored))
    });
    match done {
        Ok((plan, looked, restored)) => told(&plan, &looked, &restored, &host, common),
        Err(failure) => {
            clear(&root, fresh);
            Err(failure)
        }
    }
}

/// A replica is a database and nothing else.
fn plain(verb: &Restore) -> Result<(), Failure> {
    let parts = verb.only.is_some() || verb.without.is_some() || verb.isolated || verb.dry_run || verb.decrypt;
    if parts || verb.file.is_some() || verb.password_file.is_some() {
        let text = "`--from-litestream` restores the database alone: it goes with `--timestamp` and `--target` only";
        return Err(Failure::usage(text));
    }
    Ok(())
}

fn choice(verb: &Restore) -> Result<Choice, Failure> {
    let parts = |text: &Option<String>| {
        text.as_deref().map(parse_parts).transpose().map_err(|why| Failure::usage(why).hint("see `--help`"))
    };
    let (mut only, without) = (parts(&verb.only)?, parts(&verb.without)?.unwrap_or_default());
    if verb.db_only {
        if only.is_some() {
            return Err(Failure::usage("`--db-only` and `--only` say the same in two ways: take one"));
        }
        only = Some([Part::Db].into());
    }
    Ok(Choice { only, without })
}

/// The root, absolute: it is written into messages and compared with the one in the archive.
fn target(verb: &Restore, common: &Common) -> Result<PathBuf, Failure> {
    if verb.target.is_some() && common.path(&ROOT).is_some() {
        return Err(Failure::usage("`--target` and `--root` say the same: take one"));
    }
    let root = verb.target.clone().unwrap_or_else(|| crate::cli::root(common));
    std::path::absolute(&root).map_err(|error| Failure::failed(format!("{}: {error}", root.display())))
}

fn encrypted_only(file: &Path) -> Result<(), Failure> {
    use std::io::Read;
    let cannot = |error: std::io::Error| Failure::failed(format!("cannot read {}: {error}", file.display()));
    let mut head = Vec::new();
    std::fs::File::open(file).map_err(cannot)?.take(8).read_to_end(&mut head).map_err(cannot)?;
    if backup::is_encrypted(&head) {
        return Ok(());
    }
    Err(Failure::failed(format!("{} is not encrypted, and `--decrypt` was given", file.display()))
        .hint("is it the archive that you meant? Without `--decrypt` it is restored as it is"))
}

/// The root for this process alone, and the consent of the operator.
fn begin(root: &Path, common: &Common, file: &Path) -> Result<Lock, Failure> {
    if root.exists() && !root.is_dir() {
        return Err(Failure::failed(format!("{} is no directory", root.display())));
    }
    let lock = lock_root(root, "vigocli backup restore")?;
    let used = ["db", "tls", "secrets", "stacks"]
        .iter()
        .any(|name| std::fs::read_dir(root.join(name)).is_ok_and(|mut entries| entries.next().is_some()));
    if used {
        let what =
            format!("replace what {} holds with {}; the old state is kept beside it", root.display(), file.display());
        confirm(common, &what)?;
    }
    Ok(lock)
}

fn unpack(
    file: &Path,
    dir: Scratch,
    password: &Password,
    root: &Path,
    choice: &Choice,
    isolated: bool,
    host: &Host,
) -> Result<Plan, Failure> {
    let mut progress = Progress::new("unpacking");
    let mut asker = password.asker(file.to_path_buf());
    // The configuration and the secrets that it may refer to say where the rest goes.
    let wanted = |_: &backup::Manifest, part| choice.takes(part);
    let staged = backup::stage(file, dir, &mut asker, &wanted, &mut |done, total| progress.show(done, total))?;
    Ok(backup::prepare(staged, root, choice, isolated, host)?)
}

fn blocked(findings: &[Finding]) -> Result<(), Failure> {
    match findings.iter().find(|finding| finding.weight == Weight::Blocks) {
        Some(finding) => Err(Failure::failed(finding.what.clone()).hint(finding.cure.clone())),
        None => Ok(()),
    }
}

fn dry_run(plan: &Plan, file: &Path, host: &Host, common: &Common) -> Result<Exit, Failure> {
    let looked = backup::look(&plan.staged, file)?;
    let mut findings = plan.findings(host, &looked);
    if crate::cli::http::running(&plan.layout.root) {
        findings.push(Finding {
            weight: Weight::Blocks,
            what: format!("a server runs on {}", plan.layout.root.display()),
            cure: "stop it, or restore into another directory with `--isolated`".into(),
        });
    }
    let blocked = findings.iter().any(|finding| finding.weight == Weight::Blocks);
    let text = if common.json() {
        let document = json!({
            "schema": 1, "target": plan.layout.root, "possible": !blocked, "findings": rows(&findings),
        });
        format!("{document}\n")
    } else {
        let verdict = if blocked { "it would fail" } else { "it can be restored" };
        format!("{}{verdict}; nothing was written\n", lines(&findings))
    };
    print(&text)?;
    Ok(if blocked { Exit::Failed } else { Exit::Done })
}

fn told(plan: &Plan, looked: &Looked, done: &Restoration, host: &Host, common: &Common) -> Result<Exit, Failure> {
    let findings: Vec<Finding> =
        plan.findings(host, looked).into_iter().filter(|finding| finding.weight == Weight::Differs).collect();
    let root = plan.layout.root.display();
    if common.json() {
        let document = json!({
            "schema": 1, "target": plan.layout.root, "files": done.files, "bytes": done.bytes, "kept": done.kept,
            "parts": plan.parts.iter().map(|part| part.name()).collect::<Vec<_>>(), "isolated": plan.isolated,
            "findings": rows(&findings),
        });
        return print(&format!("{document}\n")).map(|()| Exit::Done);
    }
    let mut text = format!("restored {} files, {}, to {root}\n", done.files, human_bytes(done.bytes));
    if let Some(kept) = &done.kept {
        text += &format!("the state from before is in {}\n", kept.display());
    }
    text += &lines(&findings);
    text += &match (plan.isolated, plan.parts.contains(&Part::Stacks)) {
        (true, _) => format!("it is isolated: `vigosrv serve --root {root}` listens on loopback only\n"),
        (false, true) => format!(
            "next: `vigocli config publish --root {root}`, then start the server; until something is published, envoys keep \
             what they have\n"
        ),
        (false, false) => "next: start the server\n".to_string(),
    };
    print(&text).map(|()| Exit::Done)
}

fn rows(findings: &[Finding]) -> Vec<Value> {
    let row = |finding: &Finding| json!({"weight": finding.weight.name(), "what": finding.what, "cure": finding.cure});
    findings.iter().map(row).collect()
}

fn lines(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let cure = if finding.cure.is_empty() { String::new() } else { format!(": {}", finding.cure) };
        format!("{:<8} {}\n", finding.weight.name(), common::cli::one_line(&(finding.what.clone() + &cure)))
    };
    findings.iter().map(line).collect()
}

/// Nothing was replaced: what was unpacked goes, and a root that this made too.
fn clear(root: &Path, fresh: bool) {
    let _ = std::fs::remove_dir(root.join(".restore"));
    if fresh {
        let _ = std::fs::remove_file(root.join("run/lock"));
        let _ = std::fs::remove_dir(root.join("run"));
        let _ = std::fs::remove_dir(root);
    }
}
