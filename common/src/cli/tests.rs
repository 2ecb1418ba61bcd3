//! Command lines as people type them.

use super::*;

/// a fleet
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
struct Top {
    #[argh(subcommand)]
    verb: Verb,
}

#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(subcommand)]
enum Verb {
    Nodes(Nodes),
    Envoys(Envoys),
}

/// list nodes
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(subcommand, name = "nodes", example = "{command_name} --limit 5")]
struct Nodes {
    /// how many
    #[argh(option, default = "10")]
    limit: u32,
}

/// envoys
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(subcommand, name = "envoys")]
struct Envoys {
    #[argh(subcommand)]
    verb: EnvoyVerb,
}

#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(subcommand)]
enum EnvoyVerb {
    Revoke(Revoke),
    Rename(Rename),
}

/// bar an envoy
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(subcommand, name = "revoke")]
struct Revoke {
    /// which
    #[argh(positional)]
    envoy: String,
    /// why
    #[argh(option, short = 'r')]
    reason: Option<String>,
}

/// rename an envoy
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(subcommand, name = "rename")]
struct Rename {
    /// which
    #[argh(positional)]
    envoy: String,
    /// new name
    #[argh(option)]
    to: String,
}

const PROGRAM: Program = Program { name: "vigocli", options: &[&JSON, &VERBOSE, &YES, &ROOT] };

fn line(text: &str) -> Result<(Top, Common), Early> {
    parse::<Top>(&PROGRAM, text.split_whitespace().map(OsString::from))
}

fn wrong(text: &str) -> String {
    match line(text) {
        Err(Early::Wrong(failure)) => {
            assert_eq!(failure.exit, Exit::Usage, "{text}");
            failure.to_string()
        }
        other => panic!("{text}: {other:?}"),
    }
}

fn shown(text: &str) -> String {
    match line(text) {
        Err(Early::Show(text)) => text,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn common_options_are_taken_at_any_level() {
    for text in [
        "--json --root /x nodes --limit 3",
        "nodes --json --limit=3 --server-root=/x",
        "--root=/x nodes --limit 3 --json",
    ] {
        let (top, common) = line(text).unwrap();
        assert_eq!(top, Top { verb: Verb::Nodes(Nodes { limit: 3 }) }, "{text}");
        assert!(common.json() && !common.yes());
        assert_eq!(common.path(&ROOT), Some(PathBuf::from("/x")));
    }
}

#[test]
fn values_keep_equal_signs_and_dashes() {
    let revoke = |text| match line(text).unwrap().0.verb {
        Verb::Envoys(Envoys { verb: EnvoyVerb::Revoke(revoke) }) => (revoke.envoy, revoke.reason.unwrap()),
        other => panic!("{other:?}"),
    };
    assert_eq!(revoke("envoys revoke web --reason=a=b"), ("web".into(), "a=b".into()));
    assert_eq!(revoke("envoys revoke --reason --json web"), ("web".into(), "--json".into()));
    assert_eq!(revoke("envoys revoke -r why -- --web"), ("--web".into(), "why".into()));
}

#[test]
fn unknown_verbs_and_options_suggest_near_ones() {
    for (text, expected) in [
        ("nods", "vigocli: unknown command `nods`; did you mean `nodes`?"),
        ("zzzzzz", "vigocli: unknown command `zzzzzz`; expected one of: nodes, envoys"),
        ("envoys revok web", "vigocli envoys: unknown command `revok`; did you mean `revoke`?"),
        ("nodes --jsn", "vigocli nodes: unknown option `--jsn`; did you mean `--json`?"),
        ("nodes --limt 4", "vigocli nodes: unknown option `--limt`; did you mean `--limit`?"),
        ("nodes --zzzzzzzzz", "vigocli nodes: unknown option `--zzzzzzzzz`; run `vigocli nodes --help`"),
    ] {
        assert_eq!(wrong(text), expected);
    }
}

#[test]
fn wrong_command_lines_say_what_is_missing() {
    for (text, expected) in [
        ("", "vigocli: expected one of: nodes, envoys; run `vigocli --help`"),
        ("nodes --limit", "vigocli nodes: option `--limit` needs a value"),
        ("nodes --json=1", "vigocli nodes: option `--json` takes no value"),
        ("nodes --root a --root b", "vigocli nodes: option `--root` is given twice"),
        ("nodes --limit x", "Error parsing option '--limit' with value 'x'"),
        ("nodes extra", "vigocli nodes: Unrecognized argument: extra"),
        ("envoys rename", "vigocli envoys rename: missing argument envoy; missing option --to"),
    ] {
        assert!(wrong(text).contains(expected), "{text}: {}", wrong(text));
    }
}

#[test]
fn arguments_that_are_not_utf_8_are_refused() {
    use std::os::unix::ffi::OsStringExt;
    let bad = OsString::from_vec(vec![b'a', 0xff]);
    let Err(Early::Wrong(failure)) = parse::<Top>(&PROGRAM, [OsString::from("nodes"), bad]) else { panic!() };
    assert_eq!(failure.exit, Exit::Usage);
}

#[test]
fn help_and_version_work_at_every_level() {
    for text in ["--version", "nodes --version", "envoys revoke web -V"] {
        assert_eq!(shown(text), version(&PROGRAM));
    }
    assert!(version(&PROGRAM).contains(TARGET));
    for text in ["envoys rename --help", "envoys rename -h", "envoys --help rename", "help envoys rename"] {
        let help = shown(text);
        assert!(help.starts_with("Usage: vigocli envoys rename") && help.contains("--root DIR"), "{text}: {help}");
    }
    assert!(shown("nodes --help").contains("vigocli nodes --limit 5"));
    // A value that looks like help is a value.
    assert!(line("envoys revoke web --reason --help").is_ok());
}
