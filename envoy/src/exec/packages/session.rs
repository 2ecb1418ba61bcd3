//! What drives every package manager within a run: the installed set is read once and forgotten after a change, lists of
//! repositories are fetched at most once, locks of others are waited for with a bound.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use common::limits;
use common::time::Mono;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::installed::{Installed, Package};
use super::manager::{Call, Manager, Place, choose};
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::tool::Tool;
use crate::sys::child::Ended;

/// Bytes of a database that are read.
const DATABASE_BYTES_MAX: u64 = 256 << 20;
/// Time that one query of what is installed may take, in milliseconds.
const QUERY_MS: u64 = 120_000;
/// Between two attempts while another process holds a lock, in milliseconds: the first pause; each is twice the one before.
const LOCK_PAUSE_MS: u64 = 500;
/// The longest of them.
const LOCK_PAUSE_MS_MAX: u64 = 8_000;
/// What managers say, in lower case, when another process is at work.
const LOCKED: [&str; 9] = [
    "could not get lock",
    "unable to acquire the dpkg",
    "unable to lock",
    "could not lock",
    "system management is locked",
    "is locked by",
    "another app is currently holding",
    "transaction lock",
    "waiting for process",
];
/// What managers say, in lower case, when a repository cannot be had: nothing that the policy is to blame for.
const UNREACHABLE: [&str; 14] = [
    "could not resolve",
    "temporary failure",
    "failed to fetch",
    "unable to connect",
    "connection timed out",
    "connection refused",
    "network is unreachable",
    "failed to download",
    "failed to retrieve",
    "cannot download",
    "cannot prepare internal mirrorlist",
    "all mirrors were tried",
    "no more mirrors",
    "failed to synchronize",
];

/// What a run knows of the packages of its host.
#[derive(Default)]
pub struct Known {
    manager: Option<&'static dyn Manager>,
    installed: Option<Arc<Installed>>,
    /// Lists were fetched in this run.
    refreshed: bool,
    /// Repositories have changed since.
    stale: bool,
}

impl Known {
    /// Repositories have changed: their lists are fetched again before the next installation.
    pub fn outdate(&mut self) {
        self.refreshed = false;
        self.stale = true;
    }
}

/// The manager of this host, or the one that policy names.
pub fn manager(host: &mut Host, asked: Option<&str>) -> Result<&'static dyn Manager, Fault> {
    if let Some(known) = host.packages.manager
        && asked.is_none_or(|asked| asked == known.name())
    {
        return Ok(known);
    }
    let manager = choose(host, asked)?;
    host.packages = Known { manager: Some(manager), stale: host.packages.stale, ..Known::default() };
    Ok(manager)
}

/// What is installed; read once a run.
pub fn installed(host: &mut Host, manager: &'static dyn Manager) -> Result<Arc<Installed>, Fault> {
    if let Some(known) = &host.packages.installed {
        return Ok(Arc::clone(known));
    }
    let read = Arc::new(manager.installed(host)?);
    host.packages.installed = Some(Arc::clone(&read));
    Ok(read)
}

/// The root of the run, where it is not that of the host.
pub fn root_of(host: &Host) -> Option<String> {
    host.sysroot().map(|path| path.to_string_lossy().into_owned())
}

/// Reads a database that is a file; `None` where there is none.
pub fn read_database(
    host: &mut Host,
    path: &str,
    read: impl FnOnce(io::Take<File>) -> io::Result<Vec<Package>>,
) -> Result<Option<Vec<Package>>, Fault> {
    let Some(place) = host.locate(path)? else { return Ok(None) };
    let Some((file, _)) = host.open_file(&place, path)? else { return Ok(None) };
    read(file.take(DATABASE_BYTES_MAX)).map(Some).map_err(Fault::io("read", path))
}

/// Asks a tool for a list that may be long.
pub fn query(host: &mut Host, call: &Call) -> Result<String, Fault> {
    let tool = Tool::need(host, call.program)?.keeping(limits::PACKAGE_LIST_BYTES_MAX);
    let deadline = host.now().mono + QUERY_MS;
    tool.run(host, &words(call), deadline)
}

/// Changes packages. What is installed is read again afterwards, whatever came of it.
pub fn change(host: &mut Host, manager: &'static dyn Manager, call: &Call, deadline: Mono) -> Result<String, Fault> {
    let root = root_of(host);
    let place = Place { root: root.as_deref() };
    let mut done = call_unlocked(host, manager, call, deadline);
    if let Err(fault) = &done
        && let Some(repair) = manager.repair(place, &fault.to_string())
    {
        done =
            call_unlocked(host, manager, &repair, deadline).and_then(|_| call_unlocked(host, manager, call, deadline));
    }
    host.packages.installed = None;
    host.forget_accounts();
    done
}

