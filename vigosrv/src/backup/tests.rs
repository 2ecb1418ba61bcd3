//! Archives that are good, damaged, or made to do harm: what is refused is refused with its message, and nothing is written.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use common::rng::SplitMix64;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};
use zeroize::Zeroizing;

use super::*;
use crate::config::ServerConfig;
use crate::store::check_copy;

const PASSWORD: &[u8] = b"correct horse";

/// A root with a little of everything, and a database of ours.
fn server(dir: &Path) -> PathBuf {
    let root = dir.join("root");
    let write = |path: &str, text: &[u8]| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("server.yaml", b"server: {grpc_listen: \"127.0.0.1:0\", api_listen: \"127.0.0.1:0\"}\n");
    write("stacks/configcrates/a.vgo", b"name: a\n");
    write(&format!("stacks/files/{}/deep", "long-name-".repeat(12)), &[7; 3_000]);
    std::os::unix::fs::symlink("configcrates/a.vgo", root.join("stacks/link")).unwrap();
    let config = ServerConfig::load(&root, None).unwrap();
    let around = crate::keys::Surroundings { now: common::time::Wall(1), hostname: "a".into(), addresses: Vec::new() };
    let keys = crate::keys::Keys::prepare(&config, &around, &mut SplitMix64(1)).unwrap();
    config.secrets().set("prod/db", b"hunter22hunter", common::time::Wall(5), &mut SplitMix64(2)).unwrap();
    let options = crate::store::OpenOptions::new(&config.database, keys.server_id);
    crate::store::Store::close(&mut crate::store::SqliteStore::open(&options).unwrap().store).unwrap();
    root
}

fn archive(root: &Path, file: &Path, password: Option<&[u8]>) -> Created {
    let config = ServerConfig::load(root, None).unwrap();
    let layout = Layout::of(&config, None);
    let request = Request {
        layout: &layout,
        file,
        force: true,
        password,
        created: "2026-01-01T00:00:00Z".into(),
        hostname: "a".into(),
        server_id: server_id_of(&root.join("tls")).unwrap(),
    };
    create(&request, &mut SplitMix64(3), &mut |_, _| {}).unwrap()
}

fn host() -> Host {
    Host { hostname: "a".into(), addresses: Vec::new() }
}

/// What an operator would do, into a new root beside the archive.
fn restore_into(target: &Path, file: &Path, password: &[u8]) -> Result<Restoration, BackupError> {
    let mut ask = || Ok(Zeroizing::new(password.to_vec()));
    let scratch = Scratch::new(free_root(target))?;
    let staged = stage(file, scratch, &mut ask, &|_, _| true, &mut |_, _| {})?;
    look(&staged, file)?;
    let plan = prepare(staged, target, &Choice::default(), false, &host())?;
    apply(&plan, file, "then")
}

/// Path, mode and content of every file below a directory.
fn tree(dir: &Path) -> Vec<(String, u32, String)> {
    use std::os::unix::fs::PermissionsExt;
    let mut out = Vec::new();
    let mut left = vec![dir.to_path_buf()];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            if kind.is_dir() {
                left.push(path);
            } else if kind.is_symlink() {
                out.push((name, 0o777, fs::read_link(&path).unwrap().display().to_string()));
            } else {
                out.push((name, entry.metadata().unwrap().permissions().mode() & 0o777, hash(&path)));
            }
        }
    }
    out.sort();
    out
}

fn hash(path: &Path) -> String {
    common::crypto::sha256(&[&fs::read(path).unwrap()]).to_string()
}

/// Refused, and nothing is left in a target that was empty.
fn refused(dir: &Path, file: &Path, case: &str) -> String {
    let target = dir.join("target");
    fs::create_dir_all(&target).unwrap();
    let error = restore_into(&target, file, PASSWORD).map(|_| ()).expect_err(case).to_string();
    let _ = fs::remove_dir(target.join(".restore"));
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "{case}: something was written: {:?}", tree(&target));
    error
}

