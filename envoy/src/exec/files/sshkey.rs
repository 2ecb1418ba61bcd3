//! `sshkey`: the key of a host is in a `known_hosts` file, and no other key of its type for that host, or none is. Lines for
//! other hosts, comments, and the certificate and revocation marks of others stay. Hashed host names are recognised.

use common::policy::shapes::PublicKey;
use ring::hmac;

use super::edit::{Edit, Edited};
use super::lines::{bare, splice, split};
use crate::exec::contract::settle_read;
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::plan::{Task, Verdict};

/// The file where none is named.
const PATH_DEFAULT: &str = "/etc/ssh/ssh_known_hosts";

/// Settles one `sshkey`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(read(task), host, task)
}

struct Known {
    present: bool,
    hosts: Vec<String>,
    /// Its type and its base64; absent without a key: keys of every type.
    key: Option<(String, String)>,
}

fn read<'t>(task: &'t Task<'t>) -> Result<Edited<'t, Known>, Fault> {
    let reader = Reader::of(task)?;
    let key = reader.text("key");
    let parsed = key.as_deref().and_then(PublicKey::parse);
    let edit = Known {
        present: reader.is("state", "present", "present"),
        hosts: reader.texts("host"),
        key: parsed.map(|key| (key.kind.to_string(), key.blob.to_string())),
    };
    Ok(Edited::new(reader.text("target_path").unwrap_or(PATH_DEFAULT.into()), edit))
}

/// A line that gives a key to hosts.
struct Line<'l> {
    hosts: &'l str,
    rest: &'l str,
    key: PublicKey<'l>,
}

impl<'l> Line<'l> {
    /// `None` for comments, marked lines (`@revoked`, `@cert-authority`) and whatever is not understood.
    fn parse(line: &'l [u8]) -> Option<Line<'l>> {
        let text = std::str::from_utf8(bare(line)).ok()?.trim();
        let (hosts, rest) = text.split_once([' ', '\t'])?;
        if hosts.starts_with(['#', '@']) {
            return None;
        }
        let rest = rest.trim_start();
        Some(Line { hosts, rest, key: PublicKey::parse(rest)? })
    }

    fn is_for(&self, host: &str) -> bool {
        self.hosts.split(',').any(|known| known.eq_ignore_ascii_case(host) || is_hash_of(known, host))
    }
}

/// `|1|SALT|HASH`: HMAC-SHA1 of the name, as OpenSSH writes it with `HashKnownHosts`.
fn is_hash_of(known: &str, host: &str) -> bool {
    let Some((salt, hash)) = known.strip_prefix("|1|").and_then(|rest| rest.split_once('|')) else { return false };
    let (Some(salt), Some(hash)) = (common::base64::decode(salt), common::base64::decode(hash)) else { return false };
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
    hmac::verify(&key, host.to_ascii_lowercase().as_bytes(), &hash).is_ok()
}

impl Known {
    /// Whether a line has to go, for a host.
    fn is_unwanted(&self, line: &Line<'_>, host: &str) -> bool {
        let same_type = self.key.as_ref().is_none_or(|(kind, _)| kind == line.key.kind);
        let same_key = self.key.as_ref().is_some_and(|(_, blob)| blob == line.key.blob);
        line.is_for(host) && same_type && if self.present { !same_key } else { self.key.is_none() || same_key }
    }
}

impl Edit for Known {
    fn edit(&self, old: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let mut new = Vec::new();
        let mut there = vec![false; self.hosts.len()];
        for line in split(old) {
            let Some(parsed) = Line::parse(line) else {
                new.extend_from_slice(line);
                continue;
            };
            if !self.hosts.iter().any(|host| self.is_unwanted(&parsed, host)) {
                for (there, host) in there.iter_mut().zip(&self.hosts) {
                    *there |= parsed.is_for(host) && self.key.as_ref().is_some_and(|(_, blob)| blob == parsed.key.blob);
                }
                new.extend_from_slice(line);
                continue;
            }
            let own = |known: &&str| {
                self.hosts.iter().any(|host| known.eq_ignore_ascii_case(host) || is_hash_of(known, host))
            };
            let others: Vec<&str> = parsed.hosts.split(',').filter(|known| !own(known)).collect();
            if !others.is_empty() {
                new.extend_from_slice(format!("{} {}\n", others.join(","), parsed.rest).as_bytes());
            }
        }
        if let (true, Some((kind, blob))) = (self.present, &self.key) {
            let missing = self.hosts.iter().zip(there).filter(|(_, there)| !there).map(|(host, _)| host.as_str());
            let missing: Vec<&str> = missing.collect();
            if !missing.is_empty() {
                let lines = split(&new);
                new = splice(&lines, lines.len(), 0, &[format!("{} {kind} {blob}", missing.join(",")).as_bytes()]);
            }
        }
        Ok((new != old).then_some(new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
    const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4g";
    /// `|1|` and HMAC-SHA1 of `h` under the salt of twenty zero bytes.
    const HASHED: &str = "|1|AAAAAAAAAAAAAAAAAAAAAAAAAAA=|pKGEfL80ElPzOH4Xe99PTve5QiY=";

    fn known(hosts: &[&str], key: &str, present: bool) -> Known {
        let key = PublicKey::parse(key).map(|key| (key.kind.to_string(), key.blob.to_string()));
        Known { present, hosts: hosts.iter().map(|host| host.to_string()).collect(), key }
    }

    #[test]
    fn keys_come_go_and_are_changed_and_a_second_edit_finds_nothing() {
        for (old, hosts, key, present, new) in [
            (String::new(), &["h"][..], A, true, Some(format!("h {A}\n"))),
            (format!("# c\nx {B}"), &["h", "10.0.0.1"], A, true, Some(format!("# c\nx {B}\nh,10.0.0.1 {A}\n"))),
            (format!("h {B}\n"), &["h"], A, true, Some(format!("h {A}\n"))),
            (format!("x,h {B} note\n"), &["h"], A, true, Some(format!("x {B} note\nh {A}\n"))),
            (format!("h,x {A} note\n"), &["h"], A, true, None),
            (format!("{HASHED} {A}\n"), &["h"], A, true, None),
            (format!("{HASHED} {B}\n"), &["h"], A, true, Some(format!("h {A}\n"))),
            (format!("h {A}\n"), &["h", "i"], A, true, Some(format!("h {A}\ni {A}\n"))),
            (format!("[h]:22 {B}\n"), &["h"], A, true, Some(format!("[h]:22 {B}\nh {A}\n"))),
            (format!("@revoked h {B}\nnonsense\n"), &["h"], "", false, None),
            (format!("h {A}\nx,h {B}\n"), &["h"], "", false, Some(format!("x {B}\n"))),
            (format!("h {A}\nh {B}\n"), &["h"], A, false, Some(format!("h {B}\n"))),
        ] {
            let rule = known(hosts, key, present);
            let found = rule.edit(old.as_bytes()).unwrap();
            assert_eq!(found.as_deref().map(|bytes| std::str::from_utf8(bytes).unwrap()), new.as_deref(), "{old:?}");
            assert_eq!(rule.edit(&found.unwrap_or(old.clone().into())), Ok(None), "{old:?}");
        }
    }

    #[test]
    fn lines_that_are_not_text_stay() {
        let found = known(&["h"], A, true).edit(b"\xff x\n").unwrap().unwrap();
        assert_eq!(found, [b"\xff x\nh ", A.as_bytes(), b"\n"].concat());
    }
}
