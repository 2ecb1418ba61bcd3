//! Secrets in every parameter of every type: the tables say which there are, and what is planted has their shapes. The tools of
//! the host tell everything that they are given, in every form, and succeed, fail, hang or crash. Nothing of any secret is in
//! what leaves the run: report, record, names of files.
//!
//! Not planted: numbers, truth values and words of a list, which no secret fits (a secret there is refused, and that is tried
//! too), and `source`, which is a file of the policy by its literal name.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use common::bundle::{Resource, SealedSecret, SecretRef, Value, Version};
use common::crypto::Sealed;
use common::ids::{Hash32, Uuid};
use common::outcome::{Outcome, Status};
use common::policy::params::{Kind, Param, Type};
use common::policy::types;
use common::proto::Message;
use common::proto::wire::run_result::Source;
use zeroize::Zeroizing;

use super::sandbox::{Params, Sandbox, text};
use super::system;
use crate::exec::{Confirmations, Undo, Unseal, run};
use crate::report::{RunContext, RunReport, Verdict, run_result};

/// Parts that every secret is made of. Each of them is a leak by itself: half a secret is one as well.
const PARTS: [&str; 2] = ["kW7vT2mBzQ", "Yd9sLq4RpX"];
/// The same as hexadecimal digits, and as base64 at each of the three places where it may begin; in lower case.
const FORMS: [&str; 8] = [
    "6b57377654326d427a51",
    "a1c3dlqybuj6u",
    "txn3zumm1cel",
    "rvzd2vdjtqnpr",
    "596439734c7134527058",
    "wwq5c0xxnfjww",
    "lkoxnmctrscf",
    "zzdlzthe0unby",
];

/// Opens secrets that were never sealed.
struct Plain(BTreeMap<String, String>);

impl Unseal for Plain {
    fn unseal(&self, secret: &SealedSecret) -> Option<Zeroizing<Vec<u8>>> {
        self.0.get(&secret.reference.path).map(|value| Zeroizing::new(value.clone().into_bytes()))
    }
}

/// Answers before a change, and not after it.
struct Silent(std::sync::atomic::AtomicBool);

impl Confirmations for Silent {
    fn confirm(&self, _: Uuid, _: u64) -> bool {
        !self.0.fetch_xor(true, std::sync::atomic::Ordering::SeqCst)
    }
}

/// Secrets of many shapes, each of its own number.
fn shapes(n: usize) -> Vec<String> {
    let [a, b] = PARTS;
    let line = format!("{a}{b}{n:04}").repeat(3);
    vec![
        format!("c{n}{a}{b}"),
        format!("/none/c{n}{a}/{b}/x"),
        format!("https://c{n}.example/{a}/{b}.deb"),
        format!("$6$c{n}{a}${b}"),
        format!("# {{mark}} c{n}{a}{b}"),
        format!("net.c{n}{a}.{b}"),
        format!("after:c{n}{a}{b}("),
        format!("{a}{b}[{n}("),
        format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f c{n}{a}{b}"),
        format!("it's {a} \"{b}\" %{n}+/\\ \u{e4}$x`{a}`"),
        format!("-----BEGIN {a} KEY-----\n{line}\n{line}\n-----END {b} KEY-----"),
        format!("{a}/{b}==").repeat(40),
    ]
}

/// What is asked of a type besides the parameter at hand.
fn base(kind: &Type) -> Params {
    let file = format!("name: x\nresources:\n{}", kind.example.replace("- name", "  - name").replace("\n  ", "\n    "));
    let mut load = |path: &str| Ok::<_, String>(format!("content of {path}\n").into_bytes());
    let bundle = common::policy::compile_file("x.vgo", file.as_bytes(), &mut load).expect("an example");
    let mut params: BTreeMap<String, Value> = bundle.resources.into_iter().next().unwrap().params;
    let instead: &[(&str, &str, &str)] = &[
        ("backup", "source_dir", "/home"),
        ("exec", "command", "tell exec; exit 0"),
        ("exec", "creates", "/d/never"),
        ("process", "command", "tell process"),
        ("process", "state", "running"),
        ("custom", "program", "/tools/tell"),
        ("source_package", "build", "tell build"),
        ("source_package", "url", "file:///nowhere"),
        ("nonrepo_package", "url", "file:///nowhere"),
        ("file", "validate", "tell %s"),
        ("repository", "manager", "apt"),
        ("user", "username", "ada"),
        ("authorized_key", "username", "ada"),
        ("git", "user", "root"),
        ("directory", "owner", "root"),
    ];
    for (_, name, value) in instead.iter().filter(|(known, _, _)| *known == kind.name) {
        params.insert(name.to_string(), text(value));
    }
    // What is planted may be a key as well.
    if kind.name == "repository" {
        params.remove("source");
    }
    params.into_iter().map(|(name, value)| (kind.param(&name).unwrap().name, value)).collect()
}

