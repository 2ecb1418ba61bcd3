//! Every trait that the agent's own collectors give, so that the server can check names at publish. The agent checks its
//! trees against the same table: a key that a collector does not know is there, and null.
//!
//! Trees that are not in the table may come from operators' own programs, so they are allowed, unless they are one letter
//! away from a known one: the agent takes no program of such a name.

use std::fmt::Write;

use serde_json::Value;

use crate::units::{edit_distance, nearest};

/// A tree of traits.
#[derive(Debug)]
pub struct Tree {
    /// Its name: the word after `traits.`.
    pub name: &'static str,
    /// What it says, in a few words.
    pub meaning: &'static str,
    /// Changes all the time: sent along with reports only, and gathered for every run.
    pub volatile: bool,
    /// Paths of its values below the tree. A `*` stands for any name, and a path that ends in one for a mapping or list
    /// whose keys only the host knows.
    pub keys: &'static [&'static str],
}

/// The trees.
pub const TREES: [Tree; 12] = [
    Tree {
        name: "os",
        meaning: "the distribution, the kernel, the init system",
        volatile: false,
        keys: &[
            "name",
            "distro",
            "version",
            "codename",
            "family",
            "like.*",
            "kernel",
            "kernel_release",
            "arch",
            "container",
            "init",
            "machine_id",
        ],
    },
    Tree {
        name: "hardware",
        meaning: "processors, memory, disks, firmware, the hypervisor below",
        volatile: false,
        keys: &[
            "cpu.model",
            "cpu.vendor",
            "cpu.count",
            "cpu.cores",
            "cpu.sockets",
            "memory_bytes",
            "swap_bytes",
            "disks.*",
            "virtualization",
            "dmi.vendor",
            "dmi.product",
            "dmi.version",
            "dmi.serial",
            "dmi.uuid",
            "dmi.bios_vendor",
            "dmi.bios_version",
        ],
    },
    Tree {
        name: "network",
        meaning: "names, addresses, interfaces, the default route, name servers",
        volatile: false,
        keys: &[
            "hostname",
            "fqdn",
            "domain",
            "address",
            "addresses.*",
            "ipv4.*",
            "ipv6.*",
            "macs.*",
            "interfaces.*",
            "gateway",
            "gateway_interface",
            "gateway6",
            "nameservers.*",
        ],
    },
    Tree {
        name: "mounts",
        meaning: "file systems with content of their own, by mount point: `device`, `fstype`, `read_only`, `bytes`, `options`",
        volatile: false,
        keys: &["*"],
    },
    Tree {
        name: "packages",
        meaning: "what the package manager has installed (dpkg, rpm, apk, opkg, pacman): the version, by name",
        volatile: false,
        keys: &["*"],
    },
    Tree {
        name: "services",
        meaning: "services by name: `enabled`, `running`, and `masked` with systemd",
        volatile: false,
        keys: &["*"],
    },
    Tree {
        name: "users",
        meaning: "accounts of /etc/passwd by name: `uid`, `gid`, `home`, `shell`, `groups`",
        volatile: false,
        keys: &["*"],
    },
    Tree {
        name: "memory",
        meaning: "how memory is used",
        volatile: true,
        keys: &[
            "total_bytes",
            "free_bytes",
            "available_bytes",
            "buffers_bytes",
            "cached_bytes",
            "swap_total_bytes",
            "swap_free_bytes",
        ],
    },
    Tree {
        name: "load",
        meaning: "load averages and processes",
        volatile: true,
        keys: &["one", "five", "fifteen", "running", "processes"],
    },
    Tree {
        name: "uptime",
        meaning: "since when the host runs",
        volatile: true,
        keys: &["seconds", "booted_at", "boot_id"],
    },
    Tree {
        name: "time",
        meaning: "the clock, in UTC, and the time zone of the host",
        volatile: true,
        keys: &["utc", "epoch", "year", "month", "day", "hour", "minute", "timezone"],
    },
    Tree {
        name: "vigo",
        meaning: "the agent itself",
        volatile: true,
        keys: &["version", "commit", "target", "serial", "sysroot"],
    },
];

