//! `source_package`: what an archive builds is there. Known by a path that the build creates; while that exists nothing is
//! fetched, unpacked or run.

use std::path::Path;

use common::bundle::Value;
use common::policy::params::text_of;
use common::time::Mono;

use super::fetch::{Origin, fetch};
use crate::exec::contract::{Action, Drift, Statement, settle_read};
use crate::exec::fault::Fault;
use crate::exec::host::{Host, Order};
use crate::exec::look::is_there;
use crate::exec::read::Reader;
use crate::exec::tool::{self, Tool};
use crate::plan::{Task, Verdict};
use crate::sys::child::Ended;

/// Settles one `source_package`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(read(task), host, task)
}

struct Build {
    creates: String,
    origin: Origin,
    commands: Vec<String>,
    environment: Vec<(String, String)>,
    deadline: Mono,
}

fn read(task: &Task<'_>) -> Result<Build, Fault> {
    let reader = Reader::of(task)?;
    let needed = || Fault::Parameter("`source` or `url` is needed".to_string());
    let environment = match reader.value("environment") {
        Some(Value::Map(map)) => {
            map.iter().filter_map(|(name, value)| Some((name.clone(), text_of(value)?.into_owned()))).collect()
        }
        _ => Vec::new(),
    };
    Ok(Build {
        creates: reader.path("creates").into_owned(),
        origin: Origin::read(task, &reader)?.ok_or_else(needed)?,
        commands: reader.texts("build"),
        environment,
        deadline: task.deadline,
    })
}

impl Build {
    fn step(&self, host: &mut Host, cwd: &str, command: &str) -> Result<(), Fault> {
        let argv = Host::shell(command);
        let (environment, deadline) = (&self.environment, self.deadline);
        let order = Order { argv, cwd: Some(cwd), user: None, environment, stdin: b"", umask: 0o022, deadline };
        let done = host.run(&order)?;
        match done.ended {
            Ended::Exited(0) => Ok(()),
            _ => Err(tool::fault(command, &done)),
        }
    }
}

impl Statement for Build {
    fn probe(&mut self, host: &mut Host, _diff: bool) -> Result<Option<Drift>, Fault> {
        let there = is_there(host, &self.creates)?;
        Ok((!there).then(|| Drift::new(Action::Install, format!("{} is not there", self.creates))))
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        let fetched = fetch(host, &self.origin, "archive", self.deadline)?;
        let tree = fetched.dir.join("tree");
        let shown = tree.display().to_string();
        std::fs::create_dir(&tree).map_err(Fault::io("make", &shown))?;
        let archive = fetched.file.display().to_string();
        let args = ["-x", "-f", &archive, "-C", &shown, "--no-same-owner"];
        Tool::need(host, "tar")?.run(host, &args, self.deadline)?;
        let inside = only_directory(&tree).map_or_else(String::new, |name| format!("/{name}"));
        let cwd = format!("{}/tree{inside}", fetched.below);
        for command in &self.commands {
            self.step(host, &cwd, command)?;
        }
        host.root.forget();
        match is_there(host, &self.creates)? {
            true => Ok(()),
            false => Err(Fault::Failed(format!("everything was built and did not create {}", self.creates))),
        }
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        self.commands.iter().try_for_each(|command| host.spare_self_from(command))
    }
}

/// Archives usually have everything in one directory.
fn only_directory(tree: &Path) -> Option<String> {
    let mut all = std::fs::read_dir(tree).ok()?.flatten();
    let only = all.next().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))?;
    all.next().is_none().then(|| only.file_name().into_string().ok()).flatten()
}
