//! What may lock the host out is put back unless a server answers afterwards: the state before is kept in a directory, with a
//! script that puts it back, and a process of its own runs that script when nobody else settles the matter.
//!
//! Whoever settles it, agent or timer, first renames the file `armed`: exactly one of them can. Nothing here is needed for a
//! change without `confirm`.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::crypto::sha256;
use common::ids::Uuid;
use common::units::duration_ms;

use super::fault::Fault;
use super::host::{Host, Order};
use super::tool::spoken;
use crate::agent::status::ROLLED_BACK;
use crate::plan::Task;
use crate::sys::child::Ended;
use crate::sys::detach;
use crate::sys::root::real_path;

/// The timer waits this much longer than the agent, which can say what happened.
const TIMER_MORE_S: u64 = 2;
/// Time that the script which puts back may take, in milliseconds.
const SCRIPT_MS: u64 = 120_000;
/// Time that a server has to answer before the first change, in milliseconds.
const BEFORE_MS: u64 = 15_000;
/// A file that says that something could not be put back: what was kept stays until somebody has looked.
const FAILED: &str = "failed";
/// Resources that are remembered as rolled back.
const REFUSED_MAX: usize = 1_000;
/// Waits while the run goes on, at most an hour, then for the time asked; then puts back, unless that was settled.
const TIMER: &str = r#"#!/bin/sh
cd "$1" || exit 1
n=0
while [ -e armed ] && [ ! -e ended ] && kill -0 "$2" 2>/dev/null && [ "$n" -lt 3600 ]; do sleep 1; n=$((n+1)); done
n=0
while [ -e armed ] && [ "$n" -lt "$3" ]; do sleep 1; n=$((n+1)); done
mv armed undoing 2>/dev/null && { /bin/sh ./undo.sh >undo.log 2>&1 || : >failed; }
mv undoing undone 2>/dev/null
"#;

/// Finds out whether the host can still be reached by its policy.
pub trait Confirmations: Send + Sync {
    /// Whether a server answered an authenticated check-in, on a new connection, within this time.
    fn confirm(&self, run_id: Uuid, within_ms: u64) -> bool;

    /// The agent obeys its configuration as the file has it now; the error says why it cannot.
    fn reread(&self) -> Result<(), String> {
        Ok(())
    }
}

/// What a run needs for `confirm`.
#[derive(Clone)]
pub struct Undo {
    /// A directory of the agent's own.
    pub dir: PathBuf,
    /// Who can tell.
    pub confirmations: Arc<dyn Confirmations>,
    /// The configuration of the agent itself: it is read again when a change of it is to be confirmed.
    pub own_config: Option<PathBuf>,
}

/// How a state is put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Back {
    /// The file at this path of the policy, or that there was none.
    File(String),
    /// A program with its arguments, fed with this.
    Feed(Vec<String>, String),
    /// Programs with their arguments, once every file is back: a service reads them when it starts.
    After(Vec<Vec<String>>),
    /// The same for what every change of another resource brings about anew: that it once went wrong means nothing for the
    /// next time.
    Again(Vec<Vec<String>>),
    /// All of these, the last one first.
    All(Vec<Back>),
}

/// The changes of one run that wait to be confirmed.
#[derive(Default)]
pub struct Kept {
    dir: PathBuf,
    within_ms: u64,
    /// Of the script, the last change first.
    lines: Vec<String>,
    /// After those: services, the last change first.
    after: Vec<String>,
    commands: Vec<String>,
    /// The configuration of the agent itself is among them.
    own: bool,
    resources: Vec<(String, Option<u64>)>,
}

/// Time that a resource wants its change to be confirmed in.
pub fn asked(task: &Task<'_>) -> Option<u64> {
    let text = task.params.find("confirm").and_then(common::policy::params::text_of)?;
    duration_ms(&text).ok()
}

