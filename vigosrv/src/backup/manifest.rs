//! What an archive says of itself: its first member, `manifest.json`. A pure part of this folder: text in, checked value out.
//!
//! The manifest names every other member in the order in which they follow, with size, mode and SHA-256. A reader accepts
//! exactly those, so that nothing can be added, left out, swapped or made larger. See `docs/ARCHIVE.md`.

use std::collections::BTreeSet;

use common::ids::Hash32;
use common::limits;
use serde::{Deserialize, Serialize};

use crate::store::DatabaseFacts;

/// Version of the form that this binary writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Name of the first member.
pub const MANIFEST: &str = "manifest.json";
/// Name of the database in an archive.
pub const DATABASE: &str = "db/vigo.db";

/// A part that can be restored by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The database.
    Db,
    /// The policy that operators edit, and the trees that were published.
    Stacks,
    /// Secrets and their master key.
    Secrets,
    /// The keys and certificates of the server.
    Tls,
    /// What a federation keeps.
    Bolt,
    /// The licence.
    License,
    /// `server.yaml` and `server.local.yaml`.
    Config,
}

/// All parts, in the order in which they are in an archive.
pub const PARTS: [Part; 7] =
    [Part::Db, Part::Stacks, Part::Secrets, Part::Tls, Part::Bolt, Part::License, Part::Config];

impl Part {
    /// As in `--only` and `--without`.
    pub fn name(self) -> &'static str {
        match self {
            Part::Db => "db",
            Part::Stacks => "stacks",
            Part::Secrets => "secrets",
            Part::Tls => "tls",
            Part::Bolt => "bolt",
            Part::License => "license",
            Part::Config => "config",
        }
    }

    /// The part that a member belongs to.
    pub fn of(member: &str) -> Option<Part> {
        match member {
            DATABASE => return Some(Part::Db),
            "server.yaml" | "server.local.yaml" => return Some(Part::Config),
            _ => {}
        }
        let (folder, _) = member.split_once('/')?;
        match folder {
            "stacks" | "publishes" => Some(Part::Stacks),
            "secrets" => Some(Part::Secrets),
            "tls" => Some(Part::Tls),
            "bolt" => Some(Part::Bolt),
            "license" => Some(Part::License),
            _ => None,
        }
    }

    /// Whether its files hold keys.
    fn is_private(self) -> bool {
        matches!(self, Part::Db | Part::Secrets | Part::Tls | Part::Bolt | Part::License)
    }
}

/// The mode of a member from that of its file: what may hold keys is for its owner only, whatever anybody says.
pub fn mode_of(member: &str, mode: u32) -> u32 {
    let public = matches!(member, "tls/ca" | "tls/cert") || !Part::of(member).is_some_and(Part::is_private);
    mode & if public { 0o755 } else { 0o600 }
}

/// Reads a list such as `db,tls`.
pub fn parse_parts(text: &str) -> Result<BTreeSet<Part>, String> {
    let names = PARTS.map(Part::name);
    let mut out = BTreeSet::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let part = PARTS.into_iter().find(|part| part.name() == word).ok_or_else(|| {
            let near = common::units::nearest(word, names).map(|near| format!("; did you mean `{near}`?"));
            format!("`{word}` is no part of an archive: {}{}", names.join(", "), near.unwrap_or_default())
        })?;
        out.insert(part);
    }
    if out.is_empty() { Err(format!("no part is named: {}", names.join(", "))) } else { Ok(out) }
}

/// The first member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this form.
    pub format: u32,
    /// Version of the server that made it.
    pub version: String,
    /// When, RFC 3339 in UTC. The only thing that differs between two archives of one state.
    pub created: String,
    /// Name of the host that it was made on.
    pub hostname: String,
    /// Where the server root was.
    pub root: String,
    /// Id of the server, 64 hexadecimal digits; empty where it has no identity key yet.
    pub server_id: String,
    /// First eight bytes of the SHA-256 of the master key file; empty where there is none.
    #[serde(default)]
    pub master_key_id: String,
    /// The database; none where another system keeps it.
    pub database: Option<DatabaseFacts>,
    /// What was not archived, with the reason.
    #[serde(default)]
    pub skipped: Vec<String>,
    /// Every other member, in order.
    pub members: Vec<Member>,
}

