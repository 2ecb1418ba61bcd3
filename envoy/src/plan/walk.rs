//! The walk over a bundle: conditions, items, dependencies, notifications, retries. Resources come in topological order,
//! so that one pass suffices: whatever a resource depends on, or is notified by, stands before it.
//!
//! Every resource ends in exactly one entry (one an item, under `foreach`), whatever happens. Bounds: items of a `foreach`,
//! length of texts.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap, HashSet};

use common::bundle::{BlobRef, Bundle, Resource, Value};
use common::limits;
use common::outcome::Outcome;
use common::policy::params::text_of;
use common::policy::template::{Compiled, Condition, Engine, Scope, TemplateError, has_markers, is_templated};
use common::time::Mono;

use super::params::{Params, fingerprint};
use crate::report::ResourceReport;

/// How a run is to be done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'o> {
    /// Look, do not touch.
    pub dry_run: bool,
    /// Make diffs.
    pub diff: bool,
    /// Resources that an earlier run notified and did not settle. Names that are not in the bundle any more are passed over.
    pub owed: &'o [String],
}

/// What a walk came to.
#[derive(Clone, Debug, Default)]
pub struct Walked {
    /// One entry a resource, or an item of it.
    pub entries: Vec<ResourceReport>,
    /// It was cut short.
    pub interrupted: bool,
    /// Resources that were notified and are not settled: the next walk owes it to them.
    pub owed: Vec<String>,
}

/// One resource, ready to be checked.
pub struct Task<'t> {
    /// For messages.
    pub name: &'t str,
    /// Type.
    pub kind: &'t str,
    /// Rendered.
    pub params: &'t Params<'t>,
    /// File of the policy that its `source` names.
    pub blob: Option<&'t BlobRef>,
    /// What a template file sees.
    pub scope: &'t dyn Fn() -> Scope,
    /// Differences are to be removed, not only found.
    pub enforce: bool,
    /// It was notified: it acts even where nothing differs.
    pub forced: bool,
    /// A diff is wanted.
    pub diff: bool,
    /// Resources that a change notifies, by their place in the bundle.
    pub notify: &'t [u32],
    /// Check and apply together end by then.
    pub deadline: Mono,
}

/// What became of a task. Without `enforce`, `Changed` means that it would be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Outcome.
    pub outcome: Outcome,
    /// For people; empty where there is nothing to say.
    pub message: String,
    /// Unified diff, or empty.
    pub diff: String,
}

