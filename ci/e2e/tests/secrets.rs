//! Secrets from `vigocli secrets set` to the file on the host, offline too; and that no value is anywhere but there. Every executor
//! of the policy fails, times out, crashes or succeeds with a secret in its hands, and everything that either side wrote is searched.

use std::fs;
use std::path::Path;
use std::process::Command;

use vigo_e2e::{Envoy, Server, binary, wait_until};

const CANARY: &str = "canary-7Qz+/x";
const ROTATED: &str = "canary-rotated-9Wk";

const POLICY: &str = r#"name: app
vars: {password: "secret:prod/app/password"}
resources:
  - {name: conf, type: file, target_path: /conf, content: "password={{ vars.password }}\n", mode: "0600"}
  - {name: key, type: file, target_path: /key, content: "secret:prod/app/password"}
  - {name: wrong, type: file, target_path: "/{{ vars.password }}/no/such", content: x}
  - {name: line, type: file_line, target_path: /lines, line: "token {{ vars.password }}", state: present}
  - {name: link, type: symlink, target_path: /link, to: "{{ vars.password }}"}
  - {name: says, type: exec, command: "echo {{ vars.password }}; echo {{ vars.password }} >&2; exit 3"}
  - {name: encodes, type: exec, command: "printf %s '{{ vars.password }}' | base64; printf %s 'u:{{ vars.password }}' | base64; printf %s '{{ vars.password }}' | od -An -tx1 | tr -d ' '; exit 4"}
  - {name: given, type: exec, command: ["sh", "-c", "env; cat; exit 5"], stdin: "secret:prod/app/password", environment: {PW: "secret:prod/app/password"}}
  - {name: slow, type: exec, command: "echo {{ vars.password }}; sleep 60", timeout: 1s}
  - {name: crashes, type: exec, command: "echo {{ vars.password }}; kill -SEGV $$"}
  - {name: block, type: blockinfile, target_path: /block, block: "pw {{ vars.password }}"}
  - {name: ini, type: ini, target_path: /x.ini, section: s, key: k, value: "secret:prod/app/password"}
  - {name: template, type: file, target_path: /rendered, source: templates/app.j2}
  - {name: dir, type: directory, target_path: "/{{ vars.password }}/no/such"}
  - {name: replaced, type: replace, target_path: /lines, pattern: "token (.*)", replacement: "{{ vars.password }}"}
  - {name: json, type: json_file, target_path: /x.json, pointer: "/a/{{ vars.password }}", value: "secret:prod/app/password"}
  - {name: known, type: sshkey, host: git.example.com, key: "secret:prod/app/password"}
  - {name: name, type: host, ip: 10.0.0.9, names: ["secret:prod/app/password"]}
  - {name: job, type: cron, job: report, command: "report {{ vars.password }}"}
  - {name: timer, type: systemd_timer, unit: report, command: "report {{ vars.password }}", every: 10m}
  - {name: limit, type: limits, domain: "secret:prod/app/password", item: nofile, value: 9}
  - {name: kernel, type: sysctl, key: net.ipv4.ip_forward, value: "{{ vars.password }}\n{{ vars.password }}"}
  - {name: module, type: kernel_module, module: loop, options: "key={{ vars.password }}"}
  - {name: disk, type: mount, target_path: /disk, source: "//host/{{ vars.password }}", fstype: cifs, options: "password={{ vars.password }}"}
  - {name: user, type: user, username: nobody-here, comment: "{{ vars.password }}", password: "secret:prod/app/password"}
  - {name: login, type: authorized_key, username: nobody-here, key: "{{ vars.password }}"}
  - {name: copy, type: git, target_path: /copy, repository: "file:///none/{{ vars.password }}", revision: "{{ vars.password }}"}
  - {name: program, type: custom, program: /bin/sh, args: ["-c", "cat >&2; exit 6"], input: {token: "secret:prod/app/password"}}
  - {name: built, type: source_package, url: "https://localhost:1/{{ vars.password }}", sha256: "{{ vars.password }}", build: "echo {{ vars.password }}", creates: /never}
  - {name: packages, type: repository, repository: demo, url: "https://{{ vars.password }}/", key: "secret:prod/app/password"}
  - {name: "item-{{ item }}", type: exec, foreach: ["secret:prod/app/password"], command: "echo {{ item }}; exit 7"}
  - {name: neighbour, type: file_line, target_path: /conf, line: "beside=1"}
