//! `cron`: a command runs by a timetable. By preference a file of its own in `/etc/cron.d`; where cron knows no such
//! directory, as that of BusyBox, marked lines in the crontab of the user.

use common::bundle::Value;
use common::policy::params::text_of;

use super::parts::Parts;
use crate::exec::contract::{Drift, Statement, settle_read};
use crate::exec::fault::Fault;
use crate::exec::files::blockinfile::Block;
use crate::exec::files::edit::Edited;
use crate::exec::files::file::{self, Access};
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::plan::{Task, Verdict};
use crate::sys::replace::Replacement;

/// Files of their own.
const FOLDER: &str = "/etc/cron.d";
/// Where crontabs of users are: Debian; Alpine and OpenWrt; Fedora, Arch and SUSE.
const CRONTABS: [&str; 3] = ["/var/spool/cron/crontabs", "/etc/crontabs", "/var/spool/cron"];
/// Where BusyBox's cron, which looks only once an hour, is told whose crontab is new.
const UPDATE: &str = "cron.update";

/// Settles one `cron`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(read(host, task), host, task)
}

struct Wanted<'t> {
    parts: Parts<'t>,
    /// A directory of crontabs, and the user whose changed.
    update: Option<(&'static str, String)>,
}

fn read<'t>(host: &mut Host, task: &'t Task<'t>) -> Result<Wanted<'t>, Fault> {
    let reader = Reader::of(task)?;
    let present = reader.is("state", "present", "present");
    let job = reader.path("job");
    let user = reader.text("user").unwrap_or("root".into());
    let field = |name: &str| reader.text(name).unwrap_or("*".into());
    let times = match reader.text("special") {
        Some(word) => format!("@{word}"),
        None => ["minute", "hour", "day", "month", "weekday"].map(field).join(" "),
    };
    let command = reader.text("command").unwrap_or_default();
    if present && command.trim().is_empty() {
        return Err(Fault::Parameter("`command` must not be empty".to_string()));
    }
    let own = match reader.text("location") {
        Some(word) => word == "cron.d",
        None => is_directory(host, FOLDER)?,
    };
    if own {
        let environment = environment(&reader)?;
        let text = format!("# {job}: written by Vigo, changes are undone\n{environment}{times} {user} {command}\n");
        let path = format!("{FOLDER}/{job}");
        let parts = Parts::default().with(path.clone(), file::Wanted::owned(path, present.then_some(text), task));
        return Ok(Wanted { parts, update: None });
    }
    if reader.value("environment").is_some() {
        return Err(Fault::Parameter("`environment` works only in /etc/cron.d; write it into the command".to_string()));
    }
    let mut found = None;
    for folder in CRONTABS {
        if found.is_none() && is_directory(host, folder)? {
            found = Some(folder);
        }
    }
    let Some(folder) = found else {
        let message = "this host has neither /etc/cron.d nor a directory of crontabs: install cron first";
        return if present {
            Err(Fault::Failed(message.to_string()))
        } else {
            Ok(Wanted { parts: Parts::default(), update: None })
        };
    };
    let uid = host.uid_of(&user)?;
    let block = Block::new(&format!("# {{mark}} vigo {job}"), present.then(|| vec![format!("{times} {command}")]));
    let path = format!("{folder}/{user}");
    let access = Access { mode: Some(0o600), uid: host.is_privileged().then_some(uid), gid: None };
    let access = if present { access } else { Access::default() };
    let parts = Parts::default().with(path.clone(), Edited { path: path.into(), edit: block, access });
    Ok(Wanted { parts, update: (folder == "/etc/crontabs").then(|| (folder, user.into_owned())) })
}

/// Lines in front of the timetable.
fn environment(reader: &Reader<'_>) -> Result<String, Fault> {
    let Some(Value::Map(map)) = reader.value("environment") else { return Ok(String::new()) };
    let mut lines = String::new();
    for (name, value) in map {
        let value = text_of(value).unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !name.bytes().all(plain) || name.starts_with(|c: char| c.is_ascii_digit()) || value.contains(['\n', '"']) {
            let message = "names are letters, digits and underscores; values are one line without quotes";
            return Err(Fault::Parameter(format!("`environment`: {name}: {message}")));
        }
        lines.push_str(&format!("{name}=\"{value}\"\n"));
    }
    Ok(lines)
}

fn is_directory(host: &mut Host, path: &str) -> Result<bool, Fault> {
    match host.root.directory(path) {
        Ok(_) => Ok(true),
        Err(crate::sys::root::WalkError::Missing { .. } | crate::sys::root::WalkError::NotADirectory { .. }) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

impl Statement for Wanted<'_> {
    fn probe(&mut self, host: &mut Host, diff: bool) -> Result<Option<Drift>, Fault> {
        self.parts.probe(host, diff)
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        self.parts.converge(host)?;
        let Some((folder, user)) = &self.update else { return Ok(()) };
        let path = format!("{folder}/{UPDATE}");
        let place = host.locate_to_write(&path)?;
        let failed = || Fault::io("write", &path);
        // Another name in there that cron has not read yet is read within the hour.
        let mut new = Replacement::begin(&place).map_err(failed())?;
        new.write(format!("{user}\n").as_bytes()).map_err(failed())?;
        new.commit(&place).map_err(failed())
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        self.parts.spare_self(host)
    }
}
