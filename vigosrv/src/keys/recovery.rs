//! What lets a rebuilt server prove itself to the envoys of the one that was lost: the public recovery key that envoys pin, and
//! the recovery statement that the key's private half signed. The private half is in recovery kits only, never here.

use std::path::PathBuf;

use common::bundle;
use common::crypto::{Context, PublicKey, Purpose, SigningKey, server_id, sha256};
use common::ids::{hex, unhex};
use common::limits;
use common::proto::{Message, wire};
use common::rng::Rng;
use common::sys::{Owner, file};
use common::time::Wall;

use super::kit::Kit;
use super::{KeyError, Keys, load_seed, load_seed_bytes, tls};
use crate::app::Rebuilt;
use crate::config::ServerConfig;

const PUBLIC_MAGIC: &str = "vigo-recovery-key-v1";
const STATEMENT_MAGIC: &str = "vigo-recovery-statement-v1";
/// Bytes that either file may have.
const FILE_BYTES_MAX: u64 = 16 << 10;
/// Epochs above that of a kit that a rebuilt server begins with: the lost server may have been restored that often since the kit
/// was made, and its envoys refuse a lower epoch than they have met.
const EPOCHS_AHEAD: u64 = 1_000;

/// Makes the kit of a server as it is on the disk. Makes no key; `recovery` is a fresh one where that is wanted.
pub fn make_kit(
    config: &ServerConfig,
    hostname: String,
    epoch: u64,
    now: Wall,
    recovery: Option<SigningKey>,
) -> Result<Kit, KeyError> {
    Ok(Kit {
        made: now,
        hostname,
        identity: load_seed(&config.identity_key(), Purpose::Identity)?.public(),
        policy: load_seed(&config.policy_key(), Purpose::Policy)?.public(),
        ca_hash: sha256(&[&tls::load_ca(&config.tls)?.der]),
        epoch,
        master: load_seed_bytes(&config.master_key, Purpose::Master)?,
        recovery,
    })
}

/// A new recovery key.
pub fn new_recovery_key(rng: &mut dyn Rng) -> SigningKey {
    SigningKey::generate(rng)
}

/// The public half of a server's recovery key, and how it came to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecoveryPublic {
    /// The key, where one was made.
    pub key: Option<PublicKey>,
    /// Each key that took the place of another, signed by that other, oldest first.
    pub succession: Vec<wire::Signed>,
}

/// Reads what is public of the recovery key.
pub fn recovery_public(config: &ServerConfig) -> Result<RecoveryPublic, KeyError> {
    let path = public_path(config);
    if !path.exists() {
        return Ok(RecoveryPublic::default());
    }
    let wrong = || KeyError::Recovery { path: path.clone(), what: "public recovery key" };
    let text = String::from_utf8(file::read_bounded(&path, FILE_BYTES_MAX)?).map_err(|_| wrong())?;
    let mut lines = text.lines();
    let key = lines.next().and_then(|line| line.strip_prefix(PUBLIC_MAGIC)?.strip_prefix(' ')).and_then(unhex);
    let key = PublicKey::try_from_slice(&key.ok_or_else(wrong)?).map_err(|_| wrong())?;
    let step = |line: &str| {
        let (payload, signature) = line.strip_prefix("followed-by ")?.split_once(' ')?;
        let payload = unhex(payload).filter(|bytes| bytes.len() == 32)?;
        Some(wire::Signed { payload: payload.into(), signature: unhex(signature)?, sealed: Vec::new() })
    };
    let succession = lines.map(|line| step(line).ok_or_else(wrong)).collect::<Result<_, _>>()?;
    Ok(RecoveryPublic { key: Some(key), succession })
}

/// Gives this server a recovery key: from its next start on, envoys learn it. Those that have another one do where `before`, the
/// private half of that, signs it.
pub fn put_recovery_public(
    config: &ServerConfig,
    key: &PublicKey,
    before: Option<&SigningKey>,
) -> Result<(), KeyError> {
    let mut steps = recovery_public(config)?.succession;
    steps.extend(before.map(|before| bundle::sign(before, Context::RecoveryKey, key.as_bytes().to_vec())));
    let too_many = steps.len().saturating_sub(limits::RECOVERY_KEYS_MAX);
    let steps = steps.iter().skip(too_many);
    let lines = steps.map(|signed| format!("followed-by {} {}\n", hex(&signed.payload), hex(&signed.signature)));
    let text = format!("{PUBLIC_MAGIC} {}\n{}", hex(key.as_bytes()), lines.collect::<String>());
    Ok(file::write_atomic(&public_path(config), text.as_bytes(), 0o644, Some(Owner::of(&config.root)?))?)
}

