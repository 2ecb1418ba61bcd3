//! Files as operators write them, right and wrong.

use super::*;

fn parse(text: &str) -> Result<EnvoyConfig, Vec<String>> {
    EnvoyConfig::parse(Path::new("/etc/vigo/envoy.yaml"), text.as_bytes())
        .map_err(|errors| errors.iter().map(yaml::Error::summary).collect())
}

#[test]
fn an_empty_file_gives_the_documented_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.state_dir, Path::new("/var/lib/vigo/state"));
    assert_eq!(config.sysroot, Path::new("/"));
    assert_eq!(config.state_bytes_max, limits::STATE_BYTES_DEFAULT);
    assert_eq!(config.queue_bytes_max, limits::QUEUE_BYTES_DEFAULT.min(config.state_bytes_max / 2));
    assert_eq!(config.blob_bytes_max, limits::BLOB_STORE_BYTES_DEFAULT);
    assert!(!config.allow_self && !config.rebootstrap_deny && !config.tasks_deny && !config.test_clock_allow);
    assert_eq!(config.core().queue_bytes_max, config.queue_bytes_max);
}

#[test]
fn every_key_reaches_its_field() {
    let config = parse(
        "servers: [vigo.example.com, '10.0.0.1:99', '[::1]:7']\nstate_dir: state\nidentity_dir: /id\n\
         sysroot: /box\nstate: {max_bytes: 8MiB}\nqueue: {max_bytes: 1MiB}\nblobs: {max_bytes: 2MiB}\n\
         allow_self: true\nrebootstrap: deny\ntasks: deny\ntest_clock: allow\nlog: {level: debug, format: json}\n",
    )
    .unwrap();
    assert_eq!(config.servers, ["vigo.example.com:1530", "10.0.0.1:99", "[::1]:7"]);
    assert_eq!(config.state_dir, Path::new("/etc/vigo/state"));
    assert_eq!((config.identity_dir.as_path(), config.sysroot.as_path()), (Path::new("/id"), Path::new("/box")));
    assert_eq!((config.state_bytes_max, config.queue_bytes_max, config.blob_bytes_max), (8 * MIB, MIB, 2 * MIB));
    assert!(config.allow_self && config.rebootstrap_deny && config.tasks_deny && config.test_clock_allow);
    assert_eq!((config.log_level, config.log_json), (Level::Debug, true));
}

/// The rows of `docs/BAD_INPUT.md` on envoy.yaml: text, expected message.
const WRONG: &[(&str, &str)] = &[
    ("server: a", "/etc/vigo/envoy.yaml:1:1: unknown key `server`; did you mean `servers`?"),
    ("servers: [a b]", "envoy.yaml:1:11: `servers` has `a b`; expected `host` or `host:port`"),
    ("servers: ['https://a']", "envoy.yaml:1:11: `servers` has `https://a`; expected `host` or `host:port`"),
    ("traits_dir: ''", "envoy.yaml:1:13: `traits_dir` is empty; expected text"),
    ("state: {max_bytes: 1}", "`state.max_bytes` is the number 1; expected a size from 1.0 MiB"),
    (
        "state: {max_bytes: 8MiB}\nqueue: {max_bytes: 5MiB}",
        "envoy.yaml:2:20: `queue.max_bytes` is more than half of `state.max_bytes`; expected at most 4.0 MiB",
    ),
    ("rebootstrap: no", "`rebootstrap` is the text `no`; expected one of allow, deny"),
    ("allow_self: 1", "`allow_self` is the number 1; expected true or false"),
    ("max_bytes: 8MiB", "unknown key `max_bytes`; did you mean `state.max_bytes`?"),
    ("state_dir: ''", "`state_dir` is empty; expected text"),
    ("tasks: allow\ntasks: deny", "envoy.yaml:2:1: "),
];

#[test]
fn wrong_files_name_place_reason_and_cure() {
    let document = include_str!("../../../docs/BAD_INPUT.md");
    for (text, expected) in WRONG {
        let row = document.lines().find(|line| line.starts_with(&format!("| `{}` |", text.replace('\n', "⏎"))));
        assert!(row.is_some_and(|row| row.contains(expected)), "not in docs/BAD_INPUT.md: {text}");
        let errors = parse(text).unwrap_err();
        assert!(errors[0].contains(expected), "{text}: {errors:?}");
    }
}

#[test]
fn a_missing_file_means_defaults_unless_it_was_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("no.yaml");
    let failure = Failure::from(EnvoyConfig::load(Some(&path)).unwrap_err());
    assert_eq!(failure.exit, Exit::BadConfig);
    assert!(failure.what.ends_with("no.yaml: no such file or directory"), "{failure}");
    std::fs::write(&path, "tasks: deny").unwrap();
    assert!(EnvoyConfig::load(Some(&path)).unwrap().tasks_deny);
}

#[test]
fn the_test_clock_works_only_where_it_is_allowed() {
    let at = |config: &str, variable| parse(config).unwrap().clock(variable).map(|clock| clock.now().wall.0);
    let future = Some("wall=2100-01-01");
    let limit = 4_000_000_000_000;
    assert!(at("test_clock: allow", future).unwrap() > limit);
    assert!(at("", future).unwrap() < limit);
    assert!(at("test_clock: allow", None).unwrap() < limit);
    let error = at("test_clock: allow", Some("speed=2")).unwrap_err().to_string();
    assert!(error.starts_with("VIGO_TEST_CLOCK: test clock: unknown part `speed=2`"), "{error}");
}

#[test]
fn the_printed_reference_is_a_valid_file() {
    let text = envoy_yaml_reference(None).unwrap();
    assert_eq!(parse(&text), parse(""));
}
