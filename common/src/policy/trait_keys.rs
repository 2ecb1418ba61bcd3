//! Every trait that the agent's own collectors give, so that the server can check names at publish. The agent checks its
//! trees against the same table: a key that a collector does not know is there, and null.
//!
//! Trees that are not in the table may come from operators' own programs, so they are allowed, unless their name is nearly
//! that of a known one.

use crate::units::nearest;

/// A tree of traits.
#[derive(Debug)]
pub struct Tree {
    /// Its name: the word after `traits.`.
    pub name: &'static str,
    /// Changes all the time: sent along with reports only, and gathered for every run.
    pub volatile: bool,
    /// Paths of its values below the tree. A `*` stands for any name, and a path that ends in one for a mapping or list
    /// whose keys only the host knows.
    pub keys: &'static [&'static str],
}

/// The trees.
pub const TREES: [Tree; 9] = [
    Tree {
        name: "os",
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
    Tree { name: "mounts", volatile: false, keys: &["*"] },
    Tree {
        name: "memory",
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
    Tree { name: "load", volatile: true, keys: &["one", "five", "fifteen", "running", "processes"] },
    Tree { name: "uptime", volatile: true, keys: &["seconds", "booted_at", "boot_id"] },
    Tree {
        name: "time",
        volatile: true,
        keys: &["utc", "epoch", "year", "month", "day", "hour", "minute", "timezone"],
    },
    Tree { name: "vigo", volatile: true, keys: &["version", "commit", "target", "serial", "sysroot"] },
];

/// Checks what stands behind `traits.` in a template: `os.arch`. The error says what is wrong, and what to do.
pub fn check(path: &str) -> Result<(), (String, String)> {
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    let names = || TREES.iter().map(|tree| tree.name);
    let Some(tree) = TREES.iter().find(|tree| tree.name == name) else {
        return match nearest(name, names()) {
            Some(near) if !name.is_empty() => {
                Err((format!("`traits.{name}` does not exist"), format!("did you mean `traits.{near}`?")))
            }
            _ => Ok(()),
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
}
