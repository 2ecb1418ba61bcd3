//! This program, as it is on the disk: executed anew in the same process, with the same words and environment.
//!
//! Files, locks and maps of this process end with it (every descriptor is close-on-exec); what is synced is there for the next.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use common::sys::signals::set_held_back;

/// Where the program was found when this process started, and how it was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    words: Vec<OsString>,
}

impl Program {
    /// Of the process that calls. To be called at its start: a link may lead elsewhere later, and so may a relative path.
    pub fn of_this_process() -> Program {
        let words: Vec<OsString> = std::env::args_os().collect();
        // The path that it was called by may be a link that an upgrade turns. Without a slash it was found in PATH.
        let called = words.first().map(PathBuf::from).filter(|path| path.components().count() > 1);
        let called = called.and_then(|path| std::path::absolute(path).ok()).filter(|path| is_this_one(path));
        let path = called.or_else(|| std::env::current_exe().ok()).unwrap_or_default();
        Program { path, words }
    }

    /// Never returns where it succeeds. Otherwise why not: this process is as it was, and can go on.
    pub fn execute(&self) -> String {
        let text = |bytes: OsString| CString::new(bytes.into_vec());
        let words: Result<Vec<CString>, _> = self.words.iter().cloned().map(text).collect();
        let (Ok(path), Ok(words)) = (text(self.path.clone().into_os_string()), words) else {
            return format!("{} cannot be executed: a zero byte in its arguments", self.path.display());
        };
        // Between the end of these handlers and the next ones a signal would kill.
        let held_back = set_held_back(true);
        let Err(error) = nix::unistd::execv(&path, &words);
        if held_back.is_ok() {
            // It can be undone where it could be done.
            let _ = set_held_back(false);
        }
        format!("{} cannot be executed: {}", self.path.display(), error.desc())
    }
}

/// Whether this path leads to what is running now.
fn is_this_one(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let of = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    matches!((of(path), of(Path::new("/proc/self/exe"))), (Ok(called), Ok(running)) if called == running)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_cannot_be_executed_says_why_and_the_process_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let check = |name: &str, content: Option<&[u8]>, mode: u32, why: &str| {
            use std::os::unix::fs::PermissionsExt;
            let path = dir.path().join(name);
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            }
            let said = Program { path: path.clone(), words: vec!["x".into()] }.execute();
            assert_eq!(said, format!("{} cannot be executed: {why}", path.display()));
        };
        check("missing", None, 0, "No such file or directory");
        check("plain", Some(b"#!/bin/sh\n"), 0o644, "Permission denied");
        check("noise", Some(b"\x7fELF is not enough"), 0o755, "Exec format error");
        check("hollow", Some(b"#!/nonexistent/interpreter\n"), 0o755, "No such file or directory");
    }

    #[test]
    fn a_process_knows_what_it_was_started_as() {
        let program = Program::of_this_process();
        assert!(program.path.is_absolute() && is_this_one(&program.path), "{program:?}");
        assert!(program.words.iter().eq(std::env::args_os().collect::<Vec<_>>().iter()));
    }
}
