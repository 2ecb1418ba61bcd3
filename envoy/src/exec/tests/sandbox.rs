//! A scratch root, runs in it, and pictures of it to compare.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::bundle::{BlobRef, Bundle, Resource, SealedSecret, Value};
use common::crypto::sha256;
use common::ids::{Hash32, Uuid};
use common::outcome::Outcome;
use common::sys::{Clock, TestClock};

use crate::agent::{RunOrder, TraitTree};
use crate::exec::{Blob, Blobs, Promises, RunInput, Undo, Unseal, run};
use crate::report::{ResourceReport, RunReport};
use crate::sys::child::StopFlag;

pub type Params = Vec<(&'static str, Value)>;

pub fn text(text: &str) -> Value {
    Value::Str(text.to_string())
}

#[derive(Default)]
pub struct Store(pub Mutex<BTreeMap<Hash32, Blob>>);

impl Blobs for Store {
    fn find(&self, hash: &Hash32) -> Option<Blob> {
        self.0.lock().unwrap().get(hash).cloned()
    }
}

pub struct Sandbox {
    pub dir: tempfile::TempDir,
    pub store: Arc<Store>,
    pub blobs: Vec<BlobRef>,
    pub protected: Vec<PathBuf>,
    pub allow_self: bool,
    pub stop: Arc<StopFlag>,
    pub promises: Option<Arc<dyn Promises>>,
    pub undo: Option<Undo>,
    pub unseal: Option<Arc<dyn Unseal>>,
    pub secrets: Vec<SealedSecret>,
    pub live: bool,
    pub search_path: Option<String>,
    pub clock: Clock,
}

impl Sandbox {
    pub fn new() -> Sandbox {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        Sandbox {
            dir,
            store: Arc::default(),
            blobs: Vec::new(),
            protected: Vec::new(),
            allow_self: false,
            stop: Arc::default(),
            promises: None,
            undo: None,
            unseal: None,
            secrets: Vec::new(),
            live: false,
            search_path: None,
            clock: Clock::system(),
        }
    }

    /// A file with directories above it.
    pub fn write(&self, path: &str, content: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), content).unwrap();
    }

    /// What is in a file.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// A tool that a test plays: a script, found before every real one. What it is called with is in `/tools/log`.
    pub fn fake_tool(&mut self, name: &str, script: &str) {
        let root = self.dir.path().display().to_string();
        let body = format!("#!/bin/sh\nR={root}\necho {name} \"$@\" >> $R/tools/log\n{script}\n");
        let path = format!("/tools/{name}");
        self.write(&path, &body);
        set_mode(&self.at(&path), 0o755);
        // What scripts are made of, and nothing else: no real tool is to be found.
        self.write("/tools/log", "");
        self.search_path = Some(self.at("/tools").display().to_string());
    }

    /// From now on it is this moment.
    pub fn set_wall(&mut self, rfc_3339: &str) {
        let clock = TestClock::parse(&format!("wall={rfc_3339}")).unwrap();
        self.clock = Clock::test(clock);
    }

    /// What fake tools were called with since the last time.
    pub fn calls(&self) -> String {
        let log = self.read("/tools/log");
        fs::write(self.at("/tools/log"), "").unwrap();
        log
    }

    /// Where the sandbox keeps what policy calls `/d/x`.
    pub fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    pub fn blob(&mut self, path: &str, content: &[u8]) -> Hash32 {
        let sha256 = sha256(&[content]);
        self.blobs.push(BlobRef { sha256, size: content.len() as u64, path: path.to_string() });
        self.store.0.lock().unwrap().insert(sha256, Blob::Bytes(Bytes::copy_from_slice(content)));
        sha256
    }

    pub fn input(&self, resources: Vec<Resource>, dry_run: bool) -> RunInput {
        let vars = BTreeMap::from([("port".to_string(), Value::Int(80))]);
        let mut bundle = Bundle { resources, vars, blobs: self.blobs.clone(), ..Bundle::default() };
        bundle.secrets = common::policy::secrets::of_bundle(&bundle);
        let traits =
            vec![TraitTree { name: "os".into(), value: serde_json::json!({"arch": "x"}).into(), volatile: false }];
        RunInput {
            order: RunOrder {
                run_id: Uuid::from_bytes([7; 16]),
                bundle: Arc::new(bundle),
                secrets: Arc::new(self.secrets.clone()),
                former_secrets: Arc::default(),
                traits: Arc::new(traits),
                hostname: "web-1".to_string(),
                dry_run,
                diff: true,
                owed: Vec::new(),
            },
            uuid: Uuid::from_bytes([9; 16]),
            sysroot: Some(self.dir.path().to_path_buf()),
            live: self.live,
            search_path: self.search_path.clone(),
            blobs: Arc::clone(&self.store) as Arc<dyn Blobs>,
            promises: self.promises.clone(),
            undo: self.undo.clone(),
            unseal: self.unseal.clone(),
            allow_self: self.allow_self,
            protected: self.protected.clone(),
            stop: Arc::clone(&self.stop),
            clock: self.clock.clone(),
        }
    }

    pub fn run_all(&self, resources: Vec<Resource>) -> RunReport {
        run(&self.input(resources, false))
    }

    pub fn apply(&self, kind: &str, params: &Params) -> ResourceReport {
        one(run(&self.input(vec![resource("r", kind, params)], false)))
    }

    pub fn look(&self, kind: &str, params: &Params) -> ResourceReport {
        one(run(&self.input(vec![resource("r", kind, params)], true)))
    }

    /// Applies, and checks the outcome.
    pub fn expect(&self, kind: &str, params: &Params, outcome: Outcome) -> ResourceReport {
        let report = self.apply(kind, params);
        assert_eq!(report.outcome, outcome, "{kind} {params:?}: {}", report.message);
        report
    }

    /// Everything in it, with times: two equal pictures mean that nothing was written.
    pub fn picture(&self) -> BTreeMap<PathBuf, String> {
        let mut picture = BTreeMap::new();
        paint(self.dir.path(), &mut picture);
        picture
    }
}

