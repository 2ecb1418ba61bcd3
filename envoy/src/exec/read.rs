//! Rendered parameters as typed values. Everything is checked once, in [`Reader::try_new`], by the same table that the
//! server validates with; the getters afterwards cannot fail.

use std::borrow::Cow;

use common::bundle::Value;
use common::policy::params::{Type, parse_mode, text_of};

use super::fault::Fault;
use crate::plan::Params;

/// The parameters of one resource, known to fit their table.
pub struct Reader<'p> {
    params: &'p Params<'p>,
}

impl<'p> Reader<'p> {
    /// Checks names, values and what is required.
    pub fn try_new(table: &'static Type, params: &'p Params<'p>) -> Result<Reader<'p>, Fault> {
        for (name, value) in params.iter() {
            let param = table.param(name).ok_or_else(|| Fault::Parameter(table.unknown(name)))?;
            param.check(value, false).map_err(Fault::Parameter)?;
        }
        match table.params.iter().find(|param| param.required && params.find(param.name).is_none()) {
            Some(param) => Err(Fault::Parameter(table.missing(param.name))),
            None => Ok(Reader { params }),
        }
    }

    /// Any scalar as text.
    pub fn text(&self, name: &str) -> Option<Cow<'p, str>> {
        self.params.find(name).and_then(text_of)
    }

    /// Text that the table requires.
    pub fn path(&self, name: &str) -> Cow<'p, str> {
        self.text(name).unwrap_or_default()
    }

    /// Truth, false where not given.
    pub fn truth(&self, name: &str) -> bool {
        matches!(self.params.find(name), Some(Value::Bool(true)))
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
