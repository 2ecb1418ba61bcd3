//! `kernel_module`: a module is loaded now and at every start, or no longer at start, or kept from loading at all. A module
//! that is built into the kernel is there without any of it, and cannot be kept out.

use super::parts::{Folder, Parts};
use crate::exec::contract::{Action, Drift, Statement, settle_read};
use crate::exec::fault::Fault;
use crate::exec::files::edit::load;
use crate::exec::files::file;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::exec::tool::Tool;
use crate::plan::{Task, Verdict};

/// Modules that are loaded at start.
const LOAD: &str = "/etc/modules-load.d";
/// How modules are loaded.
const PROBE: &str = "/etc/modprobe.d";

/// Settles one `kernel_module`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(read(host, task), host, task)
}

fn read<'t>(host: &Host, task: &'t Task<'t>) -> Result<Parts<'t>, Fault> {
    let reader = Reader::of(task)?;
    let module = reader.path("module").into_owned();
    let (present, blacklisted) =
        (reader.is("state", "present", "present"), reader.is("state", "blacklisted", "present"));
    let options = reader.text("options").filter(|options| present && !options.trim().is_empty());
    let how = match options {
        Some(options) => Some(format!("options {module} {}\n", options.trim())),
        // `blacklist` alone only hides its aliases: something else that needs it would still load it.
        None => blacklisted.then(|| format!("blacklist {module}\ninstall {module} /bin/false\n")),
    };
    let at_start = format!("{LOAD}/{module}.conf");
    let config = format!("{PROBE}/vigo-{module}.conf");
    let now = Loaded { module: module.clone(), wanted: present, task };
    Ok(Parts::default()
        .with_if(present, LOAD, Folder(LOAD.to_string()))
        .with_if(how.is_some(), PROBE, Folder(PROBE.to_string()))
        .with(config.clone(), file::Wanted::owned(config, how, task))
        .with(at_start.clone(), file::Wanted::owned(at_start, present.then(|| format!("{module}\n")), task))
        .with_if(host.is_live() && (present || blacklisted), "now", now))
}

/// Whether it is in the running kernel.
struct Loaded<'t> {
    module: String,
    wanted: bool,
    task: &'t Task<'t>,
}

impl Loaded<'_> {
    /// As the kernel spells it.
    fn name(&self) -> String {
        self.module.replace('-', "_")
    }

    fn is_loaded(&self, host: &mut Host) -> Result<bool, Fault> {
        let bytes = load(host, "/proc/modules")?.map(|loaded| loaded.bytes).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.lines().any(|line| line.split(' ').next() == Some(&self.name())))
    }

    fn is_built_in(&self, host: &mut Host) -> Result<bool, Fault> {
        let release = load(host, "/proc/sys/kernel/osrelease")?.map(|loaded| loaded.bytes).unwrap_or_default();
        let release = String::from_utf8_lossy(&release).trim().to_string();
        let list = load(host, &format!("/lib/modules/{release}/modules.builtin"))?;
        let list = String::from_utf8_lossy(&list.map(|loaded| loaded.bytes).unwrap_or_default()).into_owned();
        let own = |line: &str| {
            let file = line.rsplit('/').next().unwrap_or_default();
            file.split(".ko").next().is_some_and(|name| name.replace('-', "_") == self.name())
        };
        // A built-in one with parameters also has a directory there, and is not among the loaded ones.
        let path = format!("/sys/module/{}", self.name());
        let listed = list.lines().any(own);
        let Some(place) = host.locate(&path)? else { return Ok(listed) };
        Ok(listed || host.stat(&place, &path)?.is_some())
    }
}

impl Statement for Loaded<'_> {
    fn probe(&mut self, host: &mut Host, _diff: bool) -> Result<Option<Drift>, Fault> {
        let loaded = self.is_loaded(host)?;
        match (loaded, self.wanted) {
            (true, true) => Ok(None),
            (true, false) => Ok(Some(Drift::new(Action::Remove, "loaded"))),
            (false, true) if self.is_built_in(host)? => Ok(None),
            (false, true) => Ok(Some(Drift::new(Action::Create, "not loaded"))),
            (false, false) if self.is_built_in(host)? => {
                Err(Fault::Failed(format!("{} is built into this kernel and cannot be kept from loading", self.module)))
            }
            (false, false) => Ok(None),
        }
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        let missing = || Fault::Failed("`modprobe` is not installed on this host".to_string());
        let tool = Tool::find(host, "modprobe").ok_or_else(missing)?;
        let args: &[&str] = if self.wanted { &[&self.module] } else { &["-r", &self.module] };
        tool.run(host, args, self.task.deadline).map(|_| ())
    }

    fn spare_self(&self, _host: &mut Host) -> Result<(), Fault> {
        Ok(())
    }
}
