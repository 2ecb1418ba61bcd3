//! Policy values into the engine and back. What comes back is checked: no undefined value, no engine object, bounded
//! depth and size.

use std::collections::BTreeMap;

use minijinja::Value as Engine;
use minijinja::value::ValueKind;

use crate::bundle::Value;
use crate::limits;

use super::TemplateError;

/// A policy value as the engine sees it.
pub(super) fn into_engine(value: &Value) -> Engine {
    match value {
        Value::Null => Engine::from(()),
        Value::Bool(b) => Engine::from(*b),
        Value::Int(n) => Engine::from(*n),
        Value::Float(n) => Engine::from(*n),
        Value::Str(text) => Engine::from(text.as_str()),
        Value::List(items) => items.iter().map(into_engine).collect(),
        Value::Map(map) => map_into_engine(map),
    }
}

/// A mapping as the engine sees it.
pub(super) fn map_into_engine(map: &BTreeMap<String, Value>) -> Engine {
    Engine::from_pairs(map.iter().map(|(key, value)| (key.as_str(), into_engine(value))))
}

/// What an expression gave, as a policy value.
pub(super) fn from_engine(value: &Engine) -> Result<Value, TemplateError> {
    let mut budget = limits::TEMPLATE_OUTPUT_BYTES_MAX;
    convert(value, 0, &mut budget)
}

fn convert(value: &Engine, depth: usize, budget: &mut usize) -> Result<Value, TemplateError> {
    let unusable = |what: &str| TemplateError::NotAValue { what: what.to_string() };
    if depth > limits::VALUE_DEPTH_MAX {
        return Err(unusable("a value nested more than 32 deep"));
    }
    // What a node costs beyond its text.
    spend(budget, 8)?;
    Ok(match value.kind() {
        ValueKind::Undefined => return Err(TemplateError::Undefined { name: None, near: None }),
        ValueKind::None => Value::Null,
        ValueKind::Bool => Value::Bool(value.is_true()),
        ValueKind::Number => number(value).ok_or_else(|| unusable("a number of more than 64 bits"))?,
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            spend(budget, text.len())?;
            Value::Str(text.to_string())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter().map_err(|_| unusable("a sequence that cannot be read"))?;
            Value::List(items.map(|item| convert(&item, depth + 1, budget)).collect::<Result<_, _>>()?)
        }
        ValueKind::Map => {
            let keys = value.try_iter().map_err(|_| unusable("a mapping that cannot be read"))?;
            let mut map = BTreeMap::new();
            for key in keys {
                let item = value.get_item(&key).map_err(|_| unusable("a mapping that cannot be read"))?;
                let key = key.to_string();
                spend(budget, key.len())?;
                map.insert(key, convert(&item, depth + 1, budget)?);
            }
            Value::Map(map)
        }
        other => return Err(unusable(&format!("a value of type {other}"))),
    })
}

fn number(value: &Engine) -> Option<Value> {
    if value.is_integer() {
        return value.as_i64().map(Value::Int);
    }
    f64::try_from(value.clone()).ok().map(Value::Float)
}

fn spend(budget: &mut usize, bytes: usize) -> Result<(), TemplateError> {
    *budget = budget.checked_sub(bytes).ok_or(TemplateError::OutputTooLarge)?;
    Ok(())
}