#[test]
fn what_comes_back_is_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let root = server(dir.path());
    let file = dir.path().join("a.tar.gz");
    for password in [None, Some(PASSWORD)] {
        archive(&root, &file, password);
        let target = dir.path().join(if password.is_some() { "sealed" } else { "plain" });
        fs::create_dir(&target).unwrap();
        restore_into(&target, &file, PASSWORD).unwrap();
        let keep = |(name, _, _): &(String, u32, String)| {
            !name.starts_with("run/") && !name.ends_with(".lock") && !name.contains("vigo.db")
        };
        let (before, after): (Vec<_>, Vec<_>) =
            (tree(&root).into_iter().filter(keep).collect(), tree(&target).into_iter().filter(keep).collect());
        assert_eq!(before, after);
        check_copy(&target.join("db/vigo.db")).unwrap();
        assert!(target.join("db/vigo.db.restored").exists() && !target.join("db/vigo.db.continuity").exists());
    }
}

#[test]
fn the_same_server_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let root = server(dir.path());
    let (one, two) = (dir.path().join("1.tar.gz"), dir.path().join("2.tar.gz"));
    let (first, second) = (archive(&root, &one, None), archive(&root, &two, None));
    assert_eq!(first.sha256, second.sha256);
    assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
    let line = fs::read_to_string(sidecar_path(&one)).unwrap();
    assert_eq!(line, format!("{}  1.tar.gz\n", first.sha256));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5, "two archives, two sidecars and the root");
}

#[test]
fn a_restore_over_a_server_keeps_the_old_state_and_a_part_touches_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let root = server(dir.path());
    let file = dir.path().join("a.tar.gz");
    archive(&root, &file, None);
    fs::write(root.join("stacks/configcrates/a.vgo"), "name: changed\n").unwrap();
    fs::write(root.join("db/vigo.db-wal"), "of another database").unwrap();
    let tls = tree(&root.join("tls"));
    let mut ask = || Ok(Zeroizing::default());
    let staged = stage(&file, Scratch::new(free_root(&root)).unwrap(), &mut ask, &|_, _| true, &mut |_, _| {}).unwrap();
    let choice = Choice { only: Some([Part::Db].into()), ..Choice::default() };
    let plan = prepare(staged, &root, &choice, false, &host()).unwrap();
    let done = apply(&plan, &file, "then").unwrap();
    assert_eq!(done.kept, Some(root.join("replaced-then")));
    assert_eq!(fs::read(root.join("replaced-then/db/vigo.db-wal")).unwrap(), b"of another database");
    assert!(!root.join("db/vigo.db-wal").exists());
    assert_eq!(fs::read_to_string(root.join("stacks/configcrates/a.vgo")).unwrap(), "name: changed\n");
    assert_eq!(tree(&root.join("tls")), tls);
    check_copy(&root.join("db/vigo.db")).unwrap();
}

#[test]
fn an_absolute_path_is_not_restored_over_another_server() {
    let dir = tempfile::tempdir().unwrap();
    let root = server(dir.path());
    let outside = dir.path().join("elsewhere/vigo.db");
    fs::create_dir(outside.parent().unwrap()).unwrap();
    fs::rename(root.join("db/vigo.db"), &outside).unwrap();
    let yaml = fs::read_to_string(root.join("server.yaml")).unwrap();
    fs::write(root.join("server.yaml"), format!("{yaml}database: {{dsn: {}}}\n", outside.display())).unwrap();
    let file = dir.path().join("a.tar.gz");
    archive(&root, &file, None);
    let before = fs::read(&outside).unwrap();
    let error = refused(dir.path(), &file, "absolute");
    assert!(error.contains("elsewhere/vigo.db") && error.contains("relative to the root"), "{error}");
    assert_eq!(fs::read(&outside).unwrap(), before);
    // Into the root that it came from it goes, also across directories.
    restore_into(&root, &file, PASSWORD).unwrap();
    check_copy(&outside).unwrap();
    assert!(outside.with_file_name("vigo.db.restored").exists());
}

/// A form is written by one release and read by all later ones.
#[test]
fn an_archive_of_the_first_form_is_still_restored() {
    let dir = tempfile::tempdir().unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backup/fixtures/format-1.tar.gz");
    let target = dir.path().join("target");
    fs::create_dir(&target).unwrap();
    let done = restore_into(&target, &file, PASSWORD).unwrap();
    assert!(done.files > 10, "{done:?}");
    let config = ServerConfig::load(&target, None).unwrap();
    let secret = config.secrets().get("prod/db").unwrap();
    assert_eq!(&**secret.value, b"of-the-fixture");
    let id = server_id_of(&target.join("tls")).unwrap().parse().unwrap();
    let options = crate::store::OpenOptions::new(&config.database, common::ids::ServerId(id));
    let mut opened = crate::store::SqliteStore::open(&options).unwrap();
    assert!(opened.restored, "it came without its continuity file");
    let snapshot = crate::store::Store::load(&mut opened.store).unwrap();
    assert_eq!(snapshot.envoys.iter().map(|row| row.hostname.as_str()).collect::<Vec<_>>(), ["web-1.example"]);
}

