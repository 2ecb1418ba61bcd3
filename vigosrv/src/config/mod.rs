//! `server.yaml` and `server.local.yaml`, laid over each other and checked into types.
//!
//! A shell: reads the two files, and the secrets that they refer to. Knows no defaults of its own: they are in [`table`]. Relative paths are
//! below the server root.

mod running;
pub mod table;
mod trusted;

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::cli::{Exit, Failure};
use common::log::Level;
use common::redact::Filter;
use common::settings::{HostPort, Secrets, Settings, reference};
use common::sys::{FileError, Lock, LockError, file, redaction};
use common::yaml::{self, Doc};
use common::{ids, limits};

use crate::app;
use crate::app::{Hold, TrustedEntry};
use crate::litestream::settings::{ReplicaSettings, refuse_postgres};
use crate::secrets::{Place, SecretError};
use crate::sys::swap;
pub use running::{RUN_FILE_SCHEMA, Running, lock_root};

/// Settings of a server, complete and checked.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The server root, as it was given.
    pub root: PathBuf,
    /// `server.grpc_listen`; an empty host is every address.
    pub grpc_listen: HostPort,
    /// `server.api_listen`.
    pub api_listen: HostPort,
    /// `server.hostname`; empty: the host's own name.
    pub hostname: String,
    /// `server.tls`.
    pub tls: TlsPaths,
    /// `server.tls_sans`.
    pub tls_sans: Vec<String>,
    /// `database.dsn`.
    pub database: PathBuf,
    /// `secrets.secrets_dir`.
    pub secrets_dir: PathBuf,
    /// `secrets.key_file`.
    pub master_key: PathBuf,
    /// `checkin.interval`.
    pub interval_ms: u64,
    /// `checkin.bundle_max_age`; 0 = never expires.
    pub bundle_max_age_ms: u64,
    /// `checkin.hold`.
    pub hold: Hold,
    /// `enrollment.trusted`.
    pub trusted: Vec<TrustedEntry>,
    /// `limits`.
    pub limits: ServerLimits,
    /// `retention.max_bytes`.
    pub retention_bytes: u64,
    /// `retention.runs`.
    pub retention_ms: u64,
    /// `log.level`.
    pub log_level: Level,
    /// `log.format: json`.
    pub log_json: bool,
    /// `paths.snapshots`.
    pub snapshots: PathBuf,
    /// The root is for staging or a drill: loopback only, and nothing that reaches other systems.
    pub isolated: bool,
    /// `backup`; none without `backup.url`.
    pub replica: Option<ReplicaSettings>,
}

/// File in a root that makes it an isolated one, whatever its configuration says.
pub const ISOLATED: &str = "isolated.json";

/// Where the TLS files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPaths {
    /// Leaf certificate and chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// CA certificate.
    pub ca: PathBuf,
    /// CA key.
    pub ca_key: PathBuf,
}

/// `limits`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Held connections.
    pub held_connections: usize,
    /// Agent connections in all.
    pub connections: usize,
    /// API connections in all.
    pub api_connections: usize,
    /// TLS handshake.
    pub handshake_timeout_ms: u64,
    /// From the handshake to `Authenticate` or `Enroll`.
    pub authenticate_timeout_ms: u64,
    /// Without calls in flight.
    pub idle_timeout_ms: u64,
    /// Header of a request.
    pub header_bytes: usize,
    /// Body of a request.
    pub body_bytes: usize,
    /// Calls in flight of one connection.
    pub streams: u32,
    /// New connections a second from one address.
    pub rate_per_address: u32,
    /// Connections of one address that have not authenticated.
    pub unauthenticated_per_address: u32,
    /// Check-ins answered at once.
    pub checkins_per_second: u32,
    /// Writes that wait.
    pub pending_writes: usize,
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A file cannot be read.
    File(FileError),
    /// What is wrong in the files, all at once.
    Wrong(Vec<yaml::Error>),
    /// A restore is at work.
    Busy(LockError),
    /// An isolated root whose configuration leads out of it.
    NotIsolated {
        /// The root.
        root: PathBuf,
        /// What is not below it.
        path: PathBuf,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::File(error) => write!(f, "{error}"),
            ConfigError::Busy(error) => write!(f, "a restore is under way in this root ({error}): wait for it"),
            ConfigError::NotIsolated { root, path } => write!(
                f,
                "{} is isolated, and server.yaml names {}, which is not below it: write a relative path",
                root.display(),
                path.display()
            ),
            ConfigError::Wrong(errors) => f.write_str(&yaml::render(errors)),
        }
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        match &error {
            ConfigError::Wrong(errors) => {
                // The first in the one line; all of them, with the lines they stand in, below it.
                let first = errors.iter().min().map(yaml::Error::summary).unwrap_or_default();
                let more = match errors.len() {
                    0 | 1 => String::new(),
                    n => format!("{} more; run `vigosrv check-config`", n - 1),
                };
                Failure::new(Exit::BadConfig, first).hint(more)
            }
            ConfigError::Busy(_) => Failure::new(Exit::TryAgain, error.to_string()),
            ConfigError::File(_) | ConfigError::NotIsolated { .. } => Failure::new(Exit::BadConfig, error.to_string()),
        }
    }
}

