//! Each message of the protocol with every field set, made from its description.

use std::collections::HashMap;
use std::path::Path;

use common::proto::Message;
use protox::prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

/// Messages in messages that are filled; a `Value` may hold values without end.
const DEPTH_MAX: usize = 4;

/// Names and encodings, in the order of the names.
pub fn messages() -> Vec<(String, Vec<u8>)> {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../common/proto");
    let mut compiler = protox::Compiler::new([proto]).unwrap();
    compiler.open_file("vigo/v1/agent.proto").unwrap();
    let pool = compiler.descriptor_pool();
    let mut all: Vec<(String, Vec<u8>)> = pool
        .all_messages()
        .filter(|message| message.package_name() == "vigo.v1" && !message.is_map_entry())
        .map(|message| (message.name().to_string(), filled(&message, 0).encode_to_vec()))
        .collect();
    all.sort();
    all
}

fn filled(message: &MessageDescriptor, depth: usize) -> DynamicMessage {
    let mut out = DynamicMessage::new(message.clone());
    for field in message.fields() {
        let nested = matches!(field.kind(), Kind::Message(_));
        if nested && depth == DEPTH_MAX {
            continue;
        }
        // Of a oneof the last one stays.
        out.set_field(&field, value(&field, depth));
    }
    out
}

fn value(field: &FieldDescriptor, depth: usize) -> Value {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else { return Value::Map(HashMap::new()) };
        // One entry: the order of more is not that of the encoding here.
        return Value::Map([(MapKey::String("key".into()), one(&entry.map_entry_value_field(), depth))].into());
    }
    if field.is_list() {
        return Value::List(vec![one(field, depth), one(field, depth)]);
    }
    one(field, depth)
}

/// Numbers whose bytes are all different, negative where they may be.
fn one(field: &FieldDescriptor, depth: usize) -> Value {
    let odd = 0x0102_0304_0506_0708 + u64::from(field.number());
    match field.kind() {
        Kind::Double => Value::F64(-1.5e-300),
        Kind::Float => Value::F32(-1.5e-30),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(-(odd as i32)),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(-(odd as i64)),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(odd as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(odd),
        Kind::Bool => Value::Bool(true),
        Kind::String => Value::String(format!("{} ä", field.name())),
        Kind::Bytes => Value::Bytes(odd.to_be_bytes().to_vec().into()),
        Kind::Message(message) => Value::Message(filled(&message, depth + 1)),
        Kind::Enum(kinds) => Value::EnumNumber(kinds.values().last().map_or(0, |last| last.number())),
    }
}
