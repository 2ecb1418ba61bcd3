//! What every executor works with: the root, the accounts, the clock, the files of the policy, and the refusal to harm the
//! agent itself. One per run.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::bundle::{BlobRef, Bundle};
use common::crypto::sha256;
use common::ids::Uuid;
use common::limits;
use common::sys::Clock;
use common::time::{Mono, Now};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};

use super::diff::{NOT_SHOWN, unified};
use super::fault::Fault;
use super::input::{Blob, Blobs, Promises, RunInput};
use super::read::Reader;
use super::secrets::Secrets;
use super::undo::{Kept, Undo};
use crate::agent::TraitTree;
use crate::sys::accounts::{Accounts, User};
use crate::sys::child::{self, Finished, Poured, RunAs, Spec, StopFlag};
use crate::sys::root::{Place, Root, WalkError, real_path};
use crate::sys::unsynced::Unsynced;

/// Where commands are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// While something is waited for, a stop is looked for this often, in milliseconds.
const PAUSE_PIECE_MS: u64 = 100;

/// The host, as one run sees it.
pub struct Host {
    /// Paths are looked up below this.
    pub root: Root,
    /// Scratch space for reading.
    pub buffer: Vec<u8>,
    accounts: Option<Accounts>,
    privileged: bool,
    sysroot: Option<PathBuf>,
    run_id: Uuid,
    clock: Clock,
    stop: Arc<StopFlag>,
    blobs: Arc<dyn Blobs>,
    /// The agent's own files, as configured; and where they really are, looked up when something is about to be changed.
    own: Vec<PathBuf>,
    real_own: OnceCell<Vec<PathBuf>>,
    notes: Vec<String>,
    /// Directories in which names have changed.
    unsynced: Unsynced,
    bundle: Arc<Bundle>,
    promises: Option<Arc<dyn Promises>>,
    /// Resources that the next run will act on if this one does not end.
    promised: HashSet<String>,
    live: bool,
    search_path: String,
    /// Keeps secrets in.
    pub secrets: Arc<Secrets>,
    /// What is known of packages.
    pub packages: super::packages::Known,
    traits: Arc<Vec<TraitTree>>,
    /// The resource at hand holds a secret: what it finds is told to nobody.
    pub is_tainted: bool,
    /// For `confirm`.
    pub undo: Option<Undo>,
    /// No server answered when a change was to be confirmed.
    pub unreachable: bool,
    /// Directories of snapshots, and the resource that each belongs to.
    snapshot_targets: HashMap<String, String>,
    /// Changes of this run that wait to be confirmed.
    pub kept: Option<Kept>,
}

/// What a resource is about to do to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Writes or removes this name.
    Name,
    /// The same, and everything below it.
    Tree,
}

/// A command to run.
pub struct Order<'c> {
    /// A line for the shell, or a program and its arguments.
    pub argv: Vec<OsString>,
    /// Directory below the root; `None` is the root.
    pub cwd: Option<&'c str>,
    /// As whom.
    pub user: Option<&'c str>,
    /// On top of the usual.
    pub environment: &'c [(String, String)],
    /// Standard input.
    pub stdin: &'c [u8],
    /// Bits that new files do not get.
    pub umask: u32,
    /// It ends by then.
    pub deadline: Mono,
}

impl Host {
    /// For one run.
    pub fn try_new(input: &RunInput) -> Result<Host, Fault> {
        let root = Root::try_new(input.sysroot.as_deref())?;
        let protected = if input.allow_self { &[][..] } else { &input.protected };
        Ok(Host {
            root,
            buffer: vec![0; 64 << 10],
            accounts: None,
            privileged: nix::unistd::geteuid().is_root(),
            sysroot: input.sysroot.as_deref().map(real_or_same),
            run_id: input.order.run_id,
            clock: input.clock.clone(),
            stop: Arc::clone(&input.stop),
            blobs: Arc::clone(&input.blobs),
            own: protected.to_vec(),
            real_own: OnceCell::new(),
            notes: Vec::new(),
            unsynced: Unsynced::default(),
            bundle: Arc::clone(&input.order.bundle),
            promises: input.promises.clone(),
            promised: input.order.owed.iter().cloned().collect(),
            live: input.live,
            search_path: input.search_path.clone().unwrap_or_else(|| PATH.to_string()),
            secrets: Arc::default(),
            packages: super::packages::Known::default(),
            traits: Arc::clone(&input.order.traits),
            is_tainted: false,
            undo: input.undo.clone(),
            unreachable: false,
            snapshot_targets: HashMap::new(),
            kept: None,
        })
    }

