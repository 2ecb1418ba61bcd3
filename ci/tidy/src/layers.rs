//! Who may import whom: one row a folder, and the check of a source against it.
//!
//! A *core* is deterministic: time, randomness and I/O are arguments. A *shell* owns sockets, files, threads, clocks or C libraries.
//! Cores import no shell; shells do not import each other. Where a folder of one kind needs the plain values of a folder of the other
//! (the events and writes that they exchange), the row names the one file that holds those values.

use crate::rust::{Source, paths_from, tokens};

/// What a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Deterministic.
    Core,
    /// Owns something of the outside.
    Shell,
    /// The operating system, wrapped; imports nothing of its crate.
    Sys,
    /// Starts the parts and joins them; may import everything of its crate.
    Top,
}

/// One folder (or file) at the top of a crate's `src`.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name, without `.rs`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Folders of the same crate that it may import; `name=file` allows only what `src/name/file` declares, `name!` is an
    /// exception from the rules about kinds, with its reason beside it.
    pub may: &'static [&'static str],
}

/// One crate with layers.
#[derive(Clone, Copy, Debug)]
pub struct Crate {
    /// Folder in the repository.
    pub folder: &'static str,
    /// Its name in paths.
    pub name: &'static str,
    /// Its folders.
    pub rows: &'static [Row],
}

