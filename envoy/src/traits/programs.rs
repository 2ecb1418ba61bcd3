//! Traits of the operator: every program in a directory prints one tree as JSON. It is what strangers wrote: each has a
//! deadline, its output is bounded and checked, and one that anybody else may write to is not run. What fails is a warning
//! with its name; the last known tree stands in.
//!
//! Limits: [`TRAIT_PROGRAMS_MAX`], [`TRAIT_PROGRAM_BYTES_MAX`], [`TRAIT_PROGRAMS_BYTES_MAX`], [`COLLECTOR_TIMEOUT_MS`],
//! [`TRAIT_PROGRAMS_TIMEOUT_MS`], and those of [`check`].

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::limits::{
    COLLECTOR_TIMEOUT_MS, TRAIT_DEPTH_MAX, TRAIT_KEY_BYTES_MAX, TRAIT_NAME_BYTES_MAX, TRAIT_PROGRAM_BYTES_MAX,
    TRAIT_PROGRAMS_BYTES_MAX, TRAIT_PROGRAMS_MAX, TRAIT_PROGRAMS_TIMEOUT_MS, TRAIT_VALUES_MAX,
};
use common::policy::trait_keys::near_tree;
use common::sys::Clock;
use common::units::human_duration;
use serde_json::Value;

use super::Which;
use crate::agent::TraitTree;
use crate::sys::child::{Ended, Spec, StopFlag, run};

/// Where programs of programs are found.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Part of a file name that makes its tree volatile.
const VOLATILE: &str = "volatile";
/// Permission to write for the group and others.
const FOREIGN_WRITE: u32 = 0o022;
/// Permission to execute.
const EXECUTE: u32 = 0o111;

/// The programs of one directory, and what they printed last.
#[derive(Debug)]
pub(super) struct Programs {
    dir: PathBuf,
    clock: Clock,
    timeout_ms: u64,
    known: BTreeMap<String, Program>,
}

#[derive(Debug)]
struct Program {
    path: PathBuf,
    volatile: bool,
    /// It took too long: it is asked with the stable ones until it does not.
    slow: bool,
    last: Option<(Arc<Value>, usize)>,
}

impl Programs {
    pub(super) fn new(dir: &Path, clock: &Clock) -> Programs {
        Programs {
            dir: dir.to_path_buf(),
            clock: clock.clone(),
            timeout_ms: COLLECTOR_TIMEOUT_MS,
            known: BTreeMap::new(),
        }
    }

    /// Runs what is due.
    pub(super) fn gather(&mut self, which: Which, stop: &StopFlag, warnings: &mut Vec<String>) {
        if which == Which::All {
            self.look(warnings);
        }
        let until = self.clock.now().mono + TRAIT_PROGRAMS_TIMEOUT_MS;
        let names: Vec<String> = self.known.keys().cloned().collect();
        for name in names {
            let others: usize =
                self.known.iter().filter(|(other, _)| **other != name).map(|(_, other)| other.bytes()).sum();
            let Some(program) = self.known.get_mut(&name) else { continue };
            if which == Which::Volatile && (!program.volatile || program.slow) {
                continue;
            }
            let path = program.path.display();
            let left = until.since(self.clock.now().mono);
            if left == 0 || stop.grace_ms().is_some() {
                let limit = human_duration(TRAIT_PROGRAMS_TIMEOUT_MS);
                warnings.push(format!("trait program {path} is left out: those before it took {limit}"));
                continue;
            }
            let deadline = self.clock.now().mono + self.timeout_ms.min(left);
            program.slow = false;
            match ask(&program.path, &self.clock, deadline, stop) {
                Ok((_, bytes)) if others + bytes > TRAIT_PROGRAMS_BYTES_MAX => {
                    let most = TRAIT_PROGRAMS_BYTES_MAX >> 10;
                    warnings.push(format!(
                        "trait program {path} is left out: all together print more than {most} KiB; print less"
                    ));
                }
                Ok((value, bytes)) => {
                    let same = program.last.take().filter(|(last, _)| **last == value);
                    program.last = Some((same.map_or_else(|| Arc::new(value), |(last, _)| last), bytes));
                }
                Err(Failed::Slow) => {
                    program.slow = true;
                    let limit = human_duration(self.timeout_ms);
                    warnings.push(format!("trait program {path} took more than {limit} and was ended"));
                }
                Err(Failed::Otherwise(why)) => warnings.push(format!("trait program {path} {why}")),
            }
        }
    }

    /// The last known trees.
    pub(super) fn trees(&self) -> impl Iterator<Item = TraitTree> {
        self.known.iter().filter_map(|(name, program)| {
            let (value, _) = program.last.as_ref()?;
            Some(TraitTree { name: name.clone(), value: Arc::clone(value), volatile: program.volatile })
        })
    }

    /// Finds out which programs there are.
    fn look(&mut self, warnings: &mut Vec<String>) {
        let mut before = std::mem::take(&mut self.known);
        let dir = self.dir.display();
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        if let Some(why) = self.dir.metadata().ok().and_then(|found| foreign(&found)) {
            warnings.push(format!("trait directory {dir} {why}; none of its programs is run"));
            return;
        }
        let mut names: Vec<_> =
            entries.flatten().take(16 * TRAIT_PROGRAMS_MAX).map(|entry| entry.file_name()).collect();
        names.sort_unstable();
        // Hidden files are those of editors and package managers.
        for file in names.into_iter().filter(|name| !name.as_encoded_bytes().starts_with(b".")) {
            let path = self.dir.join(&file);
            match self.program(&path, &file.to_string_lossy()) {
                Ok((name, volatile)) => {
                    let last = before.remove(&name).and_then(|old| old.last);
                    self.known.insert(name, Program { path, volatile, slow: false, last });
                }
                Err(why) => warnings.push(format!("trait program {} {why}", path.display())),
            }
        }
    }

