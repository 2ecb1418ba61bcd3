//! What both kinds of snapshots have in common: whether one is due, room for it, a new one filled under another name, old ones
//! removed. What is in a snapshot is for its executor to say.

use std::borrow::Cow;
use std::os::fd::OwnedFd;

use common::units::{human_bytes, size_bytes};
use nix::sys::statvfs::fstatvfs;

use super::series::{Found, Locked, Series};
use super::stamp::{Schedule, Stamp, base, expired, is_due};
use crate::exec::contract::{Action, Drift};
use crate::exec::fault::Fault;
use crate::exec::files::directory::make;
use crate::exec::files::file::Access;
use crate::exec::host::{Host, Reach};
use crate::exec::read::Reader;
use crate::plan::Task;

/// Days that a snapshot is kept where nothing is said.
const RETAIN_DAYS: i64 = 30;
/// What has to be free where nothing is said, in bytes.
const MIN_FREE: u64 = 1 << 30;
/// Mode of a new directory for snapshots: whoever may read the source is not known here.
const TARGET_MODE: u32 = 0o700;

/// Parameters that both kinds take, and what became of them.
pub struct Keeping<'t> {
    /// Where the snapshots are.
    pub target: Cow<'t, str>,
    retain_days: i64,
    schedule: Schedule,
    min_free: u64,
    forced: bool,
    made: Option<Stamp>,
    told: Vec<String>,
}

/// Where a new snapshot is made.
pub struct Spot<'s> {
    /// Its directory, empty.
    pub to: &'s OwnedFd,
    /// The one before it.
    pub base: Option<&'s OwnedFd>,
    /// The directory that holds both.
    pub target: &'s OwnedFd,
}

/// What makes a snapshot; it gives a few words on what it did.
pub type Fill<'f> = dyn FnMut(&mut Host, &Spot<'_>) -> Result<String, Fault> + 'f;

