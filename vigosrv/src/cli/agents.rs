//! `vigocli agents`: the agent binaries that this server hands to new hosts.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure, print};
use common::crypto::sha256;
use common::sys::{Owner, file};
use serde_json::json;

use crate::api::TARGETS;

/// Bytes of an agent binary: four times its budget.
const AGENT_BYTES_MAX: u64 = 16 << 20;

/// Manages the agent binaries that `/bootstrap` installs.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "agents", example = "{command_name} add target/release/vigo-envoy")]
pub(super) struct Agents {
    #[argh(subcommand)]
    verb: AgentsVerb,
}

#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand)]
enum AgentsVerb {
    Add(Add),
    List(List),
}

/// Adds a binary; its architecture is read from its ELF header.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "add", example = "{command_name} target/release/vigo-envoy")]
struct Add {
    /// the binary
    #[argh(positional)]
    file: PathBuf,
}

/// Lists what there is.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "list", example = "{command_name}")]
struct List {}

pub(super) fn run(verb: Agents, common: &Common) -> Result<Exit, Failure> {
    match verb.verb {
        AgentsVerb::Add(verb) => add(&verb, common),
        AgentsVerb::List(_) => list(common),
    }
}

fn add(verb: &Add, common: &Common) -> Result<Exit, Failure> {
    let failed = |error: common::sys::FileError| Failure::failed(error.to_string());
    let bytes = file::read_bounded(&verb.file, AGENT_BYTES_MAX).map_err(failed)?;
    let name = name_of(&bytes).ok_or_else(|| {
        Failure::failed(format!("{} is no agent for Linux that can be served", verb.file.display()))
            .hint("expected an ELF executable for x86_64, aarch64, armv7, riscv64 or s390x")
    })?;
    let root = super::root(common);
    let owner = Owner::of(&root).map_err(failed)?;
    let dir = root.join("agents");
    file::make_dir(&dir, 0o755, Some(owner)).map_err(failed)?;
    let hash = sha256(&[&bytes]);
    file::write_atomic(&dir.join(name), &bytes, 0o755, Some(owner)).map_err(failed)?;
    let sum = format!("{hash}  {name}\n");
    file::write_atomic(&dir.join(format!("{name}.sha256")), sum.as_bytes(), 0o644, Some(owner)).map_err(failed)?;
    let text = if common.json() {
        format!("{}\n", json!({"schema": 1, "name": name, "sha256": hash.to_string(), "bytes": bytes.len()}))
    } else {
        format!("added {name} ({} bytes, SHA-256 {hash})\n", bytes.len())
    };
    print(&text).map(|()| Exit::Done)
}

/// The served name by machine and word size of an ELF header (ELF specification, e_machine).
fn name_of(bytes: &[u8]) -> Option<&'static str> {
    let head = bytes.get(..20).filter(|head| head.starts_with(b"\x7fELF"))?;
    let big = head[5] == 2;
    let machine = if big { u16::from_be_bytes([head[18], head[19]]) } else { u16::from_le_bytes([head[18], head[19]]) };
    let target = match (machine, head[4]) {
        (62, 2) => "x86_64",
        (183, 2) => "aarch64",
        (40, 1) => "armv7l",
        (243, 2) => "riscv64",
        (22, 2) => "s390x",
        _ => return None,
    };
    TARGETS.iter().find(|(uname, _)| *uname == target).map(|(_, name)| *name)
}

fn list(common: &Common) -> Result<Exit, Failure> {
    let dir = super::root(common).join("agents");
    let found: Vec<&str> = TARGETS.iter().map(|(_, name)| *name).filter(|name| dir.join(name).is_file()).collect();
    let text = if common.json() {
        format!("{}\n", json!({"schema": 1, "agents": found}))
    } else if found.is_empty() {
        "no agents; add one with `vigocli agents add FILE`\n".into()
    } else {
        found.iter().map(|name| format!("{name}\n")).collect()
    };
    print(&text).map(|()| Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_architecture_comes_from_the_header() {
        let mut head = vec![0u8; 64];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[18] = 62;
        assert_eq!(name_of(&head), Some("vigo-envoy-x86_64"));
        (head[5], head[18], head[19]) = (2, 0, 22);
        assert_eq!(name_of(&head), Some("vigo-envoy-s390x"));
        assert_eq!(name_of(b"#!/bin/sh"), None);
    }
}
