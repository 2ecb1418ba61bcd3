//! A file that is to be installed or built: out of the policy, or from elsewhere by a hash that the policy names. It lies in a
//! directory of its own, which is gone when this is dropped.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use common::bundle::BlobRef;
use common::limits;
use common::time::Mono;

use super::session::blame;
use crate::exec::fault::Fault;
use crate::exec::host::{Host, damaged};
use crate::exec::read::Reader;
use crate::exec::tool::Tool;
use crate::plan::Task;
use crate::sys::root::real_path;

/// Where work is done, below the root.
const FOLDERS: [&str; 2] = ["/var/tmp", "/tmp"];

/// Where the content comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// The policy.
    Blob(BlobRef),
    /// Elsewhere: an address and the SHA-256, in hexadecimal digits.
    Url(String, String),
}

impl Origin {
    /// From `source`, or `url` and `sha256`; nothing where none is named.
    pub fn read(task: &Task<'_>, reader: &Reader<'_>) -> Result<Option<Origin>, Fault> {
        if let Some(source) = reader.text("source") {
            let missing = || Fault::Parameter(format!("the bundle does not carry `{source}`: publish again"));
            return Ok(Some(Origin::Blob(task.blob.ok_or_else(missing)?.clone())));
        }
        match (reader.text("url"), reader.text("sha256")) {
            (None, _) => Ok(None),
            (Some(url), Some(hash)) => Ok(Some(Origin::Url(url.into_owned(), hash.to_ascii_lowercase()))),
            (Some(_), None) => Err(Fault::Parameter(
                "`url` needs `sha256`: what comes from elsewhere is known by its hash".to_string(),
            )),
        }
    }

    /// The last part of its path, where that is a plain name.
    pub fn name(&self) -> Option<&str> {
        let path = match self {
            Origin::Blob(blob) => blob.path.as_str(),
            Origin::Url(url, _) => url.split(['?', '#']).next().unwrap_or_default(),
        };
        let name = path.rsplit('/').next().unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+~-".contains(&byte);
        (!name.starts_with(['.', '-']) && name.contains('.') && name.bytes().all(plain)).then_some(name)
    }
}

/// A directory for work, with one file in it. Gone when dropped.
pub struct Fetched {
    /// The directory, as the host sees it.
    pub dir: PathBuf,
    /// The same below the root.
    pub below: String,
    /// The file, as the host sees it.
    pub file: PathBuf,
}

impl Drop for Fetched {
    fn drop(&mut self) {
        // What cannot be removed is in a directory for temporary files.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Brings the content here and compares its hash.
pub fn fetch(host: &mut Host, origin: &Origin, name: &str, deadline: Mono) -> Result<Fetched, Fault> {
    let work = make(host, name)?;
    let shown = work.file.display().to_string();
    let failed = || Fault::io("write", &shown);
    let mut new = File::options().write(true).create_new(true).mode(0o600).open(&work.file).map_err(failed())?;
    match origin {
        Origin::Blob(blob) => {
            let mut from = host.open_blob(blob)?;
            let found = copy(&mut from, &mut new).map_err(failed())?;
            if found != blob.sha256.to_string() {
                return Err(damaged(blob));
            }
        }
        Origin::Url(url, wanted) => {
            drop(new);
            load(host, url, &shown, deadline)?;
            let mut file = File::open(&work.file).map_err(Fault::io("read", &shown))?;
            let found = copy(&mut file, &mut io::sink()).map_err(Fault::io("read", &shown))?;
            if found != *wanted {
                return Err(Fault::Failed(format!("{url} has the SHA-256 {found}, and policy names {wanted}")));
            }
        }
    }
    Ok(work)
}

/// An empty directory for work, and where a file of this name goes in it.
pub fn make(host: &mut Host, name: &str) -> Result<Fetched, Fault> {
    // Nobody else knows the id of the run.
    let own = format!("vigo-{}", host.run_id());
    for folder in FOLDERS {
        let Ok(parent) = host.root.directory(folder) else { continue };
        let Some(parent) = real_path(&parent) else { continue };
        let dir = parent.join(&own);
        let _ = fs::remove_dir_all(&dir);
        fs::DirBuilder::new().mode(0o700).create(&dir).map_err(Fault::io("make", &dir.display().to_string()))?;
        let file = dir.join(name);
        return Ok(Fetched { dir, below: format!("{folder}/{own}"), file });
    }
    Err(Fault::Failed(format!("there is no directory to work in: neither {} nor {}", FOLDERS[0], FOLDERS[1])))
}

fn load(host: &mut Host, url: &str, to: &str, deadline: Mono) -> Result<(), Fault> {
    if let Some(path) = url.strip_prefix("file://") {
        return fs::copy(path, to).map(|_| ()).map_err(Fault::io("read", path));
    }
    let most = limits::BLOB_BYTES_MAX.to_string();
    let (tool, args) = match Tool::find(host, "curl") {
        Some(curl) => (curl, vec!["-fsSL", "--retry", "2", "--max-filesize", &most, "-o", to, "--", url]),
        None => (Tool::need(host, "wget")?, vec!["-q", "-O", to, url]),
    };
    tool.run(host, &args, deadline).map(|_| ()).map_err(blame)
}

/// Copies; the SHA-256 of what was copied.
fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<String> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = [0; 16 << 10];
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            n => {
                context.update(&buffer[..n]);
                to.write_all(&buffer[..n])?;
            }
        }
    }
    to.flush()?;
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}
