//! `Watch`: the held stream that carries pushes. Losing it costs nothing.

use crate::app::{CallId, Effect, Server};

pub(super) fn on_watch(server: &mut Server, call: CallId, out: &mut Vec<Effect>) {
    let Some(uuid) = super::authenticated(server, call, out) else { return };
    // The newest stream wins: an older one belongs to a connection that its agent has given up.
    if let Some(old) = server.watchers.insert(uuid, call)
        && old != call
    {
        out.push(Effect::End { call: old });
    }
}
