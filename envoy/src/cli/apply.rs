//! `vigo-envoy apply FILE`: converges a local `.vgo` file with no server and no state; queues nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use argh::{ArgsInfo, FromArgs};
use bytes::Bytes;
use common::bundle::Bundle;
use common::cli::{Common, Exit, Failure};
use common::crypto::sha256;
use common::ids::{Hash32, Uuid};
use common::limits;
use common::policy::compile_file;
use common::rng::SystemRng;
use common::sys::{Lock, LockError, file, net};
use common::yaml;

use super::run::{exit, show};
use crate::agent::RunOrder;
use crate::agent::status::{LastRunDocument, ResourceDocument, RunDocument, SCHEMA};
use crate::boot::Setup;
use crate::exec::{Blob, Blobs, RunInput, run as execute};
use crate::report::RunReport;
use crate::sys::child::StopFlag;
use crate::traits::Facts;

/// Converges a local file with no server at all.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "apply", example = "{command_name} site.vgo --dry-run --diff")]
pub(super) struct Apply {
    /// the file
    #[argh(positional)]
    file: PathBuf,
    /// change nothing, say what would change
    #[argh(switch)]
    dry_run: bool,
    /// show differences
    #[argh(switch)]
    diff: bool,
    /// exit with 0 nothing to do, 2 changed, 4 some failed, 6 both
    #[argh(switch)]
    detailed_exitcodes: bool,
}

/// Files that the policy names, in memory.
#[derive(Default)]
struct Files(BTreeMap<Hash32, Bytes>);

impl Blobs for Files {
    fn find(&self, hash: &Hash32) -> Option<Blob> {
        self.0.get(hash).cloned().map(Blob::Bytes)
    }
}

pub(super) fn run(verb: &Apply, setup: &Setup, common: &Common) -> Result<Exit, Failure> {
    let sysroot = setup.sysroot();
    let _lock = lock(sysroot.as_deref().unwrap_or(Path::new("/")))?;
    let (bundle, files) = load(&verb.file)?;
    let run_id = Uuid::random(&mut SystemRng::default());
    let facts =
        Facts { now: setup.clock.now(), serial: None, sysroot: sysroot.as_ref().map(|p| p.display().to_string()) };
    let gathered = setup.gatherer().gather(&facts, &StopFlag::default());
    for warning in &gathered.warnings {
        eprintln!("vigo-envoy: {warning}");
    }
    let order = RunOrder {
        run_id,
        bundle: Arc::new(bundle),
        secrets: Arc::default(),
        former_secrets: Arc::default(),
        traits: gathered.trees,
        hostname: net::hostname(),
        dry_run: verb.dry_run,
        diff: verb.diff,
        owed: Vec::new(),
    };
    let report = execute(&RunInput {
        order,
        uuid: Uuid::default(),
        live: sysroot.is_none(),
        search_path: None,
        sysroot,
        blobs: Arc::new(files),
        promises: None,
        undo: None,
        unseal: None,
        allow_self: setup.config.allow_self,
        protected: vec![setup.config.state_dir.clone(), setup.config.identity_dir.clone()],
        stop: Arc::new(StopFlag::default()),
        clock: setup.clock.clone(),
    });
    let document = document(&report, verb.dry_run);
    show(&document, common, verb.diff)?;
    Ok(exit(&document, verb.detailed_exitcodes))
}

/// One `apply` a sysroot at a time.
fn lock(sysroot: &Path) -> Result<Lock, Failure> {
    let own = sha256(&[sysroot.as_os_str().as_encoded_bytes()]).short();
    let dir = if nix::unistd::geteuid().is_root() { PathBuf::from("/run") } else { std::env::temp_dir() };
    let path = dir.join(format!("vigo-apply-{own:016x}-{}.lock", nix::unistd::geteuid()));
    Lock::take(&path, "vigo-envoy apply").map_err(|error| match error {
        LockError::Held { .. } => Failure::new(Exit::TryAgain, format!("another apply is at work here: {error}")),
        LockError::File(error) => Failure::failed(error.to_string()),
    })
}

/// The file and everything that it names, from beside it.
fn load(path: &Path) -> Result<(Bundle, Files), Failure> {
    let failed = |error: common::sys::FileError| Failure::failed(error.to_string());
    let bytes = file::read_bounded(path, limits::YAML_BYTES_MAX as u64).map_err(failed)?;
    let base = path.parent().unwrap_or(Path::new("."));
    let mut files = Files::default();
    let mut read = |name: &str| {
        let bytes = file::read_bounded(&base.join(name), limits::BLOB_BYTES_MAX).map_err(|error| error.to_string())?;
        files.0.insert(sha256(&[&bytes]), Bytes::from(bytes.clone()));
        Ok(bytes)
    };
    match compile_file(&path.display().to_string(), &bytes, &mut read) {
        Ok(bundle) => Ok((bundle, files)),
        Err(errors) => {
            // Many lines on purpose: every error with its place, at once.
            eprintln!("{}", yaml::render(&errors));
            Err(Failure::new(Exit::BadConfig, format!("{} cannot be applied", path.display()))
                .hint("correct what is shown above; nothing was changed"))
        }
    }
}

fn document(report: &RunReport, dry_run: bool) -> RunDocument {
    let counts = report.counts();
    let resources = report.resources.iter().map(|resource| ResourceDocument {
        name: resource.name.clone(),
        r#type: resource.kind.clone(),
        outcome: resource.outcome.name().into(),
        message: resource.message.clone(),
        diff: resource.diff.clone(),
        duration_ms: resource.duration_ms,
    });
    RunDocument {
        schema: SCHEMA,
        run: LastRunDocument {
            run_id: report.run_id.to_string(),
            started: report.started.wall.to_string(),
            duration_ms: report.duration_ms,
            ok: counts.ok,
            changed: counts.changed,
            skipped: counts.skipped,
            failed: counts.failed,
            blocked: counts.blocked,
            error: report.error.clone(),
        },
        dry_run,
        serial: 0,
        source: "file".into(),
        age_ms: 0,
        status: String::new(),
        server: report.notes.join("; "),
        resources: resources.collect(),
    }
}
