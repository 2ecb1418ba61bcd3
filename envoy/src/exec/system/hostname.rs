//! `hostname`: the name of the host, in `/etc/hostname` and in the running kernel. `/etc/hosts` is a matter of `host`.

use super::parts::{KernelValue, Parts};
use crate::exec::contract::settle_read;
use crate::exec::fault::Fault;
use crate::exec::files::file;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::plan::{Task, Verdict};

/// Where it is kept.
const FILE: &str = "/etc/hostname";
/// Longest name that Linux takes.
const BYTES_MAX: usize = 64;

/// Settles one `hostname`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(read(host, task), host, task)
}

fn read<'t>(host: &Host, task: &'t Task<'t>) -> Result<Parts<'t>, Fault> {
    let name = Reader::of(task)?.path("hostname").into_owned();
    if name.len() > BYTES_MAX {
        return Err(Fault::Parameter(format!("`hostname` has {} bytes; Linux takes {BYTES_MAX}", name.len())));
    }
    let kept = file::Wanted::owned(FILE.to_string(), Some(format!("{name}\n")), task);
    let now = KernelValue { path: "kernel/hostname".to_string(), name: "kernel.hostname".to_string(), value: name };
    Ok(Parts::default().with(FILE, kept).with_if(host.is_live(), "now", now))
}
