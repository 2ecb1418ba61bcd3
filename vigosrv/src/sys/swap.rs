//! Replaces many files and directories together. What is to come lies ready on the same file system; a journal is written first;
//! then everything old is renamed aside and everything new into its place. A process that dies in between leaves the journal,
//! and whoever works in that root next ([`settle`]) puts the old state back: the old state or the new one, never a mixture.

use std::io;
use std::path::{Path, PathBuf};

use common::sys::file::{make_dir, read_bounded, sync_dir, sync_file_system, write_atomic};
use common::sys::{FileError, Owner};
use serde::{Deserialize, Serialize};

/// Directory in a root while something is replaced.
pub const WORK: &str = ".restore";
const JOURNAL: &str = "journal.json";
/// The journal's name once everything is in place.
const DONE: &str = "done.json";
/// What was there before, below [`WORK`].
const OLD: &str = "old";
const JOURNAL_BYTES_MAX: u64 = 4 << 20;

/// One path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The path to be replaced.
    pub place: PathBuf,
    /// What comes there, on the same file system; nothing where the old one only goes.
    pub new: Option<PathBuf>,
    /// Where the old one goes, on the same file system.
    pub old: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    /// Where the old state is kept afterwards, below the root.
    keep: String,
    moves: Vec<Move>,
}

/// Where the old state of `place` goes: on its own file system.
pub fn old_place(root: &Path, place: &Path, n: usize) -> PathBuf {
    let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match place.strip_prefix(root) {
        Ok(inside) => root.join(WORK).join(OLD).join(inside),
        Err(_) => place.with_file_name(format!(".{name}.{n}.vigo-old")),
    }
}

/// Replaces them all. On an error everything is as it was. Returns where the old state is, if there was one.
pub fn replace(root: &Path, moves: Vec<Move>, keep: &str, owner: Owner) -> Result<Option<PathBuf>, FileError> {
    let work = root.join(WORK);
    make_dir(&work, 0o700, Some(owner))?;
    sync_file_system(&work)?;
    for path in moves.iter().filter_map(|step| step.new.as_deref()).filter(|path| !path.starts_with(root)) {
        sync_file_system(path.parent().unwrap_or(root))?;
    }
    let journal = Journal { keep: keep.to_string(), moves };
    // Plain values in a fixed struct always serialise.
    let text = serde_json::to_vec_pretty(&journal).unwrap_or_default();
    write_atomic(&work.join(JOURNAL), &text, 0o600, Some(owner))?;
    if let Err(error) = go(&journal, owner) {
        settle(root)?;
        return Err(error);
    }
    rename(&work.join(JOURNAL), &work.join(DONE))?;
    sync_dir(&work)?;
    finish(root, &journal)
}

/// Cures what an interrupted [`replace`] left. The caller has the root to itself. Returns what was done, if anything.
pub fn settle(root: &Path) -> Result<Option<&'static str>, FileError> {
    let work = root.join(WORK);
    if !work.is_dir() {
        return Ok(None);
    }
    if let Some(journal) = read(&work.join(DONE))? {
        finish(root, &journal)?;
        return Ok(Some("a restore that had been interrupted at its end is complete"));
    }
    let Some(journal) = read(&work.join(JOURNAL))? else {
        remove(&work)?;
        return Ok(Some("what an interrupted restore had unpacked was removed; nothing had been replaced"));
    };
    for step in journal.moves.iter().rev() {
        if let Some(new) = &step.new
            && !is_there(new)
            && is_there(&step.place)
        {
            rename(&step.place, new)?;
        }
        if is_there(&step.old) {
            rename(&step.old, &step.place)?;
        }
    }
    sync_file_system(root)?;
    std::fs::remove_file(work.join(JOURNAL)).map_err(|e| FileError::new("remove", &work.join(JOURNAL), &e))?;
    remove(&work)?;
    Ok(Some("a restore was interrupted: the state before it was put back; restore again"))
}

/// Whether there is anything for [`settle`].
pub fn is_interrupted(root: &Path) -> bool {
    let work = root.join(WORK);
    work.join(JOURNAL).exists() || work.join(DONE).exists()
}

fn go(journal: &Journal, owner: Owner) -> Result<(), FileError> {
    for step in &journal.moves {
        if is_there(&step.place) {
            make_dir(step.old.parent().unwrap_or(Path::new("/")), 0o700, Some(owner))?;
            rename(&step.place, &step.old)?;
        }
        if let Some(new) = &step.new {
            make_dir(step.place.parent().unwrap_or(Path::new("/")), 0o700, Some(owner))?;
            rename(new, &step.place)?;
        }
    }
    for step in &journal.moves {
        if let Some(parent) = step.place.parent().filter(|parent| parent.is_dir()) {
            sync_dir(parent)?;
        }
    }
    Ok(())
}

/// Everything is in place: the old state gets its lasting name.
fn finish(root: &Path, journal: &Journal) -> Result<Option<PathBuf>, FileError> {
    let (work, mut kept) = (root.join(WORK), root.join(&journal.keep));
    let old = work.join(OLD);
    let any = old.is_dir() || journal.moves.iter().any(|step| !step.old.starts_with(&work) && is_there(&step.old));
    if old.is_dir() {
        // Two restores in one second are two old states.
        let more = (2..).map(|n| root.join(format!("{}-{n}", journal.keep)));
        // Ends: each name that is taken was taken by one restore.
        kept = std::iter::once(kept.clone()).chain(more).find(|path| !is_there(path)).unwrap_or(kept);
        rename(&old, &kept)?;
    }
    remove(&work)?;
    sync_dir(root)?;
    Ok(any.then_some(kept))
}