/// While batches are committed without a pause. Each adds one event and one to the counter of the same row of state, so that a
/// copy in which they differ is of no state that ever was.
#[test]
fn beside_a_busy_writer_an_archive_is_of_one_moment() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use crate::store::{EventRow, Store, Write as Change};

    let dir = tempfile::tempdir().unwrap();
    let root = server(dir.path());
    let options = crate::store::OpenOptions::new(
        root.join("db/vigo.db"),
        common::ids::ServerId(server_id_of(&root.join("tls")).unwrap().parse().unwrap()),
    );
    let mut store = crate::store::SqliteStore::open(&options).unwrap().store;
    let event = |n: usize| {
        let detail = format!("{n} {}", "x".repeat(400));
        Change::Event(EventRow { at: common::time::Wall(n as i64), kind: "test".into(), uuid: None, detail })
    };
    for n in 0..2_000 {
        store.apply(&[event(n)]).unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let busy = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let mut n = 2_000;
            while !stop.load(Ordering::Relaxed) {
                store.apply(&[event(n)]).unwrap();
                n += 1;
            }
            store.close().unwrap();
            n
        })
    };
    let mut seen = Vec::new();
    for n in 0..4 {
        let file = dir.path().join(format!("{n}.tar.gz"));
        archive(&root, &file, None);
        let target = dir.path().join(format!("target-{n}"));
        fs::create_dir(&target).unwrap();
        restore_into(&target, &file, PASSWORD).unwrap();
        let conn = rusqlite::Connection::open(target.join("db/vigo.db")).unwrap();
        let one = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        let (events, counter) = (one("SELECT count(*) FROM events"), one("SELECT continuity FROM server_state"));
        seen.push((events, counter - events));
    }
    stop.store(true, Ordering::Relaxed);
    let written = busy.join().unwrap();
    assert!(seen.iter().all(|(_, ahead)| *ahead == seen[0].1), "{seen:?}");
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "the writer went on meanwhile: {seen:?} of {written}");
}

// ---------------------------------------------------------------- made to do harm

/// The members of an archive as raw headers and bytes, to be changed one by one.
struct Parts(Vec<(Header, String, Vec<u8>)>);

impl Parts {
    fn of(file: &Path) -> Parts {
        let mut archive = tar::Archive::new(GzDecoder::new(fs::File::open(file).unwrap()));
        let mut out = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            out.push((entry.header().clone(), name, bytes));
        }
        Parts(out)
    }

    fn at(&self, name: &str) -> usize {
        self.0.iter().position(|(_, found, _)| found == name).unwrap()
    }

    /// Changes the manifest as text.
    fn manifest(&mut self, change: impl Fn(&mut serde_json::Value)) {
        let mut value: serde_json::Value = serde_json::from_slice(&self.0[0].2).unwrap();
        change(&mut value);
        self.0[0].2 = serde_json::to_vec(&value).unwrap();
        let size = self.0[0].2.len() as u64;
        self.0[0].0.set_size(size);
    }

    /// The entry of the manifest for a member.
    fn entry(&mut self, name: &str, change: impl Fn(&mut serde_json::Value)) {
        self.manifest(|manifest| {
            let members = manifest["members"].as_array_mut().unwrap();
            change(members.iter_mut().find(|member| member["path"] == name).unwrap());
        });
    }

    fn tar(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (header, name, bytes) in &self.0 {
            let mut header = header.clone();
            if name.len() > 100 {
                let mut long = Header::new_gnu();
                long.set_entry_type(EntryType::GNULongName);
                long.set_size(name.len() as u64 + 1);
                long.set_path("././@LongLink").unwrap();
                long.set_cksum();
                out.extend_from_slice(long.as_bytes());
                pad(&mut out, &[name.as_bytes(), &[0]].concat());
            } else {
                // Whatever it is: also what a tar library refuses to write.
                header.as_mut_bytes()[..100].fill(0);
                header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            }
            header.set_cksum();
            out.extend_from_slice(header.as_bytes());
            pad(&mut out, bytes);
        }
        out.resize(out.len() + 1024, 0);
        out
    }

    fn write(&self, file: &Path) {
        pack(file, &self.tar());
    }
}

