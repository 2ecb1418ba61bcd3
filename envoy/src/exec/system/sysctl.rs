//! `sysctl`: a setting of the kernel has a value: in a file that is read at every start, and in the running kernel. `absent`
//! takes it out of the file; what the kernel had before is not known, so that it keeps what it has.

use common::policy::shapes::sysctl_path;

use super::parts::{Folder, KernelValue, Parts};
use crate::exec::contract::settle_read;
use crate::exec::fault::Fault;
use crate::exec::files::edit::Edited;
use crate::exec::files::ini::Setting;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::plan::{Task, Verdict};

/// Where the file is if none is named.
const FOLDER: &str = "/etc/sysctl.d";
const FILE: &str = "/etc/sysctl.d/99-vigo.conf";

/// Settles one `sysctl`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(read(host, task), host, task)
}

fn read<'t>(host: &Host, task: &'t Task<'t>) -> Result<Parts<'t>, Fault> {
    let reader = Reader::of(task)?;
    let present = reader.is("state", "present", "present");
    let key = reader.path("key").into_owned();
    let value = reader.text("value").unwrap_or_default().trim().to_string();
    let path = sysctl_path(&key).unwrap_or_default();
    let target = reader.text("target_path");
    let name = key.clone();
    let setting = Setting { present, section: None, key: Some(key), value: Some(value.clone()), spaces: None };
    let file = target.clone().unwrap_or(FILE.into());
    Ok(Parts::default()
        .with_if(target.is_none() && present, FOLDER, Folder(FOLDER.to_string()))
        .with(file.clone(), Edited::new(file, setting))
        .with_if(host.is_live() && present, "now", KernelValue { path, name, value }))
}
