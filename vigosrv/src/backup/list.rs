//! The archives in a directory.

use std::path::Path;

use super::error::BackupError;
use super::read::sidecar_path;

/// One archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// File name.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// When it was written, milliseconds since 1970.
    pub modified_ms: i64,
    /// Whether the name says that it is encrypted.
    pub encrypted: bool,
    /// Whether there is a `.sha256` beside it.
    pub has_sidecar: bool,
}

/// Whether a file name is one of an archive, and one that leads nowhere else.
pub fn is_archive_name(name: &str) -> bool {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '+'));
    plain && !name.starts_with('.') && (name.ends_with(".tar.gz") || name.ends_with(".tar.gz.enc"))
}

/// Archives by name; a directory that is not there holds none.
pub fn list(dir: &Path) -> Result<Vec<Listed>, BackupError> {
    let wrap = |error: std::io::Error| BackupError::io("read", dir, &error);
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(wrap(error)),
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry.map_err(wrap)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Ok(found) = entry.metadata() else { continue };
        if !is_archive_name(&name) || !found.is_file() {
            continue;
        }
        let modified = found.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        all.push(Listed {
            bytes: found.len(),
            modified_ms: modified.and_then(|at| i64::try_from(at.as_millis()).ok()).unwrap_or(0),
            encrypted: name.ends_with(".enc"),
            has_sidecar: sidecar_path(&entry.path()).is_file(),
            name,
        });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}
