//! Looking at paths below the root without following what is there: whether something exists, where a link points, which names a
//! directory has, what a small file says. What cannot be looked at because a parent is missing is not there.

use std::ffi::CStr;
use std::os::fd::AsFd;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::Mode;

use super::fault::Fault;
use super::files::edit::load;
use super::host::Host;
use crate::sys::root::WalkError;

/// Names of a directory that are looked at; one with more is not a directory of services or processes.
const NAMES_MAX: usize = 1 << 17;

/// Whether there is anything.
pub fn is_there(host: &mut Host, path: &str) -> Result<bool, Fault> {
    let Some(place) = host.locate(path)? else { return Ok(false) };
    Ok(host.stat(&place, path)?.is_some())
}

/// Where a symbolic link points; `None` for anything else.
pub fn link_at(host: &mut Host, path: &str) -> Result<Option<String>, Fault> {
    let Some(place) = host.locate(path)? else { return Ok(None) };
    match readlinkat(place.dir.as_fd(), place.name) {
        Ok(to) => Ok(Some(to.to_string_lossy().into_owned())),
        Err(Errno::ENOENT | Errno::EINVAL) => Ok(None),
        Err(errno) => Err(Fault::io("read", path)(errno)),
    }
}

/// The names in a directory, sorted; none where there is no directory. Names that are not UTF-8 are left out.
pub fn names_in(host: &mut Host, path: &str) -> Result<Vec<String>, Fault> {
    let at = match host.root.directory(path) {
        Ok(at) => at,
        Err(WalkError::Missing { .. } | WalkError::NotADirectory { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut dir = Dir::openat(at.as_fd(), ".", flags, Mode::empty()).map_err(Fault::io("read", path))?;
    let mut names = Vec::new();
    for entry in dir.iter().take(NAMES_MAX) {
        let entry = entry.map_err(Fault::io("read", path))?;
        let name: &CStr = entry.file_name();
        names.extend(name.to_str().ok().filter(|name| !matches!(*name, "." | "..")).map(str::to_string));
    }
    names.sort_unstable();
    Ok(names)
}

/// What a small file says; nothing where there is none, or where what is there is no regular file.
pub fn text_of(host: &mut Host, path: &str) -> Result<String, Fault> {
    match load(host, path) {
        Ok(loaded) => Ok(loaded.map_or_else(String::new, |it| String::from_utf8_lossy(&it.bytes).into_owned())),
        Err(Fault::Refused(_)) => Ok(String::new()),
        // It ended while we looked, or lies in a directory that is gone.
        Err(Fault::Io { errno: Errno::ESRCH | Errno::ENODEV, .. }) => Ok(String::new()),
        Err(fault) => Err(fault),
    }
}
