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
    let text = SCRIPT.replace("@UNIT@", UNIT.trim_end()).replace("@API@", api).replace("@SERVER@", server);
    Response::text("text/x-shellscript; charset=utf-8", text)
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