fn pad(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(512), 0);
}

fn pack(file: &Path, tar: &[u8]) {
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(tar).unwrap();
    fs::write(file, gz.finish().unwrap()).unwrap();
    let _ = fs::remove_file(sidecar_path(file));
}

#[test]
fn every_hostile_archive_is_refused_with_its_message_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let root = server(dir.path());
    let (good, bad) = (dir.path().join("good.tar.gz"), dir.path().join("bad.tar.gz"));
    archive(&root, &good, None);
    let identity = "tls/identity_key";
    type Change = Box<dyn Fn(&mut Parts)>;
    let rename = |to: &'static str| -> Change {
        Box::new(move |parts| {
            let at = parts.at("stacks/configcrates/a.vgo");
            parts.0[at].1 = to.into();
            parts.entry("stacks/configcrates/a.vgo", |entry| entry["path"] = to.into());
        })
    };
    let retype = |kind: EntryType| -> Change {
        Box::new(move |parts| {
            let at = parts.at("stacks/configcrates/a.vgo");
            parts.0[at].0.set_entry_type(kind);
        })
    };
    let cases: Vec<(&str, Change, &str)> = vec![
        ("absolute path", rename("/etc/cron.d/x"), "absolute"),
        ("path through the parent", rename("stacks/../../x"), "`..`"),
        ("path through the parent of another part", rename("stacks/../tls/ca"), "`..`"),
        ("path with a dot", rename("stacks/./x"), "`.`"),
        ("path with an empty step", rename("stacks//x"), "empty step"),
        ("path out of all parts", rename("run/admin.sock"), "no part"),
        ("path of the isolation mark", rename("isolated.json"), "no part"),
        ("path of the restore journal", rename(".restore/journal.json"), "no part"),
        ("path with a line break", rename("stacks/a\nb"), "control"),
        ("path with an escape", rename("stacks/\u{1b}[2J"), "control"),
        ("path with a backslash", rename("stacks\\x"), "backslash"),
        ("a hard link", retype(EntryType::Link), "a hard link"),
        ("a symbolic link in place of a file", retype(EntryType::Symlink), "a symbolic link"),
        ("a character device", retype(EntryType::Char), "a device"),
        ("a block device", retype(EntryType::Block), "a device"),
        ("a FIFO", retype(EntryType::Fifo), "a FIFO"),
        ("a directory", retype(EntryType::Directory), "a directory"),
        ("a sparse file", retype(EntryType::GNUSparse), "a sparse file"),
        ("an extended header", retype(EntryType::XHeader), "an extended header"),
        ("a global header", retype(EntryType::XGlobalHeader), "an extended header"),
        ("an unknown kind", retype(EntryType::new(b'Z')), "unknown kind"),
        (
            "a link out of its folder",
            Box::new(|parts| {
                parts.entry("stacks/link", |entry| entry["link"] = "../tls/ca_key".into());
                let at = parts.at("stacks/link");
                parts.0[at].0.set_link_name("../tls/ca_key").unwrap();
            }),
            "out of its folder",
        ),
        (
            "an absolute link",
            Box::new(|parts| parts.entry("stacks/link", |entry| entry["link"] = "/etc/shadow".into())),
            "out of its folder",
        ),
        (
            "a link among the keys",
            Box::new(|parts| parts.entry("tls/ca", |entry| entry["link"] = "ca_key".into())),
            "only stacks/ may hold links",
        ),
        (
            "another link than the manifest says",
            Box::new(|parts| {
                let at = parts.at("stacks/link");
                parts.0[at].0.set_link_name("configcrates/b.vgo").unwrap();
            }),
            "another thing",
        ),
        (
            "a member behind a link",
            Box::new(|parts| {
                let at = parts.at("stacks/configcrates/a.vgo");
                parts.0[at].1 = "stacks/link/x".into();
                parts.entry("stacks/configcrates/a.vgo", |entry| entry["path"] = "stacks/link/x".into());
            }),
            "no directory",
        ),
        (
            "a member twice in the archive",
            Box::new(move |parts| {
                let at = parts.at(identity);
                let again = (parts.0[at].0.clone(), parts.0[at].1.clone(), parts.0[at].2.clone());
                parts.0.insert(at + 1, again);
            }),
            "comes in its place",
        ),
        (
            "a member twice in the manifest",
            Box::new(|parts| {
                parts.manifest(|manifest| {
                    let members = manifest["members"].as_array_mut().unwrap();
                    let first = members[0].clone();
                    members.push(first);
                });
            }),
            "named twice",
        ),
        (
            "a member that the manifest does not name",
            Box::new(move |parts| {
                let at = parts.at("server.yaml");
                let more = (parts.0[at].0.clone(), "server.local.yaml".into(), parts.0[at].2.clone());
                parts.0.push(more);
            }),
            "does not name",
        ),
        ("a member that is missing", Box::new(move |parts| drop(parts.0.remove(parts.at(identity)))), "in its place"),
        ("the last member missing", Box::new(|parts| drop(parts.0.pop())), "it is missing"),
        (
            "two members swapped",
            Box::new(|parts| {
                let (a, b) = (parts.at("tls/ca"), parts.at("tls/ca_key"));
                parts.0.swap(a, b);
            }),
            "in its place",
        ),
        (
            "the content of two members swapped",
            Box::new(|parts| {
                let (a, b) = (parts.at("tls/identity_key"), parts.at("tls/policy_key"));
                let (one, two) = (parts.0[a].2.clone(), parts.0[b].2.clone());
                (parts.0[a].2, parts.0[b].2) = (two, one);
                let (one, two) = (parts.0[a].2.len() as u64, parts.0[b].2.len() as u64);
                parts.0[a].0.set_size(one);
                parts.0[b].0.set_size(two);
            }),
            "the manifest",
        ),
        (
            "a key of another server",
            Box::new(move |parts| parts.manifest(|manifest| manifest["server_id"] = "ab".repeat(32).into())),
            "the key of server",
        ),
        (
            "a larger member than the manifest says",
            Box::new(|parts| {
                let at = parts.at("server.yaml");
                parts.0[at].2.push(b'#');
                let size = parts.0[at].2.len() as u64;
                parts.0[at].0.set_size(size);
            }),
            "the manifest says",
        ),
        (
            "a bomb",
            Box::new(|parts| parts.entry("server.yaml", |entry| entry["size"] = (1u64 << 50).into())),
            "are needed",
        ),
        (
            "a bomb in the header",
            Box::new(|parts| {
                let at = parts.at("server.yaml");
                parts.0[at].0.set_size(1 << 40);
            }),
            "the manifest says",
        ),
        (
            "a size that is no number",
            Box::new(|parts| {
                let at = parts.at("server.yaml");
                parts.0[at].0.as_mut_bytes()[124..136].fill(b'z');
            }),
            "size cannot be read",
        ),
        ("a manifest of a terabyte", Box::new(|parts| parts.0[0].0.set_size(1 << 40)), "bytes"),
        ("a mode with setuid", Box::new(|parts| parts.entry("tls/ca", |entry| entry["mode"] = 0o4755.into())), "mode"),
        ("no manifest", Box::new(|parts| drop(parts.0.remove(0))), "not with manifest.json"),
        (
            "a manifest that is a link",
            Box::new(|parts| parts.0[0].0.set_entry_type(EntryType::Symlink)),
            "not with manifest.json",
        ),
        ("a manifest of no JSON", Box::new(|parts| parts.0[0].2.fill(b'{')), "cannot be read"),
        (
            "a newer form",
            Box::new(|parts| parts.manifest(|manifest| manifest["format"] = 99.into())),
            "restore it with a newer version",
        ),
        (
            "a newer database",
            Box::new(|parts| parts.manifest(|manifest| manifest["database"]["schema"] = 999.into())),
            "newer",
        ),
        (
            "rows that are not there",
            Box::new(|parts| parts.manifest(|manifest| manifest["database"]["rows"]["envoys"] = 7.into())),
            "does not hold the rows",
        ),
        (
            "a hash of nothing",
            Box::new(|parts| parts.entry("tls/ca", |entry| entry["sha256"] = "0".repeat(64).into())),
            "SHA-256 is not that of the manifest",
        ),
        (
            "a hash of no form",
            Box::new(|parts| parts.entry("tls/ca", |entry| entry["sha256"] = "../..".into())),
            "not 64 hexadecimal digits",
        ),
        (
            "a database that is none",
            Box::new(|parts| {
                let at = parts.at(DATABASE);
                let junk = vec![b'x'; parts.0[at].2.len()];
                let hash = common::crypto::sha256(&[&junk]).to_string();
                parts.0[at].2 = junk;
                parts.entry(DATABASE, move |entry| entry["sha256"] = hash.clone().into());
            }),
            "not a database",
        ),
        (
            "a configuration that leads nowhere",
            Box::new(|parts| {
                let at = parts.at("server.yaml");
                parts.0[at].2 = b"database: {dsn: /srv/vigo/db/vigo.db}\n".to_vec();
                let (size, hash) = (parts.0[at].2.len(), common::crypto::sha256(&[&parts.0[at].2]).to_string());
                parts.0[at].0.set_size(size as u64);
                parts.entry("server.yaml", move |entry| {
                    entry["size"] = size.into();
                    entry["sha256"] = hash.clone().into();
                });
            }),
            "not below",
        ),
    ];
    assert!(cases.len() >= 40, "{}", cases.len());
    for (case, change, expected) in cases {
        let mut parts = Parts::of(&good);
        change(&mut parts);
        parts.write(&bad);
        let error = refused(dir.path(), &bad, case);
        assert!(error.contains(expected), "{case}: {error}");
    }
    // Unchanged, the same way of writing it is accepted: what was refused was the change.
    Parts::of(&good).write(&bad);
    fs::create_dir(dir.path().join("fine")).unwrap();
    restore_into(&dir.path().join("fine"), &bad, PASSWORD).unwrap();
}

