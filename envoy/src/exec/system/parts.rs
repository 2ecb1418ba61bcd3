//! Statements made of several: a file, a value of the kernel, a link. Each part is probed, and only those that differ are
//! changed.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::exec::contract::{Action, Drift, Statement};
use crate::exec::fault::Fault;
use crate::exec::files::directory::make;
use crate::exec::files::edit::load;
use crate::exec::files::file::Access;
use crate::exec::host::Host;
use crate::exec::undo::Back;

/// Parts in the order in which they are changed, each with what people call it.
#[derive(Default)]
pub struct Parts<'t>(Vec<(String, Box<dyn Statement + 't>)>);

impl<'t> Parts<'t> {
    /// Adds one.
    pub fn with(mut self, name: impl Into<String>, part: impl Statement + 't) -> Parts<'t> {
        self.0.push((name.into(), Box::new(part)));
        self
    }

    /// Adds one if it is to be there.
    pub fn with_if(self, wanted: bool, name: impl Into<String>, part: impl Statement + 't) -> Parts<'t> {
        if wanted { self.with(name, part) } else { self }
    }
}

impl Statement for Parts<'_> {
    fn probe(&mut self, host: &mut Host, diff: bool) -> Result<Option<Drift>, Fault> {
        let (mut actions, mut details, mut diffs) = (Vec::new(), Vec::new(), String::new());
        for (name, part) in &mut self.0 {
            let Some(drift) = part.probe(host, diff)? else { continue };
            actions.push(drift.action);
            details.push(if drift.detail.is_empty() { name.clone() } else { format!("{name}: {}", drift.detail) });
            diffs.push_str(&drift.diff);
        }
        let Some(first) = actions.first().copied() else { return Ok(None) };
        let action = if actions.iter().all(|action| *action == first) { first } else { Action::Change };
        Ok(Some(Drift { action, detail: details.join(", "), diff: diffs }))
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        for (_, part) in &mut self.0 {
            if part.probe(host, false)?.is_some() {
                part.converge(host)?;
                host.root.forget();
            }
        }
        Ok(())
    }

    fn back(&mut self, host: &mut Host) -> Result<Back, Fault> {
        let mut all = Vec::new();
        for (_, part) in &mut self.0 {
            if part.probe(host, false)?.is_some() {
                all.push(part.back(host)?);
            }
        }
        Ok(Back::All(all))
    }

    fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        self.0.iter().try_for_each(|(_, part)| part.spare_self(host))
    }
}

/// A directory for files of ours. Only that it is there matters, and its parent is not ours to make.
pub struct Folder(pub String);

impl Statement for Folder {
    fn probe(&mut self, host: &mut Host, _diff: bool) -> Result<Option<Drift>, Fault> {
        let found = match host.locate(&self.0)? {
            Some(place) => host.stat(&place, &self.0)?,
            None => None,
        };
        Ok(found.is_none().then(|| Drift::new(Action::Create, "")))
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        let place = host.locate_to_write(&self.0)?;
        make(host, &place, &self.0, &Access::default())
    }

    fn back(&mut self, _host: &mut Host) -> Result<Back, Fault> {
        // An empty directory does no harm.
        Ok(Back::All(Vec::new()))
    }

    fn spare_self(&self, _host: &mut Host) -> Result<(), Fault> {
        Ok(())
    }
}

/// A value below `/proc/sys`, as the running kernel has it. Blanks between words do not matter.
pub struct KernelValue {
    /// Below `/proc/sys`.
    pub path: String,
    /// As the policy calls it, for people: a name that was written in another way is not what they look for, and a secret in
    /// it would not be found.
    pub name: String,
    /// Wanted.
    pub value: String,
}

impl KernelValue {
    fn place(&self) -> String {
        format!("/proc/sys/{}", self.path)
    }
}

impl Statement for KernelValue {
    fn probe(&mut self, host: &mut Host, _diff: bool) -> Result<Option<Drift>, Fault> {
        let path = self.place();
        let loaded = load(host, &path)?;
        let missing =
            || Fault::Failed(format!("this kernel has no setting {}; perhaps a module is missing", self.name));
        let found = String::from_utf8_lossy(&loaded.ok_or_else(missing)?.bytes).into_owned();
        let same = found.split_ascii_whitespace().eq(self.value.split_ascii_whitespace());
        let detail =
            || format!("{} instead of {}", found.split_ascii_whitespace().collect::<Vec<_>>().join(" "), self.value);
        Ok((!same).then(|| Drift::new(Action::Change, detail())))
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        let path = self.place();
        let place = host.locate_to_write(&path)?;
        let flags = OFlag::O_WRONLY | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file =
            openat(place.dir.as_fd(), place.name, flags, Mode::empty()).map_err(Fault::io("open", &self.name))?;
        // In one call: the kernel takes each as a value of its own.
        match nix::unistd::write(file.as_fd(), format!("{}\n", self.value).as_bytes()) {
            Ok(_) => Ok(()),
            Err(Errno::EINVAL | Errno::ERANGE) => {
                Err(Fault::Failed(format!("the kernel does not take `{}` for {}", self.value, self.name)))
            }
            Err(errno) => Err(Fault::io("write", &self.name)(errno)),
        }
    }

    fn back(&mut self, host: &mut Host) -> Result<Back, Fault> {
        let path = self.place();
        let found = load(host, &path)?.map(|loaded| loaded.bytes).unwrap_or_default();
        let real = host.root.path().join(path.trim_start_matches('/')).display().to_string();
        let line = "cat > \"$0\"";
        let words = ["/bin/sh", "-c", line, &real].map(str::to_string).to_vec();
        Ok(Back::Feed(words, String::from_utf8_lossy(&found).into_owned()))
    }

    fn spare_self(&self, _host: &mut Host) -> Result<(), Fault> {
        Ok(())
    }
}
