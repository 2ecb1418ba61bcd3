//! What a restore on this host will do, and what about the host will differ: each with its cure. Changes nothing.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;

use common::settings::HostPort;
use common::units::human_bytes;

use super::manifest::{DATABASE, PARTS, Part};
use super::restore::Plan;
use super::stage::{Looked, free_bytes};
use crate::config::TlsPaths;
use crate::keys;

/// This host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name.
    pub hostname: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// To know.
    Note,
    /// Something about this host differs.
    Differs,
    /// The restore, or the server after it, would fail.
    Blocks,
}

impl Weight {
    /// As in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Weight::Note => "note",
            Weight::Differs => "differs",
            Weight::Blocks => "blocks",
        }
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub weight: Weight,
    /// What is so.
    pub what: String,
    /// What to do; empty where nothing is to be done.
    pub cure: String,
}

impl Plan {
    /// Everything that is to be known before it is done.
    pub fn findings(&self, host: &Host, looked: &Looked) -> Vec<Finding> {
        let mut out = Vec::new();
        self.writes(&mut out);
        for (name, why) in &self.left_out {
            out.push(finding(
                Weight::Differs,
                format!("{name} is not restored: {why}"),
                "write it for this host where it is needed",
            ));
        }
        for warning in &looked.warnings {
            out.push(finding(Weight::Differs, warning.clone(), ""));
        }
        for (name, why) in &looked.closed {
            let what = format!("the secret {name} does not open: {why}");
            out.push(finding(Weight::Differs, what, &format!("set it again: vigocli secrets set {name}")));
        }
        self.schema(&mut out);
        if !self.isolated {
            self.names(host, &mut out);
            for (key, at) in [("grpc_listen", &self.config.grpc_listen), ("api_listen", &self.config.api_listen)] {
                listen(key, at, &mut out);
            }
        }
        if self.parts.contains(&Part::License) {
            let what = "the licence was given for another host, or for this one: it is compared at the first start";
            out.push(finding(Weight::Note, what.into(), ""));
        }
        self.space(&mut out);
        out
    }

    fn writes(&self, out: &mut Vec<Finding>) {
        let manifest = &self.staged.archive.manifest;
        for part in PARTS.into_iter().filter(|part| self.parts.contains(part)) {
            let (n, bytes) = manifest.members_of(part).fold((0, 0), |(n, bytes), member| (n + 1, bytes + member.size));
            let first = match part {
                Part::Db => self.layout.place(DATABASE),
                Part::Config => self.layout.place("server.yaml"),
                part => self.layout.place(part.name()),
            };
            let aside = if first.exists() { "; what is there goes aside" } else { "" };
            let what = format!("{}: {n} files, {} to {}{aside}", part.name(), human_bytes(bytes), first.display());
            out.push(finding(Weight::Note, what, ""));
        }
    }

    fn schema(&self, out: &mut Vec<Finding>) {
        let Some(facts) = &self.staged.archive.manifest.database else { return };
        if self.parts.contains(&Part::Db) && facts.schema < crate::store::SCHEMA {
            let what = format!("the database has schema {}, this binary wants {}", facts.schema, crate::store::SCHEMA);
            out.push(finding(
                Weight::Differs,
                what,
                "the first start brings it forward, and keeps a copy of it as it is",
            ));
        }
    }

    fn names(&self, host: &Host, out: &mut Vec<Finding>) {
        let manifest = &self.staged.archive.manifest;
        if manifest.hostname != host.hostname && self.config.hostname.is_empty() {
            let what = format!("envoys dial {}; this host is {}", manifest.hostname, host.hostname);
            let cure = format!(
                "let the name {} lead here (DNS), or set `server.hostname: {}` in server.yaml",
                manifest.hostname, manifest.hostname
            );
            out.push(finding(Weight::Differs, what, &cure));
        }
        let dir = self.staged.dir.path();
        let staged = TlsPaths {
            cert: dir.join("tls/cert"),
            key: dir.join("tls/key"),
            ca: dir.join("tls/ca"),
            ca_key: dir.join("tls/ca_key"),
        };
        if !self.parts.contains(&Part::Tls) || !staged.cert.exists() {
            return;
        }
        let name = if self.config.hostname.is_empty() { &host.hostname } else { &self.config.hostname };
        match keys::leaf_lacks(&staged, name, &self.config.tls_sans, &host.addresses) {
            Ok((_, lacks)) if lacks.is_empty() => {}
            Ok((ours, lacks)) => {
                let what = format!("the certificate does not name {}", lacks.join(", "));
                let cure = if ours { "the first start issues one that does" } else { "get a certificate that does" };
                out.push(finding(Weight::Differs, what, cure));
            }
            Err(error) => out.push(finding(Weight::Blocks, error.to_string(), "restore tls/ from another archive")),
        }
    }

    /// Unpacked already, so that only what goes to other file systems is still to be written.
    fn space(&self, out: &mut Vec<Finding>) {
        let database = &self.layout.database;
        let dir = database.parent().unwrap_or(Path::new("/"));
        let needed = self.staged.members.iter().map(|member| member.size).sum::<u64>();
        for place in [self.layout.root.as_path(), dir] {
            if let Some(free) = free_bytes(place)
                && free < needed
            {
                let what =
                    format!("{}: {} are needed, {} are free", place.display(), human_bytes(needed), human_bytes(free));
                out.push(finding(Weight::Blocks, what, "make room there, or choose another target"));
                return;
            }
        }
    }
}

fn finding(weight: Weight, what: String, cure: &str) -> Finding {
    Finding { weight, what, cure: cure.to_string() }
}

/// Whether the address is one of this host and free.
fn listen(key: &str, at: &HostPort, out: &mut Vec<Finding>) {
    let ip = if at.host.is_empty() { Some(IpAddr::from([0, 0, 0, 0])) } else { at.host.parse().ok() };
    let Some(ip) = ip else { return };
    let Err(error) = TcpListener::bind(SocketAddr::new(ip, at.port)) else { return };
    let (what, cure) = match error.kind() {
        std::io::ErrorKind::AddrNotAvailable => (
            format!("server.{key} is {}:{}, which is no address of this host", at.host, at.port),
            format!("set `server: {{{key}: ...}}` in server.local.yaml"),
        ),
        std::io::ErrorKind::AddrInUse => (
            format!("server.{key}: port {} is in use here", at.port),
            "stop what uses it, or restore with `--isolated` beside a server that runs".to_string(),
        ),
        _ => (format!("server.{key}: {}:{}: {error}", at.host, at.port), "choose another port".to_string()),
    };
    out.push(finding(Weight::Differs, what, &cure));
}