impl ServerConfig {
    /// Where secrets are.
    pub fn secrets(&self) -> Place {
        Place { dir: self.secrets_dir.clone(), key: self.master_key.clone() }
    }

    /// Reads the configuration of a root. `file` is `server.yaml` there, unless it was named: then it must exist.
    ///
    /// From then on the values of secrets that it refers to are in nothing that this process logs or says.
    pub fn load(root: &Path, file: Option<&Path>) -> Result<ServerConfig, ConfigError> {
        settle(root)?;
        let docs = read(root, file)?;
        let (place, used) = (place(root, &docs), RefCell::new(Vec::new()));
        let open = |path: &str| {
            let value = value_of(&place, path)?;
            used.borrow_mut().push(value.clone());
            Ok(value)
        };
        let config = ServerConfig::from_docs(root, &docs, &open).map_err(ConfigError::Wrong)?.isolate()?;
        let mut used = used.into_inner();
        // One that stands in the file itself is as secret.
        used.extend(config.replica.as_ref().and_then(ReplicaSettings::secret).map(String::from));
        if !used.is_empty() {
            redaction::install(Arc::new(Filter::new(used.iter().map(String::as_str))));
        }
        Ok(config)
    }

    /// The same for a command that sets secrets: one that is missing does not stop it.
    pub fn load_for_secrets(root: &Path, file: Option<&Path>) -> Result<ServerConfig, ConfigError> {
        let docs = read(root, file)?;
        let place = place(root, &docs);
        // What is not there yet is a path at which there is nothing.
        let open = |path: &str| Ok(value_of(&place, path).unwrap_or_else(|_| format!("secret:{path}")));
        ServerConfig::from_docs(root, &docs, &open).map_err(ConfigError::Wrong)?.isolate()
    }

    /// Reads a configuration that is not in its root yet, with secrets that are not either.
    pub fn load_elsewhere(root: &Path, file: &Path, secrets: &Place) -> Result<ServerConfig, ConfigError> {
        let docs = read(root, Some(file))?;
        let open = |path: &str| value_of(secrets, path);
        ServerConfig::from_docs(root, &docs, &open).map_err(ConfigError::Wrong)
    }

    /// In an isolated root nothing is reached that a server beside it may use, whatever the files say.
    fn isolate(mut self) -> Result<ServerConfig, ConfigError> {
        if !self.root.join(ISOLATED).exists() {
            return Ok(self);
        }
        let tls = [&self.tls.cert, &self.tls.key, &self.tls.ca, &self.tls.ca_key];
        let places = [&self.database, &self.secrets_dir, &self.master_key, &self.snapshots];
        if let Some(path) = tls.into_iter().chain(places).find(|path| !path.starts_with(&self.root)) {
            return Err(ConfigError::NotIsolated { root: self.root.clone(), path: path.clone() });
        }
        let loopback = || HostPort { host: "127.0.0.1".into(), port: 0 };
        (self.grpc_listen, self.api_listen) = (loopback(), loopback());
        self.isolated = true;
        // Nor the replica: it is that of the server beside it.
        self.replica = None;
        Ok(self)
    }