/// Keeps what is there before it is changed. Refuses what was rolled back already.
pub fn keep(host: &mut Host, task: &Task<'_>, within_ms: u64, back: &Back) -> Result<(), Fault> {
    let Some(undo) = host.undo.clone() else {
        let message = "`confirm` needs a server that answers: it does not work with `apply`";
        return Err(Fault::Parameter(message.to_string()));
    };
    let mark = (!matches!(back, Back::Again(_))).then(|| mark(task));
    if mark.is_some_and(|mark| refused(&undo.dir).join(format!("{mark:016x}")).exists()) {
        let message = "it was rolled back before, because no check-in was answered after it; it is tried again when its \
                       parameters change";
        return Err(Fault::Failed(message.to_string()));
    }
    // Of a host that is offline already nothing could be learned: it would only be changed and changed back.
    if host.kept.is_none() && !host.unreachable {
        host.unreachable = !undo.confirmations.confirm(host.run_id(), within_ms.min(BEFORE_MS));
    }
    if host.unreachable {
        let message = "no server answers: a change that has to be confirmed is not begun before one does";
        return Err(Fault::Blocked(message.to_string()));
    }
    let mut kept = host.kept.take().unwrap_or_default();
    let first = kept.resources.is_empty();
    let done = add(host, task, &undo, &mut kept, within_ms, back);
    let done = done.and_then(|()| if first { arm(&kept) } else { Ok(()) });
    let dir = kept.dir.display().to_string();
    match &done {
        Ok(()) => kept.resources.push((task.name.to_string(), mark)),
        // Nothing was changed yet: nobody is to put anything back.
        Err(_) if first => {
            let _ = fs::remove_dir_all(&kept.dir);
            return done.map_err(Fault::io("keep what was there in", &dir));
        }
        Err(_) => {}
    }
    host.kept = Some(kept);
    done.map_err(Fault::io("keep what was there in", &dir))
}

fn add(host: &mut Host, task: &Task<'_>, undo: &Undo, kept: &mut Kept, within_ms: u64, back: &Back) -> io::Result<()> {
    if kept.resources.is_empty() {
        kept.dir = undo.dir.join(host.run_id().to_string());
        kept.within_ms = within_ms;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&kept.dir)?;
    }
    kept.within_ms = kept.within_ms.min(within_ms);
    note(host, undo, kept, back)?;
    if let Some(command) = task.params.find("confirm_undo").and_then(common::policy::params::text_of)
        && !kept.commands.iter().any(|known| *known == command)
    {
        kept.commands.push(command.into_owned());
    }
    let commands = kept.commands.iter().map(|command| format!("/bin/sh -c {}", quoted(Path::new(command))));
    let lines = kept.lines.iter().chain(&kept.after).cloned().chain(commands);
    // One that fails does not keep the others from being put back, and is told.
    let lines: String = lines.map(|line| format!("{{ {line}; }} || bad=1\n")).collect();
    let path = quoted(Path::new(host.search_path()));
    let script = format!("cd {} || exit 1\nPATH={path}; export PATH\nbad=0\n{lines}exit $bad\n", quoted(&kept.dir));
    // Whole at any moment: the timer may take it at any moment.
    write(&kept.dir.join("undo.new"), script.as_bytes())?;
    fs::rename(kept.dir.join("undo.new"), kept.dir.join("undo.sh"))
}

