//! SQLite's errors as ours: full, damaged, or anything else with the path and what to do.

use std::path::Path;

use rusqlite::ffi;

use crate::store::StoreError;

/// Growing the shared-memory file failed: it happens on a full file system, where SQLite does not call it full.
const IOERR_SHMSIZE: i32 = ffi::SQLITE_IOERR_SHMSIZE;

/// Translates, naming the database.
pub fn store_error(path: &Path, error: rusqlite::Error) -> StoreError {
    let code = error.sqlite_error_code();
    let extended = error.sqlite_error().map(|e| e.extended_code);
    match code {
        Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full,
        _ if extended == Some(IOERR_SHMSIZE) => StoreError::Full,
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            corrupt(path, &error.to_string())
        }
        Some(rusqlite::ErrorCode::ReadOnly | rusqlite::ErrorCode::CannotOpen) => StoreError::Io(format!(
            "{}: {error}: the file and its directory must be writable for the user that vigosrv runs as",
            path.display()
        )),
        _ => StoreError::Io(format!("{}: {error}", path.display())),
    }
}

/// A damaged file: what, where, and the way out.
pub fn corrupt(path: &Path, what: &str) -> StoreError {
    StoreError::Corrupt(format!(
        "{}: the database is damaged ({what}); stop vigosrv, keep the file for inspection, and bring back the last \
         good state with `vigocli backup restore FILE --db-only` (envoys go on from their caches meanwhile, and send what they kept)",
        path.display()
    ))
}

/// An error of the file system beside the database.
pub fn io_error(path: &Path, doing: &str, error: &std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::Full,
        _ => StoreError::Io(format!("{}: {doing}: {error}", path.display())),
    }
}
