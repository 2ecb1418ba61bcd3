//! The REST API: what operators and tools ask. Handlers decide and answer; they never block the API loop: what the core must
//! do goes to its loop as an event, what must be read goes to the job pool, and the answer comes when it comes.
//!
//! Until users exist, everything but `/health`, `/metrics`, `/bootstrap` and `/agents/*` is for the admin socket only.

mod backups;
mod bootstrap;
pub mod chunked;
mod config;
mod envoys;
mod health;
pub mod http;
mod message;
mod metrics;
mod openapi;
mod runs;
mod secrets;
#[cfg(test)]
mod tests;

pub(crate) use backups::document as archive_document;
pub use bootstrap::TARGETS;
pub use message::{Body, Origin, Request, Respond, Response};

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use common::time::Now;

use crate::app::{AdminError, AdminReply, AdminRequest};
use crate::fleet::{Clocks, Fleet};
use crate::litestream::state::Watch;
use crate::policy::Compiled;
use crate::store::read::Reader;

/// How handlers reach the rest of the server.
pub trait Backend: Send + Sync {
    /// Asks the core; the answer comes on the core's thread.
    fn core(&self, request: AdminRequest, then: Box<dyn FnOnce(Result<AdminReply, AdminError>) + Send>);
    /// Runs something slow in the job pool. False when the pool is full.
    fn job(&self, job: Box<dyn FnOnce() + Send>) -> bool;
    /// Runs a query in the job pool. False when the pool is full.
    fn read(&self, query: Box<dyn FnOnce(&mut Reader) + Send>) -> bool;
    /// Both clocks.
    fn now(&self) -> Now;
    /// 64 random bytes for tokens.
    fn random(&self) -> [u8; 32];
}

/// What handlers know.
pub struct Context {
    /// The rest of the server.
    pub backend: Arc<dyn Backend>,
    /// The index.
    pub fleet: Arc<Fleet>,
    /// What is published, as compiled: a publish compares with it.
    pub live: Arc<std::sync::Mutex<Option<Arc<Compiled>>>>,
    /// The server root.
    pub root: PathBuf,
    /// `database.dsn`.
    pub database: PathBuf,
    /// `paths.snapshots`.
    pub snapshots: PathBuf,
    /// Check-in interval in milliseconds.
    pub interval_ms: u64,
    /// After a restore, until when nobody counts as plainly offline.
    pub restore_until: common::time::Mono,
    /// Where secrets are.
    pub secrets: crate::secrets::Place,
    /// Held from reading secrets to telling the core, so that what was read later is told later.
    pub secrets_turn: std::sync::Mutex<()>,
    /// What envoys dial.
    pub servers: Vec<String>,
    /// Address of the API as envoys reach it, for the bootstrap line.
    pub api_address: String,
    /// Server id, CA hash, policy key hash: what a bootstrap line must carry.
    pub trust: Trust,
    /// How replication is; none where it is not wanted.
    pub replication: Option<Watch>,
    /// When the server started.
    pub started: Now,
    /// The last shutdown was not clean, or something else that `status` should say.
    pub notes: Vec<String>,
    /// What the check of the whole database found, once it found something.
    pub damage: Arc<OnceLock<String>>,
    /// When the newest archive was made, and when one was last proved to be good.
    pub backup_times: BackupTimes,
}

/// Asks the disk for two times, in seconds since 1970.
pub type BackupTimes = Arc<dyn Fn() -> (Option<u64>, Option<u64>) + Send + Sync>;

/// Public facts of the server's identity.
#[derive(Clone, Debug, PartialEq)]
pub struct Trust {
    /// Server id.
    pub server_id: common::ids::ServerId,
    /// PEM of the CA.
    pub ca_pem: String,
    /// SHA-256 of its DER.
    pub ca_hash: common::ids::Hash32,
    /// Policy key.
    pub policy_key: common::crypto::PublicKey,
    /// Identity key.
    pub identity_key: common::crypto::PublicKey,
}

impl Trust {
    /// What `enroll --trust-hash` compares: SHA-256 over CA hash, identity key and policy key.
    pub fn hash(&self) -> common::ids::Hash32 {
        common::crypto::trust_hash(&self.ca_hash, &self.identity_key, &self.policy_key)
    }
}