    /// Unified diff of two contents, unless one of them holds a secret.
    pub fn diff(&self, path: &str, old: &[u8], new: &[u8]) -> String {
        let filter = self.secrets.filter();
        if filter.holds(old) || filter.holds(new) {
            return format!("{path}: {NOT_SHOWN}");
        }
        unified(path, old, new)
    }

    /// What the whole run should say once.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Something is about to change that notifies these resources: from here on they are notified, even if the process is
    /// killed before it comes to them.
    pub fn promise(&mut self, targets: &[u32]) {
        let Some(promises) = &self.promises else { return };
        let names = targets.iter().filter_map(|at| self.bundle.resources.get(*at as usize));
        let new: Vec<String> =
            names.map(|target| &target.name).filter(|name| !self.promised.contains(*name)).cloned().collect();
        if !new.is_empty() {
            promises.keep(self.run_id, new.clone());
            self.promised.extend(new);
        }
    }

    /// Notes that the name at this place has changed: its directory is synced before the run is over, or a command is started.
    pub fn sync_later(&mut self, place: &Place<'_>, path: &str) -> Result<(), Fault> {
        self.unsynced.note(&place.dir).map_err(Fault::io("sync the directory of", path))
    }

    /// Makes durable which names have changed.
    pub fn sync(&mut self) -> Result<(), Fault> {
        self.unsynced.flush().map_err(Fault::io("sync the directories of", "what was changed"))
    }

    /// Owner and group that a resource asks for, as numbers; nothing without the right to set them.
    pub fn owners(&mut self, reader: &Reader<'_>) -> Result<(Option<u32>, Option<u32>), Fault> {
        let (owner, group) = (reader.text("owner"), reader.text("group"));
        if owner.is_none() && group.is_none() {
            return Ok((None, None));
        }
        if !self.privileged {
            self.note("owners and groups are left alone: the agent does not run as root");
            return Ok((None, None));
        }
        let uid = owner.map(|name| self.uid_of(&name));
        let gid = group.map(|name| {
            let missing = || Fault::Failed(format!("there is no group `{name}` in /etc/group"));
            self.look_up(|accounts| accounts.gid(&name)).ok_or_else(missing)
        });
        Ok((uid.transpose()?, gid.transpose()?))
    }

    /// Number of a user, who has to exist.
    pub fn uid_of(&mut self, name: &str) -> Result<u32, Fault> {
        let missing = || Fault::Failed(format!("there is no user `{name}` in /etc/passwd"));
        self.look_up(|accounts| accounts.uid(name)).ok_or_else(missing)
    }

    /// Takes a directory for the snapshots of one resource. Two in one would each take the other's for its own, and one of them
    /// would never be kept.
    pub fn claim_snapshots(&mut self, path: &str, name: &str) -> Result<(), Fault> {
        let own =
            self.snapshot_targets.entry(path.trim_end_matches('/').to_string()).or_insert_with(|| name.to_string());
        if own == name {
            return Ok(());
        }
        Err(Fault::Failed(format!(
            "the snapshots of `{own}` are in {path} already: give each resource a `target_path`"
        )))
    }

    /// Whether there is a user of this name or number.
    pub fn has_user(&mut self, name: &str) -> bool {
        self.look_up(|accounts| accounts.user(name)).is_some()
    }

    /// The root, where it is not the host's own.
    pub fn sysroot(&self) -> Option<&Path> {
        self.sysroot.as_deref()
    }

    /// Whether the kernel and the services of this machine are those of the root.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Directories where commands are looked for, as in `PATH`.
    pub fn search_path(&self) -> &str {
        &self.search_path
    }

    /// This run.
    pub fn run_id(&self) -> Uuid {
        self.run_id
    }

