//! `packages`: what is installed, by name, from the files of the package manager. Only rpm keeps no text: it is asked, in a
//! child with a deadline. The first manager that is there counts, so that an `rpm` on Debian hides nothing.
//!
//! Files of any size are read line by line, up to a bound; of several versions of one package the last one counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::limits::{COLLECTOR_TIMEOUT_MS, PACKAGE_LIST_BYTES_MAX};
use common::sys::Clock;
use serde_json::Value;

use super::{Facts, Root, entries};
use crate::sys::child::{Ended, Spec, StopFlag, run};

/// Where dpkg and the two generations of opkg list packages, in one form.
const STANZAS: [&str; 4] =
    ["/var/lib/dpkg/status", "/usr/lib/opkg/status", "/var/lib/opkg/status", "/opt/lib/opkg/status"];
/// Where apk lists packages.
const APK: [&str; 2] = ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"];
/// A directory for each package of pacman.
const PACMAN: &str = "/var/lib/pacman/local";
/// Where databases of rpm are.
const RPM: [&str; 2] = ["/usr/lib/sysimage/rpm", "/var/lib/rpm"];
/// Where `rpm` is.
const RPM_PROGRAMS: [&str; 2] = ["/usr/bin/rpm", "/bin/rpm"];
/// What it prints; the epoch as everybody writes it.
const RPM_FORMAT: &str = "%{NAME} %|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\\n";
/// Entries at most, before the bound in bytes is looked at.
const PACKAGES_MAX: usize = 50_000;

type Found = BTreeMap<String, Value>;

pub(super) fn collect(root: &Root, _: &Facts) -> Result<Value, String> {
    let mut found = Found::new();
    let is_listed = STANZAS.iter().any(|path| stanzas(root, path, &mut found) && !found.is_empty())
        || APK.iter().any(|path| apk(root, path, &mut found) && !found.is_empty())
        || pacman(root, &mut found);
    if !is_listed && RPM.iter().any(|path| !root.list(path).is_empty()) {
        rpm(root, &mut found)?;
    }
    Ok(entries::tree(found))
}

fn add(found: &mut Found, name: &str, version: &str) {
    if !name.is_empty() && !version.is_empty() && found.len() < PACKAGES_MAX {
        found.insert(name.to_string(), version.into());
    }
}

/// `Package:`, `Status:` and `Version:` in paragraphs.
fn stanzas(root: &Root, path: &str, found: &mut Found) -> bool {
    let (mut name, mut version, mut installed) = (String::new(), String::new(), false);
    let mut end = |name: &mut String, version: &mut String, installed: &mut bool| {
        if std::mem::take(installed) {
            add(found, name, version);
        }
        name.clear();
        version.clear();
    };
    let read = root.lines(path, &mut |line| match line.split_once(": ") {
        Some(("Package", value)) => name = value.trim().to_string(),
        Some(("Version", value)) => version = value.trim().to_string(),
        // `install ok installed`, `hold ok unpacked`: the last word is the state.
        Some(("Status", value)) => installed = value.trim().ends_with(" installed"),
        None if line.trim().is_empty() => end(&mut name, &mut version, &mut installed),
        _ => {}
    });
    end(&mut name, &mut version, &mut installed);
    read
}

/// `P:` and `V:` in paragraphs.
fn apk(root: &Root, path: &str, found: &mut Found) -> bool {
    let mut name = String::new();
    root.lines(path, &mut |line| match line.split_once(':') {
        Some(("P", value)) => name = value.to_string(),
        Some(("V", value)) => add(found, &name, value),
        _ => {}
    })
}

/// `name-version-release`.
fn pacman(root: &Root, found: &mut Found) -> bool {
    for entry in root.list(PACMAN) {
        let mut parts = entry.rsplitn(3, '-');
        if let (Some(release), Some(version), Some(name)) = (parts.next(), parts.next(), parts.next()) {
            add(found, name, &format!("{version}-{release}"));
        }
    }
    !found.is_empty()
}

fn rpm(root: &Root, found: &mut Found) -> Result<(), String> {
    let text = if root.is_host() {
        let Some(program) = RPM_PROGRAMS.iter().find(|path| root.has(path)) else { return Ok(()) };
        rpm_says(program)?
    } else {
        root.read(".calls/rpm").ok_or("no .calls/rpm")?
    };
    for line in text.lines() {
        if let Some((name, version)) = line.split_once(' ') {
            add(found, name, version);
        }
    }
    Ok(())
}

fn rpm_says(program: &str) -> Result<String, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{program} -qa: {error}");
    let directory = std::fs::File::open("/").map_err(|error| failed(&error))?;
    let spec = Spec {
        argv: [program, "-qa", "--qf", RPM_FORMAT].map(Into::into).to_vec(),
        environment: vec![("PATH".into(), "/usr/bin:/bin".into()), ("LC_ALL".into(), "C".into())],
        directory: Arc::new(directory.into()),
        run_as: None,
        umask: 0o022,
        stdin: b"",
        keep: PACKAGE_LIST_BYTES_MAX,
    };
    let clock = Clock::system();
    // Before the collector itself is late.
    let deadline = clock.now().mono + COLLECTOR_TIMEOUT_MS * 4 / 5;
    let done = run(&spec, &clock, deadline, &StopFlag::default()).map_err(|error| failed(&error))?;
    match (done.ended, done.stdout.whole()) {
        (Ended::Exited(0), Some(bytes)) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        (Ended::Exited(0), None) => Err(failed(&"it printed too much")),
        (Ended::TimedOut, _) => Err(failed(&"it took too long")),
        (ended, _) => Err(failed(&format!("{ended:?}: {}", done.stderr.text().trim()))),
    }
}