    /// Checks documents that are loaded already.
    pub fn from_docs(root: &Path, docs: &[Doc], secrets: Secrets<'_>) -> Result<ServerConfig, Vec<yaml::Error>> {
        let settings = Settings::load_with(&table::TABLE, docs, secrets).map_err(|mut errors| {
            errors.extend(refuse_postgres(docs));
            errors
        })?;
        let mut errors = check_names(&settings, docs);
        let trusted = trusted::entries(&settings, docs, &mut errors);
        let replica = ReplicaSettings::of(&settings, docs, &mut errors);
        if errors.is_empty() { Ok(from_settings(root, &settings, trusted, replica)) } else { Err(errors) }
    }

    /// What the server's core obeys. `servers` is what envoys are told to dial, most preferred first.
    pub fn core(&self, servers: Vec<String>) -> app::Settings {
        app::Settings {
            interval_ms: self.interval_ms,
            bundle_max_age_ms: self.bundle_max_age_ms,
            hold: self.hold,
            held_connections_max: self.limits.held_connections,
            checkins_per_second: self.limits.checkins_per_second,
            pending_writes_max: self.limits.pending_writes,
            trusted: self.trusted.clone(),
            servers,
            version: common::cli::VERSION.to_string(),
        }
    }

    /// The identity key of docs/PROTOCOL.md, beside the CA.
    pub fn identity_key(&self) -> PathBuf {
        self.root.join("tls/identity_key")
    }

    /// The policy key of docs/PROTOCOL.md.
    pub fn policy_key(&self) -> PathBuf {
        self.root.join("tls/policy_key")
    }

    /// Sockets and generated files; never archived.
    pub fn run_dir(&self) -> PathBuf {
        self.root.join("run")
    }
}

/// `vigosrv check-config`: the text for stdout, or all errors as one text with exit status 78.
pub fn check(root: &Path, file: Option<&Path>) -> Result<String, (String, Exit)> {
    match ServerConfig::load(root, file) {
        Ok(_) if file.is_none() && !root.join("server.yaml").exists() => {
            Ok(format!("there is no {}: the defaults are used\n", root.join("server.yaml").display()))
        }
        Ok(_) => Ok("the configuration is valid\n".to_string()),
        Err(error) => Err((format!("{error}\n"), Exit::BadConfig)),
    }
}

/// `vigocli config server.yaml [SECTION]`: the annotated reference.
pub fn server_yaml_reference(section: Option<&str>) -> Result<String, Failure> {
    reference(&table::TABLE, section).map_err(Failure::usage)
}

/// A restore that died half way is taken back before anything is read: else two configurations would be mixed.
fn settle(root: &Path) -> Result<(), ConfigError> {
    if !swap::is_interrupted(root) {
        return Ok(());
    }
    match Lock::take(&root.join("run/lock"), "a restore that is taken back") {
        Ok(_lock) => swap::settle(root).map(|_| ()).map_err(ConfigError::File),
        Err(LockError::File(error)) => Err(ConfigError::File(error)),
        Err(busy) => Err(ConfigError::Busy(busy)),
    }
}

/// The two files.
fn read(root: &Path, file: Option<&Path>) -> Result<Vec<Doc>, ConfigError> {
    let path = file.map_or_else(|| root.join("server.yaml"), Path::to_path_buf);
    let local = path.with_file_name("server.local.yaml");
    let mut docs = Vec::new();
    for (path, must_exist) in [(path, file.is_some()), (local, false)] {
        match file::read_bounded(&path, limits::YAML_BYTES_MAX as u64) {
            Ok(bytes) => {
                let doc = Doc::load(&path.display().to_string(), &bytes);
                docs.push(doc.map_err(|error| ConfigError::Wrong(vec![error]))?);
            }
            Err(error) if error.kind == std::io::ErrorKind::NotFound && !must_exist => {}
            Err(error) => return Err(ConfigError::File(error)),
        }
    }
    Ok(docs)
}

/// Where secrets are by the section `secrets` alone: it refers to none, and all else may.
fn place(root: &Path, docs: &[Doc]) -> Place {
    let given = |key: &str| {
        let text = docs.iter().rev().find_map(|doc| doc.root().as_map()?.get("secrets")?.as_map()?.get(key)?.as_str());
        text.map(|text| root.join(text))
    };
    let usual = Place::of_root(root);
    Place { dir: given("secrets_dir").unwrap_or(usual.dir), key: given("key_file").unwrap_or(usual.key) }
}

