//! `services`: what an init system knows, whether it starts with the host, and whether it runs, from directories alone:
//! systemd, OpenRC, OpenWrt, SysV, BusyBox.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Facts, Root, entries};

/// Where units of systemd are; the first one wins.
const UNITS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// Where enabling makes links, and presets of the distribution are.
const WANTS: [&str; 4] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// A link `invocation:UNIT` for each unit that is neither inactive nor failed.
const STARTED: &str = "/run/systemd/units";
/// Files in `/etc/init.d` that are no services.
const NOT_SERVICES: [&str; 6] = ["README", "rc", "rcS", "functions", "skeleton", "functions.sh"];
/// Where PID files are.
const RUN: [&str; 2] = ["/run", "/var/run"];

#[derive(Clone, Copy, Default)]
struct Service {
    enabled: bool,
    running: Option<bool>,
    masked: Option<bool>,
}

pub(super) fn collect(root: &Root, _: &Facts) -> Result<Value, String> {
    let found = if root.has("/run/systemd/system") {
        systemd(root)
    } else if root.has("/run/openrc") || root.has("/etc/runlevels") {
        openrc(root)
    } else {
        scripts(root)
    };
    let one = |(name, service): (String, Service)| {
        let mut value = json!({"enabled": service.enabled, "running": service.running});
        if let Some(masked) = service.masked {
            value["masked"] = json!(masked);
        }
        (name, value)
    };
    Ok(entries::tree(found.into_iter().map(one).collect()))
}

fn systemd(root: &Root) -> BTreeMap<String, Service> {
    let service_of = |entry: &str| entry.strip_suffix(".service").map(str::to_string);
    let mut found: BTreeMap<String, Service> = BTreeMap::new();
    for folder in UNITS {
        for entry in root.list(folder) {
            // A template is no service; its instances are, where something wants or started them.
            let Some(name) = service_of(&entry).filter(|name| !name.ends_with('@') && !found.contains_key(name)) else {
                continue;
            };
            let masked = root.link(&format!("{folder}/{entry}")).as_deref() == Some("/dev/null");
            found.insert(name, Service { masked: Some(masked), ..Service::default() });
        }
    }
    let unit = || Service { masked: Some(false), ..Service::default() };
    for folder in WANTS {
        for entry in root.list(folder) {
            if entry.ends_with(".wants") || entry.ends_with(".requires") {
                for name in root.list(&format!("{folder}/{entry}")).iter().filter_map(|name| service_of(name)) {
                    found.entry(name).or_insert_with(unit).enabled = true;
                }
            }
        }
    }
    let links = root.list(STARTED);
    let started: BTreeSet<String> =
        links.iter().filter_map(|entry| service_of(entry.strip_prefix("invocation:")?)).collect();
    // A systemd before 229 makes no such links: it is not known then what runs.
    if !links.is_empty() {
        for name in &started {
            found.entry(name.clone()).or_insert_with(unit);
        }
        found.iter_mut().for_each(|(name, service)| service.running = Some(started.contains(name)));
    }
    found
}

fn openrc(root: &Root) -> BTreeMap<String, Service> {
    let started: BTreeSet<String> = root.list("/run/openrc/started").into_iter().collect();
    let levels = root.list("/etc/runlevels");
    let enabled: BTreeSet<String> =
        levels.iter().flat_map(|level| root.list(&format!("/etc/runlevels/{level}"))).collect();
    let service = |name: String| {
        let service =
            Service { enabled: enabled.contains(&name), running: Some(started.contains(&name)), masked: None };
        (name, service)
    };
    script_names(root).into_iter().map(service).collect()
}

fn scripts(root: &Root) -> BTreeMap<String, Service> {
    let folders = ["/etc/rc.d", "/etc/rc2.d", "/etc/rc3.d", "/etc/rc4.d", "/etc/rc5.d", "/etc/rcS.d"];
    let below = ["/etc/rc.d/rc2.d", "/etc/rc.d/rc3.d", "/etc/rc.d/rc5.d"];
    let entries = folders.iter().chain(&below).flat_map(|folder| root.list(folder));
    let enabled: BTreeSet<String> = entries.filter_map(|entry| started_by(&entry).map(str::to_string)).collect();
    let service = |name: String| {
        let service = Service { enabled: enabled.contains(&name), running: has_process(root, &name), masked: None };
        (name, service)
    };
    let mut found: BTreeMap<String, Service> = script_names(root).into_iter().map(service).collect();
    // The init of BusyBox has no links: it starts what is called so and may be executed.
    for entry in root.list("/etc/init.d") {
        if let Some(name) = started_by(&entry).filter(|_| enabled.is_empty()) {
            let enabled = root.is_executable(&format!("/etc/init.d/{entry}"));
            found.remove(&entry);
            found.insert(name.into(), Service { enabled, running: has_process(root, name), masked: None });
        }
    }
    found
}

fn script_names(root: &Root) -> Vec<String> {
    let mut names = root.list("/etc/init.d");
    names.retain(|name| !NOT_SERVICES.contains(&name.as_str()) && !name.contains('.'));
    names
}

/// `S20dropbear`: the name behind the number of a start link.
fn started_by(entry: &str) -> Option<&str> {
    let rest = entry.strip_prefix('S')?;
    let name = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    (name.len() < rest.len() && !name.is_empty()).then_some(name)
}

/// By its PID file; not known without one.
fn has_process(root: &Root, name: &str) -> Option<bool> {
    let paths = RUN.iter().flat_map(|run| [format!("{run}/{name}.pid"), format!("{run}/{name}/{name}.pid")]);
    let pid = paths.into_iter().find_map(|path| root.number(&path))?;
    Some(root.has(&format!("/proc/{pid}")))
}
