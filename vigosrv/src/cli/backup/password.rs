//! The password of an encrypted archive: from a file, the environment or a prompt; never from the command line.

use std::io::IsTerminal;
use std::path::PathBuf;

use common::cli::{Failure, ask_hidden};
use common::limits::BACKUP_PASSWORD_BYTES_MAX;
use common::sys::file::read_bounded;
use zeroize::Zeroizing;

use crate::backup::BackupError;

const VARIABLE: &str = "VIGO_BACKUP_PASSWORD";

/// Where it comes from.
#[derive(Clone, Debug, Default)]
pub(super) struct Password {
    pub file: Option<PathBuf>,
}

impl Password {
    /// To open an archive that was made earlier.
    pub fn ask(&self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        self.given()?.map_or_else(|| prompt("password of the archive: "), Ok)
    }

    /// For a new archive: typed twice.
    pub fn choose(&self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        if let Some(password) = self.given()? {
            return Ok(password);
        }
        let first = prompt("password for the archive: ")?;
        if first != prompt("the same again: ")? {
            return Err(Failure::usage("the two passwords differ").hint("nothing was written: try again"));
        }
        Ok(first)
    }

    /// For the reader of an archive, which asks only where it must.
    pub fn asker(&self, archive: PathBuf) -> impl FnMut() -> Result<Zeroizing<Vec<u8>>, BackupError> {
        let password = self.clone();
        move || password.ask().map_err(|failure| BackupError::Password { archive: archive.clone(), why: failure.what })
    }

    fn given(&self) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        let mut password = if let Some(path) = &self.file {
            read_bounded(path, BACKUP_PASSWORD_BYTES_MAX)
                .map(Zeroizing::new)
                .map_err(|error| Failure::failed(error.to_string()))?
        } else if let Some(text) = std::env::var_os(VARIABLE) {
            Zeroizing::new(std::os::unix::ffi::OsStringExt::into_vec(text))
        } else {
            return Ok(None);
        };
        if password.ends_with(b"\n") {
            password.pop();
        }
        check(password).map(Some)
    }
}

fn prompt(text: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("the archive is encrypted, and there is no terminal to ask for the password on")
            .hint(format!("give it with `--password-file FILE` or {VARIABLE}")));
    }
    let typed = ask_hidden(text).map_err(|error| Failure::failed(format!("cannot ask for the password: {error}")))?;
    check(Zeroizing::new(typed.as_bytes().to_vec()))
}

fn check(password: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if password.is_empty() {
        return Err(Failure::usage("the password is empty"));
    }
    Ok(password)
}