/// One file, or a link inside its own part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Path in the archive.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Permissions.
    pub mode: u32,
    /// Of the content; of the target for a link.
    pub sha256: String,
    /// Target, for a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}

impl Manifest {
    /// The bytes of the member.
    pub fn encode(&self) -> Vec<u8> {
        // Plain values in fixed structs always serialise.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads and checks it.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, String> {
        /// Read first, so that a newer form is named as such.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let wrong = |error: serde_json::Error| format!("the manifest cannot be read: {error}");
        let head: Head = serde_json::from_slice(bytes).map_err(wrong)?;
        if head.format == 0 || head.format > FORMAT {
            return Err(format!(
                "it has format {}, this binary reads up to {FORMAT}: restore it with a newer version",
                head.format
            ));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(wrong)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Bytes of all members.
    pub fn bytes(&self) -> u64 {
        self.members.iter().fold(0, |sum, member| sum.saturating_add(member.size))
    }

    /// Its members of a part.
    pub fn members_of(&self, part: Part) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| Part::of(&member.path) == Some(part))
    }

    /// Parts that it holds.
    pub fn parts(&self) -> BTreeSet<Part> {
        self.members.iter().filter_map(|member| Part::of(&member.path)).collect()
    }

    fn check(&self) -> Result<(), String> {
        if self.members.len() > limits::BACKUP_MEMBERS_MAX {
            return Err(format!("it names {} members; at most {}", self.members.len(), limits::BACKUP_MEMBERS_MAX));
        }
        let mut seen = BTreeSet::new();
        for member in &self.members {
            check_member(member).map_err(|why| format!("member `{}`: {why}", common::cli::one_line(&member.path)))?;
            if !seen.insert(member.path.as_str()) {
                return Err(format!("member `{}` is named twice", member.path));
            }
        }
        // A file where another member needs a directory, or a link that another member would go through.
        for member in &self.members {
            let mut path = member.path.as_str();
            while let Some((parent, _)) = path.rsplit_once('/') {
                if seen.contains(parent) {
                    return Err(format!("member `{}` lies below `{parent}`, which is no directory", member.path));
                }
                path = parent;
            }
        }
        if let Some(database) = &self.database
            && !seen.contains(DATABASE)
        {
            return Err(format!("it speaks of a database of {} envoys and holds none", database.envoys));
        }
        Ok(())
    }
}

fn check_member(member: &Member) -> Result<(), String> {
    let path = member.path.as_str();
    if path.is_empty() || path.len() > limits::BACKUP_PATH_BYTES_MAX {
        return Err(format!("its path has {} bytes; 1 to {}", path.len(), limits::BACKUP_PATH_BYTES_MAX));
    }
    if path.starts_with('/') {
        return Err("its path is absolute".into());
    }
    if path.split('/').any(|step| step.is_empty() || step == "." || step == "..") {
        return Err("its path has an empty step, `.` or `..`".into());
    }
    if path.chars().any(char::is_control) || path.contains('\\') {
        return Err("its path has control characters or a backslash".into());
    }
    let Some(part) = Part::of(path) else { return Err("it belongs to no part of a server".into()) };
    if member.mode & !0o777 != 0 {
        return Err(format!("its mode is {:o}; at most 777", member.mode));
    }
    if member.sha256.parse::<Hash32>().is_err() {
        return Err("its SHA-256 is not 64 hexadecimal digits".into());
    }
    if let Some(link) = &member.link {
        if part != Part::Stacks {
            return Err("it is a link; only stacks/ may hold links".into());
        }
        check_link(path, link)?;
        if member.size != 0 {
            return Err("it is a link with content".into());
        }
    }
    Ok(())
}

