//! What is written on disk and on the wire, as lines of a name, the bytes in hexadecimal, and for messages a digest of their values.

use common::bundle::{Bundle, Resource, Value};
use common::chain::{Lane, link};
use common::crypto::{Context, SigningKey, sha256};
use common::ids::{Hash32, Uuid, hex};
use common::proto::{Message, wire};
use envoy::cache::QueueRecord;
use envoy::cache::codec::{self, Kind, Slot};

use crate::messages::round_trip;

/// Numbers whose bytes are all different.
const ODD: u64 = 0x0102_0304_0506_0708;

/// The lines of this architecture. `messages` are lines of a message's name and its bytes.
pub fn write(messages: &str) -> Result<String, String> {
    let mut text = String::new();
    for line in messages.lines() {
        let (name, bytes) = split(line)?;
        let (again, values) = round_trip(name, &bytes).map_err(|why| format!("{name}: {why}"))?;
        text += &format!("message/{name} {} {values}\n", hex(&again));
    }
    for (name, bytes) in own() {
        text += &format!("{name} {}\n", hex(&bytes));
    }
    Ok(text)
}

/// Reads the lines of any architecture; an error names the first that is not as it would be here.
pub fn read(lines: &str) -> Result<String, String> {
    let mut n = 0;
    for line in lines.lines() {
        let (name, rest) = line.split_once(' ').ok_or("a line without a blank")?;
        let wrong = |why: String| format!("{name}: {why}");
        if let Some(message) = name.strip_prefix("message/") {
            let (bytes, values) = rest.split_once(' ').ok_or("a message without its digest")?;
            let (again, found) = round_trip(message, &unhex(bytes)?).map_err(wrong)?;
            if (hex(&again).as_str(), found.as_str()) != (bytes, values) {
                return Err(wrong(format!("reads as {} {found}", hex(&again))));
            }
        } else {
            understand(name, &unhex(rest)?).map_err(wrong)?;
        }
        n += 1;
    }
    if n == 0 { Err("nothing to read".into()) } else { Ok(format!("{n}\n")) }
}

fn key() -> SigningKey {
    SigningKey::from_seed([7; 32])
}

fn uuid() -> Uuid {
    Uuid::from_bytes([0xa5; 16])
}

fn queued() -> QueueRecord {
    let run = wire::RunResult { run_id: vec![9; 16], started_wall_ms: -2, serial: ODD, ..Default::default() };
    let body = run.encode_to_vec();
    let first = link(&Hash32::ZERO, Lane::Urgent, ODD, &body).0.to_vec();
    let record = wire::Record {
        lane: wire::Lane::Urgent as i32,
        first_sequence: ODD,
        last_sequence: ODD,
        previous_link: vec![0; 32],
        first_link: first.clone(),
        last_link: first,
        body: Some(wire::record::Body::Run(body)),
    };
    QueueRecord { record, sealed: true, acked_at_ms: ODD + 1 }
}

fn bundle() -> Bundle {
    let values = vec![Value::Null, Value::Bool(true), Value::Int(-(ODD as i64)), Value::Float(-1.5e-300)];
    let resource = Resource { name: "a.b".into(), kind: "file".into(), timeout_ms: ODD, ..Resource::default() };
    Bundle {
        mapping: "envoys/all.vgo:2".into(),
        vars: [("v".to_string(), Value::List(values))].into(),
        resources: vec![resource],
        ..Bundle::default()
    }
}

/// What is not a message: values of the agent's store, signed objects, links.
fn own() -> Vec<(&'static str, Vec<u8>)> {
    let (key, queued) = (key(), queued());
    let signed = bundle().sign(&key);
    let (payload, pair) = (signed.encode_to_vec(), codec::pair_of(&signed));
    vec![
        ("store/record", codec::encode_record(uuid(), ODD + 2, &queued)),
        ("store/bundle", codec::encode_slot(Kind::Bundle, Slot::Current, uuid(), ODD + 3, pair, &payload)),
        ("signed/bundle", payload),
        ("signed/bytes", key.sign(Context::Auth, b"bytes").to_vec()),
        ("link", queued.record.last_link),
        ("sha256", sha256(&[b"bytes"]).0.to_vec()),
    ]
}

/// Whether this architecture finds in the bytes what it would have written.
fn understand(name: &str, bytes: &[u8]) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let good = match name {
        "store/record" => {
            let value = codec::Value::decode(bytes).map_err(|error| text(&error))?;
            value.header.revision == ODD + 2 && value.record().map_err(|error| text(&error))? == queued()
        }
        "store/bundle" => {
            let value = codec::Value::decode(bytes).map_err(|error| text(&error))?;
            let signed = value.signed().map_err(|error| text(&error))?;
            value.header.first == codec::pair_of(&signed) && opens(&signed)?
        }
        "signed/bundle" => opens(&wire::Signed::decode(bytes).map_err(|error| text(&error))?)?,
        "signed/bytes" => key().public().verify(Context::Auth, b"bytes", bytes).is_ok(),
        _ => own().iter().any(|(known, own)| *known == name && own == bytes),
    };
    if good { Ok(()) } else { Err("says something else here".into()) }
}

fn opens(signed: &wire::Signed) -> Result<bool, String> {
    let found = Bundle::open(&key().public(), signed).map_err(|refused| refused.to_string())?;
    Ok(found == bundle())
}

fn split(line: &str) -> Result<(&str, Vec<u8>), String> {
    let (name, bytes) = line.split_once(' ').ok_or("a line without a blank")?;
    Ok((name, unhex(bytes)?))
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    pairs.map(|pair| byte(pair).ok_or_else(|| "a byte that is none".to_string())).collect()
}
