//! The section `backup` of `server.yaml`: where the replica is, and how to reach it. Pure: what is wrong is said with its place, and
//! nothing is opened.

use std::fmt;
use std::path::PathBuf;

use common::settings::Settings;
use common::yaml::{Doc, Error};
use zeroize::Zeroizing;

/// Keys that speak of one kind of replica alone.
const OF_SFTP: [&str; 2] = ["backup.key_path", "backup.host_key"];
/// The same for `s3`.
const OF_S3: [&str; 5] =
    ["backup.access_key_id", "backup.secret_access_key", "backup.region", "backup.endpoint", "backup.force_path_style"];
/// What a URL may be, for people.
const URLS: &str = "s3://BUCKET/PATH, gcs://BUCKET/PATH, sftp://USER@HOST/PATH or file:///PATH";

/// A replica as the settings describe it.
#[derive(Clone, PartialEq, Eq)]
pub struct ReplicaSettings {
    /// Kind and place.
    pub target: Target,
    /// As it was written, for people.
    pub url: String,
    /// Private key of the SFTP login.
    pub key_path: Option<PathBuf>,
    /// Public key of the SFTP server, as in `known_hosts`: `ssh-ed25519 AAAA...`.
    pub host_key: String,
    /// Id and secret of the S3 key; none: what the host's role gives.
    pub access_key: Option<(String, Zeroizing<String>)>,
    /// S3 region; empty: the store's own answer.
    pub region: String,
    /// S3 endpoint; empty: AWS.
    pub endpoint: String,
    /// S3 buckets are paths, not host names.
    pub force_path_style: bool,
    /// How long older states can be restored, milliseconds.
    pub retention_ms: u64,
    /// Between two uploads, milliseconds.
    pub sync_interval_ms: u64,
}

/// Where a replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A directory of this host.
    File(PathBuf),
    /// `s3`: bucket and path.
    S3(String),
    /// Google Cloud Storage: bucket and path.
    Gcs(String),
    /// `USER@HOST[:PORT]/PATH`.
    Sftp(String),
}

/// Without the secret: it does not print.
impl fmt::Debug for ReplicaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplicaSettings({})", self.url)
    }
}

impl ReplicaSettings {
    /// The section of checked settings: none without a URL. What is wrong goes to `errors`.
    pub fn of(settings: &Settings, docs: &[Doc], errors: &mut Vec<Error>) -> Option<ReplicaSettings> {
        let before = errors.len();
        let url = settings.text("backup.url");
        if url.is_empty() {
            if let Some(key) = OF_SFTP.iter().chain(&OF_S3).find(|key| says(settings, key)) {
                let error = settings.error(docs, key, format!("`{key}` is of no use without `backup.url`"));
                errors.push(error.cure(format!("write `backup.url`: {URLS}")));
            }
            return None;
        }
        let target = match Target::parse(url) {
            Ok(target) => target,
            Err((what, expected)) => {
                errors.push(settings.error(docs, "backup.url", what).expected(expected));
                return None;
            }
        };
        check_kind(&target, settings, docs, errors);
        let text = |key: &str| settings.text(key).to_string();
        let (id, secret) = (text("backup.access_key_id"), Zeroizing::new(text("backup.secret_access_key")));
        if id.is_empty() != secret.is_empty() {
            let (given, missing) = if id.is_empty() { (OF_S3[1], OF_S3[0]) } else { (OF_S3[0], OF_S3[1]) };
            let error = settings.error(docs, given, format!("`{given}` stands without `{missing}`"));
            errors.push(error.cure("write both, or neither to use the role of this host"));
        }
        for key in OF_SFTP.iter().chain(&OF_S3).chain(&["backup.url"]) {
            if settings.text(key).chars().any(char::is_control) {
                errors.push(settings.error(docs, key, format!("`{key}` has a control character")).expected("one line"));
            }
        }
        let key_path = Some(text("backup.key_path")).filter(|path| !path.is_empty()).map(PathBuf::from);
        (errors.len() == before).then(|| ReplicaSettings {
            target,
            url: url.to_string(),
            key_path,
            host_key: text("backup.host_key"),
            access_key: (!id.is_empty()).then_some((id, secret)),
            region: text("backup.region"),
            endpoint: text("backup.endpoint"),
            force_path_style: settings.is("backup.force_path_style"),
            retention_ms: settings.number("backup.retention"),
            sync_interval_ms: settings.number("backup.sync_interval"),
        })
    }