/// What a walk needs of the outside.
pub trait Hands {
    /// The clock.
    fn now(&mut self) -> Mono;
    /// Whether the run is to stop.
    fn stopping(&self) -> bool;
    /// Waits before another attempt; returns early when the run is to stop.
    fn pause(&mut self, ms: u64);
    /// Whether the parameters hold a secret: no number is made of them then.
    fn is_secret(&self, _params: &Params<'_>) -> bool {
        false
    }
    /// Checks one resource and, if asked to, brings it to its state.
    fn settle(&mut self, task: &Task<'_>) -> Verdict;
}

/// Walks the bundle. `scope` is asked for only if a template needs it, and at most once.
pub fn walk(bundle: &Bundle, scope: &dyn Fn() -> Scope, options: Options<'_>, hands: &mut dyn Hands) -> Walked {
    let engine = Engine::new();
    let blobs = bundle.blobs.iter().map(|blob| (blob.path.as_str(), blob)).collect();
    let clock = hands.now();
    let n = bundle.resources.len();
    let mut walk = Walk {
        engine: &engine,
        base: OnceCell::new(),
        make_scope: scope,
        layered: None,
        blobs,
        options,
        hands,
        bad: vec![false; n],
        notified: bundle.resources.iter().map(|resource| options.owed.contains(&resource.name)).collect(),
        entries: Vec::with_capacity(n),
        left: n,
        changed_text: limits::RUN_TEXT_BYTES_MAX,
        failed_text: limits::RUN_TEXT_BYTES_MAX,
        clock,
    };
    let mut interrupted = false;
    for (index, resource) in bundle.resources.iter().enumerate() {
        walk.left -= 1;
        if walk.hands.stopping() {
            interrupted = true;
            walk.bad[index] = true;
            walk.note(resource, Outcome::Skipped, "not checked: the run was interrupted".to_string());
            continue;
        }
        let failed = resource.depends_on.iter().find(|dependency| walk.bad[**dependency as usize]);
        if let Some(dependency) = failed {
            walk.bad[index] = true;
            let name = &bundle.resources[*dependency as usize].name;
            walk.note(
                resource,
                Outcome::Skipped,
                format!("not checked: `{name}`, which it depends on, is not settled"),
            );
            continue;
        }
        let forced = walk.notified[index];
        let joined = walk.resource(resource, forced);
        walk.bad[index] = joined.bad;
        interrupted |= joined.interrupted;
        if joined.changed {
            resource.notify.iter().for_each(|target| walk.notified[*target as usize] = true);
        }
    }
    let unsettled = (0..n).filter(|index| walk.notified[*index] && walk.bad[*index]);
    let owed = unsettled.map(|index| bundle.resources[index].name.clone()).collect();
    Walked { entries: walk.entries, interrupted, owed }
}

struct Walk<'w> {
    engine: &'w Engine<'w>,
    base: OnceCell<Scope>,
    make_scope: &'w dyn Fn() -> Scope,
    /// The scope of the last configcrate whose defaults were laid over the base.
    layered: Option<(&'w BTreeMap<String, Value>, Scope)>,
    blobs: HashMap<&'w str, &'w BlobRef>,
    options: Options<'w>,
    hands: &'w mut dyn Hands,
    /// Failed, blocked or skipped because of that: dependents are not checked.
    bad: Vec<bool>,
    notified: Vec<bool>,
    entries: Vec<ResourceReport>,
    /// Resources that have no entry yet, before `foreach` is unrolled.
    left: usize,
    /// Bytes of text that entries may still take: of what changed, and of what failed. A first run of a large policy
    /// would otherwise keep a diff of everything.
    changed_text: usize,
    failed_text: usize,
    /// When the last entry ended, which is when the next one begins.
    clock: Mono,
}

/// The outcomes of all items of a resource, as its dependents and targets see them.
#[derive(Clone, Copy, Debug, Default)]
struct Joined {
    bad: bool,
    changed: bool,
    interrupted: bool,
}

/// A resource whose templates are compiled: once, however many items it has.
struct Ready<'w> {
    resource: &'w Resource,
    name: Option<Compiled<'w, 'w>>,
    condition: Option<Condition<'w, 'w>>,
    /// Only those with a template in them.
    params: Vec<(&'w str, Compiled<'w, 'w>)>,
    forced: bool,
}

impl<'w> Walk<'w> {
    fn resource(&mut self, resource: &'w Resource, forced: bool) -> Joined {
        let ready = match self.compile(resource, forced) {
            Ok(ready) => ready,
            Err(message) => return self.fail(resource, message),
        };
        if resource.foreach.is_none() {
            return self.item(&ready, None, None);
        }
        // A condition that does not look at the item also guards the list itself.
        let outer = ready.condition.as_ref().filter(|condition| !mentions_item(condition));
        if let Some(condition) = outer {
            match condition.holds(&self.scope(resource)) {
                Ok(true) => {}
                Ok(false) => return self.skip(resource, String::new()),
                Err(error) => return self.fail(resource, format!("`when`: {error}")),
            }
        }
        let items = match self.items(resource) {
            Ok(items) => items,
            Err(message) => return self.fail(resource, message),
        };
        if items.is_empty() {
            return self.skip(resource, String::new());
        }
        let (mut joined, mut names) = (Joined::default(), HashSet::new());
        for (at, item) in items.iter().enumerate() {
            if self.hands.stopping() {
                self.note(resource, Outcome::Skipped, "not checked: the run was interrupted".to_string());
                return Joined { bad: true, interrupted: true, ..joined };
            }
            let one = self.item(&ready, Some((at, item)), Some(&mut names));
            joined = Joined {
                bad: joined.bad | one.bad,
                changed: joined.changed | one.changed,
                interrupted: joined.interrupted | one.interrupted,
            };
        }
        joined
    }