/// Values with the secret in them, in every place that the parameter has for one.
fn values(param: &Param, secret: &str) -> Vec<Value> {
    let plain = text(secret);
    let mapped = |value: Value| Value::Map(BTreeMap::from([("KEY".to_string(), value)]));
    match param.kind {
        Kind::Texts | Kind::Names | Kind::Command | Kind::Shapes(_) => {
            vec![plain.clone(), Value::List(vec![text("tell"), plain])]
        }
        Kind::Environment => vec![mapped(plain)],
        Kind::Mapping | Kind::Any => vec![plain.clone(), mapped(Value::List(vec![plain]))],
        _ => vec![plain],
    }
}

/// A host on which everything that is called tells what it was given, and then does this.
fn host(ends: &str) -> Sandbox {
    let mut sandbox = system::live();
    for path in ["/etc/apt/sources.list.d", "/run/systemd/system", "/var/tmp", "/home/ada", "/scratch", "/var/lib/dpkg"]
    {
        fs::create_dir_all(sandbox.at(path)).unwrap();
    }
    sandbox.write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nada:x:4001:4001:Ada:/home/ada:/bin/sh\n");
    sandbox.write("/etc/group", "root:x:0:\nada:x:4001:\nsudo:x:27:\n");
    sandbox.write("/etc/shadow", "root:*:19000:0:99999:7:::\nada:$6$old$hash:19000:0:99999:7:::\n");
    sandbox.write("/etc/fstab", "");
    sandbox.write("/var/lib/dpkg/status", "");
    // Everything twice: as it is, and coded. Much, so that what is kept of it begins somewhere in the middle.
    let tell = format!(
        "all() {{ for a; do echo \"$0 $a\"; done; /usr/bin/env; [ -t 0 ] || /usr/bin/head -c 4000; }}\n\
         said=$(all \"$@\" 2>&1)\n\
         printf '%s\\n' \"$said\"; printf '%s\\n' \"$said\" >&2; printf '%s' \"$said\" | /usr/bin/base64 -w0 >&2\n{ends}"
    );
    let tools = [
        "adduser",
        "addgroup",
        "apt-get",
        "apt-cache",
        "curl",
        "git",
        "modprobe",
        "mount",
        "mysqldump",
        "nft",
        "pg_dump",
        "podman",
        "rpm",
        "sqlite3",
        "systemctl",
        "tar",
        "tell",
        "umount",
        "unshare",
        "useradd",
        "usermod",
        "chpasswd",
        "groupadd",
        "userdel",
    ];
    tools.iter().for_each(|tool| sandbox.fake_tool(tool, &tell));
    sandbox
}

/// Everything that a run lets out.
fn told(report: &RunReport) -> String {
    let verdicts = vec![Verdict::default(); report.resources.len()];
    let context = RunContext {
        boot_id: String::new(),
        bundle: Hash32([0; 32]),
        version: Version { epoch: 1, serial: 1 },
        source: Source::Live,
        age_ms: 0,
        status: Status::Converged,
    };
    let record = run_result(report, &verdicts, &context).encode_to_vec();
    format!("{report:?}\n{}", String::from_utf8_lossy(&record))
}