/// The value of a secret that a setting refers to, or what is wrong and what to do.
fn value_of(place: &Place, path: &str) -> Result<String, (String, String)> {
    let set = || format!("set it: `vigocli secrets set {path}`");
    match place.get(path) {
        Ok(secret) => String::from_utf8(secret.value.to_vec()).map_err(|_| ("which is no text".into(), set())),
        Err(SecretError::Unknown(_)) => Err(("which is not set".into(), set())),
        Err(error) => Err((format!("which does not open: {error}"), String::new())),
    }
}

/// What the table cannot check: names for the certificate, and two keys that must differ.
fn check_names(settings: &Settings, docs: &[Doc]) -> Vec<yaml::Error> {
    let mut errors = Vec::new();
    let fits = |name: &str| {
        let host = name.strip_prefix("*.").unwrap_or(name);
        host.parse::<std::net::IpAddr>().is_ok() || ids::is_hostname(host)
    };
    for name in settings.list("server.tls_sans").iter().filter(|name| !fits(name)) {
        let error = settings.error(docs, "server.tls_sans", format!("`server.tls_sans` has `{name}`"));
        errors.push(error.expected("a host name or an address"));
    }
    let (grpc, api) = (settings.text("server.grpc_listen"), settings.text("server.api_listen"));
    if grpc == api && !grpc.ends_with(":0") {
        let error =
            settings.error(docs, "server.api_listen", format!("`server.api_listen` is {api}, as `server.grpc_listen`"));
        errors.push(error.expected("another port"));
    }
    errors
}

fn from_settings(
    root: &Path,
    settings: &Settings,
    trusted: Vec<TrustedEntry>,
    replica: Option<ReplicaSettings>,
) -> ServerConfig {
    let path = |key| root.join(settings.text(key));
    // Checked by `Form::Listen`; the default cannot be reached.
    let listen =
        |key| HostPort::parse(settings.text(key), Some(0)).unwrap_or(HostPort { host: String::new(), port: 0 });
    let small = |key| u32::try_from(settings.number(key)).unwrap_or(u32::MAX);
    let count = |key| usize::try_from(settings.number(key)).unwrap_or(usize::MAX);
    ServerConfig {
        root: root.to_path_buf(),
        grpc_listen: listen("server.grpc_listen"),
        api_listen: listen("server.api_listen"),
        hostname: settings.text("server.hostname").to_string(),
        tls: TlsPaths {
            cert: path("server.tls.cert_file"),
            key: path("server.tls.key_file"),
            ca: path("server.tls.ca_file"),
            ca_key: path("server.tls.ca_key_file"),
        },
        tls_sans: settings.list("server.tls_sans").to_vec(),
        database: path("database.dsn"),
        secrets_dir: path("secrets.secrets_dir"),
        master_key: path("secrets.key_file"),
        interval_ms: settings.number("checkin.interval"),
        bundle_max_age_ms: settings.number("checkin.bundle_max_age"),
        hold: match settings.text("checkin.hold") {
            "always" => Hold::Always,
            "never" => Hold::Never,
            _ => Hold::Auto,
        },
        trusted,
        limits: ServerLimits {
            held_connections: count("limits.held_connections"),
            connections: count("limits.connections"),
            api_connections: count("limits.api_connections"),
            handshake_timeout_ms: settings.number("limits.handshake_timeout"),
            authenticate_timeout_ms: settings.number("limits.authenticate_timeout"),
            idle_timeout_ms: settings.number("limits.idle_timeout"),
            header_bytes: count("limits.header_bytes"),
            body_bytes: count("limits.body_bytes"),
            streams: small("limits.streams"),
            rate_per_address: small("limits.rate_per_address"),
            unauthenticated_per_address: small("limits.unauthenticated_per_address"),
            checkins_per_second: small("limits.checkins_per_second"),
            pending_writes: count("limits.pending_writes"),
        },
        retention_bytes: settings.number("retention.max_bytes"),
        retention_ms: settings.number("retention.runs"),
        log_level: Level::from_name(settings.text("log.level")).unwrap_or(Level::Info),
        log_json: settings.text("log.format") == "json",
        snapshots: path("paths.snapshots"),
        isolated: false,
        replica,
    }
}

#[cfg(test)]
mod tests;
