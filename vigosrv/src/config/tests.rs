//! Files as operators write them, right and wrong.

use super::*;

fn load(text: &str) -> Result<ServerConfig, Vec<String>> {
    let doc = Doc::load("server.yaml", text.as_bytes()).map_err(|error| vec![error.summary()])?;
    let none = |path: &str| value_of(&Place::of_root(Path::new("/nonexistent")), path);
    ServerConfig::from_docs(Path::new("/srv/vigo"), &[doc], &none)
        .map_err(|errors| errors.iter().map(yaml::Error::summary).collect())
}

#[test]
fn an_empty_file_gives_the_documented_defaults() {
    let config = load("").unwrap();
    assert_eq!((config.grpc_listen.port, config.api_listen.port), (1530, 8443));
    assert_eq!(config.database, Path::new("/srv/vigo/db/vigo.db"));
    assert_eq!(config.tls.ca_key, Path::new("/srv/vigo/tls/ca_key"));
    assert_eq!((config.interval_ms, config.bundle_max_age_ms), (300_000, 0));
    assert_eq!((config.retention_bytes, config.retention_ms), (10_000_000_000, 90 * 86_400_000));
    assert_eq!((config.hold, config.log_level, config.log_json), (Hold::Auto, Level::Info, false));
    assert_eq!(config.limits.unauthenticated_per_address, limits::UNAUTHENTICATED_PER_ADDRESS_MAX);
    assert_eq!(config.limits.handshake_timeout_ms, limits::HANDSHAKE_TIMEOUT_MS);
    assert_eq!(config.limits.authenticate_timeout_ms, limits::AUTHENTICATE_TIMEOUT_MS);
    assert_eq!(config.limits.streams, limits::STREAMS_PER_CONNECTION_MAX);
    assert!(config.limits.body_bytes > limits::REPORT_BYTES_MAX);
}

#[test]
fn the_file_of_the_specification_loads() {
    let config = load(
        r#"
server:
  grpc_listen: ":1530"
  api_listen: ":8443"
  hostname: ""
  tls: {cert_file: tls/cert, key_file: tls/key, ca_file: tls/ca, ca_key_file: tls/ca_key}
  tls_sans: []
database:
  driver: sqlite
  dsn: db/vigo.db
secrets: {backend: local, secrets_dir: secrets, key_file: secrets/.master.key}
checkin:
  interval: 5m
  bundle_max_age: 0
enrollment:
  trusted: []
backup: {}
peers: {}
spanner: {}
license: {}
smtp: {}
export: []
retention: {max_bytes: 10GB, runs: 90d}
log: {level: info, format: text}
paths: {snapshots: snapshots}
"#,
    );
    assert!(config.is_ok(), "{config:?}");
}

#[test]
fn every_key_reaches_its_field() {
    let config = load(
        r#"
server: {grpc_listen: "[::1]:0", api_listen: "127.0.0.1:0", hostname: V.Example, tls_sans: [a.b, "*.c.d", 10.0.0.1]}
database: {dsn: /var/db/x}
checkin: {interval: 1s, bundle_max_age: 30d, hold: never}
enrollment: {trusted: [{match: "web-*", cidr: 10.0.0.0/8, until: 2027-01-31, max: 5, secrets: true}]}
limits: {held_connections: 7, handshake_timeout: 2s, header_bytes: 8KiB, streams: 9, pending_writes: 99}
log: {level: debug, format: json}
"#,
    )
    .unwrap();
    assert_eq!(config.grpc_listen, HostPort { host: "::1".into(), port: 0 });
    assert_eq!((config.hostname.as_str(), config.tls_sans.len()), ("v.example", 3));
    assert_eq!(config.database, Path::new("/var/db/x"));
    assert_eq!((config.interval_ms, config.bundle_max_age_ms, config.hold), (1_000, 30 * 86_400_000, Hold::Never));
    assert_eq!((config.limits.held_connections, config.limits.handshake_timeout_ms), (7, 2_000));
    assert_eq!((config.limits.header_bytes, config.limits.streams, config.limits.pending_writes), (8_192, 9, 99));
    assert_eq!((config.log_level, config.log_json), (Level::Debug, true));
    let entry = &config.trusted[0];
    assert_eq!((entry.pattern.source(), entry.max, entry.secrets), ("web-*", Some(5), true));
    assert_eq!(entry.until.unwrap().to_string(), "2027-01-31T23:59:59.999Z");
}

