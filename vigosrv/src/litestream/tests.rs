//! The section, and what becomes of it: the file, the environment, the text for people.

use common::settings::Settings;
use common::yaml::{self, Doc};

use super::text::{Job, env_text, environment, yml};
use super::*;
use crate::config::table::TABLE;

const SECRET: &str = "wJalr/XUtn'FEMI";

fn load(section: &str) -> Result<Option<ReplicaSettings>, String> {
    let docs = [Doc::load("server.yaml", format!("backup: {section}").as_bytes()).unwrap()];
    let open = |path: &str| if path == "s3/key" { Ok(SECRET.to_string()) } else { Err(("?".into(), "".into())) };
    let settings = Settings::load_with(&TABLE, &docs, &open).map_err(|errors| yaml::render(&errors))?;
    let mut errors = Vec::new();
    let replica = ReplicaSettings::of(&settings, &docs, &mut errors);
    if errors.is_empty() { Ok(replica) } else { Err(yaml::render(&errors)) }
}

fn text_of(section: &str) -> String {
    let replica = load(section).unwrap().unwrap();
    let job = Job { database: "/srv/vigo/db/vigo.db".into(), below: "", socket: Some("/srv/vigo/run/l.sock".into()) };
    let text = yml(&replica, Path::new("/srv/vigo"), &job);
    // As YAML it says what it should.
    assert!(Doc::load("litestream.yml", text.as_bytes()).is_ok(), "{text}");
    text
}

#[test]
fn without_a_url_nothing_is_replicated() {
    assert_eq!(load("{}"), Ok(None));
    assert_eq!(load("{url: ''}"), Ok(None));
}

#[test]
fn each_kind_of_replica_becomes_what_litestream_reads() {
    let text = text_of("{url: 'file:///var/replica/', retention: 48h, sync_interval: 250ms}");
    for part in [
        "url: \"file:///var/replica\"\n",
        "  - path: \"/srv/vigo/db/vigo.db\"\n",
        "sync-interval: 250ms\n",
        "snapshot: {interval: 86400000ms, retention: 172800000ms}\n",
        "socket: {enabled: true, path: \"/srv/vigo/run/l.sock\", permissions: 0600}\n",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(text_of("{url: 'gcs://bucket/path'}").contains("url: \"gs://bucket/path\"\n"));
    let text = text_of("{url: 'sftp://u@h:2222/path', key_path: keys/sftp, host_key: 'ssh-ed25519 AAAA'}");
    for part in
        ["url: \"sftp://u@h:2222/path\"\n", "key-path: \"/srv/vigo/keys/sftp\"\n", "host-key: \"ssh-ed25519 AAAA\"\n"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn the_key_of_s3_is_in_the_environment_and_nowhere_else() {
    let section = "{url: 's3://bucket/path', access_key_id: AKIA7, secret_access_key: 'secret:s3/key', region: eu-1, \
                   endpoint: 'http://127.0.0.1:9', force_path_style: true}";
    let text = text_of(section);
    let parts = ["s3://bucket/path", "region: \"eu-1\"", "endpoint: \"http://127.0.0.1:9\"", "force-path-style: true"];
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    assert!(!text.contains(SECRET) && !text.contains("AKIA7"), "{text}");

    let replica = load(section).unwrap().unwrap();
    assert!(!format!("{replica:?}").contains(SECRET));
    let stray = ["PATH", "SSL_CERT_FILE", "AWS_SECRET_ACCESS_KEY", "LD_PRELOAD"];
    let of_process = stray.iter().map(|name| (name.to_string(), "here".to_string()));
    let names: Vec<String> = environment(&replica, of_process).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["PATH", "LITESTREAM_ACCESS_KEY_ID", "LITESTREAM_SECRET_ACCESS_KEY"]);

    // Without a key of its own: what the role of the host gives.
    let roles = load("{url: 's3://bucket/path'}").unwrap().unwrap();
    let of_process = stray.iter().map(|name| (name.to_string(), "here".to_string()));
    let names: Vec<String> = environment(&roles, of_process).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["PATH", "AWS_SECRET_ACCESS_KEY"]);
}

#[test]
fn the_text_for_people_is_quoted_for_a_shell() {
    let replica = load("{url: 's3://b/p', access_key_id: AKIA7, secret_access_key: 'secret:s3/key'}").unwrap().unwrap();
    let text = env_text(&replica, Path::new("/srv/a b/run/litestream.yml"), Path::new("/srv/a b/db/vigo.db"));
    let script = format!("{text}\nprintf '%s|%s' \"$LITESTREAM_CONFIG\" \"$LITESTREAM_SECRET_ACCESS_KEY\"");
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("/srv/a b/run/litestream.yml|{SECRET}"));
}

#[test]
fn a_directory_that_cannot_be_written_names_the_line_of_the_unit() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let replica = load(&format!("{{url: 'file://{}/file/replica'}}", dir.path().display())).unwrap().unwrap();
    let failure = Failure::from(check_writable(&replica).unwrap_err());
    assert_eq!(failure.exit, Exit::BadConfig);
    assert!(failure.what.contains(&format!("ReadWritePaths={}/file/replica", dir.path().display())), "{failure}");
    let replica = load(&format!("{{url: 'file://{}/new/replica'}}", dir.path().display())).unwrap().unwrap();
    assert_eq!(check_writable(&replica), Ok(()));
    assert!(dir.path().join("new/replica").read_dir().unwrap().next().is_none(), "nothing is left behind");
}
