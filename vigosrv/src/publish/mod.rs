//! Makes `stacks/` what the server serves, whole or not at all.
//!
//! A publish copies the tree into `publishes/`, compiles that very copy, makes it durable under the name of its hash, and
//! then replaces the link `.live` by a rename. A crash at any point leaves the old tree or the new one, and at most a
//! staging directory that the next publish removes. This shell keeps no record of who and why: the caller writes that to
//! the database. Limits: `TREE_FILES_MAX`, `TREE_BYTES_MAX`, `PUBLISHES_KEPT_MAX`. See `docs/adr/0042-publish.md`.

mod read;
mod remember;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::ids::Hash32;
use common::limits;
use common::sys::file::{hand_over, make_dir, sync_dir, sync_file_system};
use common::sys::{FileError, Lock, LockError, Owner};
use common::yaml::{self, Error};

use crate::policy::{self, Changes, Compiled, Outline, Trace, Tree};
use read::{Copy, read_tree};
use remember::Remembered;

const STACKS: &str = "stacks";
const LIVE: &str = ".live";
const LIVE_NEW: &str = ".live.new";
const PUBLISHES: &str = "publishes";
const STAGING: &str = ".new";
const LOCK: &str = ".lock";

/// A publish that took place, or was not needed.
#[derive(Clone, Debug)]
pub struct Published {
    /// Hash of the tree.
    pub tree: Hash32,
    /// The tree was live already: nothing was written.
    pub unchanged: bool,
    /// Against what was live before.
    pub changes: Changes,
    /// To serve from now on.
    pub compiled: Arc<Compiled>,
}

/// Why nothing was published; what was live still is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// The tree is wrong; every error with its place.
    Invalid(Vec<Error>),
    /// The root has no `stacks/`.
    NoStacks(PathBuf),
    /// Another publish is under way.
    Busy(LockError),
    /// The disk refused.
    File(FileError),
    /// No tree of that hash is kept any more.
    NotKept(Hash32),
    /// A published tree is not what was published under that hash.
    Damaged {
        /// Its directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Invalid(errors) => f.write_str(&yaml::render(errors)),
            PublishError::NoStacks(path) => {
                write!(f, "there is no {}: write the policy there, or name another root with --root", path.display())
            }
            PublishError::Busy(error) => write!(f, "another publish is under way ({error}): try again"),
            PublishError::File(error) => write!(f, "{error}; nothing was published"),
            PublishError::NotKept(tree) => {
                write!(f, "the tree {tree} is not kept any more: `vigocli config history` shows which are")
            }
            PublishError::Damaged { path, reason } => {
                write!(f, "the published policy in {} is damaged ({reason}): publish again", path.display())
            }
        }
    }
}

impl std::error::Error for PublishError {}

impl From<FileError> for PublishError {
    fn from(error: FileError) -> PublishError {
        PublishError::File(error)
    }
}

/// Where a publish takes its tree from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `stacks/`, as it is now.
    Stacks,
    /// A tree that was published before: a rollback. `stacks/` stays as it is.
    Kept(Hash32),
}

/// The files of `stacks/`, for questions about them.
pub fn read_stacks(root: &Path) -> Result<Tree, PublishError> {
    Ok(read_tree(&stacks(root)?, None)?)
}

/// Where the policy is, and which secrets it may refer to.
#[derive(Clone, Debug)]
pub struct Site<'p> {
    root: &'p Path,
    secrets: Option<BTreeSet<String>>,
}

impl<'p> Site<'p> {
    /// References to other secrets than these are refused.
    pub fn with_secrets(root: &'p Path, secrets: BTreeSet<String>) -> Site<'p> {
        Site { root, secrets: Some(secrets) }
    }

    fn limit(&self, tree: Tree) -> Tree {
        match &self.secrets {
            Some(known) => tree.with_secrets(known.clone()),
            None => tree,
        }
    }
}

/// References to secrets are not looked up.
impl<'p, P: AsRef<Path> + ?Sized> From<&'p P> for Site<'p> {
    fn from(root: &'p P) -> Site<'p> {
        Site { root: root.as_ref(), secrets: None }
    }
}

/// Whether the tree of a publish is still kept.
pub fn is_kept(root: &Path, tree: &Hash32) -> bool {
    directory(root, tree).is_dir()
}

/// Checks `stacks/` and changes nothing: hash of the tree and number of its mappings.
pub fn check<'p>(site: impl Into<Site<'p>>) -> Result<(Hash32, usize), PublishError> {
    let site = site.into();
    let tree = site.limit(read_tree(&stacks(site.root)?, None)?);
    let mut kept = Remembered::recall(site.root);
    let checked = policy::check(&tree, &mut kept.memory);
    kept.keep();
    Ok((tree.hash(), checked.map_err(PublishError::Invalid)?))
}

