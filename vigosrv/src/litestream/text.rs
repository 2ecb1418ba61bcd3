//! What Litestream reads: its configuration file, and its environment. Pure.
//!
//! Must not: put a secret into the file.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::settings::{ReplicaSettings, Target};

/// Variables of this process that Litestream gets: how to reach what is outside, and nothing else. Stray ones (`SSL_CERT_FILE`) broke
/// its TLS.
const KEPT: [&str; 8] =
    ["PATH", "HOME", "TMPDIR", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "GOOGLE_APPLICATION_CREDENTIALS", "TZ"];
/// Where AWS finds the credentials of a role; for a replica without a key of its own.
const OF_ROLES: [&str; 9] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];
/// How long Litestream goes on trying to upload the last writes at its end, seconds.
pub(super) const FLUSH_SECONDS: u64 = 20;

/// Which database goes where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The database.
    pub database: PathBuf,
    /// Below the path of the replica; empty for the replica itself.
    pub below: &'static str,
    /// The control socket; none for a single command.
    pub socket: Option<PathBuf>,
}

/// The configuration file. Holds no secret.
pub fn yml(replica: &ReplicaSettings, root: &Path, job: &Job) -> String {
    let mut out =
        String::from("# Made by vigosrv from the section `backup` of server.yaml at every start: changes are lost.\n");
    // Writing to a string cannot fail.
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    line("logging: {level: info, type: text, stderr: true}".into());
    if let Some(socket) = &job.socket {
        line(format!("socket: {{enabled: true, path: {}, permissions: 0600}}", quoted(&socket.display().to_string())));
    }
    line(format!("shutdown-sync-timeout: {FLUSH_SECONDS}s"));
    let day_ms = 86_400_000;
    line(format!(
        "snapshot: {{interval: {}ms, retention: {}ms}}",
        day_ms.min(replica.retention_ms),
        replica.retention_ms
    ));
    line("dbs:".into());
    line(format!("  - path: {}", quoted(&job.database.display().to_string())));
    line("    replica:".into());
    line(format!("      url: {}", quoted(&url(replica, job.below))));
    line(format!("      sync-interval: {}ms", replica.sync_interval_ms));
    match &replica.target {
        Target::File(_) | Target::Gcs(_) => {}
        Target::S3(_) => {
            for (key, value) in [("region", &replica.region), ("endpoint", &replica.endpoint)] {
                if !value.is_empty() {
                    line(format!("      {key}: {}", quoted(value)));
                }
            }
            if replica.force_path_style {
                line("      force-path-style: true".into());
            }
        }
        Target::Sftp(_) => {
            let key = root.join(replica.key_path.as_deref().unwrap_or(Path::new("")));
            line(format!("      key-path: {}", quoted(&key.display().to_string())));
            line(format!("      host-key: {}", quoted(&replica.host_key)));
        }
    }
    out
}

/// The environment, whole: what is not in it is not there. `of_process` is that of this process.
pub fn environment(
    replica: &ReplicaSettings,
    of_process: impl Iterator<Item = (String, String)>,
) -> Vec<(String, String)> {
    let own_key = replica.access_key.is_some();
    let is_kept = |name: &str| {
        let role = OF_ROLES.contains(&name) && !own_key && matches!(replica.target, Target::S3(_));
        KEPT.contains(&name) || role
    };
    let mut out: Vec<_> = of_process.filter(|(name, _)| is_kept(name)).collect();
    if let Some((id, secret)) = &replica.access_key {
        out.push(("LITESTREAM_ACCESS_KEY_ID".into(), id.clone()));
        out.push(("LITESTREAM_SECRET_ACCESS_KEY".into(), secret.to_string()));
    }
    out
}

/// What a person needs to use Litestream by hand, for `eval` of a shell. Holds the secret.
pub fn env_text(replica: &ReplicaSettings, config: &Path, database: &Path) -> String {
    let mut out = String::new();
    let mut export = |name: &str, value: &str| {
        let _ = writeln!(out, "export {name}={}", shell_quoted(value));
    };
    export("LITESTREAM_CONFIG", &config.display().to_string());
    if let Some((id, secret)) = &replica.access_key {
        export("LITESTREAM_ACCESS_KEY_ID", id);
        export("LITESTREAM_SECRET_ACCESS_KEY", secret);
    }
    let _ = writeln!(out, "unset SSL_CERT_FILE SSL_CERT_DIR");
    let _ = writeln!(out, "# Then, for example:");
    let _ = writeln!(out, "#   litestream ltx -no-expand-env {}", database.display());
    let _ = writeln!(out, "#   litestream restore -no-expand-env -o /tmp/vigo.db {}", database.display());
    out
}

fn url(replica: &ReplicaSettings, below: &str) -> String {
    let (scheme, place) = match &replica.target {
        Target::File(path) => ("file", path.display().to_string()),
        Target::S3(place) => ("s3", place.clone()),
        // Litestream does not know `gcs`.
        Target::Gcs(place) => ("gs", place.clone()),
        Target::Sftp(place) => ("sftp", place.clone()),
    };
    let place = place.trim_end_matches('/');
    let slash = if below.is_empty() { "" } else { "/" };
    format!("{scheme}://{place}{slash}{below}")
}

/// Text for YAML: a JSON string is one.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