/// Puts this server in the place of the one that a kit is of: the statement is shown from the next start on. Gives back the
/// epoch that it states. `None`: the kit holds no recovery key.
pub fn recover(
    config: &ServerConfig,
    keys: &Keys,
    kit: &Kit,
    own_epoch: u64,
    expires: Wall,
) -> Result<Option<u64>, KeyError> {
    let Some(recovery) = &kit.recovery else { return Ok(None) };
    let epoch = own_epoch.max(kit.epoch.saturating_add(EPOCHS_AHEAD));
    let statement = wire::RecoveryStatement {
        old_server_id: kit.server_id().0.0.to_vec(),
        ca_hash: keys.ca_hash.0.to_vec(),
        identity_key: keys.identity.public().as_bytes().to_vec(),
        policy_key: keys.policy.public().as_bytes().to_vec(),
        epoch,
        expires_ms: expires.ms(),
    };
    let signed = bundle::sign(recovery, Context::Recovery, statement.encode_to_vec());
    let text = format!(
        "{STATEMENT_MAGIC}\nstatement {}\nsignature {}\nold-identity-key {}\n",
        hex(&signed.payload),
        hex(&signed.signature),
        hex(kit.identity.as_bytes()),
    );
    put_recovery_public(config, &recovery.public(), None)?;
    let owner = Owner::of(&config.root)?;
    file::write_atomic(&statement_path(config), text.as_bytes(), 0o644, Some(owner))?;
    Ok(Some(epoch))
}

/// The statement of this server; a note instead where there is one that no envoy would follow any more.
pub(super) fn load_statement(
    config: &ServerConfig,
    identity: &PublicKey,
    policy: &PublicKey,
    ca_hash: &[u8],
    now: Wall,
) -> Result<(Option<Rebuilt>, Option<String>), KeyError> {
    let path = statement_path(config);
    if !path.exists() {
        return Ok((None, None));
    }
    let wrong = || KeyError::Recovery { path: path.clone(), what: "recovery statement" };
    let text = String::from_utf8(file::read_bounded(&path, FILE_BYTES_MAX)?).map_err(|_| wrong())?;
    let mut lines = text.lines();
    if lines.next() != Some(STATEMENT_MAGIC) {
        return Err(wrong());
    }
    let mut field = |key: &str| {
        let digits = lines.next().and_then(|line| line.strip_prefix(key)?.strip_prefix(' '));
        digits.and_then(unhex).ok_or_else(wrong)
    };
    let (payload, signature, old) = (field("statement")?, field("signature")?, field("old-identity-key")?);
    let statement = wire::RecoveryStatement::decode(&payload[..]).map_err(|_| wrong())?;
    let old_identity = PublicKey::try_from_slice(&old).map_err(|_| wrong())?;
    if statement.old_server_id != server_id(&old_identity).0.0 {
        return Err(wrong());
    }
    let fits = statement.identity_key == identity.as_bytes()
        && statement.policy_key == policy.as_bytes()
        && statement.ca_hash == ca_hash;
    let note = if !fits {
        "it was made for other keys than those in tls/"
    } else if statement.expires_ms <= now.ms() {
        "it has run out"
    } else {
        let signed = wire::Signed { payload: payload.into(), signature, sealed: Vec::new() };
        return Ok((Some(Rebuilt { statement: signed, old_identity, epoch: statement.epoch }), None));
    };
    let note = format!(
        "{} is shown to no envoy: {note}; where envoys still wait for it, `vigocli server recover --kit FILE` makes another",
        path.display()
    );
    Ok((None, Some(note)))
}

fn public_path(config: &ServerConfig) -> PathBuf {
    config.root.join("tls/recovery_public")
}

fn statement_path(config: &ServerConfig) -> PathBuf {
    config.root.join("tls/recovery_statement")
}