/// Keeps one state, and notes how it is put back.
fn note(host: &mut Host, undo: &Undo, kept: &mut Kept, back: &Back) -> io::Result<()> {
    let saved = format!("saved-{}", kept.lines.len());
    match back {
        Back::All(parts) => parts.iter().try_for_each(|part| note(host, undo, kept, part))?,
        Back::File(path) => {
            let place = host.locate(path).ok().flatten();
            let real = place.and_then(|place| Some(real_path(&place.dir)?.join(place.name)));
            // Its directory may be made with it.
            let real = real.unwrap_or_else(|| host.root.path().join(path.trim_start_matches('/')));
            kept.own |= undo.own_config.as_ref().is_some_and(|own| own.canonicalize().unwrap_or(own.clone()) == real);
            let beside = quoted(&PathBuf::from(format!("{}.vigo-undo-{}", real.display(), host.run_id())));
            let name = quoted(&real);
            let line = match copy(&real, &kept.dir.join(&saved)) {
                // It becomes theirs again in our own directory: in theirs it could be exchanged for a link before it is given away.
                // Without the right to give it away it is ours already.
                Ok((uid, gid, mode)) => format!(
                    "{{ chown {uid}:{gid} {saved} 2>/dev/null || :; }} && chmod {mode:o} {saved} && rm -f {beside} && \
                     cp -p {saved} {beside} && mv -f {beside} {name}"
                ),
                Err(error) if error.kind() == io::ErrorKind::NotFound => format!("rm -f {name}"),
                Err(error) => return Err(error),
            };
            kept.lines.insert(0, line);
        }
        Back::Feed(words, stdin) => {
            write(&kept.dir.join(&saved), stdin.as_bytes())?;
            kept.lines.insert(0, format!("{} < {saved}", shell(words)));
        }
        Back::After(commands) | Back::Again(commands) => {
            let lines: Vec<String> = commands.iter().map(|words| format!("{} </dev/null", shell(words))).collect();
            kept.after.splice(0..0, lines);
        }
    }
    Ok(())
}

/// From here on somebody puts it back.
fn arm(kept: &Kept) -> io::Result<()> {
    write(&kept.dir.join("timer.sh"), TIMER.as_bytes())?;
    write(&kept.dir.join("armed"), b"")?;
    fs::File::open(&kept.dir)?.sync_all()?;
    let seconds = kept.within_ms.div_ceil(1_000) + TIMER_MORE_S;
    let own = std::process::id().to_string();
    let script = kept.dir.join("timer.sh");
    detach::shell(&script, &[kept.dir.as_os_str(), own.as_ref(), seconds.to_string().as_ref()])
}

/// The run has done everything: asks whether the host can still be reached, and puts back what was changed where it cannot.
/// Gives the names of what was rolled back, and why.
pub fn settle(host: &mut Host) -> Option<(Vec<String>, String)> {
    let (kept, undo) = (host.kept.take()?, host.undo.clone()?);
    let _ = write(&kept.dir.join("ended"), b"");
    if host.is_stopping() {
        // The timer goes on alone, or the next run finds it.
        return None;
    }
    let armed = kept.dir.join("armed");
    let unread = if kept.own { undo.confirmations.reread().err() } else { None };
    if unread.is_none()
        && undo.confirmations.confirm(host.run_id(), kept.within_ms)
        && fs::rename(&armed, kept.dir.join("confirmed")).is_ok()
    {
        wipe(&kept.dir);
        return None;
    }
    let seconds = kept.within_ms / 1_000;
    let mut why = match unread {
        Some(error) => format!(
            "{ROLLED_BACK}: the agent cannot read its new configuration: {error}; what was there before is back"
        ),
        None => format!(
            "{ROLLED_BACK}: no check-in was answered within {seconds}s of the change; what was there before is back"
        ),
    };
    if let Err(error) = put_back(host, &kept.dir) {
        why = format!("{ROLLED_BACK}, but not everything could be put back: {error}");
    }
    if kept.own {
        // As it was before, which it could read.
        let _ = undo.confirmations.reread();
    }
    let marks = refused(&undo.dir);
    let _ = fs::DirBuilder::new().recursive(true).mode(0o700).create(&marks);
    if fs::read_dir(&marks).map_or(0, |all| all.count()) < REFUSED_MAX {
        for mark in kept.resources.iter().filter_map(|(_, mark)| *mark) {
            let _ = write(&marks.join(format!("{mark:016x}")), b"");
        }
    }
    Some((kept.resources.into_iter().map(|(name, _)| name).collect(), why))
}

