//! `/bootstrap` and `/agents/*`: how a new host gets its agent.

use super::{Body, Context, Request, Response};

/// The script; `@SERVER@`, `@API@` and `@UNIT@` are filled in.
const SCRIPT: &str = include_str!("bootstrap.sh");

/// The unit of the packages, so that an agent is kept in the same way however it came to its host.
const UNIT: &str = include_str!("../../../packaging/systemd/vigo-envoy.service");

/// Targets by `uname -m`, and by the name of the binary in `agents/`.
pub const TARGETS: [(&str, &str); 5] = [
    ("x86_64", "vigo-envoy-x86_64"),
    ("aarch64", "vigo-envoy-aarch64"),
    ("armv7l", "vigo-envoy-armv7"),
    ("riscv64", "vigo-envoy-riscv64"),
    ("s390x", "vigo-envoy-s390x"),
];

pub(super) fn script(context: &Context, request: &Request) -> Response {
    // The host that the caller reached us by is the one it can reach again; an odd one is not put into a script.
    let plain =
        |host: &str| !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b));
    let api = if plain(&request.host) { request.host.as_str() } else { context.api_address.as_str() };
    let server = context.servers.first().map(String::as_str).unwrap_or_default();
    Response::text("text/x-shellscript; charset=utf-8", script_of(api, server))
}

fn script_of(api: &str, server: &str) -> String {
    SCRIPT.replace("@UNIT@", UNIT.trim_end()).replace("@API@", api).replace("@SERVER@", server)
}

