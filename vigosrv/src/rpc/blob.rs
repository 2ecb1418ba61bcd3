//! `FetchBlob`: a file that the caller's own bundle names, in chunks, from any offset. One chunk is in flight at a time,
//! so a slow reader costs one chunk of memory.

use bytes::Bytes;
use common::ids::Hash32;
use common::limits;
use common::proto::{Code, Message, wire};

use crate::app::{CallId, Effect, Server, fail};

/// A stream under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlobStream {
    hash: Hash32,
    offset: u64,
    size: u64,
    /// A read with this ticket is under way.
    reading: Option<u64>,
}

pub(super) fn on_fetch(server: &mut Server, call: CallId, body: &Bytes, out: &mut Vec<Effect>) {
    let Some(uuid) = super::authenticated(server, call, out) else { return };
    let Some(request) = super::decode::<wire::FetchBlobRequest>(call, body, out) else { return };
    let Ok(hash) = Hash32::try_from_slice(&request.sha256) else {
        return fail(call, Code::InvalidArgument, "field sha256: expected 32 bytes", out);
    };
    let bundle = server.fleet.with(&uuid, |entry| entry.bundle).flatten();
    let Some(size) = bundle.and_then(|bundle| server.served.blob_size(&bundle, &hash)) else {
        return fail(call, Code::NotFound, "your bundle names no such file", out);
    };
    if request.offset > size {
        return fail(call, Code::InvalidArgument, "field offset: expected at most the size of the file", out);
    }
    if request.offset == size {
        let chunk = wire::BlobChunk { offset: size, data: Bytes::new(), size };
        out.push(Effect::Item { call, body: Bytes::from(chunk.encode_to_vec()) });
        return out.push(Effect::End { call });
    }
    server.blobs.insert(call, BlobStream { hash, offset: request.offset, size, reading: None });
    read_next(server, call, out);
}

/// The last chunk left for the peer: read the next one.
pub(crate) fn on_stream_ready(server: &mut Server, call: CallId, out: &mut Vec<Effect>) {
    read_next(server, call, out);
}

fn read_next(server: &mut Server, call: CallId, out: &mut Vec<Effect>) {
    let ticket = server.ticket();
    let Some(stream) = server.blobs.get_mut(&call) else { return };
    if stream.reading.is_some() {
        return;
    }
    stream.reading = Some(ticket);
    out.push(Effect::ReadBlob { ticket, hash: stream.hash, offset: stream.offset, len: limits::BLOB_CHUNK_BYTES });
}

/// A chunk was read.
pub(crate) fn on_blob_read(server: &mut Server, ticket: u64, result: Result<Bytes, String>, out: &mut Vec<Effect>) {
    let found = server.blobs.iter_mut().find(|(_, stream)| stream.reading == Some(ticket));
    let Some((call, stream)) = found.map(|(call, stream)| (*call, stream)) else { return };
    stream.reading = None;
    let data = match result {
        Ok(data) if !data.is_empty() => data,
        Ok(_) => {
            server.blobs.remove(&call);
            return fail(call, Code::Unavailable, "the file is shorter than it was when it was published", out);
        }
        Err(error) => {
            server.blobs.remove(&call);
            return fail(call, Code::Unavailable, format!("the file cannot be read: {error}"), out);
        }
    };
    let chunk = wire::BlobChunk { offset: stream.offset, size: stream.size, data };
    stream.offset += chunk.data.len() as u64;
    let done = stream.offset >= stream.size;
    out.push(Effect::Item { call, body: Bytes::from(chunk.encode_to_vec()) });
    if done {
        server.blobs.remove(&call);
        out.push(Effect::End { call });
    }
}
