//! Rendered parameters as typed values. Everything is checked once, in [`Reader::try_new`], by the same table that the
//! server validates with; the getters afterwards cannot fail.

use std::borrow::Cow;

use common::bundle::Value;
use common::policy::params::{Type, parse_mode, text_of};
use common::policy::types;

use super::fault::Fault;
use crate::plan::{Params, Task};

/// The parameters of one resource, known to fit their table.
pub struct Reader<'p> {
    params: &'p Params<'p>,
}

impl<'p> Reader<'p> {
    /// The parameters of a task, by the table of its type.
    pub fn of(task: &Task<'p>) -> Result<Reader<'p>, Fault> {
        let table = types::find(task.kind).ok_or_else(|| Fault::Parameter(types::unknown_type(task.kind)))?;
        Reader::try_new(table, task.params)
    }

    /// Checks names, values, what is required, and the rules between parameters.
    pub fn try_new(table: &'static Type, params: &'p Params<'p>) -> Result<Reader<'p>, Fault> {
        for (name, value) in params.iter() {
            let param = table.param(name).ok_or_else(|| Fault::Parameter(table.unknown(name)))?;
            param.check(value, false).map_err(Fault::Parameter)?;
        }
        if let Some(param) = table.params.iter().find(|param| param.required && params.find(param.name).is_none()) {
            return Err(Fault::Parameter(table.missing(param.name)));
        }
        match table.broken_rule(&|name| params.find(name)) {
            Some(problem) => Err(Fault::Parameter(problem.message)),
            None => Ok(Reader { params }),
        }
    }

    /// Any scalar as text.
    pub fn text(&self, name: &str) -> Option<Cow<'p, str>> {
        self.params.find(name).and_then(text_of)
    }

    /// A scalar, or each of a list, as texts; nothing where not given.
    pub fn texts(&self, name: &str) -> Vec<String> {
        match self.params.find(name) {
            Some(Value::List(items)) => items.iter().filter_map(text_of).map(Cow::into_owned).collect(),
            Some(one) => text_of(one).map(Cow::into_owned).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// Variables for a command.
    pub fn environment(&self, name: &str) -> Vec<(String, String)> {
        let Some(Value::Map(map)) = self.params.find(name) else { return Vec::new() };
        map.iter().filter_map(|(name, value)| Some((name.clone(), text_of(value)?.into_owned()))).collect()
    }

    /// Text that the table requires.
    pub fn path(&self, name: &str) -> Cow<'p, str> {
        self.text(name).unwrap_or_default()
    }

    /// Truth, false where not given.
    pub fn truth(&self, name: &str) -> bool {
        self.given_truth(name) == Some(true)
    }

    /// Truth, where it is given.
    pub fn given_truth(&self, name: &str) -> Option<bool> {
        match self.params.find(name) {
            Some(Value::Bool(truth)) => Some(*truth),
            _ => None,
        }
    }

    /// Permission bits.
    pub fn mode(&self, name: &str) -> Option<u32> {
        self.text(name).and_then(|text| parse_mode(&text))
    }

    /// Whether a word has this value; `default` where not given.
    pub fn is(&self, name: &str, word: &str, default: &str) -> bool {
        self.text(name).map_or(default == word, |text| text == word)
    }

    /// Any value.
    pub fn value(&self, name: &str) -> Option<&'p Value> {
        self.params.find(name)
    }
}