/// In place of the entries of a tree that had no room, which are the last by name: true.
pub const TRUNCATED: &str = "_truncated";

/// The known tree whose name is this one or one letter away from it: what an operator's own tree may not be called.
pub fn near_tree(name: &str) -> Option<&'static str> {
    let exact = TREES.iter().find(|tree| tree.name == name);
    exact.or_else(|| TREES.iter().find(|tree| edit_distance(name, tree.name) == 1)).map(|tree| tree.name)
}

/// The value at a path such as `hardware.cpu.count`; names may have dots in them: `packages.libssl1.1`. `Err` says what is
/// not there, and what is.
pub fn find<'v>(traits: &'v Value, path: &str) -> Result<&'v Value, (String, String)> {
    let (mut value, mut rest) = (traits, path);
    while !rest.is_empty() {
        // The longest name that is there: no two ways lead on where one name is the beginning of another.
        let ends = rest.match_indices('.').map(|(at, _)| at).chain([rest.len()]);
        let steps: Vec<usize> = ends.collect();
        let found = steps.iter().rev().find_map(|&end| Some((step(value, &rest[..end])?, end)));
        let Some((next, end)) = found else {
            let key = &rest[..steps[0]];
            let known: Vec<&str> = value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
            let cure = match nearest(key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if known.is_empty() => "there is nothing below it".to_string(),
                None => format!("there are {}", some(&known)),
            };
            return Err((format!("there is no trait `{key}` here"), cure));
        };
        (value, rest) = (next, rest.get(end + 1..).unwrap_or_default());
    }
    Ok(value)
}

fn step<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    match value {
        Value::Array(list) => list.get(key.parse::<usize>().ok()?),
        value => value.get(key),
    }
}

