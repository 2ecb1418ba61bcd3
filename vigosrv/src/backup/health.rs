//! How well a server is backed up, from what lies under `paths.snapshots`: for `doctor` and `/metrics`. Reads names, times and
//! proofs, no archive.

use std::path::Path;

use common::time::Wall;

use super::list::list;
use super::proofs::Proofs;

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;
/// The newest archive may be so old: a daily one, with a week-end in between.
const ARCHIVE_AGE_MAX_MS: i64 = 3 * DAY_MS;
/// A proof may be so old: a monthly one, late.
const PROOF_AGE_MAX_MS: i64 = 35 * DAY_MS;

/// What is there. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The newest archive.
    pub newest: Option<(String, i64)>,
    /// The newest proof, of whichever archive.
    pub proved: Option<(String, i64)>,
    /// Master keys in archives that were proved good and are still there.
    pub keys: Vec<String>,
}

impl Health {
    /// Of a directory of archives; what cannot be read is not there.
    pub fn of(snapshots: &Path) -> Health {
        let archives = list(snapshots).unwrap_or_default();
        let proofs = Proofs::read(snapshots).proofs;
        let newest = archives.iter().max_by_key(|archive| archive.modified_ms);
        let at = |text: &str| Wall::parse(text).map_or(0, |at| at.0);
        let proved = proofs.iter().map(|proof| (proof.archive.clone(), at(&proof.at))).max_by_key(|(_, at)| *at);
        let is_there = |name: &str| archives.iter().any(|archive| archive.name == name);
        let kept = proofs.iter().filter(|proof| is_there(&proof.archive) && !proof.master_key_id.is_empty());
        Health {
            newest: newest.map(|archive| (archive.name.clone(), archive.modified_ms)),
            proved,
            keys: kept.map(|proof| proof.master_key_id.clone()).collect(),
        }
    }

    /// What an operator should be warned of, each with its cure. `key`: names the present master key, where there is one.
    pub fn warnings(&self, snapshots: &Path, key: Option<&str>, now: Wall) -> Vec<String> {
        let days = |at: i64| now.0.saturating_sub(at) / DAY_MS;
        let Some((newest, made)) = &self.newest else {
            return vec![format!(
                "no archive is in {}: `vigocli backup create` makes one; have it done daily, and keep copies elsewhere",
                snapshots.display()
            )];
        };
        let mut out = Vec::new();
        if now.0.saturating_sub(*made) > ARCHIVE_AGE_MAX_MS {
            out.push(format!("the newest archive, {newest}, is {} days old: `vigocli backup create`", days(*made)));
        }
        let path = snapshots.join(newest);
        match &self.proved {
            None => {
                out.push(format!("no archive was ever proved to be good: `vigocli backup drill {}`", path.display()))
            }
            Some((name, at)) if now.0.saturating_sub(*at) > PROOF_AGE_MAX_MS => out.push(format!(
                "the last archive proved to be good is {name}, {} days ago: `vigocli backup drill {}`",
                days(*at),
                path.display()
            )),
            Some(_) => {}
        }
        if key.is_some_and(|key| !self.keys.iter().any(|kept| kept == key)) {
            out.push(format!(
                "the master key of secrets is in no archive that was proved to be good: `vigocli backup verify {}`, and keep a \
                 kit (`vigocli secrets key export FILE`)",
                path.display()
            ));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::Proof;

    #[test]
    fn what_is_missing_old_or_unproved_is_said_with_its_cure() {
        let dir = tempfile::tempdir().unwrap();
        let warn = |key: Option<&str>, at: i64| Health::of(dir.path()).warnings(dir.path(), key, Wall(at)).join("\n");
        assert!(warn(None, 0).contains("no archive is in") && warn(None, 0).contains("backup create"));
        std::fs::write(dir.path().join("a.tar.gz"), "x").unwrap();
        let now = Health::of(dir.path()).newest.unwrap().1;
        let text = warn(Some("k1"), now);
        assert!(
            text.contains("ever proved") && text.contains("backup drill") && text.contains("in no archive"),
            "{text}"
        );
        let proof = |archive: &str, key: &str| Proof {
            archive: archive.into(),
            sha256: String::new(),
            kind: "verify".into(),
            at: Wall(now).to_string(),
            master_key_id: key.into(),
        };
        Proofs::add(dir.path(), proof("a.tar.gz", "k1")).unwrap();
        Proofs::add(dir.path(), proof("gone.tar.gz", "k2")).unwrap();
        assert_eq!(warn(Some("k1"), now), "");
        assert!(warn(Some("k2"), now).contains("in no archive"));
        let late = warn(Some("k1"), now + PROOF_AGE_MAX_MS + 1);
        assert!(late.contains("is 35 days old") && late.contains("35 days ago"), "{late}");
    }
}