    /// Whether the run is to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.grace_ms().is_some()
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Waits; `false` where the run is to stop.
    pub fn pause(&self, ms: u64) -> bool {
        let until = self.now().mono + ms;
        loop {
            let left = until.since(self.now().mono);
            if self.is_stopping() {
                return false;
            }
            if left == 0 {
                return true;
            }
            self.clock.pause(left.min(PAUSE_PIECE_MS));
        }
    }

    /// A text among the traits of this host.
    pub fn trait_text(&self, tree: &str, key: &str) -> Option<String> {
        let tree = self.traits.iter().find(|known| known.name == tree)?;
        tree.value.get(key)?.as_str().map(str::to_string)
    }

    /// Accounts are read again: they have changed.
    pub fn forget_accounts(&mut self) {
        self.accounts = None;
    }

    /// Whether owners can be set.
    pub fn is_privileged(&self) -> bool {
        self.privileged
    }

    /// The parent of a path, or `None` where a parent is missing: then the path itself is.
    pub fn locate<'p>(&mut self, path: &'p str) -> Result<Option<Place<'p>>, Fault> {
        match self.root.locate(path) {
            Ok(place) => Ok(Some(place)),
            Err(WalkError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The same for writing: a missing parent is a fault.
    pub fn locate_to_write<'p>(&mut self, path: &'p str) -> Result<Place<'p>, Fault> {
        self.root.locate(path).map_err(|error| match error {
            WalkError::Missing { path } => {
                Fault::Failed(format!("the directory {path} does not exist: declare it, and depend on it"))
            }
            error => error.into(),
        })
    }

    /// What is at a place, links not followed.
    pub fn stat(&self, place: &Place<'_>, path: &str) -> Result<Option<FileStat>, Fault> {
        match fstatat(place.dir.as_fd(), place.name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(Fault::io("look at", path)(errno)),
        }
    }

    /// Opens a regular file to read, without following a link or waiting for a FIFO. `None` where there is nothing.
    pub fn open_file(&self, place: &Place<'_>, path: &str) -> Result<Option<(File, FileStat)>, Fault> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let fd = match openat(place.dir.as_fd(), place.name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            // A link says ELOOP, a socket ENXIO: name them.
            Err(errno @ (Errno::ELOOP | Errno::ENXIO | Errno::ENODEV)) => {
                return match self.stat(place, path)? {
                    Some(stat) => Err(not_a(&stat, "a regular file", path)),
                    None => Err(Fault::io("open", path)(errno)),
                };
            }
            Err(errno) => return Err(Fault::io("open", path)(errno)),
        };
        let stat = nix::sys::stat::fstat(fd.as_fd()).map_err(Fault::io("look at", path))?;
        match kind_of(&stat) {
            SFlag::S_IFREG => Ok(Some((File::from(fd), stat))),
            _ => Err(not_a(&stat, "a regular file", path)),
        }
    }

    fn protected(&self) -> &[PathBuf] {
        self.real_own.get_or_init(|| self.own.iter().map(|path| real_or_same(path)).collect())
    }

    /// Refuses what would harm the agent itself.
    pub fn spare_self(&mut self, path: &str, reach: Reach) -> Result<(), Fault> {
        if self.own.is_empty() {
            return Ok(());
        }
        let Some(place) = self.locate(path)? else { return Ok(()) };
        let base = real_path(&place.dir).unwrap_or_else(|| {
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            self.root.path().join(parent.trim_start_matches('/'))
        });
        let real = base.join(place.name);
        match self
            .protected()
            .iter()
            .find(|own| real.starts_with(own) || reach == Reach::Tree && own.starts_with(&real))
        {
            Some(own) => Err(refuse_self(own)),
            None => Ok(()),
        }
    }

    /// Refuses commands that would plainly stop, remove or overwrite the agent. A plea, not a fence: a shell can hide
    /// anything.
    pub fn spare_self_from(&self, command: &str) -> Result<(), Fault> {
        const HARMFUL: [&str; 20] = [
            "stop",
            "kill",
            "pkill",
            "killall",
            "disable",
            "mask",
            "rm",
            "rmdir",
            "unlink",
            "mv",
            "cp",
            "install",
            "dd",
            "tee",
            "truncate",
            "shred",
            "remove",
            "purge",
            "erase",
            "uninstall",
        ];
        if self.own.is_empty() {
            return Ok(());
        }
        let words =
            || command.split(|c: char| c.is_whitespace() || ";|&()<>'\"`".contains(c)).filter(|w| !w.is_empty());
        let name = |word: &str| word.rsplit('/').next().unwrap_or(word).to_string();
        let is_own = |word: &str| {
            let agent = matches!(name(word).as_str(), "vigo-envoy" | "vigo-envoy.service");
            agent || self.protected().iter().any(|own| Path::new(word).starts_with(own))
        };
        let harms = words().any(|word| HARMFUL.contains(&name(word).as_str())) || command.contains('>');
        match words().find(|word| is_own(word)) {
            Some(own) if harms => Err(refuse_self(Path::new(own))),
            _ => Ok(()),
        }
    }

    /// Refuses what would stop the agent, for a resource that acts on a service or a package of this name.
    pub fn spare_agent(&self, name: &str) -> Result<(), Fault> {
        let own = matches!(name, "vigo-envoy" | "vigo-envoy.service");
        if own && !self.own.is_empty() { Err(refuse_self(Path::new(name))) } else { Ok(()) }
    }

    /// A file of the policy, opened, not yet compared with its hash.
    pub fn open_blob(&self, blob: &BlobRef) -> Result<Box<dyn Read>, Fault> {
        let missing =
            || Fault::Blocked(format!("the content of {} is not here yet: waiting for the server", blob.path));
        match self.blobs.find(&blob.sha256).ok_or_else(missing)? {
            Blob::Bytes(bytes) => Ok(Box::new(std::io::Cursor::new(bytes))),
            Blob::File(path) => match File::open(&path) {
                Ok(file) => Ok(Box::new(file)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing()),
                Err(error) => Err(Fault::io("open", &path.display().to_string())(error)),
            },
        }
    }

    /// A small file of the policy, whole, its hash compared.
    pub fn read_blob(&self, blob: &BlobRef) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        let most = limits::TEMPLATE_SOURCE_BYTES_MAX as u64 + 1;
        self.open_blob(blob)?.take(most).read_to_end(&mut bytes).map_err(Fault::io("read", &blob.path))?;
        match sha256(&[&bytes]) == blob.sha256 {
            true => Ok(bytes),
            false if bytes.len() as u64 == most => {
                Err(Fault::Failed(format!("{} is too large for a template", blob.path)))
            }
            false => Err(damaged(blob)),
        }
    }

    /// Runs a command to its end.
    pub fn run(&mut self, order: &Order<'_>) -> Result<Finished, Fault> {
        self.run_keeping(order, limits::CHILD_OUTPUT_BYTES_MAX)
    }

    /// The same with another bound of what is kept of each output.
    pub fn run_keeping(&mut self, order: &Order<'_>, keep: usize) -> Result<Finished, Fault> {
        let spec = self.spec(order, keep)?;
        child::run(&spec, &self.clock, order.deadline, &self.stop).map_err(Fault::io("start", &program_of(order)))
    }

    /// The same for one whose standard output goes elsewhere.
    pub fn run_into(&mut self, order: &Order<'_>, sink: &mut child::Sink<'_>) -> Result<Poured, Fault> {
        let spec = self.spec(order, limits::CHILD_OUTPUT_BYTES_MAX)?;
        let poured = child::run_into(&spec, &self.clock, order.deadline, &self.stop, sink);
        poured.map_err(Fault::io("start", &program_of(order)))
    }

    fn spec<'o>(&mut self, order: &Order<'o>, keep: usize) -> Result<Spec<'o>, Fault> {
        // It may take the host down with it.
        self.sync()?;
        let user = order.user.map(|name| self.user(name)).transpose()?;
        let directory = self.working_directory(order.cwd)?;
        Ok(Spec {
            argv: order.argv.clone(),
            environment: self.environment(user.as_ref(), order.environment),
            directory,
            run_as: user.map(|user| self.run_as(&user)),
            umask: order.umask,
            stdin: order.stdin,
            keep,
        })
    }

    /// The shell with a line for it.
    pub fn shell(line: &str) -> Vec<OsString> {
        ["/bin/sh", "-c", line].map(OsString::from).to_vec()
    }

    fn working_directory(&mut self, cwd: Option<&str>) -> Result<Arc<OwnedFd>, Fault> {
        match cwd {
            Some(path) => Ok(self.root.directory(path.trim_end_matches('/'))?),
            None => Ok(self.root.top()),
        }
    }

    fn environment(&self, user: Option<&User>, extra: &[(String, String)]) -> Vec<(OsString, OsString)> {
        let mut all: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), self.search_path.as_str().into()),
            ("HOME".into(), user.map_or("/root", |user| &user.home).into()),
            ("LANG".into(), "C.UTF-8".into()),
            ("VIGO_RUN_ID".into(), self.run_id.to_string().into()),
        ];
        if let Some(user) = user {
            all.extend([("USER".into(), user.name.clone().into()), ("LOGNAME".into(), user.name.clone().into())]);
        }
        if let Some(sysroot) = &self.sysroot {
            all.push(("VIGO_SYSROOT".into(), sysroot.into()));
        }
        all.extend(extra.iter().map(|(name, value)| (name.into(), value.into())));
        all
    }

    fn user(&mut self, name: &str) -> Result<User, Fault> {
        let user = self.look_up(|accounts| accounts.user(name));
        let user = user.ok_or_else(|| Fault::Failed(format!("there is no user `{name}` in /etc/passwd")))?;
        if self.privileged || user.uid == nix::unistd::geteuid().as_raw() {
            return Ok(user);
        }
        Err(Fault::Failed(format!("cannot run as `{name}`: the agent does not run as root")))
    }

    fn run_as(&mut self, user: &User) -> RunAs {
        let accounts = self.accounts.take().unwrap_or_else(|| Accounts::read(&mut self.root));
        let groups = accounts.groups_of(user);
        self.accounts = Some(accounts);
        RunAs { uid: user.uid, gid: user.gid, groups }
    }

    /// Read once a run; again when a name is missing, because an earlier resource may have made it.
    fn look_up<T>(&mut self, find: impl Fn(&Accounts) -> Option<T>) -> Option<T> {
        if let Some(found) = self.accounts.as_ref().and_then(&find) {
            return Some(found);
        }
        let accounts = self.accounts.insert(Accounts::read(&mut self.root));
        find(accounts)
    }

    /// Something that the whole run should say once.
    pub fn note(&mut self, text: &str) {
        if !self.notes.iter().any(|known| known == text) {
            self.notes.push(text.to_string());
        }
    }
}

