//! The keys and certificates of docs/PROTOCOL.md: made at the first start, checked at every start, never overwritten.
//!
//! A shell. What is written belongs to the owner of the server root. A first start that was interrupted goes on where it
//! was (a marker file says so); at any other time a missing key is refused, because a new one would orphan the fleet.

mod error;
mod kit;
mod recovery;
mod tickets;
mod tls;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use common::crypto::{self, Context, KEY_FILE_BYTES_MAX, Purpose, SigningKey, parse_seed, seed_text};
use common::ids::{Hash32, ServerId};
use common::rng::Rng;
use common::sys::{Owner, file};
use common::time::Wall;

use crate::app;
use crate::config::ServerConfig;
pub use error::KeyError;
pub use kit::{Kit, KitError};
pub use recovery::{RecoveryPublic, make_kit, new_recovery_key, put_recovery_public, recover, recovery_public};
pub use tickets::{TicketKey, TicketKeys};
pub use tls::Leaf;

/// Everything that a server proves itself with.
#[derive(Debug)]
pub struct Keys {
    /// Hash of the identity key.
    pub server_id: ServerId,
    /// Long-lived trust anchor.
    pub identity: SigningKey,
    /// Signs bundles and assignments.
    pub policy: SigningKey,
    /// By the identity key over the policy key ([`Context::PolicyKey`]).
    pub policy_key_signature: [u8; 64],
    /// CA certificate, for envoys.
    pub ca_pem: String,
    /// The same.
    pub ca_der: Vec<u8>,
    /// SHA-256 of it.
    pub ca_hash: Hash32,
    /// What the listeners show.
    pub leaf: Leaf,
    /// Session tickets.
    pub tickets: TicketKeys,
    /// Public recovery key, where one was made.
    pub recovery: RecoveryPublic,
    /// On a rebuilt server: what its envoys are shown.
    pub rebuilt: Option<app::Rebuilt>,
    /// What this start made, for the log: `tls/ca`, ...
    pub made: Vec<String>,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// What keys depend on besides the files.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Wall clock.
    pub now: Wall,
    /// What envoys are told to dial: `server.hostname`, or the host's own name.
    pub hostname: String,
    /// Addresses of the interfaces.
    pub addresses: Vec<IpAddr>,
}

impl Surroundings {
    /// Of this host.
    pub fn of_host(config: &ServerConfig, now: Wall) -> Surroundings {
        let hostname = if config.hostname.is_empty() { common::sys::net::hostname() } else { config.hostname.clone() };
        let addresses = common::sys::net::interface_addresses().into_iter().map(|found| found.address).collect();
        Surroundings { now, hostname, addresses }
    }
}

impl Keys {
    /// Makes what is missing at a first start, and loads everything. The caller holds the lock of the root.
    pub fn prepare(config: &ServerConfig, around: &Surroundings, rng: &mut dyn Rng) -> Result<Keys, KeyError> {
        let owner = make_directories(config)?;
        let mut made = Vec::new();
        let marker = config.root.join("tls/.first-start");
        let (trust, leaf) = (trust_files(config), [config.tls.cert.clone(), config.tls.key.clone()]);
        let interrupted = marker.exists();
        let first = interrupted || !trust.iter().any(|path| path.exists());
        if !first {
            belong_together(&trust)?;
        }
        // The operator may supply the leaf: both halves of it. An interrupted first start leaves its key alone.
        if !interrupted || leaf[0].exists() {
            belong_together(&leaf)?;
        }
        if first {
            if config.database.exists() && !interrupted {
                return Err(KeyError::KeysLost { database: config.database.clone(), missing: trust[0].clone() });
            }
            file::write_atomic(&marker, b"the first start has not finished\n", 0o600, Some(owner))?;
            make_trust(config, around.now, rng, owner, &mut made)?;
        }
        make_master_key(config, rng, owner, &mut made)?;
        let ca = tls::load_ca(&config.tls)?;
        let names = tls::wanted_names(&around.hostname, &config.tls_sans, &around.addresses);
        let (leaf, issued) = tls::ready_leaf(&config.tls, &ca, &names, around.now, owner)?;
        if issued {
            made.push(short(config, &config.tls.cert));
        }
        let identity = load_seed(&config.identity_key(), Purpose::Identity)?;
        let policy = load_seed(&config.policy_key(), Purpose::Policy)?;
        let tickets = TicketKeys::load(&ticket_keys_path(config), around.now, rng, Some(owner))?;
        if first {
            std::fs::remove_file(&marker).map_err(|e| common::sys::FileError::new("remove", &marker, &e))?;
            file::sync_dir(&config.root.join("tls"))?;
        }
        let ca_hash = crypto::sha256(&[&ca.der]);
        let (rebuilt, note) =
            recovery::load_statement(config, &identity.public(), &policy.public(), &ca_hash.0, around.now)?;
        Ok(Keys {
            recovery: recovery_public(config)?,
            rebuilt,
            notes: note.into_iter().collect(),
            server_id: crypto::server_id(&identity.public()),
            policy_key_signature: identity.sign(Context::PolicyKey, policy.public().as_bytes()),
            ca_hash,
            ca_der: ca.der.to_vec(),
            ca_pem: ca.pem,
            identity,
            policy,
            leaf,
            tickets,
            made,
        })
    }

    /// What the server's core gets, what the listeners get.
    pub fn into_parts(self) -> (app::Identity, Leaf, TicketKeys) {
        let identity = app::Identity {
            server_id: self.server_id,
            identity: self.identity,
            policy: self.policy,
            policy_key_signature: self.policy_key_signature.to_vec(),
            ca_pem: self.ca_pem,
            ca_hash: self.ca_hash,
            recovery: self.recovery.key,
            recovery_succession: self.recovery.succession,
            rebuilt: self.rebuilt,
        };
        (identity, self.leaf, self.tickets)
    }
}