impl<'t> Keeping<'t> {
    /// From the parameters of a task.
    pub fn read(host: &mut Host, reader: &Reader<'t>, task: &Task<'_>) -> Result<Keeping<'t>, Fault> {
        let target = reader.path("target_path");
        host.claim_snapshots(&target, task.name)?;
        Ok(Keeping {
            target,
            retain_days: reader.text("retain").and_then(|text| text.parse().ok()).unwrap_or(RETAIN_DAYS),
            schedule: Schedule::of(&reader.text("schedule").unwrap_or_default()),
            min_free: reader.text("min_free_space").and_then(|text| size_bytes(&text).ok()).unwrap_or(MIN_FREE),
            forced: task.forced,
            made: None,
            told: Vec::new(),
        })
    }

    /// What is to be done, after one listing.
    pub fn probe(&self, host: &mut Host) -> Result<Option<Drift>, Fault> {
        let found = match Series::open(host, &self.target)? {
            Some(series) => series.look()?,
            None => Found::default(),
        };
        if let Some(made) = self.made {
            // The window may be over by now.
            let missing = || Some(Drift::new(Action::Create, made.to_string()));
            return Ok(if found.stamps.contains(&made) { None } else { missing() });
        }
        let now = Stamp::of(host.now().wall);
        if self.is_wanted(now, &found.stamps) {
            return Ok(Some(Drift::new(Action::Create, now.to_string())));
        }
        let gone: Vec<String> =
            expired(now, self.retain_days, &found.stamps).iter().map(|stamp| stamp.to_string()).collect();
        match (found.rests.is_empty(), gone.is_empty()) {
            (true, true) => Ok(None),
            (_, false) => Ok(Some(Drift::new(Action::Remove, gone.join(", ")))),
            (false, true) => Ok(Some(Drift::new(Action::Remove, "what a run that was killed left"))),
        }
    }

    /// Does it.
    pub fn converge(&mut self, host: &mut Host, fill: &mut Fill<'_>) -> Result<(), Fault> {
        make_directories(host, &self.target)?;
        let target = self.target.clone();
        let missing = || Fault::Failed(format!("the directory {target} went away"));
        let series = Series::open(host, &target)?.ok_or_else(missing)?.lock()?;
        series.clear(host)?;
        let have = series.look()?.stamps;
        let now = Stamp::of(host.now().wall);
        if self.is_wanted(now, &have) {
            self.make_room(host, &series, now)?;
            self.make(host, &series, now, fill)?;
        }
        self.expire(host, &series, now)
    }

    /// What to add to the report.
    pub fn told(&self) -> String {
        self.told.join(", ")
    }

    /// The target is not the agent's own directory, nor in one.
    pub fn spare_self(&self, host: &mut Host) -> Result<(), Fault> {
        host.spare_self(&self.target, Reach::Name)
    }

    fn is_wanted(&self, now: Stamp, have: &[Stamp]) -> bool {
        // Two of one minute would have one name.
        is_due(now, self.schedule, have) || self.forced && !have.contains(&now)
    }

    fn make(&mut self, host: &mut Host, series: &Locked<'_>, now: Stamp, fill: &mut Fill<'_>) -> Result<(), Fault> {
        let before = base(now, &series.look()?.stamps).map(|stamp| series.snapshot(stamp)).transpose()?;
        let to = series.begin(now)?;
        let spot = Spot { to: &to, base: before.as_ref(), target: series.dir() };
        let done = fill(host, &spot).and_then(|told| series.publish(now).map(|()| told));
        match done {
            Ok(told) => {
                self.made = Some(now);
                self.told.push(told);
                Ok(())
            }
            Err(fault) => {
                // There is no time for it where the agent has to end: the next run does it.
                if !host.is_stopping() {
                    // The fault that led here is the one to tell.
                    let _ = series.clear(host);
                }
                Err(fault)
            }
        }
    }

    /// Blocked where too little is free, even without what has expired.
    fn make_room(&mut self, host: &mut Host, series: &Locked<'_>, now: Stamp) -> Result<(), Fault> {
        if self.free(series.dir())? >= self.min_free {
            return Ok(());
        }
        self.expire(host, series, now)?;
        match self.free(series.dir())? {
            free if free >= self.min_free => Ok(()),
            free => Err(Fault::Blocked(format!(
                "{} has {} free, less than the {} of `min_free_space`; free some space",
                self.target,
                human_bytes(free),
                human_bytes(self.min_free)
            ))),
        }
    }

    fn free(&self, dir: &OwnedFd) -> Result<u64, Fault> {
        let stat = fstatvfs(dir).map_err(Fault::io("look at", &self.target))?;
        // The widths of both differ between platforms.
        #[allow(clippy::unnecessary_cast, clippy::useless_conversion, reason = "u32 elsewhere")]
        Ok((stat.blocks_available() as u64).saturating_mul(stat.fragment_size() as u64))
    }

    fn expire(&mut self, host: &mut Host, series: &Locked<'_>, now: Stamp) -> Result<(), Fault> {
        let gone = expired(now, self.retain_days, &series.look()?.stamps);
        for stamp in &gone {
            series.remove(host, *stamp)?;
        }
        if !gone.is_empty() {
            self.told.push(format!("{} removed", gone.len()));
        }
        Ok(())
    }
}

/// Makes a directory and those above it, where they are missing.
fn make_directories(host: &mut Host, path: &str) -> Result<(), Fault> {
    let ends = path.char_indices().filter(|(at, c)| *c == '/' && *at > 0).map(|(at, _)| at).chain([path.len()]);
    for path in ends.map(|end| &path[..end]) {
        // A name that is empty, or a dot, is the directory before it.
        if path.ends_with('/') || path.ends_with("/.") {
            continue;
        }
        let place = host.locate_to_write(path)?;
        if host.stat(&place, path)?.is_none() {
            make(host, &place, path, &Access { mode: Some(TARGET_MODE), ..Access::default() })?;
        }
    }
    Ok(())
}