"#;

const MAPPING: &str = "envoys:\n  - {match: \"*\", configcrates: [app]}\n";

/// What is published before there is any secret.
const FIRST: [(&str, &str); 2] = [
    ("configcrates/app.vgo", "name: app\nresources: [{name: first, type: file, target_path: /first, content: x}]\n"),
    ("envoys/all.vgo", MAPPING),
];

fn forms(value: &str) -> Vec<Vec<u8>> {
    let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    // `printf %s canary-7Qz+/x | base64`, and the part of `u:canary...` that depends on the secret alone.
    let base64 = ["Y2FuYXJ5LTdReisve", "jYW5hcnktN1F6Ky94"];
    let mut forms = vec![value.as_bytes().to_vec(), hex.into_bytes()];
    forms.extend(base64.iter().map(|form| form.as_bytes().to_vec()));
    forms
}

/// What stands around a leak.
fn around(bytes: &[u8], form: &[u8]) -> String {
    let at = bytes.windows(form.len()).position(|window| window == form).unwrap_or_default();
    String::from_utf8_lossy(&bytes[at.saturating_sub(80)..(at + 80).min(bytes.len())]).into_owned()
}

/// Files below a directory that hold a value in any form.
fn leaks(dir: &Path, forms: &[Vec<u8>]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            found.extend(leaks(&path, forms));
        } else if kind.is_file() {
            let bytes = fs::read(&path).expect("it reads");
            let holds = |form: &Vec<u8>| bytes.windows(form.len()).any(|window| window == &form[..]);
            found.extend(forms.iter().filter(|form| holds(form)).map(|form| {
                format!("{}: {} in {:?}", path.display(), String::from_utf8_lossy(form), around(&bytes, form))
            }));
        }
    }
    found
}

