//! Services of systemd. A unit that it started and that has not ended since has a link in `/run/systemd/units`, and one with
//! processes has a control group that says so: what runs as it should needs no `systemctl` to be recognised. Whether a unit
//! is enabled is links, too.

use common::time::Mono;

use super::init::{Act, Init, words};
use super::scripts::has_start_links;
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::look::{is_there, link_at, names_in, text_of};
use crate::exec::tool::Tool;
use crate::sys::child::Ended;

/// Units of the operator; enabling makes links here.
const OWN: &str = "/etc/systemd/system";
/// Where units are looked for, the first one wins.
const UNITS: [&str; 5] =
    [OWN, "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// A link for each service that is neither inactive nor failed.
const STARTED: &str = "/run/systemd/units";
/// Control groups of services, unified and not.
const GROUPS: [(&str, &str); 2] =
    [("/sys/fs/cgroup/system.slice", "cgroup.events"), ("/sys/fs/cgroup/systemd/system.slice", "cgroup.procs")];
/// Lines of the journal that a message quotes.
const JOURNAL_LINES: &str = "8";
/// Kinds of units.
const SUFFIXES: [&str; 7] = [".service", ".socket", ".timer", ".target", ".path", ".mount", ".slice"];

/// One unit.
pub struct Systemd {
    unit: String,
    /// Without its suffix: the name that a script of SysV would have.
    script: String,
    tool: Option<Tool>,
    deadline: Mono,
}

/// Where a unit comes from.
enum Source {
    Unit,
    Alias(String),
    Script,
    Nowhere,
}

impl Systemd {
    /// The unit of that name; `.service` where it has no suffix.
    pub fn new(host: &Host, name: &str, deadline: Mono) -> Systemd {
        let suffixed = SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
        let unit = if suffixed { name.to_string() } else { format!("{name}.service") };
        let script = unit.strip_suffix(".service").unwrap_or_default().to_string();
        Systemd { unit, script, tool: Tool::find(host, "systemctl"), deadline }
    }

    fn call(&self, host: &mut Host, args: &[&str]) -> Result<String, Fault> {
        let missing = || Fault::Failed("`systemctl` is not installed on this host; it is needed here".to_string());
        let tool = self.tool.as_ref().ok_or_else(missing)?;
        tool.run(host, args, self.deadline)
    }

    fn source(&self, host: &mut Host) -> Result<Source, Fault> {
        // An instance comes from its template.
        let template = self.unit.split_once('@').and_then(|(name, rest)| {
            let (_, suffix) = rest.rsplit_once('.')?;
            Some(format!("{name}@.{suffix}"))
        });
        for folder in UNITS {
            let path = format!("{folder}/{}", self.unit);
            if let Some(to) = link_at(host, &path)? {
                let name = to.rsplit('/').next().unwrap_or_default();
                let aliased = to != "/dev/null" && name != self.unit && template.as_deref() != Some(name);
                return Ok(if aliased { Source::Alias(name.to_string()) } else { Source::Unit });
            }
            if is_there(host, &path)? {
                return Ok(Source::Unit);
            }
            if let Some(template) = &template
                && is_there(host, &format!("{folder}/{template}"))?
            {
                return Ok(Source::Unit);
            }
        }
        let scripted = !self.script.is_empty() && is_there(host, &format!("/etc/init.d/{}", self.script))?;
        Ok(if scripted { Source::Script } else { Source::Nowhere })
    }

    /// What it says of the unit: `ActiveState` and the like.
    fn show(&self, host: &mut Host) -> Result<Shown, Fault> {
        let said = self.call(
            host,
            &["show", "-p", "LoadState", "-p", "ActiveState", "-p", "NeedDaemonReload", "--", &self.unit],
        )?;
        let value = |key: &str| {
            let found = said.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
            found.unwrap_or_default().to_string()
        };
        Ok(Shown {
            loaded: value("LoadState"),
            active: value("ActiveState"),
            stale: value("NeedDaemonReload") == "yes",
        })
    }

    /// Whether it plainly runs, or plainly does not; `None` where only systemd knows.
    fn runs_plainly(&self, host: &mut Host) -> Result<Option<bool>, Fault> {
        let unit = match self.source(host)? {
            Source::Alias(unit) => unit,
            _ => self.unit.clone(),
        };
        // Sockets, timers and targets have no such link, whether they are active or not.
        if !unit.ends_with(".service") {
            return Ok(None);
        }
        if link_at(host, &format!("{STARTED}/invocation:{unit}"))?.is_some() {
            for (folder, file) in GROUPS {
                let said = text_of(host, &format!("{folder}/{unit}/{file}"))?;
                let populated = if file == "cgroup.events" {
                    said.lines().any(|line| line == "populated 1")
                } else {
                    !said.is_empty()
                };
                if populated {
                    return Ok(Some(true));
                }
            }
            return Ok(None);
        }
        // Before version 236 there are no such links: no link means something only where there are others.
        let kept = names_in(host, STARTED)?.iter().any(|name| name.starts_with("invocation:"));
        Ok(kept.then_some(false))
    }

    /// Links that start it with something else, in one folder of units.
    fn is_linked(&self, host: &mut Host, folder: &str) -> Result<bool, Fault> {
        for name in names_in(host, folder)? {
            let path = format!("{folder}/{name}");
            let wants = [".wants", ".requires", ".upholds"].iter().any(|suffix| name.ends_with(suffix));
            if wants && link_at(host, &format!("{path}/{}", self.unit))?.is_some() {
                return Ok(true);
            }
            // An alias is a link as well. `sshd.service -> /lib/systemd/system/ssh.service`.
            let other = name != self.unit && SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
            if other && link_at(host, &path)?.is_some_and(|to| to.rsplit('/').next() == Some(&self.unit)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Files of units changed since it read them: it would start what was there before.
    fn catch_up(&self, host: &mut Host) -> Result<Shown, Fault> {
        let shown = self.show(host)?;
        if !shown.stale && shown.loaded != "not-found" {
            return Ok(shown);
        }
        self.call(host, &["daemon-reload"])?;
        self.show(host)
    }

    /// What the service said last, where there is a journal: why it failed is seldom anywhere else.
    fn last_words(&self, host: &mut Host) -> String {
        let Some(tool) = Tool::find(host, "journalctl") else { return String::new() };
        let args = ["-q", "--no-pager", "-o", "cat", "-n", JOURNAL_LINES, "-u", &self.unit];
        // A journal that cannot be read hides nothing that was to be reported.
        let said = tool.run(host, &args, self.deadline).unwrap_or_default();
        let said = said.trim();
        if said.is_empty() { String::new() } else { format!("\nit said last:\n{said}") }
    }

    fn root(&self, host: &Host) -> Option<String> {
        host.sysroot().filter(|_| !host.is_live()).map(|root| format!("--root={}", root.display()))
    }
}

/// Some properties of a unit.
struct Shown {
    loaded: String,
    active: String,
    stale: bool,
}

impl Init for Systemd {
    fn is_known(&self, host: &mut Host) -> Result<bool, Fault> {
        match self.source(host)? {
            Source::Nowhere if host.is_live() => {
                // A generator may have made it, in a place that only systemd knows.
                Ok(self.show(host)?.loaded != "not-found")
            }
            Source::Nowhere => Ok(false),
            _ => Ok(true),
        }
    }

    fn runs(&self, host: &mut Host) -> Result<bool, Fault> {
        if let Some(known) = self.runs_plainly(host)? {
            return Ok(known);
        }
        let active = self.show(host)?.active;
        Ok(matches!(active.as_str(), "active" | "reloading" | "refreshing" | "deactivating"))
    }

    fn is_enabled(&self, host: &mut Host, wanted: bool) -> Result<bool, Fault> {
        if let Source::Script = self.source(host)? {
            return Ok(has_start_links(host, &self.script)? == wanted);
        }
        let own = self.is_linked(host, OWN)?;
        if own || !wanted {
            return Ok(own == wanted);
        }
        for folder in &UNITS[1..] {
            if self.is_linked(host, folder)? {
                return Ok(true);
            }
        }
        let Some(tool) = &self.tool else { return Ok(false) };
        let root = self.root(host);
        let args: Vec<&str> = root.iter().map(String::as_str).chain(["is-enabled", "--", &self.unit]).collect();
        let done = tool.ask(host, &args, "", self.deadline)?;
        match done.ended {
            Ended::Exited(_) => {}
            _ => return Err(tool.fault(&done)),
        }
        // What nobody can enable is started by others.
        let word = done.stdout.text();
        Ok(matches!(
            word.trim(),
            "enabled" | "enabled-runtime" | "alias" | "static" | "indirect" | "generated" | "transient"
        ))
    }

    fn act(&self, host: &mut Host, act: Act) -> Result<(), Fault> {
        if act != Act::Stop {
            let shown = self.catch_up(host)?;
            // One that failed too often is not started again before that is forgotten.
            if shown.active == "failed" {
                self.call(host, &["reset-failed", "--", &self.unit])?;
            }
        }
        let word = if act == Act::Reload { "reload-or-restart" } else { act.word() };
        match self.call(host, &[word, "--", &self.unit]) {
            Err(Fault::Failed(message)) => Err(Fault::Failed(message + &self.last_words(host))),
            done => done.map(|_| ()),
        }
    }

    fn command(&self, _host: &mut Host, act: Act) -> Result<Vec<String>, Fault> {
        let word = if act == Act::Reload { "reload-or-restart" } else { act.word() };
        Ok(words(["systemctl", word, "--", &self.unit]))
    }

    fn undo_enable(&self, host: &mut Host, wanted: bool) -> Result<Vec<Vec<String>>, Fault> {
        let word = if wanted { "disable" } else { "enable" };
        let root = self.root(host);
        let args = root.into_iter().chain(words([word, "--", &self.unit]));
        Ok(vec![["systemctl".to_string()].into_iter().chain(args).collect()])
    }

    fn enable(&self, host: &mut Host, wanted: bool) -> Result<(), Fault> {
        let root = self.root(host);
        let word = if wanted { "enable" } else { "disable" };
        let args: Vec<&str> = root.iter().map(String::as_str).chain([word, "--", &self.unit]).collect();
        self.call(host, &args).map(|_| ())
    }
}