    fn compile(&self, resource: &'w Resource, forced: bool) -> Result<Ready<'w>, String> {
        let named = |name: &str, error: TemplateError| format!("`{name}`: {error}");
        let name = has_markers(&resource.name).then(|| self.engine.compile_text(&resource.name));
        let condition = (!resource.when.is_empty()).then(|| self.engine.compile_condition(&resource.when));
        let params = resource.params.iter().filter(|(_, value)| is_templated(value)).map(|(name, value)| {
            self.engine.compile(value).map(|value| (name.as_str(), value)).map_err(|e| named(name, e))
        });
        Ok(Ready {
            resource,
            name: name.transpose().map_err(|e| named("name", e))?,
            condition: condition.transpose().map_err(|e| named("when", e))?,
            params: params.collect::<Result<_, _>>()?,
            forced,
        })
    }

    fn items(&mut self, resource: &'w Resource) -> Result<Cow<'w, [Value]>, String> {
        let Some(foreach) = &resource.foreach else { return Ok(Cow::Borrowed(&[])) };
        let compiled = self.engine.compile(foreach).map_err(|e| format!("`foreach`: {e}"))?;
        let value = match compiled.is_plain() {
            true => Cow::Borrowed(foreach),
            false => compiled.render(&self.scope(resource)).map_err(|e| format!("`foreach`: {e}"))?,
        };
        let items = match value {
            Cow::Borrowed(Value::List(items)) => Cow::Borrowed(items.as_slice()),
            Cow::Owned(Value::List(items)) => Cow::Owned(items),
            _ => return Err("`foreach` must give a list".to_string()),
        };
        if items.len() > limits::FOREACH_ITEMS_MAX {
            return Err(format!("`foreach` gives {} items; the limit is {}", items.len(), limits::FOREACH_ITEMS_MAX));
        }
        if self.entries.len() + self.left + items.len() > limits::RESOURCES_PER_RUN_MAX {
            return Err(format!("with these items the run has more than {} resources", limits::RESOURCES_PER_RUN_MAX));
        }
        Ok(items)
    }

    fn item(
        &mut self,
        ready: &Ready<'w>,
        item: Option<(usize, &Value)>,
        names: Option<&mut HashSet<String>>,
    ) -> Joined {
        let resource = ready.resource;
        // Plain resources, nearly all, need no scope at all.
        let templated = ready.name.is_some() || ready.condition.is_some() || !ready.params.is_empty();
        let scope = match (templated, item) {
            (false, _) => None,
            (true, None) => Some(self.scope(resource)),
            (true, Some((_, item))) => Some(self.scope(resource).with_item(item)),
        };
        let name = match name_of(ready, scope.as_ref(), item.map(|(at, _)| at), names) {
            Ok(name) => name,
            Err(error) => return self.fail(resource, format!("`name`: {error}")),
        };
        if let (Some(condition), Some(scope)) = (&ready.condition, &scope) {
            match condition.holds(scope) {
                Ok(true) => {}
                Ok(false) => return self.enter(resource, name, 0, skipped(String::new())),
                Err(error) => return self.enter(resource, name, 0, failed(format!("`when`: {error}"))),
            }
        }
        let params = match render(ready, scope.as_ref()) {
            Ok(params) => params,
            Err(message) => return self.enter(resource, name, 0, failed(message)),
        };
        let source = params.find("source").and_then(text_of);
        let blob = source.and_then(|path| self.blobs.get(path.as_ref()).copied());
        let shown = if self.hands.is_secret(&params) { &Params::default() } else { &params };
        let print = fingerprint(&resource.kind, shown, blob.map(|blob| &blob.sha256));
        let mut verdict = self.attempts(ready, &name, &params, blob, item.map(|(_, item)| item));
        if resource.noop && verdict.outcome == Outcome::Changed {
            verdict.outcome = Outcome::Skipped;
            verdict.message = format!("noop: {}", verdict.message);
        }
        self.enter(resource, name, print, verdict)
    }

    fn attempts(
        &mut self,
        ready: &Ready<'w>,
        name: &str,
        params: &Params<'_>,
        blob: Option<&BlobRef>,
        item: Option<&Value>,
    ) -> Verdict {
        let resource = ready.resource;
        let (base, make) = (&self.base, self.make_scope);
        let scope = || {
            let scope = base.get_or_init(make).with_vars(&resource.vars);
            item.map_or(scope.clone(), |item| scope.with_item(item))
        };
        let mut now = self.clock;
        let mut attempt = 0;
        loop {
            let mut verdict = self.hands.settle(&Task {
                name,
                kind: &resource.kind,
                params,
                blob,
                scope: &scope,
                enforce: !self.options.dry_run && !resource.noop,
                forced: ready.forced,
                diff: self.options.diff && !resource.sensitive,
                notify: &resource.notify,
                deadline: now + resource.timeout_ms,
            });
            let settled = !matches!(verdict.outcome, Outcome::Failed | Outcome::Blocked);
            if settled || attempt >= resource.retries || self.options.dry_run || self.hands.stopping() {
                if attempt > 0 {
                    verdict.message = format!("{} (attempt {})", verdict.message, attempt + 1);
                }
                return verdict;
            }
            attempt += 1;
            self.hands.pause(limits::RETRY_PAUSE_MS);
            now = self.hands.now();
        }
    }

    fn scope(&mut self, resource: &'w Resource) -> Scope {
        let base = self.base.get_or_init(self.make_scope);
        if resource.vars.is_empty() {
            return base.clone();
        }
        match &self.layered {
            Some((vars, scope)) if **vars == resource.vars => scope.clone(),
            _ => {
                let scope = base.with_vars(&resource.vars);
                self.layered = Some((&resource.vars, scope.clone()));
                scope
            }
        }
    }

    fn skip(&mut self, resource: &Resource, message: String) -> Joined {
        self.enter(resource, resource.name.clone(), 0, skipped(message))
    }

    fn fail(&mut self, resource: &Resource, message: String) -> Joined {
        self.enter(resource, resource.name.clone(), 0, failed(message))
    }

    fn note(&mut self, resource: &Resource, outcome: Outcome, message: String) {
        self.enter(resource, resource.name.clone(), 0, Verdict { outcome, message, diff: String::new() });
    }

    fn enter(&mut self, resource: &Resource, name: String, fingerprint: u64, mut verdict: Verdict) -> Joined {
        let now = self.hands.now();
        let duration_ms = now.since(std::mem::replace(&mut self.clock, now));
        let bad = matches!(verdict.outcome, Outcome::Failed | Outcome::Blocked);
        let interrupted = bad && self.hands.stopping();
        if interrupted {
            verdict.message = format!("interrupted: {}", verdict.message);
        }
        if resource.sensitive {
            // Whatever an executor says may quote what it worked on.
            verdict.diff.clear();
            if !verdict.message.is_empty() {
                verdict.message = "sensitive: nothing of it is shown".to_string();
            }
        }
        let budget = if bad { &mut self.failed_text } else { &mut self.changed_text };
        self.entries.push(ResourceReport {
            name,
            kind: resource.kind.clone(),
            outcome: verdict.outcome,
            message: cut(verdict.message, budget),
            diff: cut(verdict.diff, budget),
            duration_ms,
            fingerprint,
        });
        Joined { bad, changed: verdict.outcome == Outcome::Changed, interrupted }
    }
}

fn name_of(
    ready: &Ready<'_>,
    scope: Option<&Scope>,
    at: Option<usize>,
    names: Option<&mut HashSet<String>>,
) -> Result<String, TemplateError> {
    let plain = &ready.resource.name;
    let name = match (&ready.name, scope, at) {
        (Some(template), Some(scope), _) => {
            text_of(template.render(scope)?.as_ref()).map_or(plain.clone(), Cow::into_owned)
        }
        (_, _, Some(at)) => format!("{plain}[{at}]"),
        _ => plain.clone(),
    };
    // Two items may give one name; the report must tell them apart.
    let taken = names.is_some_and(|names| !names.insert(name.clone()));
    Ok(match at {
        Some(at) if taken => format!("{name}[{at}]"),
        _ => name,
    })
}

fn render<'w>(ready: &Ready<'w>, scope: Option<&Scope>) -> Result<Params<'w>, String> {
    let template = |name: &str| ready.params.iter().find(|(known, _)| *known == name).zip(scope);
    let rendered = ready.resource.params.iter().map(|(name, value)| match template(name) {
        None => Ok((name.as_str(), Cow::Borrowed(value))),
        Some(((_, template), scope)) => {
            template.render(scope).map(|value| (name.as_str(), value)).map_err(|e| format!("`{name}`: {e}"))
        }
    });
    rendered.collect()
}

fn mentions_item(condition: &Condition<'_, '_>) -> bool {
    condition.references().iter().any(|name| name == "item" || name.starts_with("item."))
}

fn skipped(message: String) -> Verdict {
    Verdict { outcome: Outcome::Skipped, message, diff: String::new() }
}

fn failed(message: String) -> Verdict {
    Verdict { outcome: Outcome::Failed, message, diff: String::new() }
}

/// Cuts a text to its bound and to what is left for all, at a character, and says so.
fn cut(mut text: String, left: &mut usize) -> String {
    let most = limits::OUTCOME_TEXT_BYTES_MAX.min(*left);
    if text.len() > most {
        let note = format!("\n[{} bytes in all]", text.len());
        let mut at = most.saturating_sub(note.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        text.truncate(at);
        text.push_str(&note);
        text.shrink_to_fit();
    }
    *left = left.saturating_sub(text.len());
    text
}
