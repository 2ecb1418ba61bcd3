//! The engine, with a small table of its own.

use super::*;

static ENTRY: [Setting; 2] = [
    Setting { key: "match", form: Form::Text, default: "\"\"", doc: "Pattern." },
    Setting { key: "max", form: Form::Number(0, 9), default: "0", doc: "How many." },
];

static TABLE: [Setting; 12] = [
    Setting { key: "server.listen", form: Form::Listen, default: "\":1530\"", doc: "Address." },
    Setting { key: "server.hostname", form: Form::Hostname, default: "\"\"", doc: "Name." },
    Setting { key: "server.tls.cert_file", form: Form::Path, default: "tls/cert", doc: "Certificate." },
    Setting { key: "server.names", form: Form::List, default: "[]", doc: "More names." },
    Setting { key: "driver", form: Form::Choice(&["sqlite"], &["postgres"]), default: "sqlite", doc: "Which." },
    Setting { key: "interval", form: Form::Duration(1_000, 86_400_000), default: "5m", doc: "How often." },
    Setting { key: "age", form: Form::DurationOrZero(60_000, 86_400_000, "for ever"), default: "0", doc: "How old." },
    Setting { key: "size", form: Form::Size(1_000, 1_000_000), default: "10KB", doc: "How large." },
    Setting { key: "deny", form: Form::Bool, default: "false", doc: "Whether." },
    Setting { key: "servers", form: Form::Servers(2), default: "[]", doc: "Where." },
    Setting { key: "trusted", form: Form::Entries(&ENTRY, 2), default: "[]", doc: "Who." },
    Setting { key: "peers", form: Form::Later, default: "{}", doc: "Later." },
];

fn load(texts: &[&str]) -> Result<Settings, Vec<String>> {
    let docs: Vec<Doc> = texts.iter().map(|text| Doc::load("s.yaml", text.as_bytes()).unwrap()).collect();
    Settings::load(&TABLE, &docs).map_err(|errors| errors.iter().map(Error::summary).collect())
}

#[test]
fn every_key_has_a_value_without_a_file() {
    for texts in [&[][..], &[""], &["server:\n"]] {
        let settings = load(texts).unwrap();
        assert_eq!(settings.text("server.listen"), ":1530");
        assert_eq!((settings.number("interval"), settings.number("size")), (300_000, 10_000));
        assert!(!settings.is("deny") && !settings.is_given("deny"));
        assert!(settings.list("servers").is_empty() && settings.entries("trusted").is_empty());
    }
}

#[test]
fn values_are_read_and_a_later_file_wins() {
    let first =
        "server: {listen: '[::1]:0', tls: {cert_file: a}, names: [x, y]}\ninterval: 1h\ntrusted: [{match: 'w*'}]";
    let settings = load(&[first, "interval: 2h\nservers: [a, 'b:99']\nage: 1h"]).unwrap();
    assert_eq!(settings.text("server.listen"), "[::1]:0");
    assert_eq!(settings.list("server.names"), ["x", "y"]);
    assert_eq!(settings.number("interval"), 7_200_000);
    assert_eq!(settings.list("servers"), ["a:1530", "b:99"]);
    assert_eq!(settings.entries("trusted")[0].text("match"), "w*");
}