    /// The tree that a file gives and whether it is volatile, or why it is not run.
    fn program(&self, path: &Path, file: &str) -> Result<(String, bool), String> {
        let mut parts = file.split('.');
        let name = parts.next().unwrap_or_default();
        let volatile = parts.any(|part| part == VOLATILE);
        let is_word = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        let found = path.symlink_metadata().map_err(|error| format!("cannot be looked at: {error}"))?;
        if !found.is_file() {
            Err("is no file: links and directories are not followed".into())
        } else if !is_word || name.len() > TRAIT_NAME_BYTES_MAX {
            Err("names no trait: small letters, digits and `_` up to the first dot, a letter first; rename it".into())
        } else if let Some(near) = near_tree(name) {
            let word = if near == name { "is" } else { "is only a letter away from" };
            Err(format!("is not run: `{name}` {word} a tree of the agent itself, `{near}`; rename it"))
        } else if let Some(other) = self.known.get(name) {
            Err(format!("is not run: {} gives `{name}` already; rename one", other.path.display()))
        } else if let Some(why) = foreign(&found) {
            Err(format!("{why}; it is not run"))
        } else if found.mode() & EXECUTE == 0 {
            Err("is not executable: `chmod +x` it, or remove it".into())
        } else if self.known.len() >= TRAIT_PROGRAMS_MAX {
            Err(format!("is not run: there are {TRAIT_PROGRAMS_MAX} before it, which is the limit"))
        } else {
            Ok((name.to_string(), volatile))
        }
    }
}

impl Program {
    fn bytes(&self) -> usize {
        self.last.as_ref().map_or(0, |(_, bytes)| *bytes)
    }
}

/// Why somebody else could have written it.
fn foreign(found: &std::fs::Metadata) -> Option<String> {
    let own = nix::unistd::geteuid().as_raw();
    if found.uid() != 0 && found.uid() != own {
        return Some(format!("belongs to the user with the number {}: `chown root` it", found.uid()));
    }
    (found.mode() & FOREIGN_WRITE != 0).then(|| "may be written by group or others: `chmod go-w` it".to_string())
}

enum Failed {
    Slow,
    Otherwise(String),
}

/// What a program prints, and in how many bytes.
fn ask(path: &Path, clock: &Clock, deadline: common::time::Mono, stop: &StopFlag) -> Result<(Value, usize), Failed> {
    let cannot = |error: std::io::Error| Failed::Otherwise(format!("cannot be run: {error}"));
    let environment = [("PATH", PATH), ("HOME", "/"), ("LANG", "C.UTF-8"), ("VIGO_TRAITS", "1")];
    let spec = Spec {
        argv: vec![path.into()],
        environment: environment.map(|(name, value)| (name.into(), value.into())).to_vec(),
        directory: Arc::new(File::open("/").map_err(cannot)?.into()),
        run_as: None,
        umask: 0o077,
        stdin: b"",
        keep: TRAIT_PROGRAM_BYTES_MAX,
    };
    let done = run(&spec, clock, deadline, stop).map_err(cannot)?;
    let otherwise = |why: String| Err(Failed::Otherwise(why));
    let complaint = || {
        let text = done.stderr.text();
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim();
        last.chars().filter(|c| !c.is_control()).take(200).collect::<String>()
    };
    match done.ended {
        Ended::Exited(0) => {}
        Ended::Exited(code) => return otherwise(format!("ended with {code}: {}", complaint())),
        Ended::Signalled(signal) => return otherwise(format!("was killed by signal {signal}")),
        Ended::TimedOut => return Err(Failed::Slow),
        Ended::Stopped => return otherwise("was ended: the agent stops".into()),
    }
    let Some(bytes) = done.stdout.whole() else {
        return otherwise(format!("printed more than {} KiB", TRAIT_PROGRAM_BYTES_MAX >> 10));
    };
    let Ok(text) = std::str::from_utf8(bytes) else { return otherwise("printed what is not UTF-8".into()) };
    let value = serde_json::from_str(text).map_err(|error| Failed::Otherwise(format!("printed no JSON: {error}")))?;
    check(&value).map_err(Failed::Otherwise)?;
    Ok((value, bytes.len()))
}

/// Nesting, number of values, length of keys.
fn check(value: &Value) -> Result<(), String> {
    let mut n_values = 0;
    // The parser nests at most 128 deep: no recursion without a bound.
    let mut open = vec![(value, 1)];
    while let Some((value, depth)) = open.pop() {
        n_values += 1;
        if depth > TRAIT_DEPTH_MAX {
            return Err(format!("printed what is nested more than {TRAIT_DEPTH_MAX} deep"));
        }
        if n_values > TRAIT_VALUES_MAX {
            return Err(format!("printed more than {TRAIT_VALUES_MAX} values"));
        }
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(map) => {
                if map.keys().any(|key| key.is_empty() || key.len() > TRAIT_KEY_BYTES_MAX) {
                    return Err(format!("printed a key that is empty or over {TRAIT_KEY_BYTES_MAX} bytes"));
                }
                open.extend(map.values().map(|item| (item, depth + 1)));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
