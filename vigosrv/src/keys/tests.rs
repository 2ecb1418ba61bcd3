//! First starts, second starts, and starts with something missing.

use std::os::unix::fs::PermissionsExt;

use common::rng::SystemRng;
use common::x509::CertInfo;

use super::*;

struct Host {
    dir: tempfile::TempDir,
    around: Surroundings,
    names: Vec<String>,
}

impl Host {
    fn new() -> Host {
        let around = Surroundings {
            now: Wall::parse("2027-01-01").unwrap(),
            hostname: "vigo.example".into(),
            addresses: vec!["10.0.0.5".parse().unwrap(), "fe80::1".parse().unwrap()],
        };
        Host { dir: tempfile::tempdir().unwrap(), around, names: Vec::new() }
    }

    fn config(&self) -> ServerConfig {
        let mut config = ServerConfig::from_docs(self.dir.path(), &[], &|_| Err(Default::default())).unwrap();
        config.tls_sans = self.names.clone();
        config
    }

    fn start(&self) -> Result<Keys, KeyError> {
        Keys::prepare(&self.config(), &self.around, &mut SystemRng::default())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    /// A start that must be refused, changing nothing.
    fn refused(&self, expected: &str) {
        let before = self.files();
        let error = self.start().unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(self.files(), before, "{error}");
    }

    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut out: Vec<_> = ["tls", "secrets", "db"]
            .iter()
            .flat_map(|dir| std::fs::read_dir(self.path(dir)).into_iter().flatten())
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        out.sort();
        out
    }
}

const FILES: [&str; 7] =
    ["tls/identity_key", "tls/policy_key", "tls/ca", "tls/ca_key", "tls/cert", "tls/key", "secrets/.master.key"];