fn read(path: &Path) -> Result<Option<Journal>, FileError> {
    let bytes = match read_bounded(path, JOURNAL_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let wrong = |error: serde_json::Error| {
        FileError::new("read", path, &io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
    };
    serde_json::from_slice(&bytes).map(Some).map_err(wrong)
}

fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    std::fs::rename(from, to).map_err(|error| FileError::new("rename", from, &error))
}

fn remove(path: &Path) -> Result<(), FileError> {
    std::fs::remove_dir_all(path).map_err(|error| FileError::new("remove", path, &error))
}

/// Also a link that leads nowhere.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn scene() -> (tempfile::TempDir, Vec<Move>) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let new = root.join(WORK).join("new");
        fs::create_dir_all(new.join("stacks")).unwrap();
        fs::create_dir_all(root.join("stacks")).unwrap();
        fs::create_dir_all(root.join("db")).unwrap();
        fs::write(root.join("stacks/a"), "old").unwrap();
        fs::write(new.join("stacks/a"), "new").unwrap();
        fs::write(root.join("db/vigo.db"), "old").unwrap();
        fs::write(new.join("vigo.db"), "new").unwrap();
        fs::write(root.join("db/vigo.db-wal"), "old").unwrap();
        fs::write(new.join("server.yaml"), "new").unwrap();
        let places = [
            ("stacks", Some("stacks")),
            ("db/vigo.db", Some("vigo.db")),
            ("db/vigo.db-wal", None),
            ("server.yaml", Some("server.yaml")),
        ];
        let moves = places.into_iter().enumerate().map(|(n, (place, from))| {
            let place = root.join(place);
            Move { old: old_place(root, &place, n), new: from.map(|from| new.join(from)), place }
        });
        let moves = moves.collect();
        (dir, moves)
    }

    fn state(root: &Path) -> String {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_else(|_| "-".into());
        ["stacks/a", "db/vigo.db", "db/vigo.db-wal", "server.yaml"].map(read).join(" ")
    }

    #[test]
    fn everything_is_replaced_and_the_old_state_is_kept() {
        let (dir, moves) = scene();
        let kept = replace(dir.path(), moves, "replaced-1", Owner::own()).unwrap().unwrap();
        assert_eq!(state(dir.path()), "new new - new");
        assert_eq!(state(&kept), "old old old -");
        assert!(!dir.path().join(WORK).exists());
        assert_eq!(settle(dir.path()), Ok(None));
        // Another one at the same moment.
        let new = dir.path().join(WORK).join("new");
        fs::create_dir_all(&new).unwrap();
        fs::write(new.join("server.yaml"), "newer").unwrap();
        let place = dir.path().join("server.yaml");
        let moves = vec![Move { old: old_place(dir.path(), &place, 0), new: Some(new.join("server.yaml")), place }];
        let second = replace(dir.path(), moves, "replaced-1", Owner::own()).unwrap().unwrap();
        assert_eq!(second, dir.path().join("replaced-1-2"));
        assert_eq!((state(dir.path()), state(&kept)), ("new new - newer".into(), "old old old -".into()));
    }

    #[test]
    fn killed_after_any_rename_the_old_state_comes_back() {
        // What is a rename: two a path at most.
        for stop in 0..8 {
            let (dir, moves) = scene();
            let journal = Journal { keep: "replaced-1".into(), moves: moves.clone() };
            let work = dir.path().join(WORK);
            fs::write(work.join(JOURNAL), serde_json::to_vec(&journal).unwrap()).unwrap();
            let mut done = 0;
            'renames: for step in &moves {
                fs::create_dir_all(step.old.parent().unwrap()).unwrap();
                let first = is_there(&step.place).then_some((step.place.clone(), step.old.clone()));
                let second = step.new.clone().map(|new| (new, step.place.clone()));
                for (from, to) in first.into_iter().chain(second) {
                    if done == stop {
                        break 'renames;
                    }
                    fs::rename(from, to).unwrap();
                    done += 1;
                }
            }
            assert!(is_interrupted(dir.path()));
            assert!(settle(dir.path()).unwrap().unwrap().contains("put back"), "{stop}");
            assert_eq!(state(dir.path()), "old old old -", "{stop}");
            assert!(!work.exists());
        }
    }

    #[test]
    fn an_error_in_the_middle_puts_everything_back() {
        let (dir, mut moves) = scene();
        moves[3].new = Some(dir.path().join("not there"));
        let error = replace(dir.path(), moves, "replaced-1", Owner::own()).unwrap_err();
        assert!(error.to_string().contains("not there"), "{error}");
        assert_eq!(state(dir.path()), "old old old -");
        assert!(!dir.path().join(WORK).exists());
    }

    #[test]
    fn killed_at_its_end_it_is_completed_and_before_its_begin_it_is_forgotten() {
        let (dir, moves) = scene();
        let journal = Journal { keep: "replaced-1".into(), moves };
        go(&journal, Owner::own()).unwrap();
        fs::write(dir.path().join(WORK).join(DONE), serde_json::to_vec(&journal).unwrap()).unwrap();
        assert!(settle(dir.path()).unwrap().unwrap().contains("complete"));
        assert_eq!(state(dir.path()), "new new - new");
        assert_eq!(state(&dir.path().join("replaced-1")), "old old old -");

        let (dir, _) = scene();
        assert!(settle(dir.path()).unwrap().unwrap().contains("nothing had been replaced"));
        assert_eq!(state(dir.path()), "old old old -");
    }
}