fn leak_in(out: &str) -> Option<String> {
    let lower = out.to_lowercase();
    let parts = PARTS.iter().map(|part| part.to_lowercase());
    let at = parts.chain(FORMS.iter().map(|form| form.to_string())).find_map(|form| lower.find(&form))?;
    let (mut from, mut to) = (at.saturating_sub(300), (at + 100).min(lower.len()));
    while !lower.is_char_boundary(from) {
        from -= 1;
    }
    while !lower.is_char_boundary(to) {
        to += 1;
    }
    Some(lower[from..to].to_string())
}

/// Every string parameter of every type with secrets of every shape in it; `more` goes with each that has the parameter.
fn plant(more: &[(&'static str, &str)], only_fitting: bool) -> Vec<(&'static Type, &'static str, String, Params)> {
    let mut planted = Vec::new();
    for kind in types::all() {
        let usual = base(kind);
        for param in kind.params.iter().filter(|param| param.kind != Kind::Source) {
            for secret in shapes(planted.len()) {
                let fits = values(param, &secret).iter().any(|value| param.check(value, false).is_ok());
                if only_fitting && !fits {
                    continue;
                }
                for value in values(param, "secret:x") {
                    let rest = usual.iter().filter(|(name, _)| *name != param.name).cloned();
                    let more = more.iter().filter(|(name, _)| kind.param(name).is_some() && *name != param.name);
                    let more = more.map(|(name, value)| (*name, text(value)));
                    planted.push((
                        kind,
                        param.name,
                        secret.clone(),
                        rest.chain(more).chain([(param.name, value)]).collect(),
                    ));
                }
            }
        }
    }
    planted
}

/// Of everything below a directory.
fn names(dir: &std::path::Path) -> Vec<String> {
    let Ok(all) = fs::read_dir(dir) else { return Vec::new() };
    all.flatten()
        .flat_map(|entry| [vec![entry.file_name().to_string_lossy().into_owned()], names(&entry.path())].concat())
        .collect()
}

struct Mode<'m> {
    ends: &'m str,
    timeout_ms: u64,
    dry_run: bool,
    more: &'m [(&'static str, &'static str)],
    only_fitting: bool,
    /// Of so many, one is taken.
    every: usize,
}

/// Runs them all, each with the secret of its own, and gives how they came out.
fn check(mode: &Mode<'_>) -> BTreeMap<Outcome, usize> {
    let mut outcomes = BTreeMap::new();
    let mut sandbox = host(mode.ends);
    sandbox.undo = Some(Undo {
        dir: sandbox.at("/state/undo"),
        confirmations: Arc::new(Silent(std::sync::atomic::AtomicBool::new(false))),
        own_config: None,
    });
    let mut leaks = Vec::new();
    // All of them in a few minutes each: `VIGO_CANARIES=all cargo nextest run -p vigo-envoy -E 'test(canary)'`.
    let every = if std::env::var("VIGO_CANARIES").is_ok_and(|all| all == "all") { 1 } else { mode.every };
    for (kind, param, secret, params) in plant(mode.more, mode.only_fitting).into_iter().step_by(every) {
        let reference = SecretRef { path: "x".to_string(), version: 1, sealing_key_id: Vec::new() };
        sandbox.unseal = Some(Arc::new(Plain(BTreeMap::from([("x".to_string(), secret)]))));
        let sealed = Sealed { ephemeral: [0; 32], ciphertext: Vec::new() };
        sandbox.secrets = vec![SealedSecret { uuid: Uuid::default(), reference, sealed }];
        let asked = super::sandbox::resource("r", kind.name, &params);
        // Nothing that is started here is ever to be seen as a process: it would be waited for.
        let timeout_ms = if kind.name == "process" { 100 } else { mode.timeout_ms };
        let asked = Resource { timeout_ms, ..asked };
        let report = run(&sandbox.input(vec![asked], mode.dry_run));
        *outcomes.entry(report.resources[0].outcome).or_default() += 1;
        leaks.extend(leak_in(&told(&report)).map(|leak| format!("{} `{param}`: {leak}", kind.name)));
        // What is kept of a state is in files that only root reads, and named by nobody's secret. Of a run that could not put
        // everything back it stays; here all runs have one name.
        leaks.extend(names(&sandbox.at("/state/undo")).iter().filter_map(|name| leak_in(name)));
        let _ = fs::remove_dir_all(sandbox.at("/state/undo"));
    }
    let n = leaks.len();
    leaks.dedup_by_key(|leak| leak.split(':').next().map(str::to_string));
    assert!(leaks.is_empty(), "{n} leaks: {leaks:#?}");
    outcomes
}

const USUAL: Mode<'static> =
    Mode { ends: "exit 0", timeout_ms: 10_000, dry_run: false, more: &[], only_fitting: false, every: 5 };

#[test]
fn nothing_leaks_where_everything_succeeds() {
    let outcomes = check(&USUAL);
    assert!(outcomes[&Outcome::Changed] > 20 && outcomes[&Outcome::Failed] > 100, "{outcomes:?}");
}

#[test]
fn nothing_leaks_where_everything_fails() {
    let outcomes = check(&Mode { ends: "exit 1", only_fitting: true, ..USUAL });
    assert!(outcomes[&Outcome::Failed] > 100, "{outcomes:?}");
}

#[test]
fn nothing_leaks_where_everything_hangs() {
    check(&Mode { ends: "exec /bin/sleep 60", timeout_ms: 150, only_fitting: true, every: 13, ..USUAL });
}

#[test]
fn nothing_leaks_where_everything_crashes() {
    check(&Mode { ends: "kill -SEGV $$", only_fitting: true, every: 7, ..USUAL });
}

#[test]
fn nothing_leaks_where_nothing_is_done() {
    let outcomes = check(&Mode { dry_run: true, every: 7, ..USUAL });
    assert!(outcomes[&Outcome::Changed] > 20, "{outcomes:?}");
}

#[test]
fn nothing_leaks_where_it_is_put_back() {
    let more = &[("confirm", "1s"), ("confirm_undo", "tell undo; exit 1")];
    check(&Mode { more, only_fitting: true, every: 7, ..USUAL });
}

#[test]
fn nothing_leaks_from_names_conditions_and_items() {
    let mut sandbox = host("exit 1");
    let secret = shapes(1)[9].clone();
    let reference = SecretRef { path: "x".to_string(), version: 1, sealing_key_id: Vec::new() };
    sandbox.unseal = Some(Arc::new(Plain(BTreeMap::from([("x".to_string(), secret)]))));
    let sealed = Sealed { ephemeral: [0; 32], ciphertext: Vec::new() };
    sandbox.secrets = vec![SealedSecret { uuid: Uuid::default(), reference, sealed }];
    let vars = BTreeMap::from([("s".to_string(), text("secret:x")), ("n".to_string(), Value::Int(1))]);
    let exec = |command: &str| super::sandbox::resource("r", "exec", &vec![("command", text(command))]);
    let with = |resource: Resource| Resource { vars: vars.clone(), ..resource };
    let resources = vec![
        with(Resource { name: "u-{{ item }}".into(), foreach: Some(text("secret:x")), ..exec("tell {{ item }}") }),
        with(Resource {
            name: "v-{{ item }}".into(),
            foreach: Some(Value::List(vec![text("secret:x"), text("secret:x")])),
            ..exec("tell {{ item }}; exit 1")
        }),
        with(Resource { name: "w-{{ vars.s }}".into(), ..exec("tell") }),
        with(Resource { name: "c".into(), when: "vars.s + 1".into(), ..exec("tell") }),
        with(Resource { name: "d".into(), when: "vars.s is divisibleby 2".into(), ..exec("tell") }),
        with(Resource { name: "e".into(), ..exec("tell {{ vars.s | int }} {{ vars.s.x.y }}") }),
        with(Resource { name: "f".into(), ..exec("{{ vars.s | join(vars.n) | nope }}") }),
        with(Resource { name: "g".into(), ..exec("tell '{{ vars.s }}'; exit 1") }),
    ];
    for dry_run in [false, true] {
        let report = run(&sandbox.input(resources.clone(), dry_run));
        assert!(report.resources.len() >= 8, "{report:?}");
        assert_eq!(leak_in(&told(&report)), None);
    }
}
