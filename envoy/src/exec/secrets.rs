//! Secrets of one run: opened when it starts, in the thread that runs it, and gone when it ends.
//!
//! A reference that is a value of its own becomes a look-up of a variable that no policy can name, so that a value with `{{` in
//! it is never rendered. Everything that leaves the run passes the [`Filter`]; no diff is made of what holds a secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::bundle::{Bundle, SECRET_PREFIX, SealedSecret, Value};
use common::policy::params::text_of;
use common::policy::secrets::replaced;
use common::redact::Filter;
use zeroize::{Zeroize, Zeroizing};

use crate::agent::RunOrder;
use crate::plan::Params;

/// Opens what is sealed to this envoy.
pub trait Unseal: Send + Sync {
    /// The value; nothing where it was sealed to another key.
    fn unseal(&self, secret: &SealedSecret) -> Option<Zeroizing<Vec<u8>>>;
}

/// The secrets of a run. Neither prints nor serialises.
#[derive(Default)]
pub struct Secrets {
    values: BTreeMap<String, Zeroizing<String>>,
    /// Referred to and not here, with the reason.
    missing: BTreeMap<String, &'static str>,
    filter: Arc<Filter>,
}

/// A bundle with secrets in it. Overwritten when it is dropped.
pub struct Resolved(Bundle);

impl Secrets {
    /// Opens what the bundle of an order refers to.
    pub fn open(order: &RunOrder, unseal: Option<&dyn Unseal>) -> Secrets {
        let (bundle, sealed) = (&order.bundle, &order.secrets);
        let mut secrets = Secrets::default();
        for path in &bundle.secrets {
            let Some(found) = sealed.iter().find(|secret| secret.reference.path == *path) else {
                secrets.missing.insert(path.clone(), "the server has not given it to this envoy");
                continue;
            };
            let opened = unseal.and_then(|unseal| unseal.unseal(found));
            match opened.map(|bytes| std::str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_string()))) {
                Some(Ok(text)) => drop(secrets.values.insert(path.clone(), text)),
                Some(Err(_)) => drop(secrets.missing.insert(path.clone(), "it is not text")),
                None => drop(secrets.missing.insert(path.clone(), "it was sealed to another key than this envoy has")),
            }
        }
        let former = order.former_secrets.iter().filter_map(|secret| unseal?.unseal(secret));
        let former: Vec<Zeroizing<String>> = former
            .filter_map(|bytes| std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.into())))
            .collect();
        let known = secrets.values.values().chain(&former);
        secrets.filter = Arc::new(Filter::new(known.map(|value| value.as_str())));
        secrets
    }

    /// What keeps them in.
    pub fn filter(&self) -> &Arc<Filter> {
        &self.filter
    }

    /// The bundle with its secrets in place; nothing where it has none.
    pub fn resolve(&self, bundle: &Bundle) -> Option<Resolved> {
        if bundle.secrets.is_empty() {
            return None;
        }
        let mut resolved = bundle.clone();
        let mut plain = |path: &str| match self.values.get(path) {
            Some(value) => Value::Str(value.to_string()),
            None => Value::Str(reference(path)),
        };
        let in_vars = |vars: &mut BTreeMap<String, Value>, plain: &mut dyn FnMut(&str) -> Value| {
            vars.values_mut().for_each(|value| *value = replaced(value, plain));
        };
        in_vars(&mut resolved.vars, &mut plain);
        let mut look_up = |path: &str| match self.values.get(path) {
            Some(_) => Value::Str(format!("{{{{ vars[\"{}\"] }}}}", reference(path))),
            None => Value::Str(reference(path)),
        };
        for resource in &mut resolved.resources {
            in_vars(&mut resource.vars, &mut plain);
            in_vars(&mut resource.params, &mut look_up);
            resource.foreach.iter_mut().for_each(|value| *value = replaced(value, &mut look_up));
        }
        let named = self.values.iter().map(|(path, value)| (reference(path), Value::Str(value.to_string())));
        resolved.vars.extend(named);
        Some(Resolved(resolved))
    }

    /// Whether parameters hold a secret.
    pub fn taint(&self, params: &Params<'_>) -> bool {
        !self.filter.is_empty()
            && params.iter().any(|(_, value)| any_text(value, &mut |text| self.filter.holds(text.as_bytes())))
    }

    /// What to say of parameters that need a secret which is not here.
    pub fn missing_from(&self, params: &Params<'_>) -> Option<String> {
        let mut found = None;
        if !self.missing.is_empty() {
            params.iter().any(|(_, value)| {
                any_text(value, &mut |text| {
                    found = self.missing_in(text);
                    found.is_some()
                })
            });
        }
        found
    }

    /// The same of a text that was rendered.
    pub fn missing_in(&self, text: &str) -> Option<String> {
        let (path, why) = self.missing.iter().find(|(path, _)| text.contains(&reference(path)))?;
        let cure = "see `vigocli envoys show`: an envoy gets secrets once it is approved";
        Some(format!("the secret `{path}` is not here: {why}; {cure}"))
    }
}

impl std::ops::Deref for Resolved {
    type Target = Bundle;

    fn deref(&self) -> &Bundle {
        &self.0
    }
}

impl Drop for Resolved {
    fn drop(&mut self) {
        let wipe = |vars: &mut BTreeMap<String, Value>| vars.values_mut().for_each(wipe);
        wipe(&mut self.0.vars);
        self.0.resources.iter_mut().for_each(|resource| wipe(&mut resource.vars));
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::Str(text) => text.zeroize(),
        Value::List(items) => items.iter_mut().for_each(wipe),
        Value::Map(map) => map.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {}
    }
}

fn any_text(value: &Value, wanted: &mut dyn FnMut(&str) -> bool) -> bool {
    match value {
        Value::List(items) => items.iter().any(|item| any_text(item, wanted)),
        Value::Map(map) => map.values().any(|item| any_text(item, wanted)),
        one => text_of(one).is_some_and(|text| wanted(&text)),
    }
}

fn reference(path: &str) -> String {
    format!("{SECRET_PREFIX}{path}")
}