/// The rows of `docs/BAD_INPUT.md` on server.yaml: text, expected message.
const WRONG: &[(&str, &str)] = &[
    (
        "server: {grpc_listn: x}",
        "server.yaml:1:10: unknown key `server.grpc_listn`; did you mean `server.grpc_listen`?",
    ),
    ("server: {grpc_listen: 1530}", "`server.grpc_listen` is the number 1530; expected text"),
    ("server: {grpc_listen: '1530'}", "expected an address to listen on, such as `:1530`"),
    ("server: {grpc_listen: ':70000'}", "expected an address to listen on"),
    (
        "server: {grpc_listen: ':99', api_listen: ':99'}",
        "server.yaml:1:42: `server.api_listen` is :99, as `server.grpc_listen`; expected another port",
    ),
    ("server: {hostname: 'a b'}", "server.yaml:1:20: `server.hostname` is the text `a b`; expected a host name"),
    ("server: {tls_sans: ['a b']}", "`server.tls_sans` has `a b`; expected a host name or an address"),
    (
        "database: {driver: postgres}",
        "server.yaml:1:20: `database.driver: postgres` is not available yet; write `sqlite`",
    ),
    (
        "database: {dsn: 'secret:db'}",
        "server.yaml:1:17: `database.dsn` is `secret:db`, which is not set; set it: `vigocli secrets set db`",
    ),
    ("database: {dsn: 'secret:../x'}", "`database.dsn` is `secret:../x`, which can name no secret; expected a path"),
    (
        "secrets: {key_file: 'secret:x'}",
        "server.yaml:1:21: `secrets.key_file` is `secret:x`, but it says where secrets are; write the value itself",
    ),
    (
        "server: {hostname: 'secret:x'}",
        "`server.hostname` is `secret:x`, but it is shown and logged, so no secret may stand here; write the value itself",
    ),
    ("checkin: {interval: 500ms}", "server.yaml:1:21: `checkin.interval` is 500ms; expected a duration from 1s to 1d"),
    ("checkin: {interval: 5}", "`checkin.interval` is the number 5; expected a duration"),
    ("checkin: {bundle_max_age: 1m}", "expected a duration from 1h to 3650d, or 0: a cached policy never expires"),
    (
        "checkin: {hold: maybe}",
        "server.yaml:1:17: `checkin.hold` is the text `maybe`; expected one of auto, always, never",
    ),
    ("interval: 5m", "server.yaml:1:1: unknown key `interval`; did you mean `checkin.interval`?"),
    (
        "enrollment: {trusted: [{cidr: 10.0.0.0/8}]}",
        "server.yaml:1:24: an entry without `match`; expected a host name pattern",
    ),
    (
        "enrollment: {trusted: [{match: 'a['}]}",
        "server.yaml:1:32: `match`: character 2 of the pattern: `[` is not closed",
    ),
    (
        "enrollment: {trusted: [{match: a, cidr: 10.0.0.1/8}]}",
        "`cidr` is `10.0.0.1/8`; expected a network such as 10.0.0.0/8",
    ),
    ("enrollment: {trusted: [{match: a, until: soon}]}", "`until`: `soon` is not a date; write 2027-01-31"),
    ("limits: {streams: 1000}", "`limits.streams` is the number 1000; expected a whole number from 4 to 100"),
    ("retention: {max_bytes: lots}", "`retention.max_bytes` is the text `lots`; expected a size"),
    ("log: {level: loud}", "`log.level` is the text `loud`; expected one of error, warn, info, debug"),
    ("peers: {host: a}", "server.yaml:1:9: `peers.host` is not available yet; remove `peers`"),
    (
        "backup: {url: 'ftp://h/x'}",
        "server.yaml:1:15: `backup.url` has the scheme `ftp`; expected s3://BUCKET/PATH, gcs://BUCKET/PATH, sftp://USER@HOST/PATH or file:///PATH",
    ),
    ("backup: {url: /var/replica}", "`backup.url` has no scheme; expected s3://BUCKET/PATH"),
    ("backup: {url: 'file://host/x'}", "`backup.url` names the host `host`; expected file:///PATH, with three slashes"),
    ("backup: {url: 's3:///x'}", "`backup.url` names no bucket; expected s3://BUCKET/PATH"),
    (
        "backup: {url: 's3://b/x?endpoint=y'}",
        "`backup.url` has one of `?`, `#` and `$`; expected a plain URL; the settings beside it say the rest",
    ),
    (
        "backup: {url: 'sftp://u@h/x', key_path: k}",
        "server.yaml:1:15: `backup.url` is sftp and `backup.host_key` is missing; write the server's public key (`ssh-keyscan HOST`), compared with what its administrator says; an unknown host is not trusted",
    ),
    (
        "backup: {url: 'sftp://u@h/x', host_key: k}",
        "`backup.url` is sftp and `backup.key_path` is missing; write the path of the private key of that login",
    ),
    (
        "backup: {url: 'sftp://u:pw@h/x'}",
        "`backup.url` holds a password; expected sftp://USER@HOST/PATH, and a key file in `backup.key_path`",
    ),
    (
        "backup: {url: 's3://b/x', access_key_id: a}",
        "server.yaml:1:42: `backup.access_key_id` stands without `backup.secret_access_key`; write both, or neither to use the role of this host",
    ),
    (
        "backup: {url: 'file:///x', region: eu}",
        "server.yaml:1:36: `backup.region` is for s3, and `backup.url` is not; remove it",
    ),
    (
        "backup: {region: eu}",
        "server.yaml:1:18: `backup.region` is of no use without `backup.url`; write `backup.url`: s3://BUCKET/PATH",
    ),
    (
        "backup: {url: 's3://b/x', secret_access_key: 'secret:s3/key', access_key_id: a}",
        "`backup.secret_access_key` is `secret:s3/key`, which is not set; set it: `vigocli secrets set s3/key`",
    ),
    ("export: [{type: file}]", "server.yaml:1:9: `export` is not available yet; remove it"),
    ("server: [1]", "server.yaml:1:9: `server` is a list of 1; expected a mapping"),
    ("checkin: {interval: 1m\n", "server.yaml:"),
];