/// A link must stay below the first folder of its path.
pub fn check_link(path: &str, target: &str) -> Result<(), String> {
    if target.is_empty() || target.starts_with('/') || target.len() > limits::BACKUP_PATH_BYTES_MAX {
        return Err(format!("it is a link to `{}`, out of its folder", common::cli::one_line(target)));
    }
    // Steps from the first folder to the directory of the link.
    let mut depth = path.split('/').count() as i64 - 2;
    for step in target.split('/') {
        depth += match step {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        if depth < 0 {
            return Err(format!("it is a link to `{}`, out of its folder", common::cli::one_line(target)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(path: &str) -> Member {
        Member { path: path.into(), size: 0, mode: 0o600, sha256: "0".repeat(64), link: None }
    }

    fn manifest(members: Vec<Member>) -> Manifest {
        Manifest {
            format: FORMAT,
            version: "0.1.0".into(),
            created: "2026-01-01T00:00:00Z".into(),
            hostname: "a".into(),
            root: "/srv/vigo".into(),
            server_id: String::new(),
            master_key_id: String::new(),
            database: None,
            skipped: Vec::new(),
            members,
        }
    }

    fn refusal(members: Vec<Member>) -> String {
        Manifest::decode(&manifest(members).encode()).unwrap_err()
    }

    #[test]
    fn it_round_trips() {
        let mut link = member("stacks/a/b/link");
        link.link = Some("../c/./d".into());
        let whole = manifest(vec![member("db/vigo.db"), link, member("tls/ca"), member("server.yaml")]);
        assert_eq!(Manifest::decode(&whole.encode()), Ok(whole.clone()));
        assert_eq!(whole.parts().into_iter().map(Part::name).collect::<Vec<_>>(), ["db", "stacks", "tls", "config"]);
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for (path, why) in [
            ("/etc/passwd", "absolute"),
            ("stacks/../../etc/passwd", "`..`"),
            ("stacks//a", "empty step"),
            ("stacks/./a", "`.`"),
            ("etc/passwd", "no part"),
            ("run/admin.sock", "no part"),
            ("stacks", "no part"),
            ("stacks/a\nb", "control"),
            ("stacks/a\\b", "backslash"),
            ("", "0 bytes"),
        ] {
            assert!(refusal(vec![member(path)]).contains(why), "{path}: {}", refusal(vec![member(path)]));
        }
    }

    #[test]
    fn links_stay_in_their_folder() {
        let linked = |path: &str, to: &str| Member { link: Some(to.into()), ..member(path) };
        for (path, to) in [
            ("stacks/a", "../tls/ca_key"),
            ("stacks/a", "/etc"),
            ("stacks/a/b", "../../x"),
            ("stacks/a", "b/../../x"),
            ("tls/ca", "ca_key"),
            ("stacks/a", ""),
        ] {
            assert!(refusal(vec![linked(path, to)]).contains("link"), "{path} -> {to}");
        }
        assert!(Manifest::decode(&manifest(vec![linked("stacks/a/b", "../c")]).encode()).is_ok());
        let through = vec![linked("stacks/a", "b"), member("stacks/a/x")];
        assert!(refusal(through).contains("no directory"));
    }

    #[test]
    fn doubles_hashes_modes_and_newer_forms_are_refused() {
        assert!(refusal(vec![member("tls/ca"), member("tls/ca")]).contains("twice"));
        assert!(refusal(vec![Member { sha256: "x".into(), ..member("tls/ca") }]).contains("SHA-256"));
        assert!(refusal(vec![Member { mode: 0o4755, ..member("tls/ca") }]).contains("mode"));
        let newer = Manifest { format: FORMAT + 1, ..manifest(Vec::new()) };
        assert!(Manifest::decode(&newer.encode()).unwrap_err().contains("newer version"));
        assert!(Manifest::decode(b"{").unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn lists_of_parts_are_read_with_a_suggestion() {
        assert_eq!(parse_parts("db, tls").unwrap().into_iter().collect::<Vec<_>>(), [Part::Db, Part::Tls]);
        assert!(parse_parts("dbb").unwrap_err().contains("did you mean `db`"));
        assert!(parse_parts(" ,").is_err());
    }
}