/// What a host gets from `stacks/`, and where it comes from; `None` when no mapping matches. For a command that ends with it.
pub fn trace(root: &Path, hostname: &str) -> Result<Option<Trace>, PublishError> {
    let tree = read_stacks(root)?;
    let mut kept = Remembered::recall(root);
    kept.memory = kept.memory.once();
    let traced = policy::trace_with(&tree, hostname, &mut kept.memory);
    kept.keep();
    traced.map_err(PublishError::Invalid)
}

/// Compiles `stacks/` and changes nothing.
pub fn validate<'p>(site: impl Into<Site<'p>>) -> Result<Compiled, PublishError> {
    let site = site.into();
    let tree = site.limit(read_tree(&stacks(site.root)?, None)?);
    compile(site.root, &tree).map_err(PublishError::Invalid)
}

/// Compiles a tree that is to be remembered.
fn compile(root: &Path, tree: &Tree) -> Result<Compiled, Vec<Error>> {
    let mut kept = Remembered::recall(root);
    let compiled = policy::compile_with(tree, &mut kept.memory);
    kept.keep();
    compiled
}

/// Compiles a tree that was live: most of its files are those of the one that is remembered.
fn compile_old(root: &Path, tree: &Tree) -> Result<Compiled, Vec<Error>> {
    policy::compile_with(tree, &mut Remembered::recall(root).memory.closed())
}

/// Publishes a tree. `previous` is what is live, where the caller has it compiled.
pub fn publish<'p>(
    site: impl Into<Site<'p>>,
    source: Source,
    previous: Option<&Compiled>,
) -> Result<Published, PublishError> {
    let site = site.into();
    let root = site.root;
    let owner = Some(Owner::of(root)?);
    let publishes = root.join(PUBLISHES);
    make_dir(&publishes, 0o700, owner)?;
    let _lock = Lock::take(&publishes.join(LOCK), "publish").map_err(|error| match error {
        LockError::Held { .. } => PublishError::Busy(error),
        LockError::File(error) => PublishError::File(error),
    })?;
    hand_over(&publishes.join(LOCK), owner)?;
    let stacks = match source {
        Source::Stacks => stacks(root)?,
        Source::Kept(tree) => return again(&site, &tree, previous, owner),
    };
    let staging = publishes.join(STAGING);
    remove_tree(&staging)?;
    let outcome = stage(&site, &stacks, &staging, previous, owner);
    // What is left of a refused publish is of no use; the next one would remove it too.
    let removed = remove_tree(&staging);
    let published = outcome?;
    removed?;
    Ok(published)
}

/// Compiles what is live; `None` when nothing was ever published.
pub fn load_live(root: &Path) -> Result<Option<Compiled>, PublishError> {
    let Some(tree) = live_tree(root)? else { return Ok(None) };
    load_published(root, &tree).map(Some)
}

/// Compiles a tree that was published before.
pub fn load_published(root: &Path, tree: &Hash32) -> Result<Compiled, PublishError> {
    load_limited(&root.into(), tree)
}

fn load_limited(site: &Site<'_>, tree: &Hash32) -> Result<Compiled, PublishError> {
    let root = site.root;
    let path = directory(root, tree);
    let damaged = |reason: String| PublishError::Damaged { path: path.clone(), reason };
    let read = read_tree(&path, None)?;
    if read.hash() != *tree {
        return Err(damaged("its content does not have its hash".to_string()));
    }
    let knows_all = site.secrets.is_none();
    compile_old(root, &site.limit(read)).map_err(|errors| {
        // What it refers to was removed meanwhile: that can be cured.
        if !knows_all && compile_whole(root, tree) {
            return PublishError::Invalid(errors);
        }
        let first = errors.first().map(Error::summary).unwrap_or_default();
        damaged(format!("this version refuses it: {first}"))
    })
}

/// Whether a published tree compiles where every secret counts as there.
fn compile_whole(root: &Path, tree: &Hash32) -> bool {
    read_tree(&directory(root, tree), None).is_ok_and(|read| compile_old(root, &read).is_ok())
}

/// The file that a bundle of a published tree names; see [`Compiled::blob_path`].
pub fn blob_file(root: &Path, compiled: &Compiled, blob: &Hash32) -> Option<PathBuf> {
    Some(directory(root, &compiled.tree_hash()).join(compiled.blob_path(blob)?))
}

/// Hash of what is live.
pub fn live_tree(root: &Path) -> Result<Option<Hash32>, PublishError> {
    let live = root.join(LIVE);
    let target = match std::fs::read_link(&live) {
        Ok(target) => target,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::new("read the link", &live, &error).into()),
    };
    let name = target.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let reason = || format!("{} does not name a publish", target.display());
    name.parse().map(Some).map_err(|_| PublishError::Damaged { path: live.clone(), reason: reason() })
}

fn stacks(root: &Path) -> Result<PathBuf, PublishError> {
    let stacks = root.join(STACKS);
    if stacks.is_dir() { Ok(stacks) } else { Err(PublishError::NoStacks(stacks)) }
}

fn directory(root: &Path, tree: &Hash32) -> PathBuf {
    root.join(PUBLISHES).join(tree.to_string())
}

