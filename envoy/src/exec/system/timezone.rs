//! `timezone`: `/etc/localtime` points to a zone; where a system also keeps its name in `/etc/timezone`, that says the same.

use super::parts::Parts;
use crate::exec::contract::settle_read;
use crate::exec::fault::Fault;
use crate::exec::files::{file, symlink};
use crate::exec::host::Host;
use crate::exec::look::{is_there, link_at};
use crate::exec::read::Reader;
use crate::plan::{Task, Verdict};

/// What the C library reads.
const LINK: &str = "/etc/localtime";
/// What Debian and its like read as well.
const NAME: &str = "/etc/timezone";
/// Where zones are.
const ZONES: &str = "/usr/share/zoneinfo";

/// Settles one `timezone`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(read(host, task), host, task)
}

fn read<'t>(host: &mut Host, task: &'t Task<'t>) -> Result<Parts<'t>, Fault> {
    let zone = Reader::of(task)?.path("zone").into_owned();
    let path = format!("{ZONES}/{zone}");
    if !is_there(host, &path)? {
        let message = "install the zones (tzdata), or look for its name there";
        return Err(Fault::Failed(format!("there is no zone {path}; {message}")));
    }
    // Both ways to write the link are in use: the one that is there stays.
    let relative = format!("..{path}");
    let to = if link_at(host, LINK)?.is_some_and(|to| to == relative) { relative } else { path };
    let named = is_there(host, NAME)? || is_there(host, "/etc/debian_version")?;
    Ok(Parts::default().with(LINK, symlink::Wanted::owned(LINK.to_string(), to, true)).with_if(
        named,
        NAME,
        file::Wanted::owned(NAME.to_string(), Some(format!("{zone}\n")), task),
    ))
}
