//! `json_file`: a place in a JSON file has a value, or is not there. How the text is changed is [`super::json`]; here is what
//! is asked for, and merging, which is one such change for each value at the bottom of the mapping.

use common::bundle::Value;
use common::policy::shapes::pointer;
use serde_json::Value as Json;

use super::edit::{Edit, Edited};
use super::json;
use crate::exec::contract::settle_read;
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::plan::{Task, Verdict};

/// Values that one merge sets; each is a walk over the file.
const MERGED_MAX: usize = 1_000;

/// Settles one `json_file`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    settle_read(read(task), host, task)
}

enum Change {
    Set(Vec<String>, Json),
    /// An object is to be there, with whatever is in it.
    Object(Vec<String>),
    Remove(Vec<String>),
}

struct Changes(Vec<Change>);

fn read<'t>(task: &'t Task<'t>) -> Result<Edited<'t, Changes>, Fault> {
    let reader = Reader::of(task)?;
    let text = reader.text("pointer").unwrap_or_default();
    let path: Vec<String> = pointer(&text).unwrap_or_default().into_iter().map(|key| key.into_owned()).collect();
    let mut changes = Vec::new();
    match (reader.is("state", "present", "present"), reader.value("merge"), reader.value("value")) {
        (false, _, _) => changes.push(Change::Remove(path)),
        (true, Some(merge), _) => spread(merge, path, &mut changes)?,
        (true, None, Some(value)) => changes.push(Change::Set(path, to_json(value)?)),
        (true, None, None) => {}
    }
    Ok(Edited::new(reader.path("target_path"), Changes(changes)))
}

/// One change for each value below a mapping.
fn spread(value: &Value, path: Vec<String>, changes: &mut Vec<Change>) -> Result<(), Fault> {
    if changes.len() >= MERGED_MAX {
        return Err(Fault::Parameter(format!("`merge` has more than {MERGED_MAX} values; write the file whole")));
    }
    match value {
        Value::Map(map) if map.is_empty() => changes.push(Change::Object(path)),
        Value::Map(map) => {
            for (key, value) in map {
                spread(value, path.iter().chain([key]).cloned().collect(), changes)?;
            }
        }
        other => changes.push(Change::Set(path, to_json(other)?)),
    }
    Ok(())
}

fn to_json(value: &Value) -> Result<Json, Fault> {
    let infinite = || Fault::Parameter("`value`: JSON has no infinite numbers".to_string());
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(truth) => Json::Bool(*truth),
        Value::Int(number) => Json::from(*number),
        Value::Float(number) => serde_json::Number::from_f64(*number).map(Json::Number).ok_or_else(infinite)?,
        Value::Str(text) => Json::String(text.clone()),
        Value::List(items) => Json::Array(items.iter().map(to_json).collect::<Result<_, _>>()?),
        Value::Map(map) => {
            let pairs = map.iter().map(|(key, value)| Ok((key.clone(), to_json(value)?)));
            Json::Object(pairs.collect::<Result<_, Fault>>()?)
        }
    })
}

impl Edit for Changes {
    fn edit(&self, old: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let text =
            std::str::from_utf8(old).map_err(|error| format!("byte {} is not UTF-8", error.valid_up_to() + 1))?;
        let empty = text.trim().is_empty();
        let removing = self.0.iter().all(|change| matches!(change, Change::Remove(_)));
        if empty && removing {
            return Ok(None);
        }
        if !empty {
            json::validate(text)?;
        }
        let mut new = if empty { "{}\n".to_string() } else { text.to_string() };
        for change in &self.0 {
            let changed = match change {
                Change::Set(path, value) => json::set(&new, &keys(path), value)?,
                Change::Object(path) if json::is_object(&new, &keys(path))? => None,
                Change::Object(path) => json::set(&new, &keys(path), &Json::Object(serde_json::Map::new()))?,
                Change::Remove(path) => json::remove(&new, &keys(path))?,
            };
            new = changed.unwrap_or(new);
        }
        Ok((new != text).then(|| new.into_bytes()))
    }
}

fn keys(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}
