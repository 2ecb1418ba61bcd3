//! Services that are scripts in `/etc/init.d`: those of SysV with links by runlevel, those of OpenWrt with links of its own,
//! those of BusyBox that are simply started in the order of their names.
//!
//! Where a PID file names a process of the name of the service, it runs; else the script is asked, and where it does not
//! know, processes are looked for by name.

use std::ffi::OsString;
use std::os::fd::AsFd;

use common::policy::params::is_absolute;
use common::time::Mono;
use nix::sys::stat::{Mode, fchmod};

use super::init::{Act, Init, assigned, linked, lives, words};
use crate::exec::contract::Statement;
use crate::exec::fault::Fault;
use crate::exec::files::symlink;
use crate::exec::host::{Host, Order, mode_of};
use crate::exec::look::{is_there, link_at, names_in, text_of};
use crate::exec::processes::{self, kept_name};
use crate::exec::tool::{self, Tool};
use crate::sys::child::{Ended, Finished};

/// Scripts of services.
const SCRIPTS: &str = "/etc/init.d";
/// Links of OpenWrt.
const OPENWRT: &str = "/etc/rc.d";
/// Folders of links by runlevel: Debian and most others; Fedora of old and SUSE.
const BY_LEVEL: [&str; 2] = ["/etc/rc", "/etc/rc.d/rc"];
/// Levels in which services run.
const LEVELS: [char; 4] = ['2', '3', '4', '5'];
/// How long a daemon may take to come or go, where only its process tells, in milliseconds.
const SETTLE_MS: u64 = 3_000;
/// How often it is looked for, in milliseconds.
const LOOK_MS: u64 = 50;
/// Umask of scripts.
const UMASK: u32 = 0o022;

/// How a script starts with the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// By links in runlevels.
    SysV,
    /// By links in `/etc/rc.d`.
    OpenWrt,
    /// By its own name, if it is executable.
    BusyBox,
}

/// One script.
pub struct Script {
    name: String,
    /// `None` where there is none.
    path: Option<String>,
    family: Family,
    deadline: Mono,
}

impl Script {
    /// The script of that name.
    pub fn find(host: &mut Host, name: &str, deadline: Mono) -> Result<Script, Fault> {
        let plain = format!("{SCRIPTS}/{name}");
        let family = if is_there(host, "/etc/rc.common")? { Family::OpenWrt } else { Family::SysV };
        if is_there(host, &plain)? {
            return Ok(Script { name: name.to_string(), path: Some(plain), family, deadline });
        }
        let numbered = names_in(host, SCRIPTS)?.into_iter().find(|entry| is_start_of(entry, name));
        let path = numbered.map(|entry| format!("{SCRIPTS}/{entry}"));
        Ok(Script { name: name.to_string(), path, family: Family::BusyBox, deadline })
    }

    fn path(&self) -> Result<&str, Fault> {
        self.path.as_deref().ok_or_else(|| Fault::Failed(format!("there is no script of `{}` in {SCRIPTS}", self.name)))
    }

    fn ask(&self, host: &mut Host, word: &str) -> Result<Finished, Fault> {
        let path = host.root.path().join(self.path()?.trim_start_matches('/'));
        // One of BusyBox that is not executable is one that does not start with the host; it can be started nevertheless.
        let shell = (self.family == Family::BusyBox).then(|| OsString::from("/bin/sh"));
        let argv = shell.into_iter().chain([path.into(), word.into()]).collect();
        host.run(&Order {
            argv,
            cwd: None,
            user: None,
            environment: &[],
            stdin: &[],
            umask: UMASK,
            deadline: self.deadline,
        })
    }

    fn call(&self, host: &mut Host, word: &str) -> Result<(), Fault> {
        let done = self.ask(host, word)?;
        match done.ended {
            Ended::Exited(0) => Ok(()),
            _ => Err(tool::fault(&format!("{} {word}", self.path()?), &done)),
        }
    }