#[test]
fn a_secret_reaches_its_file_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut server = Server::new(dir.path(), "checkin: {interval: 1s}", &FIRST);
    let put = |path: &str, text: &str| {
        let path = server.root.join("stacks").join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("it is written");
    };
    put("configcrates/app.vgo", POLICY);
    put("envoys/all.vgo", MAPPING);
    put("templates/app.j2", "{# #}rendered {{ vars.password }}\n");

    // Not published without the secret, and all references are named.
    let refused = Command::new(binary("vigocli")).args(["config", "publish", "--root"]).arg(&server.root).output();
    let refused = refused.expect("vigocli starts");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(78), "{text}");
    assert!(text.contains("configcrates/app.vgo:2:18: there is no secret `prod/app/password`"), "{text}");
    server.set_secret("prod/app/password", CANARY);
    server.set_secret("other/secret", "of nobody here");
    server.start();
    server.cli(&["config", "publish"]);

    let mut envoy = Envoy::new(&dir.path().join("envoy"));
    envoy.enroll(&server, "app-1.example");
    envoy.start();
    let conf = |envoy: &Envoy| fs::read_to_string(envoy.path("/conf")).unwrap_or_default();
    wait_until("the secret on the host", || conf(&envoy).contains(CANARY).then_some(()));
    wait_until("the first results", || {
        let runs = server.cli(&["runs", "app-1.example"]);
        runs["runs"].as_array().is_some_and(|runs| runs.len() > 1).then_some(())
    });
    assert_eq!(fs::read_to_string(envoy.path("/key")).unwrap_or_default(), CANARY);
    assert!(fs::read_to_string(envoy.path("/rendered")).unwrap_or_default().contains(CANARY));
    assert!(fs::read_to_string(envoy.path("/block")).unwrap_or_default().contains(CANARY));

    // A new value is there at the next check-in, without a publish; the server dies, and the cache has it.
    server.set_secret("prod/app/password", ROTATED);
    wait_until("the new secret", || conf(&envoy).contains(ROTATED).then_some(()));
    server.cli(&["secrets", "rotate"]);
    assert_eq!(server.cli(&["secrets", "check"])["open"], 2);
    server.kill();
    envoy.stop();
    fs::remove_file(envoy.path("/conf")).expect("it is there");
    envoy.start();
    wait_until("the secret from the cache", || conf(&envoy).contains(ROTATED).then_some(()));

    // Changed while the server is down: it tells at its start.
    server.set_secret("prod/app/password", CANARY);
    server.start();
    wait_until("the secret that was set offline", || conf(&envoy).contains(CANARY).then_some(()));
    let api: Vec<String> = [
        &["runs", "app-1.example"][..],
        &["envoys", "show", "app-1.example"],
        &["traits", "app-1.example"],
        &["events"],
        &["config", "history"],
        &["secrets", "list"],
    ]
    .iter()
    .map(|words| server.cli(words).to_string())
    .collect();
    let dry = envoy.command(&["run", "--once", "--dry-run", "--diff"]).output().expect("vigo-envoy starts");
    let shown = [api.join("\n").into_bytes(), dry.stdout, dry.stderr].concat();
    envoy.stop();
    server.stop();

    // The sandbox is where it belongs, `secrets` is where it is kept encrypted. Everything else is searched.
    fs::write(dir.path().join("shown.txt"), shown).expect("it is written");
    fs::remove_dir_all(envoy.dir.join("root")).expect("it is removed");
    let mut searched = forms(CANARY);
    searched.extend([ROTATED.as_bytes().to_vec(), b"of nobody here".to_vec()]);
    let found = leaks(dir.path(), &searched);
    assert!(found.is_empty(), "{found:#?}");
    let log = envoy.log() + &server.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn an_envoy_that_is_not_approved_gets_policy_and_no_secret() {
    let dir = tempfile::tempdir().expect("a folder");
    let yaml = "checkin: {interval: 1s}\nenrollment: {trusted: [{match: \"web-*\", cidr: 127.0.0.0/8}]}";
    let crate_ = "name: app\nresources:\n  - {name: open, type: file, target_path: /open, content: x}\n  - {name: closed, type: file, target_path: /closed, content: \"secret:a/b\"}\n";
    let mut server = Server::new(dir.path(), yaml, &FIRST);
    let stacks = server.root.join("stacks");
    for (path, text) in [("configcrates/app.vgo", crate_), ("envoys/all.vgo", MAPPING)] {
        fs::create_dir_all(stacks.join(path).parent().expect("a parent")).expect("a directory");
        fs::write(stacks.join(path), text).expect("it is written");
    }
    server.set_secret("a/b", "only for friends");
    server.start();
    server.cli(&["config", "publish"]);
    let mut envoy = Envoy::new(&dir.path().join("envoy"));
    let invite = server.cli(&["envoys", "invite"]);
    let address = format!("127.0.0.1:{}", server.port);
    let hash = invite["trust_hash"].as_str().unwrap_or_default();
    envoy.ask(&["enroll", "--server", &address, "--hostname", "web-1.example", "--trust-hash", hash]);
    envoy.start();
    wait_until("the open file", || envoy.path("/open").exists().then_some(()));
    wait_until("the reason", || {
        let shown = server.cli(&["runs", "web-1.example"]).to_string();
        let run = server.cli(&["envoys", "show", "web-1.example"]).to_string();
        (shown.contains("failed") && run.contains("pending")).then_some(())
    });
    assert!(!envoy.path("/closed").exists());
    server.cli(&["envoys", "approve", "web-1.example"]);
    wait_until("the secret", || {
        fs::read_to_string(envoy.path("/closed")).ok().filter(|text| text == "only for friends")
    });
    envoy.stop();
    server.stop();
}