const fn row(name: &'static str, kind: Kind, may: &'static [&'static str]) -> Row {
    Row { name, kind, may }
}

/// The table.
pub const CRATES: [Crate; 3] = [COMMON, SERVER, AGENT];

/// From the bottom up: each row imports rows above it only.
const COMMON: Crate = Crate {
    folder: "common",
    name: "common",
    rows: &[
        row("limits", Kind::Core, &[]),
        row("time", Kind::Core, &[]),
        row("rng", Kind::Core, &[]),
        row("base64", Kind::Core, &[]),
        row("ids", Kind::Core, &["limits", "rng"]),
        row("units", Kind::Core, &[]),
        row("glob", Kind::Core, &[]),
        row("outcome", Kind::Core, &[]),
        row("deadline", Kind::Core, &["limits", "time"]),
        row("log", Kind::Core, &["time", "limits"]),
        row("redact", Kind::Core, &["ids"]),
        row("splay", Kind::Core, &["crypto", "ids", "limits", "rng", "time"]),
        row("backoff", Kind::Core, &["limits", "rng"]),
        row("crypto", Kind::Core, &["ids", "rng"]),
        row("chain", Kind::Core, &["crypto", "ids"]),
        row("proto", Kind::Core, &["chain", "ids", "limits", "outcome"]),
        row("bundle", Kind::Core, &["crypto", "ids", "limits", "proto", "rng"]),
        row("yaml", Kind::Core, &["limits", "units"]),
        row("policy", Kind::Core, &["base64", "bundle", "crypto", "glob", "ids", "limits", "units", "yaml"]),
        row("settings", Kind::Core, &["bundle", "glob", "ids", "limits", "units", "yaml"]),
        row("fuzz", Kind::Core, &["bundle", "chain", "crypto", "ids", "limits", "proto", "rng"]),
        row("x509", Kind::Core, &["crypto", "ids", "limits", "time"]),
        row("cli", Kind::Sys, &["sys", "time", "units"]),
        row("sys", Kind::Sys, &["cli", "ids", "limits", "log", "redact", "rng", "time", "units"]),
        row("net", Kind::Shell, &["crypto", "ids", "limits", "proto", "rng", "time", "x509"]),
    ],
};

/// `app` and `rpc` are one state machine in two folders: `rpc` holds one handler a method.
const SERVER: Crate = Crate {
    folder: "vigosrv",
    name: "vigosrv",
    rows: &[
        row("sys", Kind::Sys, &[]),
        // Compiling a large tree is shared among threads, whose number does not show in the result.
        row("policy", Kind::Core, &["sys!"]),
        row("fleet", Kind::Core, &["policy", "store=ops.rs"]),
        row("app", Kind::Core, &["fleet", "policy", "rpc", "secrets=vault.rs", "store=ops.rs"]),
        row("rpc", Kind::Core, &["app", "fleet", "policy", "secrets=vault.rs", "store=ops.rs"]),
        row("store", Kind::Shell, &["sys"]),
        row("publish", Kind::Shell, &["policy", "sys"]),
        row("config", Kind::Shell, &["app", "litestream=settings.rs", "secrets=mod.rs", "sys"]),
        row("keys", Kind::Shell, &["app", "config=mod.rs", "sys"]),
        row(
            "net",
            Kind::Shell,
            &["api=chunked.rs", "api=http.rs", "api=message.rs", "app", "rpc", "sys", "store=ops.rs"],
        ),
        // Operators' reads go to the read-only connection and to the tree on disk, past the core: exceptions on purpose, so that no page view
        // takes a turn of the loop that answers check-ins.
        row(
            "api",
            Kind::Shell,
            &["app", "backup!", "fleet", "litestream=state.rs", "policy", "publish!", "secrets!", "sys", "store!"],
        ),
        // Whose a replica is stands in a database, as that is what Litestream carries; and who copies the WAL back changes hands.
        row("litestream", Kind::Shell, &["store!", "sys"]),
        row("secrets", Kind::Shell, &["sys"]),
        // An archive is of everything: where it is (config), whether the certificate fits this host (keys), whether the secrets open,
        // which schema is known (store).
        row("backup", Kind::Shell, &["config!", "keys!", "secrets!", "store!", "sys"]),
        row("license", Kind::Shell, &["sys"]),
        row("cli", Kind::Top, &[]),
        row("quickstart", Kind::Top, &[]),
        row("fuzz", Kind::Top, &[]),
        row("boot", Kind::Top, &[]),
    ],
};

const AGENT: Crate = Crate {
    folder: "envoy",
    name: "envoy",
    rows: &[
        row("sys", Kind::Sys, &[]),
        row("plan", Kind::Core, &["report"]),
        row("report", Kind::Core, &["agent=status.rs", "cache=ops.rs", "cache=codec.rs"]),
        row("agent", Kind::Core, &["plan", "report", "cache=ops.rs"]),
        row("cache", Kind::Shell, &["report", "sys"]),
        row("traits", Kind::Shell, &["agent", "sys"]),
        row("exec", Kind::Shell, &["agent", "plan", "report", "sys"]),
        row("control", Kind::Shell, &["agent", "sys"]),
        row("link", Kind::Shell, &["agent", "sys"]),
        row("config", Kind::Shell, &["agent", "sys"]),
        row("identity", Kind::Shell, &["agent", "config=mod.rs", "sys"]),
        row("cli", Kind::Top, &[]),
        row("runner", Kind::Top, &[]),
        row("boot", Kind::Top, &[]),
    ],
};

/// What a core never mentions, because it reads the clock, draws entropy or touches the world.
const WORLD: [(&str, &[&str]); 3] =
    [("std", &["fs", "process", "thread", "env", "os"]), ("nix", &["*"]), ("libc", &["*"])];

/// Types of `std::net` and `std::time` that a core never mentions; addresses and durations are values.
const WORLD_TYPES: [&str; 6] = ["TcpStream", "TcpListener", "UdpSocket", "Instant", "SystemTime", "SystemRng"];

/// Violations of one file of a crate with layers. `declared(folder, file)` says which public names a values file declares.
pub fn check(path: &str, text: &str, declared: &dyn Fn(&str) -> Vec<String>) -> Vec<String> {
    let Some((krate, inside)) = CRATES.iter().find_map(|krate| {
        let inside = path.strip_prefix(krate.folder)?.strip_prefix("/src/")?;
        Some((krate, inside))
    }) else {
        return Vec::new();
    };
    let first = inside.split('/').next().unwrap_or_default();
    let own = first.strip_suffix(".rs").unwrap_or(first);
    // The crate root declares modules; binaries start them.
    if ["lib", "main", "bin"].contains(&own) {
        return Vec::new();
    }
    let Some(row) = krate.rows.iter().find(|row| row.name == own) else {
        return vec![format!(
            "{path}: `{own}` has no row in ci/tidy/src/layers.rs; say what it is and what it may import"
        )];
    };
    let code = Source::new(text).production();
    let mut out = Vec::new();
    for imported in imports(&code, path, inside) {
        let Some(target) = imported.first().filter(|target| *target != own) else { continue };
        if !allowed(krate, row, &imported, declared) {
            out.push(format!("{path}: `{own}` may not import `{target}` (crate::{})", imported.join("::")));
        }
    }
    for other in CRATES.iter().filter(|other| other.name != krate.name) {
        for imported in paths_from(&code, other.name) {
            if !allowed_across(krate, row, other, &imported) {
                out.push(format!("{path}: `{own}` may not import {}::{}", other.name, imported.join("::")));
            }
        }
    }
    if row.kind == Kind::Core {
        out.extend(world(&code, path));
    }
    out
}

/// Public names that a values file declares.
pub fn declared_names(text: &str) -> Vec<String> {
    let code = Source::new(text).production();
    let tokens = tokens(&code);
    let item = |words: &[&str]| match words {
        ["pub", "struct" | "enum" | "trait" | "type" | "const" | "fn", name, ..] => Some((*name).to_string()),
        _ => None,
    };
    (0..tokens.len()).filter_map(|at| item(&tokens[at..])).collect()
}

/// Paths into the own crate, by `crate::` or by enough `super::`.
fn imports(code: &str, path: &str, inside: &str) -> Vec<Vec<String>> {
    let mut out = paths_from(code, "crate");
    // Depth of the module below the crate root: `a/b.rs` is a::b, `a/mod.rs` is a.
    let parts = inside.split('/').count();
    let depth = if path.ends_with("/mod.rs") { parts - 1 } else { parts };
    for imported in paths_from(code, "super") {
        let supers = 1 + imported.iter().take_while(|part| *part == "super").count();
        if supers == depth {
            out.push(imported[supers - 1..].to_vec());
        }
    }
    out
}

fn allowed(krate: &Crate, row: &Row, imported: &[String], declared: &dyn Fn(&str) -> Vec<String>) -> bool {
    let target = imported[0].as_str();
    // Not a folder: a macro or a name of the crate root.
    if row.kind == Kind::Top || !krate.rows.iter().any(|row| row.name == target) {
        return true;
    }
    row.may.iter().any(|may| match may.split_once('=') {
        None => may.trim_end_matches('!') == target,
        Some((folder, file)) => {
            let values = || declared(&format!("{}/src/{folder}/{file}", krate.folder));
            folder == target && imported.iter().any(|part| values().contains(part))
        }
    })
}

fn allowed_across(krate: &Crate, row: &Row, other: &Crate, imported: &[String]) -> bool {
    if other.name != "common" {
        // Server and agent never import each other, and `common` imports neither.
        return false;
    }
    let target = imported.first().map_or("", String::as_str);
    let kind = COMMON.rows.iter().find(|row| row.name == target).map(|row| row.kind);
    krate.name != "common" && !(row.kind == Kind::Core && matches!(kind, Some(Kind::Shell | Kind::Sys)))
}

fn world(code: &str, path: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (root, parts) in WORLD {
        for imported in paths_from(code, root) {
            let first = imported.first().map_or("", String::as_str);
            if parts == ["*"] || parts.contains(&first) {
                out.push(format!("{path}: a core may not use {root}::{}", imported.join("::")));
            }
        }
    }
    for name in WORLD_TYPES {
        let declared_here = code.contains(&format!("struct {name}"));
        if tokens(code).contains(&name) && !declared_here {
            out.push(format!("{path}: a core may not use {name}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(path: &str, text: &str) -> usize {
        check(path, text, &|_| vec!["Write".to_string()]).len()
    }

    #[test]
    fn arrows_that_point_up_or_sideways_are_found() {
        for (n, path, text) in [
            (0, "vigosrv/src/app/a.rs", "use crate::fleet::Entry; use common::ids::Uuid;"),
            (0, "vigosrv/src/app/a.rs", "use crate::store::Write;"),
            (1, "vigosrv/src/app/a.rs", "use crate::store::Sqlite;"),
            (1, "vigosrv/src/app/a.rs", "use super::super::net::Reactor;"),
            (0, "vigosrv/src/app/a.rs", "use super::net::Reactor;"),
            (1, "vigosrv/src/app/mod.rs", "use super::net::Reactor;"),
            (1, "vigosrv/src/app/a.rs", "fn f() { crate::net::go() }"),
            (1, "vigosrv/src/app/a.rs", "use common::{ids, net::Tls};"),
            (0, "vigosrv/src/net/a.rs", "use common::net::Tls;"),
            (1, "vigosrv/src/net/a.rs", "use envoy::agent::Agent;"),
            (1, "common/src/ids.rs", "use crate::bundle::Bundle;"),
            (1, "envoy/src/surprise/a.rs", ""),
            (0, "envoy/src/boot.rs", "use crate::link::Link;"),
            (0, "vigosrv/src/app/a.rs", "#[cfg(test)]\nmod tests { use crate::net::X; }"),
        ] {
            assert_eq!(violations(path, text), n, "{path}: {text}");
        }
    }

    #[test]
    fn a_core_that_touches_the_world_is_found() {
        for text in ["use std::fs;", "use std::{fmt, thread};", "let now = Instant::now();", "libc::getpid();"] {
            assert_eq!(violations("vigosrv/src/app/a.rs", text), 1, "{text}");
        }
        assert_eq!(violations("vigosrv/src/app/a.rs", "use std::net::IpAddr; use std::time::Duration;"), 0);
    }

    #[test]
    fn the_table_is_consistent() {
        for krate in CRATES {
            let names: Vec<&str> = krate.rows.iter().map(|row| row.name).collect();
            let mut unique = names.clone();
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(unique.len(), names.len(), "{} has a row twice", krate.name);
            for row in krate.rows {
                for may in row.may {
                    let target = may.split(['=', '!']).next().unwrap_or_default();
                    let target = krate.rows.iter().find(|row| row.name == target);
                    let target = target.unwrap_or_else(|| panic!("{}: {may} is no folder", row.name));
                    let core_to_shell = row.kind == Kind::Core && target.kind != Kind::Core;
                    assert!(!core_to_shell || may.contains(['=', '!']), "core {} imports shell {may}", row.name);
                    let shell_to_shell = row.kind == Kind::Shell && target.kind == Kind::Shell;
                    assert!(!shell_to_shell || may.contains(['=', '!']), "shell {} imports shell {may}", row.name);
                }
            }
        }
    }

    #[test]
    fn values_files_declare_their_public_names() {
        assert_eq!(declared_names("pub struct A; enum B {} pub trait C {} // pub enum D"), ["A", "C"]);
    }
}