#[test]
fn a_truncated_or_altered_archive_is_refused_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let root = server(dir.path());
    let (good, bad) = (dir.path().join("good.tar.gz"), dir.path().join("bad.tar.gz"));
    for password in [None, Some(PASSWORD)] {
        archive(&root, &good, password);
        let bytes = fs::read(&good).unwrap();
        // The file as it is stored, and, where it is readable, the tar in it.
        for end in (0..bytes.len()).step_by(512).chain([bytes.len() - 1]) {
            fs::write(&bad, &bytes[..end]).unwrap();
            // Argon2 is slow on purpose: a few ends of the encrypted one.
            if password.is_none() || end % (512 * 7) == 0 {
                refused(dir.path(), &bad, &format!("cut at {end}"));
            }
        }
        // With the file beside it every bit counts, also those that gzip does not look at.
        fs::copy(sidecar_path(&good), sidecar_path(&bad)).unwrap();
        let step = if password.is_some() { bytes.len() / 8 } else { 97 };
        for at in (0..bytes.len()).step_by(step).chain([bytes.len() - 1, 4, 9]) {
            let mut other = bytes.clone();
            other[at] ^= 0x10;
            fs::write(&bad, other).unwrap();
            refused(dir.path(), &bad, &format!("flipped at {at}"));
        }
        fs::remove_file(sidecar_path(&bad)).unwrap();
        fs::write(&bad, [bytes.as_slice(), b"more"].concat()).unwrap();
        refused(dir.path(), &bad, "continued");
    }
    archive(&root, &good, None);
    let tar = Parts::of(&good).tar();
    for end in (0..tar.len() - 512).step_by(512) {
        pack(&bad, &tar[..end]);
        refused(dir.path(), &bad, &format!("tar cut at {end}"));
    }
}

#[test]
fn a_wrong_password_and_a_wrong_sidecar_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = server(dir.path());
    let file = dir.path().join("a.tar.gz.enc");
    archive(&root, &file, Some(b"another"));
    assert!(refused(dir.path(), &file, "password").contains("the password is wrong"));
    archive(&root, &file, Some(PASSWORD));
    for (text, expected) in [(format!("{}  a\n", "0".repeat(64)), "says SHA-256 0000"), ("x".into(), "does not begin")]
    {
        fs::write(sidecar_path(&file), text).unwrap();
        let error = refused(dir.path(), &file, "sidecar");
        assert!(error.contains(expected), "{error}");
    }
    fs::remove_file(sidecar_path(&file)).unwrap();
    fs::create_dir(dir.path().join("fine")).unwrap();
    restore_into(&dir.path().join("fine"), &file, PASSWORD).unwrap();
    for (text, expected) in [(&b""[..], "empty"), (b"no archive", "no gzip file")] {
        fs::write(&file, text).unwrap();
        assert!(refused(dir.path(), &file, "junk").contains(expected));
    }
}