/// Copies, compiles, and makes the copy live.
fn stage(
    site: &Site<'_>,
    stacks: &Path,
    staging: &Path,
    previous: Option<&Compiled>,
    owner: Option<Owner>,
) -> Result<Published, PublishError> {
    let root = site.root;
    make_dir(staging, 0o700, owner)?;
    let tree = site.limit(read_tree(stacks, Some(Copy { to: staging, owner }))?);
    let compiled = Arc::new(compile(root, &tree).map_err(PublishError::Invalid)?);
    let hash = compiled.tree_hash();
    // A damaged live tree is replaced, not compared with.
    let live = live_tree(root).unwrap_or(None);
    let is_whole = |hash: &Hash32| read_tree(&directory(root, hash), None).is_ok_and(|tree| tree.hash() == *hash);
    if live == Some(hash) && is_whole(&hash) {
        return Ok(Published { tree: hash, unchanged: true, changes: Changes::default(), compiled });
    }
    let outline = compiled.outline();
    let changes = outline.changes_from(&old_outline(root, previous, live));
    remember::keep_outline(staging, &outline, owner);
    keep(root, staging, &hash, is_whole(&hash))?;
    go_live(root, &hash, owner)?;
    prune(root, &hash);
    Ok(Published { tree: hash, unchanged: false, changes, compiled })
}

/// Makes a tree live that was published before.
fn again(
    site: &Site<'_>,
    tree: &Hash32,
    previous: Option<&Compiled>,
    owner: Option<Owner>,
) -> Result<Published, PublishError> {
    let root = site.root;
    if !is_kept(root, tree) {
        return Err(PublishError::NotKept(*tree));
    }
    let compiled = Arc::new(load_limited(site, tree)?);
    let live = live_tree(root).unwrap_or(None);
    if live == Some(*tree) {
        return Ok(Published { tree: *tree, unchanged: true, changes: Changes::default(), compiled });
    }
    let changes = compiled.outline().changes_from(&old_outline(root, previous, live));
    go_live(root, tree, owner)?;
    Ok(Published { tree: *tree, unchanged: false, changes, compiled })
}

/// What is live, to be compared with; a damaged tree counts as none.
fn old_outline(root: &Path, previous: Option<&Compiled>, live: Option<Hash32>) -> Outline {
    let kept = |live: &Hash32| remember::outline(&directory(root, live));
    let loaded = |live: &Hash32| load_published(root, live).ok().map(|compiled| compiled.outline());
    let of_live = || live.and_then(|live| kept(&live).or_else(|| loaded(&live)));
    previous.map(Compiled::outline).or_else(of_live).unwrap_or_default()
}

/// Gives the staged tree its name, durably. One that was published before stays, if it is whole.
fn keep(root: &Path, staging: &Path, hash: &Hash32, is_whole: bool) -> Result<(), PublishError> {
    let (path, publishes) = (directory(root, hash), root.join(PUBLISHES));
    if !is_whole {
        sync_file_system(staging)?;
        remove_tree(&path)?;
        std::fs::rename(staging, &path).map_err(|error| FileError::new("rename", staging, &error))?;
    }
    Ok(sync_dir(&publishes)?)
}

/// Replaces the link by a rename: there is never a moment without one.
fn go_live(root: &Path, hash: &Hash32, owner: Option<Owner>) -> Result<(), PublishError> {
    let (live, new) = (root.join(LIVE), root.join(LIVE_NEW));
    if let Err(error) = std::fs::remove_file(&new)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(FileError::new("remove", &new, &error).into());
    }
    let target = Path::new(PUBLISHES).join(hash.to_string());
    std::os::unix::fs::symlink(&target, &new).map_err(|error| FileError::new("write", &new, &error))?;
    if let Some(owner) = owner.filter(|owner| *owner != Owner::own() && Owner::own().uid == 0) {
        let given = std::os::unix::fs::lchown(&new, Some(owner.uid), Some(owner.gid));
        given.map_err(|error| FileError::new("change the owner of", &new, &error))?;
    }
    std::fs::rename(&new, &live).map_err(|error| FileError::new("replace", &live, &error))?;
    Ok(sync_dir(root)?)
}

/// Removes the oldest trees beyond the bound, never the live one. A tree that cannot be removed is tried again next time.
fn prune(root: &Path, live: &Hash32) {
    let Ok(entries) = std::fs::read_dir(root.join(PUBLISHES)) else { return };
    let trees = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let hash: Hash32 = entry.file_name().to_str()?.parse().ok()?;
        Some((entry.metadata().ok()?.modified().ok()?, hash))
    });
    let mut trees: Vec<_> = trees.filter(|(_, hash)| hash != live).collect();
    trees.sort();
    let surplus = (trees.len() + 1).saturating_sub(limits::PUBLISHES_KEPT_MAX);
    for (_, hash) in &trees[..surplus.min(trees.len())] {
        let _ = std::fs::remove_dir_all(directory(root, hash));
    }
}

fn remove_tree(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(FileError::new("remove", path, &error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