    /// Whether a PID file names a process that is called like the service.
    fn has_process(&self, host: &mut Host) -> Result<bool, Fault> {
        for path in [format!("/run/{0}.pid", self.name), format!("/run/{0}/{0}.pid", self.name)] {
            let said = text_of(host, &path)?;
            let Ok(pid) = said.trim().parse::<u32>() else { continue };
            if text_of(host, &format!("/proc/{pid}/comm"))?.trim() == self.comm() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn comm(&self) -> &str {
        kept_name(&self.name)
    }

    /// What the script says of itself; `None` where it has no word for it.
    fn asked(&self, host: &mut Host) -> Result<Option<bool>, Fault> {
        // A verb that falls through every case may well end with 0.
        if self.family != Family::OpenWrt && is_mute(&text_of(host, self.path()?)?) {
            return Ok(None);
        }
        let done = self.ask(host, if self.family == Family::OpenWrt { "running" } else { "status" })?;
        let said = format!("{}{}", done.stdout.text(), done.stderr.text()).to_lowercase();
        let understood = !said.contains("usage") && !said.contains("syntax:");
        match done.ended {
            Ended::Exited(0) if understood => Ok(Some(true)),
            // LSB: dead with a PID file, dead with a lock, not running.
            Ended::Exited(1..=3) if understood => Ok(Some(false)),
            Ended::Exited(_) => Ok(None),
            _ => Err(tool::fault(&format!("{} status", self.path()?), &done)),
        }
    }

    /// After an act whose outcome only a process shows: waits for it, and says where it was looked for.
    fn await_process(&self, host: &mut Host, act: Act) -> Result<(), Fault> {
        let wanted = act != Act::Stop;
        let until = (host.now().mono + SETTLE_MS).min(self.deadline);
        while (self.has_process(host)? || self.seems_to_run(host)?) != wanted {
            if host.now().mono >= until || !host.pause(LOOK_MS) {
                let (path, word, name) = (self.path()?, act.word(), self.comm());
                return Err(Fault::Failed(match wanted {
                    true => format!(
                        "`{path} {word}` ended well, but nothing shows that the service runs: the script has no `status`, no PID \
                         file of it names a process, and no process is called `{name}`; give it a `status`, or a line PIDFILE= or \
                         DAEMON= that says where to look"
                    ),
                    false => {
                        format!("`{path} {word}` ended well, but its process still runs; its script has no `status`")
                    }
                }));
            }
        }
        Ok(())
    }

    /// Where the script does not know itself: a PID file that it names, or a process called like the service or its daemon.
    fn seems_to_run(&self, host: &mut Host) -> Result<bool, Fault> {
        let script = text_of(host, self.path()?)?;
        let daemon = assigned(&script, "DAEMON", &[]).unwrap_or_else(|| self.name.clone());
        let daemon = daemon.rsplit('/').next().unwrap_or_default();
        let name = assigned(&script, "NAME", &[]).unwrap_or_else(|| self.name.clone());
        let file =
            assigned(&script, "PIDFILE", &[("DAEMON", daemon), ("NAME", &name)]).filter(|path| is_absolute(path));
        if let Some(path) = file
            && lives(host, &path)? == Some(true)
        {
            return Ok(true);
        }
        let names = [self.comm(), kept_name(daemon)];
        let all = processes::all(host)?;
        Ok(all.iter().any(|process| !process.zombie && names.contains(&process.name.as_str())))
    }

    /// Makes or removes the links of runlevels by hand: where there is no tool for it, or it knows no sysroot.
    fn link(&self, host: &mut Host, wanted: bool) -> Result<(), Fault> {
        for level in LEVELS {
            for base in BY_LEVEL {
                let folder = format!("{base}{level}.d");
                let names = names_in(host, &folder)?;
                let mut found: Vec<String> =
                    names.iter().filter(|entry| is_start_of(entry, &self.name)).cloned().collect();
                if wanted && found.is_empty() && is_there(host, &folder)? {
                    found.push(format!("S20{}", self.name));
                }
                let to = format!("{}init.d/{}", if base == BY_LEVEL[0] { "../" } else { "../../" }, self.name);
                for entry in found {
                    symlink::Wanted::owned(format!("{folder}/{entry}"), to.clone(), wanted).converge(host)?;
                }
            }
        }
        Ok(())
    }

    fn enable_by_level(&self, host: &mut Host, wanted: bool) -> Result<(), Fault> {
        let live = host.is_live();
        if let Some(tool) = Tool::find(host, "update-rc.d").filter(|_| live) {
            if wanted {
                tool.run(host, &[&self.name, "defaults"], self.deadline)?;
            }
            let word = if wanted { "enable" } else { "disable" };
            return tool.run(host, &[&self.name, word], self.deadline).map(|_| ());
        }
        if let Some(tool) = Tool::find(host, "chkconfig").filter(|_| live) {
            if wanted {
                tool.run(host, &["--add", &self.name], self.deadline)?;
            }
            return tool.run(host, &[&self.name, if wanted { "on" } else { "off" }], self.deadline).map(|_| ());
        }
        self.link(host, wanted)
    }

    fn openwrt_links(&self, host: &mut Host) -> Result<Vec<String>, Fault> {
        Ok(names_in(host, OPENWRT)?.into_iter().filter(|entry| is_start_of(entry, &self.name)).collect())
    }

    /// As its own `enable` does: by the number that the script names.
    fn enable_on_openwrt(&self, host: &mut Host, wanted: bool) -> Result<(), Fault> {
        let to = format!("../init.d/{}", self.name);
        if !wanted {
            for entry in self.openwrt_links(host)? {
                symlink::Wanted::owned(format!("{OPENWRT}/{entry}"), to.clone(), false).converge(host)?;
            }
            return Ok(());
        }
        let said = text_of(host, self.path()?)?;
        let number = said.lines().find_map(|line| line.trim().strip_prefix("START=")?.trim().parse::<u8>().ok());
        let number =
            number.ok_or_else(|| Fault::Failed(format!("{} has no line START=: it cannot be enabled", self.name)))?;
        let path = format!("{OPENWRT}/S{number:02}{}", self.name);
        symlink::Wanted::owned(path, to, true).converge(host)
    }

    fn mode(&self, host: &mut Host) -> Result<u32, Fault> {
        let path = self.path()?;
        let place = host.locate_to_write(path)?;
        Ok(host.stat(&place, path)?.map_or(0, |stat| mode_of(&stat)))
    }

    fn set_mode(&self, host: &mut Host, wanted: bool) -> Result<(), Fault> {
        let path = self.path()?;
        let place = host.locate_to_write(path)?;
        let Some((file, stat)) = host.open_file(&place, path)? else { return Ok(()) };
        let mode = if wanted { mode_of(&stat) | 0o111 } else { mode_of(&stat) & !0o111 };
        fchmod(file.as_fd(), Mode::from_bits_truncate(mode as nix::libc::mode_t))
            .map_err(Fault::io("set the mode of", path))
    }
}

/// Whether a script plainly has a case for `start` and none for `status`.
fn is_mute(script: &str) -> bool {
    let has_case = |word: &str| {
        script.match_indices(word).any(|(at, _)| {
            let (before, after) = (script[..at].chars().next_back(), script[at + word.len()..].trim_start());
            let whole = before.is_none_or(|c| c.is_whitespace() || "|(\"'".contains(c));
            whole && after.trim_start_matches(['"', '\'']).trim_start().starts_with([')', '|'])
        })
    };
    script.contains("case") && has_case("start") && !has_case("status")
}

/// `S20name`.
fn is_start_of(entry: &str, name: &str) -> bool {
    let rest = entry.strip_prefix('S').unwrap_or_default();
    let number = rest.bytes().take_while(u8::is_ascii_digit).count();
    // A name may begin with digits itself.
    (1..=number.min(3)).any(|digits| &rest[digits..] == name)
}

/// Whether any runlevel starts a script.
pub fn has_start_links(host: &mut Host, name: &str) -> Result<bool, Fault> {
    for level in LEVELS {
        for base in BY_LEVEL {
            if names_in(host, &format!("{base}{level}.d"))?.iter().any(|entry| is_start_of(entry, name)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

impl Init for Script {
    fn is_known(&self, _host: &mut Host) -> Result<bool, Fault> {
        Ok(self.path.is_some())
    }

    fn runs(&self, host: &mut Host) -> Result<bool, Fault> {
        if self.has_process(host)? {
            return Ok(true);
        }
        match self.asked(host)? {
            Some(runs) => Ok(runs),
            None => self.seems_to_run(host),
        }
    }

    fn is_enabled(&self, host: &mut Host, wanted: bool) -> Result<bool, Fault> {
        let enabled = match self.family {
            Family::SysV => has_start_links(host, &self.name)?,
            Family::OpenWrt => !self.openwrt_links(host)?.is_empty(),
            Family::BusyBox => self.mode(host)? & 0o100 != 0,
        };
        Ok(enabled == wanted)
    }

    fn act(&self, host: &mut Host, act: Act) -> Result<(), Fault> {
        match (act, self.call(host, act.word())) {
            // Few of them know how to.
            (Act::Reload, Err(Fault::Failed(_))) => self.call(host, Act::Restart.word())?,
            (_, done) => done?,
        }
        if act != Act::Stop && self.has_process(host)? {
            return Ok(());
        }
        match self.asked(host)? {
            Some(_) => Ok(()),
            None => self.await_process(host, act),
        }
    }

    fn command(&self, host: &mut Host, act: Act) -> Result<Vec<String>, Fault> {
        let path = host.root.path().join(self.path()?.trim_start_matches('/')).display().to_string();
        // Few of them know how to reload.
        let word = if act == Act::Reload { Act::Restart.word() } else { act.word() };
        Ok(words(["/bin/sh", &path, word]))
    }

    fn undo_enable(&self, host: &mut Host, wanted: bool) -> Result<Vec<Vec<String>>, Fault> {
        if self.family == Family::BusyBox {
            let path = host.root.path().join(self.path()?.trim_start_matches('/')).display().to_string();
            return Ok(vec![words(["chmod", &format!("{:o}", self.mode(host)?), "--", &path])]);
        }
        let by_level = || LEVELS.into_iter().flat_map(|level| BY_LEVEL.map(|base| format!("{base}{level}.d")));
        let folders: Vec<String> = match self.family {
            Family::OpenWrt => vec![OPENWRT.to_string()],
            _ => by_level().collect(),
        };
        let mut undo = Vec::new();
        for folder in folders {
            let there = names_in(host, &folder)?;
            let (ours, others): (Vec<_>, Vec<_>) = there.into_iter().partition(|entry| is_start_of(entry, &self.name));
            for entry in &ours {
                let path = format!("{folder}/{entry}");
                undo.extend(link_at(host, &path)?.map(|to| linked(host, &path, Some(&to))));
            }
            // What the tools of a host call a new one is theirs to choose.
            if wanted && ours.is_empty() && (!others.is_empty() || is_there(host, &folder)?) {
                let folder = host.root.path().join(folder.trim_start_matches('/')).display().to_string();
                let line = "rm -f -- \"$0\"/S[0-9]\"$1\" \"$0\"/S[0-9][0-9]\"$1\"";
                undo.push(words(["/bin/sh", "-c", line, &folder, &self.name]));
            }
        }
        Ok(undo)
    }

    fn enable(&self, host: &mut Host, wanted: bool) -> Result<(), Fault> {
        match self.family {
            Family::SysV => self.enable_by_level(host, wanted),
            Family::OpenWrt => self.enable_on_openwrt(host, wanted),
            Family::BusyBox => self.set_mode(host, wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_without_a_case_for_it_is_not_asked_for_its_status() {
        for (script, expected) in [
            ("case \"$1\" in\n  start) x;;\n  stop) y;;\nesac\n", true),
            ("case $1 in\n\"start\") x;;\n'restart') y;;\n*) exit 0;;\nesac\n", true),
            ("case $1 in start) x;; status) y;; esac", false),
            ("case $1 in start|stop) x;; restart|force-reload|status) y;; esac", false),
            ("case $1 in (start) x;; (\"status\") y;; esac", false),
            ("# keeps the status) of things\ncase $1 in start) x;; esac", false),
            ("exec /usr/sbin/handler \"$@\"\n", false),
            ("", false),
        ] {
            assert_eq!(is_mute(script), expected, "{script}");
        }
    }

    #[test]
    fn links_are_recognised_by_number_and_name() {
        for (entry, name, expected) in [
            ("S20nginx", "nginx", true),
            ("S2nginx", "nginx", true),
            ("S203proxy", "3proxy", true),
            ("K20nginx", "nginx", false),
            ("S20nginx", "ngin", false),
            ("Snginx", "nginx", false),
            ("S20", "", true),
        ] {
            assert_eq!(is_start_of(entry, name), expected, "{entry} {name}");
        }
    }
}