/// The leaf again while the server runs, where it is due: `None` when it is not. To be asked daily.
pub fn renew_leaf(config: &ServerConfig, around: &Surroundings) -> Result<Option<Leaf>, KeyError> {
    let ca = tls::load_ca(&config.tls)?;
    let names = tls::wanted_names(&around.hostname, &config.tls_sans, &around.addresses);
    let (leaf, issued) = tls::ready_leaf(&config.tls, &ca, &names, around.now, Owner::of(&config.root)?)?;
    Ok(issued.then_some(leaf))
}

/// Names of this host that a leaf certificate lacks, and whether it is one that we renew ourselves. Changes nothing.
pub fn leaf_lacks(
    tls: &crate::config::TlsPaths,
    hostname: &str,
    sans: &[String],
    addresses: &[IpAddr],
) -> Result<(bool, Vec<String>), KeyError> {
    let ca = tls::load_ca(tls)?;
    tls::lacks(tls, &ca, &tls::wanted_names(hostname, sans, addresses))
}

/// The file of the session ticket keys.
pub fn ticket_keys_path(config: &ServerConfig) -> PathBuf {
    config.run_dir().join("ticket_keys")
}

/// Makes the directories of a server root; 0700 where keys or other people's data live. Returns who everything belongs to.
pub fn make_directories(config: &ServerConfig) -> Result<Owner, KeyError> {
    file::make_dir(&config.root, 0o755, None)?;
    let owner = Owner::of(&config.root)?;
    let private = [config.root.join("tls"), config.run_dir(), config.secrets_dir.clone(), config.snapshots.clone()];
    let parents = [&config.database, &config.tls.key, &config.tls.ca_key, &config.master_key].map(|path| path.parent());
    for dir in private.iter().map(PathBuf::as_path).chain(parents.into_iter().flatten()) {
        file::make_dir(dir, 0o700, Some(owner))?;
    }
    for dir in ["stacks", "agents"].map(|name| config.root.join(name)) {
        file::make_dir(&dir, 0o755, Some(owner))?;
    }
    Ok(owner)
}

/// The files that make a server the one that its envoys trust.
fn trust_files(config: &ServerConfig) -> [PathBuf; 4] {
    [config.identity_key(), config.policy_key(), config.tls.ca.clone(), config.tls.ca_key.clone()]
}

fn belong_together(paths: &[PathBuf]) -> Result<(), KeyError> {
    let present = paths.iter().find(|path| path.exists());
    let missing = paths.iter().find(|path| !path.exists());
    match (present, missing) {
        (Some(present), Some(missing)) => Err(KeyError::Missing { present: present.clone(), missing: missing.clone() }),
        _ => Ok(()),
    }
}

fn make_trust(
    config: &ServerConfig,
    now: Wall,
    rng: &mut dyn Rng,
    owner: Owner,
    made: &mut Vec<String>,
) -> Result<(), KeyError> {
    for (path, purpose) in [(config.identity_key(), Purpose::Identity), (config.policy_key(), Purpose::Policy)] {
        make_seed(&path, purpose, rng, owner)?.then(|| made.push(short(config, &path)));
    }
    // The certificate is written after its key: a key alone is what an interrupted first start leaves.
    if !config.tls.ca.exists() {
        if config.tls.ca_key.exists() {
            std::fs::remove_file(&config.tls.ca_key)
                .map_err(|e| common::sys::FileError::new("remove", &config.tls.ca_key, &e))?;
        }
        tls::make_ca(&config.tls, now, owner)?;
        made.push(short(config, &config.tls.ca));
    }
    Ok(())
}

/// Makes the directories and the master key where they are missing: secrets may be set before the first start.
pub fn prepare_master(config: &ServerConfig, rng: &mut dyn Rng) -> Result<(), KeyError> {
    let owner = make_directories(config)?;
    make_master_key(config, rng, owner, &mut Vec::new())
}

fn make_master_key(
    config: &ServerConfig,
    rng: &mut dyn Rng,
    owner: Owner,
    made: &mut Vec<String>,
) -> Result<(), KeyError> {
    let path = &config.master_key;
    if make_seed(path, Purpose::Master, rng, owner)? {
        made.push(short(config, path));
    }
    load_seed_bytes(path, Purpose::Master).map(|_| ())
}

/// Makes a key file unless it is there. Returns whether it did.
fn make_seed(path: &Path, purpose: Purpose, rng: &mut dyn Rng, owner: Owner) -> Result<bool, KeyError> {
    if path.exists() {
        return Ok(false);
    }
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    rng.fill(&mut *seed);
    file::write_new(path, seed_text(purpose, &seed).as_bytes(), 0o600, Some(owner))?;
    Ok(true)
}

fn load_seed(path: &Path, purpose: Purpose) -> Result<SigningKey, KeyError> {
    load_seed_bytes(path, purpose).map(|seed| SigningKey::from_seed(*seed))
}

fn load_seed_bytes(path: &Path, purpose: Purpose) -> Result<zeroize::Zeroizing<[u8; 32]>, KeyError> {
    file::check_private(path)?;
    let text = zeroize::Zeroizing::new(file::read_bounded(path, KEY_FILE_BYTES_MAX)?);
    parse_seed(purpose, &text).map_err(|reason| KeyError::Seed { path: path.into(), reason })
}

/// A path as it is below the root.
fn short(config: &ServerConfig, path: &Path) -> String {
    path.strip_prefix(&config.root).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests;