/// What an agent that is no more left unsettled is put back first of all. Gives what to say of it.
pub fn recover(host: &mut Host) -> Vec<String> {
    let Some(undo) = host.undo.clone() else { return Vec::new() };
    let mut notes = Vec::new();
    let Ok(all) = fs::read_dir(&undo.dir) else { return notes };
    for dir in all.flatten().map(|entry| entry.path()).filter(|path| *path != refused(&undo.dir)) {
        if dir.join("undoing").exists() && !dir.join("undone").exists() {
            // Its timer is at work.
            continue;
        }
        if dir.join(FAILED).exists() {
            let cure = "put back what is kept there by hand, and remove it";
            notes.push(format!("not everything that a run changed could be put back: see {}; {cure}", dir.display()));
            continue;
        }
        let said = if dir.join("armed").exists() {
            match put_back(host, &dir) {
                Ok(()) => "an unconfirmed change of a run that did not end was rolled back".to_string(),
                Err(error) => format!("an unconfirmed change of a run that did not end: {error}"),
            }
        } else if dir.join("undone").exists() {
            "an unconfirmed change of a run that did not end was rolled back by its timer".to_string()
        } else {
            String::new()
        };
        notes.extend((!said.is_empty()).then_some(said));
        wipe(&dir);
    }
    notes
}

/// Runs the script, unless the timer was first.
fn put_back(host: &mut Host, dir: &Path) -> Result<(), String> {
    if fs::rename(dir.join("armed"), dir.join("undoing")).is_err() {
        // The timer has it; what it does takes no time that matters.
        return Ok(());
    }
    let argv = ["/bin/sh".into(), dir.join("undo.sh").into_os_string()].to_vec();
    let deadline = host.now().mono + SCRIPT_MS;
    let order = Order { argv, cwd: None, user: None, environment: &[], stdin: b"", umask: 0o077, deadline };
    let done = host.run(&order).map_err(|fault| fault.to_string())?;
    host.root.forget();
    let _ = fs::rename(dir.join("undoing"), dir.join("undone"));
    match done.ended {
        Ended::Exited(0) => {
            wipe(dir);
            Ok(())
        }
        ended => {
            let _ = write(&dir.join(FAILED), b"");
            Err(format!("{ended:?}: {}; it is in {}", spoken(&done.stderr).trim(), dir.display()))
        }
    }
}

fn refused(dir: &Path) -> PathBuf {
    dir.join("refused")
}

/// What is asked for, as a number that tells nothing of it: parameters may hold secrets, and it becomes the name of a file.
fn mark(task: &Task<'_>) -> u64 {
    let asked: Vec<_> = task.params.iter().collect();
    let blob = task.blob.map(|blob| blob.sha256);
    let text = zeroize::Zeroizing::new(format!("{}\n{asked:?}\n{blob:?}", task.kind));
    sha256(&[b"vigo-undo", text.as_bytes()]).short()
}

/// The content of a regular file, for nobody but us, whatever its mode; gives owner, group and mode.
fn copy(from: &Path, to: &Path) -> io::Result<(u32, u32, u32)> {
    let meta = from.symlink_metadata()?;
    if !meta.is_file() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut new = fs::File::options().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut fs::File::open(from)?, &mut new)?;
    new.sync_all()?;
    Ok((meta.uid(), meta.gid(), meta.mode() & 0o7777))
}

/// What is no longer needed goes, its content first: it may hold secrets.
fn wipe(dir: &Path) {
    let Ok(all) = fs::read_dir(dir) else { return };
    for path in all.flatten().map(|entry| entry.path()) {
        let size = path.symlink_metadata().map_or(0, |meta| if meta.is_file() { meta.len() } else { 0 });
        if let Ok(mut file) = fs::File::options().write(true).open(&path) {
            // A file system may keep it elsewhere all the same: nothing more can be done from here.
            let _ = io::copy(&mut io::repeat(0).take(size), &mut file).and_then(|_| file.sync_all());
        }
    }
    let _ = fs::remove_dir_all(dir);
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn shell(words: &[String]) -> String {
    words.iter().map(|word| quoted(Path::new(word))).collect::<Vec<_>>().join(" ")
}

/// For the shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}
