//! The [`Filter`] of this process, for what is written where no run is at hand: its log, and the message of a panic.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError, RwLock};

use crate::redact::Filter;

static LOADED: RwLock<Option<Arc<Filter>>> = RwLock::new(None);

/// From now on these secrets are taken out. The last run's stay until the next one's come: its answers may still be on their way.
pub fn install(filter: Arc<Filter>) {
    *LOADED.write().unwrap_or_else(PoisonError::into_inner) = Some(filter);
}

/// A text without the secrets of this process.
pub fn clean(text: &str) -> Cow<'_, str> {
    let loaded = LOADED.read().unwrap_or_else(PoisonError::into_inner);
    loaded.as_ref().map_or(Cow::Borrowed(text), |filter| filter.clean(text))
}

/// The same for a text whose beginning was cut off.
pub fn clean_rest(text: &str) -> Cow<'_, str> {
    let loaded = LOADED.read().unwrap_or_else(PoisonError::into_inner);
    loaded.as_ref().map_or(Cow::Borrowed(text), |filter| filter.clean_rest(text))
}

/// Panics say where and why as ever, but no secret.
pub fn guard_panics() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let text = format!("thread '{}' panicked: {info}", thread.name().unwrap_or("?"));
        eprintln!("{}", clean(&text));
    }));
}