    /// What must be in nothing that this process says.
    pub fn secret(&self) -> Option<&str> {
        self.access_key.as_ref().map(|(_, secret)| secret.as_str())
    }
}

impl Target {
    /// From a URL; the error is what is wrong, and what is expected.
    fn parse(url: &str) -> Result<Target, (String, String)> {
        let wrong = |what: &str, expected: &str| Err((format!("`backup.url` {what}"), expected.to_string()));
        let Some((scheme, rest)) = url.split_once("://") else {
            return wrong("has no scheme", URLS);
        };
        if rest.contains(['?', '#', '$']) {
            return wrong("has one of `?`, `#` and `$`", "a plain URL; the settings beside it say the rest");
        }
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        match scheme {
            "file" if !place.is_empty() => {
                wrong(&format!("names the host `{place}`"), "file:///PATH, with three slashes")
            }
            "file" if path.trim_matches('/').is_empty() => wrong("names no directory", "file:///PATH"),
            "file" => Ok(Target::File(PathBuf::from(format!("/{}", path.trim_end_matches('/'))))),
            "s3" | "gcs" | "gs" if place.is_empty() => wrong("names no bucket", &format!("{scheme}://BUCKET/PATH")),
            "s3" => Ok(Target::S3(rest.into())),
            "gcs" | "gs" => Ok(Target::Gcs(rest.into())),
            "sftp" => match place.split_once('@') {
                Some((user, _)) if user.contains(':') => {
                    wrong("holds a password", "sftp://USER@HOST/PATH, and a key file in `backup.key_path`")
                }
                Some((user, host)) if !user.is_empty() && !host.is_empty() && !path.is_empty() => {
                    Ok(Target::Sftp(rest.into()))
                }
                _ => wrong("names no user, host and path", "sftp://USER@HOST[:PORT]/PATH"),
            },
            _ => wrong(&format!("has the scheme `{scheme}`"), URLS),
        }
    }
}

/// Whether a setting is there and says something.
fn says(settings: &Settings, key: &str) -> bool {
    !settings.text(key).is_empty() || settings.is(key)
}

/// Settings that do not belong to the kind of replica, and those that are missing for it.
fn check_kind(target: &Target, settings: &Settings, docs: &[Doc], errors: &mut Vec<Error>) {
    let sftp = matches!(target, Target::Sftp(_));
    let strangers: &[(&[&str], &str, bool)] =
        &[(&OF_SFTP, "sftp", sftp), (&OF_S3, "s3", matches!(target, Target::S3(_)))];
    for (keys, kind, fits) in strangers {
        for key in keys.iter().filter(|key| !fits && says(settings, key)) {
            let error = settings.error(docs, key, format!("`{key}` is for {kind}, and `backup.url` is not"));
            errors.push(error.cure("remove it"));
        }
    }
    if !sftp {
        return;
    }
    let missing = |key: &str, cure: &str| {
        settings.error(docs, "backup.url", format!("`backup.url` is sftp and `{key}` is missing")).cure(cure)
    };
    if settings.text("backup.host_key").is_empty() {
        let cure = "write the server's public key (`ssh-keyscan HOST`), compared with what its administrator says; an \
                    unknown host is not trusted";
        errors.push(missing("backup.host_key", cure));
    }
    if settings.text("backup.key_path").is_empty() {
        errors.push(missing("backup.key_path", "write the path of the private key of that login"));
    }
}

/// For a database that Litestream cannot replicate: said whatever else is wrong with the file.
pub fn refuse_postgres(docs: &[Doc]) -> Option<Error> {
    let find = |section: &str, key: &str| {
        docs.iter().rev().find_map(|doc| {
            let node = doc.root().as_map()?.get(section)?.as_map()?.get(key)?;
            Some((doc, node.at, node.as_str()?.to_string()))
        })
    };
    let (_, _, driver) = find("database", "driver")?;
    let (doc, at, _) = find("backup", "url").filter(|(_, _, url)| driver == "postgres" && !url.is_empty())?;
    let error = doc.error(at, "`backup.url` replicates SQLite, and `database.driver` is postgres");
    Some(error.cure(
        "remove `backup.url`; back PostgreSQL up by its own tools: `pg_basebackup` with WAL archiving, or `pg_dump`",
    ))
}
