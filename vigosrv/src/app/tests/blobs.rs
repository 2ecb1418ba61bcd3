//! `FetchBlob`: from any offset, over a restart, and what it refuses.

use common::limits::BLOB_CHUNK_BYTES;

use super::*;

/// More than three chunks.
fn content() -> Vec<u8> {
    (0..3 * BLOB_CHUNK_BYTES as u32 + 1_000).map(|n| (n / 7) as u8).collect()
}

fn fetch(bench: &mut Bench, conn: ConnId, hash: &Hash32, offset: u64) -> Heard {
    bench.call(conn, Method::FetchBlob, &wire::FetchBlobRequest { sha256: hash.0.to_vec(), offset })
}

/// What the chunks say, in order, from `offset` on.
fn joined(heard: &Heard, mut offset: u64, size: u64) -> Vec<u8> {
    let mut data = Vec::new();
    for item in &heard.items {
        let chunk = wire::BlobChunk::decode(item.clone()).unwrap();
        assert_eq!((chunk.offset, chunk.size), (offset, size));
        assert!(chunk.data.len() <= BLOB_CHUNK_BYTES);
        offset += chunk.data.len() as u64;
        data.extend_from_slice(&chunk.data);
    }
    data
}

#[test]
fn a_file_comes_whole_and_from_any_offset() {
    let content = content();
    let (mut bench, hash, size) = (Bench::new(&[&content]), sha256(&[&content]), content.len() as u64);
    let conn = bench.connect(10);
    for offset in [0, 1, BLOB_CHUNK_BYTES as u64 - 1, BLOB_CHUNK_BYTES as u64, size - 1, size] {
        let heard = fetch(&mut bench, conn, &hash, offset);
        assert!(heard.ended && heard.failed.is_none(), "{offset}: {:?}", heard.failed);
        assert_eq!(joined(&heard, offset, size), &content[offset as usize..], "{offset}");
    }
}

#[test]
fn a_transfer_goes_on_with_another_process_where_it_was_cut() {
    let content = content();
    let (mut bench, hash, size) = (Bench::new(&[&content]), sha256(&[&content]), content.len() as u64);
    let conn = bench.connect(10);
    // By hand, so that the server dies with a chunk on the way.
    let call = CallId { conn, stream: 101 };
    let request = wire::FetchBlobRequest { sha256: hash.0.to_vec(), offset: 0 };
    let body = request.encode_to_vec().into();
    let mut out = Vec::new();
    bench.server.handle(bench.now, Event::Request { call, method: Method::FetchBlob, body }, &mut out);
    let Some(Effect::ReadBlob { ticket, offset: 0, len, .. }) = out.pop() else { panic!("{out:?}") };
    let piece = Bytes::copy_from_slice(&content[..len]);
    bench.server.handle(bench.now, Event::BlobRead { ticket, result: Ok(piece) }, &mut out);
    let Some(Effect::Item { body, .. }) = out.pop() else { panic!("{out:?}") };
    let first = wire::BlobChunk::decode(body).unwrap();
    bench.restart();
    let conn = bench.connect(10);
    let offset = first.data.len() as u64;
    let rest = fetch(&mut bench, conn, &hash, offset);
    let whole = [&first.data[..], &joined(&rest, offset, size)].concat();
    assert_eq!(sha256(&[&whole]), hash);
}

#[test]
fn offsets_beyond_the_end_and_files_of_nobody_are_refused() {
    let content = content();
    let (mut bench, hash, size) = (Bench::new(&[&content]), sha256(&[&content]), content.len() as u64);
    let conn = bench.connect(10);
    for offset in [size + 1, u64::MAX] {
        assert_eq!(fetch(&mut bench, conn, &hash, offset).failed.unwrap().0, Code::InvalidArgument, "{offset}");
    }
    assert_eq!(fetch(&mut bench, conn, &sha256(&[b"other"]), 0).failed.unwrap().0, Code::NotFound);
    let short = wire::FetchBlobRequest { sha256: vec![1; 31], offset: 0 };
    assert_eq!(bench.call(conn, Method::FetchBlob, &short).failed.unwrap().0, Code::InvalidArgument);
}

#[test]
fn a_file_that_shrank_or_is_gone_ends_the_stream_with_an_error() {
    let content = content();
    let (mut bench, hash) = (Bench::new(&[&content]), sha256(&[&content]));
    let conn = bench.connect(10);
    bench.files.insert(hash, content[..BLOB_CHUNK_BYTES].to_vec());
    let heard = fetch(&mut bench, conn, &hash, 0);
    assert_eq!((heard.items.len(), heard.ended), (1, false));
    assert_eq!(heard.failed.unwrap().0, Code::Unavailable);
    bench.files.clear();
    let heard = fetch(&mut bench, conn, &hash, 5);
    assert_eq!((heard.items.len(), heard.failed.unwrap().0), (0, Code::Unavailable));
    bench.files.insert(hash, content.clone());
    assert!(fetch(&mut bench, conn, &hash, 5).ended, "and the next attempt works");
}

#[test]
fn two_streams_of_one_connection_do_not_mix() {
    let (one, two) = (content(), vec![9; 2 * BLOB_CHUNK_BYTES]);
    let mut bench = Bench::new(&[&one, &two]);
    let conn = bench.connect(10);
    let mut out = Vec::new();
    for (stream, data) in [(101, &one), (103, &two)] {
        let request = wire::FetchBlobRequest { sha256: sha256(&[data]).0.to_vec(), offset: 0 };
        let (call, body) = (CallId { conn, stream }, request.encode_to_vec().into());
        bench.server.handle(bench.now, Event::Request { call, method: Method::FetchBlob, body }, &mut out);
    }
    let mut heard = BTreeMap::new();
    let (now, log) = (bench.now, &mut bench.log);
    settle(&mut bench.server, &mut bench.store, &bench.files, now, out, &mut heard, log);
    for (stream, data) in [(101, &one), (103, &two)] {
        assert_eq!(&joined(&heard[&CallId { conn, stream }], 0, data.len() as u64), data);
    }
}