/// The first of many names.
fn some(names: &[&str]) -> String {
    const SHOWN: usize = 40;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

/// Checks what stands behind `traits.` in a template: `os.arch`. The error says what is wrong, and what to do.
pub fn check(path: &str) -> Result<(), (String, String)> {
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    let Some(tree) = TREES.iter().find(|tree| tree.name == name) else {
        return match near_tree(name) {
            Some(near) => Err((format!("`traits.{name}` does not exist"), format!("did you mean `traits.{near}`?"))),
            None => Ok(()),
        };
    };
    let mut seen = format!("traits.{name}");
    let mut options: Vec<&str> = tree.keys.to_vec();
    for part in rest.split('.').filter(|part| !part.is_empty()) {
        // A value was reached: what is below it (a method, an attribute of a list) is for the run to judge.
        if options.iter().any(|option| option.is_empty() || option.starts_with('*')) {
            return Ok(());
        }
        let first = |option: &&str| option.split('.').next().unwrap_or_default() == part;
        let known: Vec<&str> = options.iter().map(|option| option.split('.').next().unwrap_or_default()).collect();
        let next: Vec<&str> = options.iter().copied().filter(|option| first(option)).collect();
        if next.is_empty() {
            let cure = match nearest(part, known.iter().copied()) {
                Some(near) => format!("did you mean `{seen}.{near}`?"),
                None => format!("{seen} has {}", sorted(known).join(", ")),
            };
            return Err((format!("`{seen}.{part}` does not exist"), cure));
        }
        options = next.into_iter().map(|option| option.split_once('.').map_or("", |(_, rest)| rest)).collect();
        seen = format!("{seen}.{part}");
    }
    Ok(())
}

/// The page of the reference, as Markdown.
pub fn page() -> String {
    let mut out = String::from(
        "# Traits\n\nGenerated from the table that policy is checked against. What an agent finds out about its host: \
         `traits.TREE.KEY` in templates and `when`, `vigo-envoy traits [PATH]` on the host, `vigocli traits ENVOY [PATH]` on \
         the server. A key of this table is always there, null where it is not known; `*` stands for names that only the \
         host knows.\n\nVolatile trees are gathered for every run, the others for every tenth.\n\n\
         | tree | volatile | what | keys |\n|---|---|---|---|\n",
    );
    for tree in &TREES {
        let keys: Vec<String> = tree.keys.iter().map(|key| format!("`{key}`")).collect();
        let volatile = if tree.volatile { "yes" } else { "" };
        let _ = writeln!(out, "| `{}` | {volatile} | {} | {} |", tree.name, tree.meaning, keys.join(", "));
    }
    out.push_str(OWN);
    out
}

/// What the table cannot say.
const OWN: &str = r#"
`packages`, `services` and `users` hold what fits into 192 KiB of JSON; what had no room are the last entries by name,
and `_truncated` is then true. Files are read, nothing is started, except for rpm, whose database is no text: `rpm -qa` is.
Of several versions of a package that are installed at the same time, the last one listed counts. Names may need brackets:
`traits.packages['python3-yaml']`, and `'nginx' in traits.packages` is asked where it may be missing.

## Traits of your own

Every executable file in `/etc/vigo/traits.d` (`traits_dir` in `envoy.yaml`) is a tree, called as the file is up to its first dot:
`rack.sh` gives `traits.rack`. It prints one JSON value.

```sh
#!/bin/sh
echo "{"row": 7, "site": "$(cat /etc/site)"}"
```

- It is run for every tenth run, or for every one if `volatile` is a part of its name: `queue.volatile.py` gives `traits.queue`.
- It gets no input, `/` as its directory and `PATH`, `HOME`, `LANG` and `VIGO_TRAITS=1` for an environment, and has 5 s; all together 20 s.
- It prints at most 64 KiB of UTF-8, nested at most 16 deep, with at most 10,000 values, keys of at most 256 bytes; all together 256 KiB.
- A name is small letters, digits and `_`, at most 64, begins with a letter, and is neither one of the trees above nor one letter away from one.
- File and directory belong to root (or to whom the agent runs as) and are writable by nobody else; links are not followed. At most 32.
- A program that fails costs a warning with its name, never a run: what it printed last stands, else its tree is not there, and a
  resource that uses it fails and says so. `traits.rack is defined` and `default` guard against that.
- Names below such a tree are not known when policy is published, and are not checked then.
"#;

fn sorted(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_and_parts_of_them_pass() {
        for path in [
            "",
            "os",
            "os.arch",
            "hardware.cpu",
            "hardware.cpu.count",
            "hardware.disks.0.name",
            "mounts./.fstype",
            "network.interfaces.eth0.mac",
            "network.addresses",
            "os.arch.upper",
            "rack",
            "rack.row.7",
            "packages.nginx",
            "tier",
            "timers.one",
        ] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn unknown_names_are_found_with_the_nearest_one() {
        for (path, what, cure) in [
            ("os.arc", "`traits.os.arc` does not exist", "did you mean `traits.os.arch`?"),
            (
                "hardware.cpu.cuont",
                "`traits.hardware.cpu.cuont` does not exist",
                "did you mean `traits.hardware.cpu.count`?",
            ),
            ("pakages.nginx", "`traits.pakages` does not exist", "did you mean `traits.packages`?"),
            ("netwrok.hostname", "`traits.netwrok` does not exist", "did you mean `traits.network`?"),
            (
                "load.quarter",
                "`traits.load.quarter` does not exist",
                "traits.load has fifteen, five, one, processes, running",
            ),
        ] {
            assert_eq!(check(path), Err((what.into(), cure.into())));
        }
    }

    #[test]
    fn values_are_found_by_paths_whose_names_have_dots() {
        let traits = serde_json::json!({"packages": {"libssl1.1": "1", "libssl1": "2"}, "disks": [{"name": "sda"}]});
        assert_eq!(find(&traits, "packages.libssl1.1"), Ok(&serde_json::json!("1")));
        assert_eq!(find(&traits, "packages.libssl1"), Ok(&serde_json::json!("2")));
        assert_eq!(find(&traits, "disks.0.name"), Ok(&serde_json::json!("sda")));
        assert_eq!(find(&traits, ""), Ok(&traits));
        let gone = find(&traits, "package.x").unwrap_err();
        assert_eq!(gone, ("there is no trait `package` here".into(), "did you mean `packages`?".into()));
        assert_eq!(find(&traits, "disks.7").unwrap_err().1, "there is nothing below it");
        assert_eq!(find(&traits, "rack").unwrap_err().1, "there are disks, packages");
    }
}