#[test]
fn wrong_files_name_place_reason_and_cure() {
    let document = include_str!("../../../docs/BAD_INPUT.md");
    for (text, expected) in WRONG {
        let row = document.lines().find(|line| line.starts_with(&format!("| `{}` |", text.replace('\n', "⏎"))));
        assert!(row.is_some_and(|row| row.contains(expected)), "not in docs/BAD_INPUT.md: {text}");
        let errors = load(text).unwrap_err();
        assert!(errors[0].contains(expected), "{text}: {errors:?}");
    }
}

#[test]
fn the_local_file_lies_over_the_other_and_errors_name_it() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("server.yaml", "checkin: {interval: 1m}\nserver: {hostname: a}");
    write("server.local.yaml", "server: {hostname: b}");
    let config = ServerConfig::load(dir.path(), None).unwrap();
    assert_eq!((config.hostname.as_str(), config.interval_ms), ("b", 60_000));
    write("server.local.yaml", "server: {hostname: 'b c'}");
    let error = ServerConfig::load(dir.path(), None).unwrap_err().to_string();
    assert!(error.contains("server.local.yaml:1:20: "), "{error}");
}

#[test]
fn a_secret_is_resolved_and_nothing_that_is_said_holds_it() {
    use common::rng::SystemRng;
    const VALUE: &str = "canary-9Zt.db";
    let dir = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(dir.path().join("server.yaml"), text).unwrap();
    write("secrets: {secrets_dir: s, key_file: k}\ndatabase: {dsn: 'secret:db/path'}\n");
    let refusal = ServerConfig::load(dir.path(), None).unwrap_err().to_string();
    assert!(refusal.contains("server.yaml:2:17: `database.dsn` is `secret:db/path`, which"), "{refusal}");
    // A command that sets it is not stopped by that.
    let config = ServerConfig::load_for_secrets(dir.path(), None).unwrap();
    assert_eq!(config.secrets().dir, dir.path().join("s"));
    crate::keys::prepare_master(&config, &mut SystemRng::default()).unwrap();
    let now = common::time::Wall(1);
    config.secrets().set("db/path", VALUE.as_bytes(), now, &mut SystemRng::default()).unwrap();
    let config = ServerConfig::load(dir.path(), None).unwrap();
    assert_eq!(config.database, dir.path().join(VALUE));
    assert!(!redaction::clean(&format!("cannot open {}", config.database.display())).contains(VALUE));
    assert_eq!(check(dir.path(), None).unwrap(), "the configuration is valid\n");
    // The later file may say where secrets are, too.
    std::fs::write(dir.path().join("server.local.yaml"), "secrets: {secrets_dir: elsewhere}").unwrap();
    let refusal = ServerConfig::load(dir.path(), None).unwrap_err().to_string();
    assert!(refusal.contains("which is not set; set it: `vigocli secrets set db/path`"), "{refusal}");
}