impl Context {
    /// Answers one request, now or later.
    pub fn handle(self: &Arc<Self>, request: Request, respond: Respond) {
        let segments = request.segments();
        let path: Vec<&str> = segments.iter().map(String::as_str).collect();
        // The loop leaves the body of an answer to HEAD out.
        let method = if request.method == "HEAD" { "GET" } else { request.method.as_str() };
        let route = (method, path.as_slice());
        // Open to everybody.
        match route {
            ("GET", ["health"] | ["api", "v1", "health"]) => return health::health(self, respond),
            ("GET", ["metrics"] | ["api", "v1", "metrics"]) => return metrics::metrics(self, respond),
            ("GET", ["bootstrap"]) => return respond(bootstrap::script(self, &request)),
            ("GET", ["agents", name]) => return respond(bootstrap::agent(self, name)),
            _ => {}
        }
        if request.origin == Origin::Https {
            let hint = "use vigocli on the server's host: it speaks through run/admin.sock";
            return respond(Response::error(401, "unauthenticated", "this needs an operator", hint));
        }
        let Some(rest) = path.strip_prefix(&["api", "v1"]) else {
            return respond(not_found(&request));
        };
        match (method, rest) {
            ("GET", ["openapi.json"]) => respond(openapi::document()),
            ("GET", ["status"]) => health::status(self, respond),
            ("GET", ["envoys"]) => respond(envoys::list(self, &request)),
            ("GET", ["envoys", name]) => envoys::show(self, name, respond),
            ("GET", ["envoys", name, "traits"]) => envoys::traits(self, name, respond),
            ("POST", ["envoys", action @ ("push" | "rebootstrap")]) => envoys::act_all(self, &request, action, respond),
            ("POST", ["envoys", name, action]) => envoys::act(self, &request, name, action, respond),
            ("POST", ["tokens"]) => envoys::invite(self, &request, respond),
            ("GET", ["runs"]) => runs::list(self, &request, respond),
            ("GET", ["runs", id]) => runs::show(self, id, respond),
            ("GET", ["events"]) => runs::events(self, &request, respond),
            ("GET", ["config", "status" | "version"]) => config::status(self, respond),
            ("POST", ["config", "validate"]) => config::validate(self, respond),
            ("GET", ["backups"]) => backups::list(self, respond),
            ("GET", ["backups", name]) => respond(backups::download(self, name)),
            ("GET", ["secrets"]) => secrets::list(self, respond),
            ("POST", ["secrets", "changed"]) => secrets::changed(self, &request, respond),
            ("POST", ["config", "publish"]) => config::publish(self, &request, respond),
            _ => respond(not_found(&request)),
        }
    }

    pub(crate) fn clocks(&self) -> Clocks {
        Clocks { now: self.backend.now().mono, restore_until: self.restore_until, interval_ms: self.interval_ms }
    }

    /// Runs a query, or says that the server is busy.
    pub(crate) fn read(&self, respond: Respond, query: impl FnOnce(&mut Reader) -> Response + Send + 'static) {
        // The answer must be given exactly once, by the pool or, when it is full, here.
        let slot = Arc::new(std::sync::Mutex::new(Some(respond)));
        let inside = slot.clone();
        let accepted = self.backend.read(Box::new(move |reader| {
            let response = query(reader);
            if let Some(respond) = take(&inside) {
                respond(response);
            }
        }));
        if !accepted && let Some(respond) = take(&slot) {
            respond(busy());
        }
    }

    /// Runs something slow, or says that the server is busy.
    pub(crate) fn job(&self, respond: Respond, job: impl FnOnce(Respond) + Send + 'static) {
        let slot = Arc::new(std::sync::Mutex::new(Some(respond)));
        let inside = slot.clone();
        let accepted = self.backend.job(Box::new(move || {
            if let Some(respond) = take(&inside) {
                job(respond);
            }
        }));
        if !accepted && let Some(respond) = take(&slot) {
            respond(busy());
        }
    }

    /// Asks the core and turns its answer into a document.
    pub(crate) fn core(
        &self,
        request: AdminRequest,
        respond: Respond,
        show: impl FnOnce(AdminReply) -> Response + Send + 'static,
    ) {
        self.backend.core(
            request,
            Box::new(move |result| {
                respond(match result {
                    Ok(reply) => show(reply),
                    Err(error) => refused(&error),
                });
            }),
        );
    }
}

fn take(slot: &std::sync::Mutex<Option<Respond>>) -> Option<Respond> {
    slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
}

fn busy() -> Response {
    Response::error(503, "busy", "the server has too much to read at once", "try again in a moment")
}

fn not_found(request: &Request) -> Response {
    let message = format!("there is no {} {}", request.method, request.path);
    Response::error(404, "not_found", &message, "GET /api/v1/openapi.json lists what there is")
}

fn refused(error: &AdminError) -> Response {
    match error {
        AdminError::UnknownEnvoy => {
            Response::error(404, "unknown_envoy", "no such envoy", "`vigocli nodes` lists them")
        }
        AdminError::NameTaken => Response::error(
            409,
            "name_taken",
            "another envoy has this host name",
            "rename or revoke the other one first",
        ),
        AdminError::Conflict(text) => Response::error(409, "conflict", text, ""),
        AdminError::Store(error) => Response::error(503, "store", &error.to_string(), "nothing was changed"),
        AdminError::ReadOnly => Response::error(
            409,
            "read_only",
            "this server has a lower epoch than one that its envoys met, and is read-only",
            "work on the server that was promoted or restored",
        ),
    }
}
