//! One handler a method of `vigo.v1.Agent`. The order is enforced here: `Hello` first, then `Enroll` or `Authenticate`,
//! and everything else only on an authenticated connection.

mod authenticate;
mod blob;
mod checkin;
mod enroll;
mod hello;
mod report;
mod watch;

pub(crate) use authenticate::finish_authenticate;
pub(crate) use blob::{BlobStream, on_blob_read, on_stream_ready};

use bytes::Bytes;
use common::ids::Uuid;
use common::proto::{Code, Message};
use common::time::Now;

use crate::app::{CallId, Effect, Method, Server, Stage, fail};

/// A request arrived.
pub(crate) fn on_request(
    server: &mut Server,
    now: Now,
    call: CallId,
    method: Method,
    body: Bytes,
    out: &mut Vec<Effect>,
) {
    match method {
        Method::CheckIn => checkin::on_check_in(server, now, call, &body, out),
        Method::Report => report::on_report(server, now, call, &body, out),
        Method::Hello => hello::on_hello(server, now, call, &body, out),
        Method::Authenticate => authenticate::on_authenticate(server, now, call, &body, out),
        Method::Enroll => enroll::on_enroll(server, now, call, &body, out),
        Method::FetchBlob => blob::on_fetch(server, call, &body, out),
        Method::Watch => watch::on_watch(server, call, out),
    }
}

/// Decodes, or fails the call.
fn decode<M: Message + Default>(call: CallId, body: &Bytes, out: &mut Vec<Effect>) -> Option<M> {
    match M::decode(&body[..]) {
        Ok(message) => Some(message),
        Err(error) => {
            fail(call, Code::InvalidArgument, format!("the request is no such message: {error}"), out);
            None
        }
    }
}

/// The envoy behind a call on an authenticated connection whose epoch fits, or fails the call.
fn authenticated(server: &Server, call: CallId, out: &mut Vec<Effect>) -> Option<Uuid> {
    match server.sessions.get(&call.conn).map(|session| &session.stage) {
        Some(Stage::Authenticated { uuid, current: true, .. }) => Some(*uuid),
        Some(Stage::Authenticated { .. }) => {
            let text = "this server has a lower epoch than you have met, and is read-only: use another one";
            fail(call, Code::FailedPrecondition, text, out);
            None
        }
        _ => {
            fail(call, Code::Unauthenticated, "call Hello and Authenticate on this connection first", out);
            None
        }
    }
}
