//! The file of the pins: a line with a checksum, then JSON that a person can read. A flipped bit in a pinned key would
//! otherwise look like a server that changed.

use common::bundle::Receipt;
use common::crypto::{self, PublicKey};
use common::ids::{Hash32, ServerId, hex, unhex};
use common::proto::wire;
use serde::{Deserialize, Serialize};

use super::Enrollment;
use crate::agent::pins::{FORMER_KEYS_MAX, FormerKey, NONCES_MAX, PinnedServer, Pins, SpentNonce};

const MAGIC: &str = "vigo-pins-v1 ";

#[derive(Serialize, Deserialize)]
struct File {
    uuid: String,
    server: Server,
    former: Vec<Former>,
    nonces: Vec<Nonce>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    former_uuid: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Server {
    identity_key: String,
    policy_key: String,
    recovery_key: Option<String>,
    ca_pem: String,
    ca_hash: String,
    epoch: u64,
    receipt: Option<Signed>,
    hostname: String,
    servers: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Signed {
    payload: String,
    signature: String,
}

#[derive(Serialize, Deserialize)]
struct Former {
    server: String,
    policy_key: String,
}

#[derive(Serialize, Deserialize)]
struct Nonce {
    nonce: String,
    expires_ms: u64,
}

/// The bytes of the file.
pub(super) fn encode(enrollment: &Enrollment) -> Vec<u8> {
    let Pins { server, former, nonces, former_uuid } = &enrollment.pins;
    let key = |key: &PublicKey| hex(key.as_bytes());
    let receipt = server.receipt.as_ref();
    let content = File {
        uuid: enrollment.uuid.to_string(),
        server: Server {
            identity_key: key(&server.identity_key),
            policy_key: key(&server.policy_key),
            recovery_key: server.recovery_key.as_ref().map(key),
            ca_pem: server.ca_pem.clone(),
            ca_hash: server.ca_hash.to_string(),
            epoch: server.epoch,
            receipt: receipt.map(|it| Signed { payload: hex(&it.payload), signature: hex(&it.signature) }),
            hostname: server.hostname.clone(),
            servers: server.servers.clone(),
        },
        former: former
            .iter()
            .map(|it| Former { server: it.server.to_string(), policy_key: key(&it.policy_key) })
            .collect(),
        nonces: nonces.iter().map(|it| Nonce { nonce: hex(&it.nonce), expires_ms: it.expires_ms }).collect(),
        former_uuid: former_uuid.map(|uuid| uuid.to_string()),
    };
    // Texts and numbers in fixed structs always serialise.
    let json = serde_json::to_string_pretty(&content).unwrap_or_default();
    format!("{MAGIC}{}\n{json}\n", crypto::sha256(&[json.as_bytes()])).into_bytes()
}

/// What the bytes of the file say; the error completes "PATH: ...".
pub(super) fn decode(bytes: &[u8]) -> Result<Enrollment, String> {
    let damaged = || "it is damaged (its checksum does not fit)".to_string();
    let text = std::str::from_utf8(bytes).map_err(|_| damaged())?;
    let (checksum, json) = text.strip_prefix(MAGIC).and_then(|rest| rest.split_once('\n')).ok_or_else(damaged)?;
    let json = json.strip_suffix('\n').ok_or_else(damaged)?;
    if crypto::sha256(&[json.as_bytes()]).to_string() != checksum {
        return Err(damaged());
    }
    // Behind the checksum a mistake is a person's or another version's.
    let content: File = serde_json::from_str(json).map_err(|e| format!("it does not hold pins: {e}"))?;
    checked(content).map_err(|field| format!("it does not hold pins: `{field}` is wrong"))
}

fn checked(content: File) -> Result<Enrollment, &'static str> {
    let key = |text: &str, field| unhex(text).and_then(|bytes| PublicKey::try_from_slice(&bytes).ok()).ok_or(field);
    let server = content.server;
    let receipt = server.receipt.map(|it| {
        let payload = unhex(&it.payload).ok_or("receipt")?;
        Ok::<_, &'static str>(wire::Signed {
            payload: payload.into(),
            signature: unhex(&it.signature).ok_or("receipt")?,
            sealed: Vec::new(),
        })
    });
    let server = PinnedServer {
        identity_key: key(&server.identity_key, "identity_key")?,
        policy_key: key(&server.policy_key, "policy_key")?,
        recovery_key: server.recovery_key.map(|text| key(&text, "recovery_key")).transpose()?,
        ca_pem: server.ca_pem,
        ca_hash: server.ca_hash.parse().map_err(|_| "ca_hash")?,
        epoch: server.epoch,
        receipt: receipt.transpose()?,
        hostname: server.hostname,
        servers: server.servers,
    };
    let uuid = content.uuid.parse().map_err(|_| "uuid")?;
    // A receipt of another envoy in the directory of this one: a copied file.
    let receipt: Option<Receipt> = server.receipt();
    if receipt.is_some_and(|receipt| receipt.uuid != uuid) {
        return Err("receipt");
    }
    let former = content.former.iter().take(FORMER_KEYS_MAX).map(|it| {
        let server = it.server.parse::<Hash32>().map_err(|_| "former")?;
        Ok::<_, &'static str>(FormerKey { server: ServerId(server), policy_key: key(&it.policy_key, "former")? })
    });
    let nonces = content.nonces.iter().take(NONCES_MAX).map(|it| {
        Ok::<_, &'static str>(SpentNonce { nonce: unhex(&it.nonce).ok_or("nonces")?, expires_ms: it.expires_ms })
    });
    let former_uuid = content.former_uuid.map(|text| text.parse().map_err(|_| "former_uuid")).transpose()?;
    let (former, nonces) = (former.collect::<Result<_, _>>()?, nonces.collect::<Result<_, _>>()?);
    let pins = Pins { server, former, nonces, former_uuid };
    Ok(Enrollment { uuid, pins })
}