#[test]
fn a_first_start_makes_everything_and_a_second_changes_nothing() {
    let host = Host::new();
    let first = host.start().unwrap();
    for name in FILES.iter().filter(|name| !matches!(**name, "tls/ca" | "tls/cert")) {
        assert_eq!(std::fs::metadata(host.path(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    for dir in ["tls", "secrets", "run", "db", "snapshots"] {
        assert_eq!(std::fs::metadata(host.path(dir)).unwrap().permissions().mode() & 0o777, 0o700, "{dir}");
    }
    assert_eq!(first.made.len(), 5);
    let before = host.files();
    let second = host.start().unwrap();
    assert_eq!(host.files(), before);
    assert!(second.made.is_empty() && second.server_id == first.server_id && second.tickets == first.tickets);
}

#[test]
fn the_certificate_names_the_host_and_chains_to_the_ca() {
    let host = Host::new();
    let keys = host.start().unwrap();
    let info = CertInfo::parse(&keys.leaf.chain[0]).unwrap();
    let mut names = info.names;
    names.sort();
    assert_eq!(names, ["10.0.0.5", "127.0.0.1", "::1", "localhost", "vigo.example"]);
    assert!(keys.leaf.ours && info.not_before == Wall(0));
    assert_eq!(keys.leaf.not_after, Wall::parse("2028-12-31").unwrap());
    let ca = CertInfo::parse(&keys.ca_der).unwrap();
    assert_eq!(ca.not_after, Wall::parse("2046-12-27").unwrap());
    assert_eq!(info.issuer, ca.subject);
    assert_eq!(keys.ca_hash, crypto::sha256(&[&keys.ca_der]));
    let signed =
        keys.identity.public().verify(Context::PolicyKey, keys.policy.public().as_bytes(), &keys.policy_key_signature);
    assert_eq!(signed, Ok(()));
}

#[test]
fn a_clock_before_the_build_still_gives_a_usable_certificate() {
    let mut host = Host::new();
    host.around.now = Wall(0);
    let keys = host.start().unwrap();
    assert!(keys.leaf.not_after > Wall(common::cli::build_ms() as i64));
    assert!(host.start().unwrap().made.is_empty());
}

#[test]
fn the_leaf_is_issued_again_when_age_or_names_demand_it() {
    let mut host = Host::new();
    let first = host.start().unwrap();
    host.around.now = Wall::parse("2027-12-30").unwrap();
    assert!(host.start().unwrap().made.is_empty(), "before its half-life");
    host.around.now = Wall::parse("2028-01-03").unwrap();
    let second = host.start().unwrap();
    assert_eq!(second.made, ["tls/cert"]);
    assert_eq!(second.leaf.key, first.leaf.key);
    host.around.addresses.clear();
    assert!(host.start().unwrap().made.is_empty(), "a name too many is kept");
    host.names = vec!["*.Other.example".into(), "10.9.9.9".into()];
    assert_eq!(host.start().unwrap().made, ["tls/cert"]);
    assert!(renew_leaf(&host.config(), &host.around).unwrap().is_none());
    host.around.now = Wall::parse("2029-06-01").unwrap();
    assert!(renew_leaf(&host.config(), &host.around).unwrap().is_some());
}

#[test]
fn a_leaf_that_the_operator_supplied_is_never_replaced() {
    let host = Host::new();
    std::fs::create_dir(host.path("tls")).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["other.example".to_string()]).unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    std::fs::write(host.path("tls/cert"), &pem).unwrap();
    host.refused("tls/cert is there and ");
    file::write_new(&host.path("tls/key"), key.serialize_pem().as_bytes(), 0o600, None).unwrap();
    let keys = host.start().unwrap();
    assert!(!keys.leaf.ours && !keys.made.contains(&"tls/cert".to_string()));
    assert_eq!(std::fs::read_to_string(host.path("tls/cert")).unwrap(), pem);
}

#[test]
fn a_missing_half_is_refused_and_named() {
    for name in FILES.iter().filter(|name| **name != "secrets/.master.key") {
        let host = Host::new();
        host.start().unwrap();
        host.remove(name);
        host.refused(&format!("{} is missing: they belong together", host.path(name).display()));
    }
}

#[test]
fn a_database_without_its_keys_is_refused() {
    let host = Host::new();
    host.start().unwrap();
    std::fs::write(host.path("db/vigo.db"), "x").unwrap();
    std::fs::remove_dir_all(host.path("tls")).unwrap();
    host.refused("with new keys no envoy would trust this server");
}

#[test]
fn an_interrupted_first_start_goes_on() {
    let host = Host::new();
    let first = host.start().unwrap();
    // As after a power cut between the key of the CA and its certificate.
    std::fs::write(host.path("tls/.first-start"), "").unwrap();
    for name in ["tls/ca", "tls/cert", "tls/policy_key"] {
        host.remove(name);
    }
    let second = host.start().unwrap();
    assert_eq!(second.server_id, first.server_id);
    assert!(!host.path("tls/.first-start").exists());
    assert!(host.start().unwrap().made.is_empty());
}

#[test]
fn open_permissions_are_refused() {
    for name in FILES.iter().filter(|name| !matches!(**name, "tls/ca" | "tls/cert")) {
        let host = Host::new();
        host.start().unwrap();
        std::fs::set_permissions(host.path(name), std::fs::Permissions::from_mode(0o640)).unwrap();
        let path = host.path(name).display().to_string();
        host.refused(&format!("cannot trust {path}: others may open it (mode 0640); run `chmod 600 {path}`"));
    }
}

#[test]
fn damaged_and_unfitting_files_are_refused() {
    let damage = |name: &str, content: &[u8], expected: &str| {
        let host = Host::new();
        host.start().unwrap();
        std::fs::write(host.path(name), content).unwrap();
        host.refused(expected);
    };
    damage("tls/identity_key", b"", "it is not a key file");
    damage("tls/policy_key", seed_text(Purpose::Identity, &[1; 32]).as_bytes(), "it holds a key for `identity`");
    damage("secrets/.master.key", b"x", "it is not a key file");
    damage("tls/identity_key", &[b'x'; 1_000], "it is larger than 256 B");
    damage("tls/ca", b"nonsense", "tls/ca: expected a certificate (X.509 PEM)");
    damage("tls/cert", b"\xff\xfe", "tls/cert: expected PEM text");
    damage("tls/ca_key", b"nonsense", "tls/ca_key: expected a private key (PEM)");
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    damage("tls/key", other.as_bytes(), "does not fit the certificate");
    damage("tls/ca_key", other.as_bytes(), "does not fit the certificate");
}

#[test]
fn everything_belongs_to_the_owner_of_the_root() {
    let host = Host::new();
    // Only root can act for another user; anybody else is the owner already.
    if Owner::own().uid == 0 {
        std::os::unix::fs::chown(host.dir.path(), Some(12_345), Some(23_456)).unwrap();
    }
    host.start().unwrap();
    let expected = Owner::of(host.dir.path()).unwrap();
    let mut dirs = vec![host.dir.path().to_path_buf()];
    let mut n_files = 0;
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(Owner::of(&path).unwrap(), expected, "{}", path.display());
            if path.is_dir() { dirs.push(path) } else { n_files += 1 }
        }
    }
    assert_eq!(n_files, FILES.len() + 1, "and the session ticket keys");
}

#[test]
fn a_recovery_statement_is_shown_by_the_server_that_it_was_made_for_while_it_lasts() {
    let old = Host::new();
    old.start().unwrap();
    let recovery = new_recovery_key(&mut SystemRng::default());
    let public = recovery.public();
    let kit = make_kit(&old.config(), "vigo.example".into(), 3, old.around.now, Some(recovery)).unwrap();
    assert_eq!(kit.server_id(), old.start().unwrap().server_id);

    let mut new = Host::new();
    let keys = new.start().unwrap();
    assert_eq!((keys.rebuilt.is_none(), keys.recovery.key), (true, None));
    let expires = Wall(new.around.now.0 + 1_000);
    assert_eq!(recover(&new.config(), &keys, &kit, 1, expires).unwrap(), Some(1_003));
    let keys = new.start().unwrap();
    let rebuilt = keys.rebuilt.unwrap();
    assert_eq!((rebuilt.old_identity, rebuilt.epoch, keys.recovery.key), (kit.identity, 1_003, Some(public)));
    let statement: common::proto::wire::RecoveryStatement =
        common::bundle::open(&public, Context::Recovery, &rebuilt.statement).unwrap();
    assert_eq!(statement.old_server_id, kit.server_id().0.0);
    assert_eq!(statement.identity_key, keys.identity.public().as_bytes());

    let text = std::fs::read(new.path("tls/recovery_statement")).unwrap();
    let other = Host::new();
    other.start().unwrap();
    std::fs::write(other.path("tls/recovery_statement"), &text).unwrap();
    let keys = other.start().unwrap();
    assert!(keys.rebuilt.is_none() && keys.notes[0].contains("it was made for other keys"), "{:?}", keys.notes);
    new.around.now = Wall(new.around.now.0 + 2_000);
    let keys = new.start().unwrap();
    assert!(keys.rebuilt.is_none() && keys.notes[0].contains("it has run out"), "{:?}", keys.notes);

    std::fs::write(new.path("tls/recovery_statement"), &text[..text.len() / 2]).unwrap();
    new.refused("this is no recovery statement");
    new.remove("tls/recovery_statement");
    std::fs::write(new.path("tls/recovery_public"), "nonsense").unwrap();
    new.refused("this is no public recovery key");
}

#[test]
fn a_recovery_key_is_followed_by_the_one_that_it_signed() {
    let host = Host::new();
    host.start().unwrap();
    let [first, second] = [1, 2].map(|_| new_recovery_key(&mut SystemRng::default()));
    put_recovery_public(&host.config(), &first.public(), None).unwrap();
    put_recovery_public(&host.config(), &second.public(), Some(&first)).unwrap();
    let found = host.start().unwrap().recovery;
    assert_eq!(found.key, Some(second.public()));
    let [step] = &found.succession[..] else { panic!("{found:?}") };
    first.public().verify(Context::RecoveryKey, &step.payload, &step.signature).unwrap();
    assert_eq!(step.payload, second.public().as_bytes()[..]);
}