#[test]
fn a_missing_file_means_defaults_unless_it_was_named() {
    let dir = tempfile::tempdir().unwrap();
    assert!(ServerConfig::load(dir.path(), None).is_ok());
    assert!(check(dir.path(), None).unwrap().contains("the defaults are used"));
    let (text, exit) = check(dir.path(), Some(&dir.path().join("no.yaml"))).unwrap_err();
    assert!(text.contains("no.yaml: no such file"), "{text}");
    assert_eq!(exit, Exit::BadConfig);
}

#[test]
fn check_config_shows_all_errors_with_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("server.yaml"), "log:\n  level: loud\nchekin: {}\n").unwrap();
    let (text, exit) = check(dir.path(), None).unwrap_err();
    assert!(text.contains("    2 |   level: loud\n      |          ^") && text.contains("2 errors"), "{text}");
    assert_eq!(exit, Exit::BadConfig);
    let failure = Failure::from(ServerConfig::load(dir.path(), None).unwrap_err());
    assert!(failure.exit == Exit::BadConfig && failure.hint.starts_with("1 more"), "{failure:?}");
}

#[test]
fn the_printed_reference_is_a_valid_file() {
    let text = server_yaml_reference(None).unwrap();
    assert!(load(&text).is_ok(), "{text}");
    assert!(text.contains("Not available yet: postgres."));
    assert_eq!(server_yaml_reference(Some("checkn")).unwrap_err().exit, Exit::Usage);
}

#[test]
fn any_bytes_give_a_configuration_or_an_error() {
    use common::rng::{Rng, SplitMix64};
    let seed_text = server_yaml_reference(None).unwrap();
    let mut rng = SplitMix64(1);
    for _ in 0..2_000 {
        let mut bytes = seed_text.clone().into_bytes();
        bytes.truncate(rng.below(bytes.len() as u64) as usize);
        for _ in 0..rng.below(8) {
            let at = rng.below(bytes.len().max(1) as u64) as usize;
            if let Some(byte) = bytes.get_mut(at) {
                *byte = rng.next_u64() as u8;
            }
        }
        if let Ok(doc) = Doc::load("server.yaml", &bytes) {
            let _ = ServerConfig::from_docs(Path::new("/"), &[doc], &|_| Err(Default::default()));
        }
    }
}

#[test]
fn a_replica_of_postgresql_is_refused_with_the_name_of_its_tools() {
    let errors = load("database: {driver: postgres}\nbackup: {url: 's3://b/x'}").unwrap_err().join("\n");
    let document = include_str!("../../../docs/BAD_INPUT.md");
    let expected = "`backup.url` replicates SQLite, and `database.driver` is postgres; remove `backup.url`; back PostgreSQL up by its own tools: \
                    `pg_basebackup` with WAL archiving, or `pg_dump`";
    assert!(errors.contains(expected), "{errors}");
    assert!(document.contains(expected));
}

#[test]
fn an_isolated_root_has_no_replica_and_a_secret_of_one_is_said_by_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = "backup: {url: 's3://b/x', access_key_id: AKIA7, secret_access_key: canary-4Wq7kd}\n";
    std::fs::write(dir.path().join("server.yaml"), yaml).unwrap();
    let config = ServerConfig::load(dir.path(), None).unwrap();
    assert_eq!(config.replica.as_ref().map(|replica| replica.url.as_str()), Some("s3://b/x"));
    assert!(!format!("{config:?}").contains("canary-4Wq7kd"));
    assert!(!redaction::clean("litestream: canary-4Wq7kd").contains("canary-4Wq7kd"));
    std::fs::write(dir.path().join(ISOLATED), "{}").unwrap();
    assert_eq!(ServerConfig::load(dir.path(), None).unwrap().replica, None);
}
