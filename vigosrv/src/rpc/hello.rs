//! `Hello`: versions, the server's keys, and its proof that it holds them on this very connection. Frozen for ever.

use bytes::Bytes;
use common::crypto::{Context, Side, auth_transcript, hello_hash};
use common::limits;
use common::proto::{Code, Message, PROTOCOL_VERSION, wire};
use common::time::Now;

use crate::app::{CallId, Effect, Server, Stage, fail, reply};

pub(super) fn on_hello(server: &mut Server, now: Now, call: CallId, body: &Bytes, out: &mut Vec<Effect>) {
    let Some(request) = super::decode::<wire::HelloRequest>(call, body, out) else { return };
    if body.len() > limits::UNAUTHENTICATED_MESSAGE_BYTES_MAX {
        return fail(call, Code::ResourceExhausted, "a Hello has at most 16 KiB", out);
    }
    let Some(session) = server.sessions.get_mut(&call.conn) else { return };
    if session.stage != Stage::New {
        return fail(call, Code::FailedPrecondition, "Hello comes once, and first, on a connection", out);
    }
    if !request.protocol_versions.contains(&PROTOCOL_VERSION) {
        let text = format!("this server speaks protocol version {PROTOCOL_VERSION}: upgrade the agent");
        return fail(call, Code::FailedPrecondition, text, out);
    }
    let identity = &server.identity;
    let reply_body = wire::HelloBody {
        protocol_version: PROTOCOL_VERSION,
        server_version: server.settings.version.clone(),
        capabilities: Vec::new(),
        server_id: identity.server_id.0.0.to_vec(),
        identity_key: identity.identity.public().as_bytes().to_vec(),
        policy_key: identity.policy.public().as_bytes().to_vec(),
        policy_key_signature: identity.policy_key_signature.clone(),
        ca_hash: identity.ca_hash.0.to_vec(),
        epoch: server.state.version.epoch,
        server_time_ms: now.wall.ms(),
        recovery: identity.rebuilt.as_ref().map(|rebuilt| rebuilt.statement.clone()),
    }
    .encode_to_vec();
    let hello = hello_hash(body, &reply_body);
    let transcript = auth_transcript(Side::Server, &identity.server_id, &hello, &session.exporter);
    let signature = identity.identity.sign(Context::Auth, &transcript).to_vec();
    session.stage = Stage::Greeted { hello };
    reply(call, &wire::HelloReply { body: reply_body, signature }, out);
}