/// Installs: with lists that are not older than asked, and with new ones where those do not suffice.
pub fn install(
    host: &mut Host,
    manager: &'static dyn Manager,
    call: &Call,
    lists_age_max_ms: u64,
    deadline: Mono,
) -> Result<(), Fault> {
    // Old lists may do as well: whether they are good enough is what the installation says.
    let refreshed = refresh_if_older(host, manager, lists_age_max_ms, deadline);
    let done = change(host, manager, call, deadline);
    let fault = match (done, refreshed) {
        (Ok(_), _) => return Ok(()),
        (Err(fault), Err(first)) => return Err(first_of_two(first, fault)),
        (Err(fault), Ok(())) => fault,
    };
    if host.packages.refreshed || matches!(fault, Fault::Blocked(_)) && is_locked(&fault) {
        return Err(fault);
    }
    refresh(host, manager, deadline).map_err(|first| first_of_two(first, fault))?;
    change(host, manager, call, deadline).map(|_| ())
}

/// Fetches lists that are older than this.
pub fn refresh_if_older(
    host: &mut Host,
    manager: &'static dyn Manager,
    age_max_ms: u64,
    deadline: Mono,
) -> Result<(), Fault> {
    if host.packages.refreshed {
        return Ok(());
    }
    let fresh = match manager.lists() {
        Some(lists) => age_ms(host, lists)?.is_some_and(|age| age <= age_max_ms),
        // It knows the age of its lists by itself, but not that nothing less than new ones will do.
        None => age_max_ms > 0,
    };
    if fresh && !host.packages.stale { Ok(()) } else { refresh(host, manager, deadline) }
}

/// Fetches the lists of the repositories.
fn refresh(host: &mut Host, manager: &'static dyn Manager, deadline: Mono) -> Result<(), Fault> {
    let root = root_of(host);
    call_unlocked(host, manager, &manager.refresh(Place { root: root.as_deref() }), deadline)?;
    host.packages.refreshed = true;
    host.packages.stale = false;
    // A manager that finds nothing new leaves the time of its directory as it was.
    if let Some(lists) = manager.lists()
        && let Some(place) = host.locate(lists)?
    {
        let now = TimeSpec::UTIME_NOW;
        // Without it they are only fetched again.
        let _ = utimensat(&place.dir, place.name, &now, &now, UtimensatFlags::NoFollowSymlink);
    }
    Ok(())
}

/// Age of a directory in milliseconds, in either direction: a clock that was ahead does not make lists fresh for ever. `None`
/// where there is none.
fn age_ms(host: &mut Host, path: &str) -> Result<Option<u64>, Fault> {
    let Some(place) = host.locate(path)? else { return Ok(None) };
    let Some(stat) = host.stat(&place, path)? else { return Ok(None) };
    #[allow(clippy::useless_conversion, reason = "time_t is narrower elsewhere")]
    let changed = i64::from(stat.st_mtime).saturating_mul(1_000);
    Ok(Some(host.now().wall.0.abs_diff(changed)))
}

/// Calls; while another process holds a lock, again and again, with a bound.
fn call_unlocked(host: &mut Host, manager: &'static dyn Manager, call: &Call, deadline: Mono) -> Result<String, Fault> {
    let tool = Tool::need(host, call.program)?.with_environment(manager.environment());
    let (mut pause, give_up) = (LOCK_PAUSE_MS, deadline.min(host.now().mono + limits::PACKAGE_LOCK_WAIT_MS));
    loop {
        match tool.run(host, &words(call), deadline) {
            Err(fault) if is_locked(&fault) => {
                if host.now().mono + pause >= give_up || !host.pause(pause) {
                    return Err(Fault::Blocked(format!("another process is at work with packages: {fault}")));
                }
                pause = (2 * pause).min(LOCK_PAUSE_MS_MAX);
            }
            done => return done.map_err(blame),
        }
    }
}

/// Asks a manager about newer versions.
pub fn ask(
    host: &mut Host,
    manager: &'static dyn Manager,
    call: &Call,
    fine: &[i32],
    deadline: Mono,
) -> Result<String, Fault> {
    let tool =
        Tool::need(host, call.program)?.with_environment(manager.environment()).keeping(limits::PACKAGE_LIST_BYTES_MAX);
    let done = tool.ask(host, &words(call), "", deadline)?;
    // Some have one status for "nothing" and for "cannot".
    let complains = done.stderr.text().lines().any(|line| line.to_lowercase().starts_with("error"));
    match done.ended {
        Ended::Exited(status) if fine.contains(&status) && (status == 0 || !complains) => Ok(done.stdout.text()),
        _ => Err(blame(tool.fault(&done))),
    }
}

fn words(call: &Call) -> Vec<&str> {
    call.args.iter().map(String::as_str).collect()
}

fn says(fault: &Fault, any: &[&str]) -> bool {
    let spoken = fault.to_string().to_lowercase();
    any.iter().any(|words| spoken.contains(words))
}

fn is_locked(fault: &Fault) -> bool {
    says(fault, &LOCKED)
}

/// A repository that cannot be had blocks; it is no failure of the resource.
pub fn blame(fault: Fault) -> Fault {
    match fault {
        Fault::Failed(message) if says(&Fault::Failed(message.clone()), &UNREACHABLE) => Fault::Blocked(message),
        fault => fault,
    }
}

fn first_of_two(first: Fault, then: Fault) -> Fault {
    let message = format!("{then}\nand before that, fetching the lists of the repositories: {first}");
    match (&first, &then) {
        (Fault::Blocked(_), _) | (_, Fault::Blocked(_)) => Fault::Blocked(message),
        _ => Fault::Failed(message),
    }
}