#[test]
fn wrong_files_name_the_place_and_the_cure() {
    for (text, expected) in [
        ("server: {lisen: x}", "s.yaml:1:10: unknown key `server.lisen`; did you mean `server.listen`?"),
        ("hostname: x", "s.yaml:1:1: unknown key `hostname`; did you mean `server.hostname`?"),
        ("zzzzzzz: x", "s.yaml:1:1: unknown key `zzzzzzz`; expected one of server, driver"),
        ("server: x", "s.yaml:1:9: `server` is the text `x`; expected a mapping"),
        ("interval: 5", "s.yaml:1:11: `interval` is the number 5; expected a duration"),
        ("interval: 25h", "s.yaml:1:11: `interval` is 25h; expected a duration from 1s to 1d"),
        ("age: 5s", "s.yaml:1:6: `age` is the text `5s`; expected a duration from 1m to 1d, or 0: for ever"),
        ("size: 1", "s.yaml:1:7: `size` is the number 1; expected a size from 1000 B to 976.6 KiB"),
        ("driver: postgres", "s.yaml:1:9: `driver: postgres` is not available yet; write `sqlite`"),
        ("driver: sqlit", "s.yaml:1:9: `driver` is the text `sqlit`; expected one of sqlite; did you mean `sqlite`?"),
        (
            "driver: secret:a/b",
            "s.yaml:1:9: `driver` is `secret:a/b`, but it is shown and logged, so no secret may stand here",
        ),
        ("peers: {a: 1}", "s.yaml:1:9: `peers.a` is not available yet; remove `peers`"),
        ("deny: yes", "s.yaml:1:7: `deny` is the text `yes`; expected true or false"),
        ("server: {listen: '1530'}", "expected an address to listen on"),
        ("server: {listen: ':99999'}", "expected an address to listen on"),
        ("server: {hostname: 'a b'}", "s.yaml:1:20: `server.hostname` is the text `a b`; expected a host name"),
        ("servers: [a, b, c]", "s.yaml:1:17: `servers` has 3 entries; expected at most 2"),
        ("servers: ['http://a']", "s.yaml:1:11: `servers` has `http://a`; expected `host` or `host:port`"),
        ("trusted: [{mach: x}]", "s.yaml:1:12: unknown key `mach`; did you mean `match`?"),
        ("trusted: [{max: 10}]", "s.yaml:1:17: `max` is the number 10; expected a whole number from 0 to 9"),
        ("trusted: [1]", "s.yaml:1:11: `trusted[0]` is the number 1; expected a mapping"),
        ("- a", "s.yaml:1:1: `the file` is a list of 1; expected a mapping"),
    ] {
        let errors = load(&[text]).unwrap_err();
        assert!(errors[0].contains(expected), "{text}: {errors:?}");
    }
}

#[test]
fn all_errors_are_found_at_once() {
    assert_eq!(load(&["driver: x\ninterval: 1", "deny: 7"]).unwrap_err().len(), 3);
}

#[test]
fn the_reference_loads_and_says_nothing_but_defaults() {
    let text = reference(&TABLE, None).unwrap();
    let strip =
        |settings: Settings| settings.found.into_iter().map(|(key, found)| (key, found.value)).collect::<Vec<_>>();
    assert_eq!(strip(load(&[&text]).unwrap()), strip(load(&[]).unwrap()));
    assert!(text.contains("  # Address.\n  # An address to listen on"), "{text}");
}

#[test]
fn a_section_of_the_reference_can_be_asked_for() {
    assert_eq!(reference(&TABLE, Some("server.tls")).unwrap().lines().next(), Some("server:"));
    assert!(!reference(&TABLE, Some("server")).unwrap().contains("interval"));
    assert_eq!(
        reference(&TABLE, Some("intervl")),
        Err("there is no setting `intervl`; did you mean `interval`?".into())
    );
}

#[test]
fn hosts_and_ports_are_taken_apart() {
    let parse = |text| HostPort::parse(text, Some(7)).map(|found| found.to_string());
    for (text, expected) in [
        ("a", "a:7"),
        ("a:1", "a:1"),
        ("::1", "[::1]:7"),
        ("[::1]", "[::1]:7"),
        ("[::1]:2", "[::1]:2"),
        (":3", ":3"),
        ("10.0.0.1:4", "10.0.0.1:4"),
    ] {
        assert_eq!(parse(text).as_deref(), Some(expected), "{text}");
    }
    for bad in ["a:b", "a:+1", "a:99999", "[x]:1", "[::1]x", "[::1", "a b:1", "-:1"] {
        assert_eq!(parse(bad), None, "{bad}");
    }
    assert_eq!(HostPort::parse("a", None), None);
}