pub(super) fn agent(context: &Context, name: &str) -> Response {
    let binary = name.strip_suffix(".sha256").unwrap_or(name);
    if !TARGETS.iter().any(|(_, known)| *known == binary) {
        let known: Vec<&str> = TARGETS.iter().map(|(_, name)| *name).collect();
        let text = format!("there is no agent called `{name}`");
        return Response::error(404, "unknown_agent", &text, &format!("there can be {}", known.join(", ")));
    }
    let path = context.root.join("agents").join(name);
    if !path.is_file() {
        let text = format!("no {name} was added to this server");
        return Response::error(404, "no_agent", &text, "add it with `vigocli agents add FILE`");
    }
    let content_type = if binary == name { "application/octet-stream" } else { "text/plain; charset=utf-8" };
    Response { status: 200, content_type, body: Body::File(path) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;
    use std::process::Command;

    use super::*;

    /// What the script finds in its PATH: a host of any kind, and a download that copies from a folder.
    const UNAME: &str = "#!/bin/sh\ncase $1 in -s) echo \"${SYSTEM:-Linux}\" ;; *) echo \"$MACHINE\" ;; esac\n";
    const CURL: &str =
        "#!/bin/sh\necho \"$4\" >>\"$HOST/calls\"\ncp \"$HOST/served/${4##*/}\" \"$3\" 2>/dev/null || exit 22\n";
    /// The agent that is installed.
    const AGENT: &str = "#!/bin/sh\necho \"agent $*\" >>\"$HOST/calls\"\nexit \"${REFUSED:-0}\"\n";

    fn program(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A host, and a server that has the agent of every target.
    fn host() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["bin", "served", "root"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        program(&dir.path().join("bin/uname"), UNAME);
        program(&dir.path().join("bin/curl"), CURL);
        let sum = common::crypto::sha256(&[AGENT.as_bytes()]);
        for (_, name) in TARGETS {
            fs::write(dir.path().join("served").join(name), AGENT).unwrap();
            fs::write(dir.path().join("served").join(format!("{name}.sha256")), format!("{sum}  {name}\n")).unwrap();
        }
        dir
    }

    /// Its exit code, and what it said on standard error.
    fn run(host: &Path, env: &[(&str, &str)], args: &[&str]) -> (i32, String) {
        let script = host.join("script");
        fs::write(&script, script_of("10.1.2.3:8443", "vigo.example:1530")).unwrap();
        let path = format!("{}:/usr/bin:/bin", host.join("bin").display());
        let mut command = Command::new("/bin/sh");
        command.arg(&script).args(args).arg("--root").arg(host.join("root"));
        command.env_clear().env("PATH", path).env("HOST", host).env("MACHINE", "s390x").envs(env.iter().copied());
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    #[test]
    fn a_host_gets_the_agent_of_its_machine_and_is_enrolled() {
        let machines =
            [("amd64", TARGETS[0].1), ("arm64", TARGETS[1].1), ("armv8l", TARGETS[2].1), ("armv7", TARGETS[2].1)];
        for (machine, name) in TARGETS.into_iter().chain(machines) {
            let host = host();
            let said = run(host.path(), &[("MACHINE", machine)], &["--token", "T", "--trust-hash", "H"]);
            assert_eq!(said, (0, String::new()), "{machine}");
            let state = host.path().join("root/var/lib/vigo").display().to_string();
            let calls = format!(
                "https://10.1.2.3:8443/agents/{name}\nhttps://10.1.2.3:8443/agents/{name}.sha256\nagent enroll --server \
                 vigo.example:1530 --token T --trust-hash H --identity-dir {state}/identity --state-dir {state}/state\n"
            );
            assert_eq!(fs::read_to_string(host.path().join("calls")).unwrap(), calls, "{machine}");
        }
    }

    #[test]
    fn what_cannot_be_installed_is_named_and_nothing_is_left() {
        let check = |break_it: &dyn Fn(&Path), env: &[(&str, &str)], args: &[&str], code: i32, text: &str| {
            let host = host();
            break_it(host.path());
            assert_eq!(run(host.path(), env, args), (code, format!("vigo bootstrap: {text}\n")));
            let installed = fs::read_dir(host.path().join("root")).unwrap().count();
            assert_eq!(installed, 0, "{text}");
        };
        let whole = |_: &Path| ();
        check(&whole, &[("MACHINE", "mips")], &[], 1, "there is no agent for mips");
        check(&whole, &[("SYSTEM", "FreeBSD")], &[], 1, "the agent runs on Linux, this is FreeBSD");
        let options = "--token, --trust-hash, --hostname, --server, --prefix, --root";
        check(&whole, &[], &["--tokn", "T"], 64, &format!("unknown option --tokn: there are {options}"));
        let gone = |name: &'static str| move |host: &Path| fs::remove_file(host.join("served").join(name)).unwrap();
        let hint = "the server has no vigo-envoy-s390x: run 'vigocli agents add FILE' there";
        check(&gone("vigo-envoy-s390x"), &[], &[], 1, hint);
        check(&gone("vigo-envoy-s390x.sha256"), &[], &[], 1, "the server has no checksum for vigo-envoy-s390x");
        let cut = |host: &Path| fs::write(host.join("served/vigo-envoy-s390x"), "#!/bin/sh\n").unwrap();
        let sums = ["#!/bin/sh\n", AGENT].map(|text| common::crypto::sha256(&[text.as_bytes()]).to_string());
        check(&cut, &[], &[], 1, &format!("the download is damaged: SHA-256 {}, expected {}", sums[0], sums[1]));
        // Nothing that could download, and little else.
        let host = host();
        fs::remove_file(host.path().join("bin/curl")).unwrap();
        for name in ["mktemp", "rm"] {
            symlink(Path::new("/usr/bin").join(name), host.path().join("bin").join(name)).unwrap();
        }
        let only = host.path().join("bin").display().to_string();
        let (code, said) = run(host.path(), &[("PATH", &only)], &[]);
        assert_eq!(code, 1);
        assert!(said.starts_with("vigo bootstrap: neither curl nor wget is here\n"), "{said}");
    }

    #[test]
    fn an_option_without_its_value_is_refused() {
        let host = host();
        let script = host.path().join("script");
        fs::write(&script, script_of("a", "b")).unwrap();
        let output = Command::new("/bin/sh").arg(&script).args(["--token", "T", "--hostname"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), &*said), (Some(64), "vigo bootstrap: --hostname needs a value\n"));
    }

    #[test]
    fn a_refusal_of_the_server_is_the_result() {
        let host = host();
        let (code, said) = run(host.path(), &[("REFUSED", "77")], &["--token", "T", "--trust-hash", "H"]);
        assert_eq!(code, 77);
        assert!(said.contains("'vigocli envoys invite' prints a line that enrolls this host"), "{said}");
    }
}