/// What an order starts, for messages.
fn program_of(order: &Order<'_>) -> String {
    order.argv.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A path without links; as it is where there is nothing.
fn real_or_same(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

fn refuse_self(own: &Path) -> Fault {
    Fault::Refused(format!(
        "{} belongs to the agent itself; a resource may touch it only with `allow_self: true` in the agent's configuration",
        own.display()
    ))
}

/// The stored file is not the one that the bundle names.
pub fn damaged(blob: &BlobRef) -> Fault {
    Fault::Blocked(format!("the stored content of {} is damaged: waiting for the server", blob.path))
}

/// File type bits.
pub fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Permission bits.
pub fn mode_of(stat: &FileStat) -> u32 {
    // The width of mode_t differs between platforms.
    #[allow(clippy::unnecessary_cast, reason = "mode_t is u16 elsewhere")]
    let mode = stat.st_mode as u32;
    mode & 0o7777
}

/// Something else is in the way.
pub fn not_a(stat: &FileStat, wanted: &str, path: &str) -> Fault {
    Fault::Refused(format!("{path} is {}, not {wanted}; it is left as it is", describe(stat)))
}

/// What a file is, for people.
pub fn describe(stat: &FileStat) -> Cow<'static, str> {
    Cow::Borrowed(match kind_of(stat) {
        SFlag::S_IFREG => "a regular file",
        SFlag::S_IFDIR => "a directory",
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFIFO => "a FIFO",
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFBLK | SFlag::S_IFCHR => "a device",
        _ => "something unknown",
    })
}