pub fn resource(name: &str, kind: &str, params: &Params) -> Resource {
    let params = params.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    Resource { name: name.into(), kind: kind.into(), params, timeout_ms: 60_000, ..Resource::default() }
}

fn one(report: RunReport) -> ResourceReport {
    assert_eq!((report.resources.len(), report.error.as_str()), (1, ""));
    report.resources.into_iter().next().unwrap()
}

fn paint(path: &Path, picture: &mut BTreeMap<PathBuf, String>) {
    let meta = path.symlink_metadata().unwrap();
    let kind = meta.file_type();
    let inside = if kind.is_symlink() {
        format!("{:?}", fs::read_link(path).unwrap())
    } else if kind.is_file() && meta.len() < 1 << 20 {
        format!("{:?}", fs::read(path).unwrap())
    } else {
        String::new()
    };
    let stamp =
        format!("{:?} {:o} {}:{} {}.{}", kind, meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec());
    picture.insert(path.to_path_buf(), format!("{stamp} {} {inside}", meta.len()));
    if kind.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| paint(&entry.unwrap().path(), picture));
    }
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

pub fn fifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
}

pub fn foreign_name() -> &'static OsStr {
    OsStr::from_bytes(b"n\xff\xfe")
}

/// A small file system of its own at a path; gone when dropped. `None` without the right to mount.
pub struct Mounted(PathBuf);

impl Mounted {
    pub fn tmpfs(path: &Path, options: &str) -> Option<Mounted> {
        fs::create_dir_all(path).unwrap();
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("none"), path, Some("tmpfs"), flags, Some(options)).ok()?;
        Some(Mounted(path.to_path_buf()))
    }

    pub fn make_read_only(&self) {
        let flags = nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_RDONLY;
        nix::mount::mount(None::<&str>, &self.0, None::<&str>, flags, None::<&str>).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}
