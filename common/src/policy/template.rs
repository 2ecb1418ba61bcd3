//! The one template environment: the server checks with it, the agent renders with it, so that both mean the same.
//!
//! MiniJinja without auto-escape, includes or macros, in strict mode; a final value that is undefined is an error too,
//! which strict mode alone does not give. Namespaces are [`NAMESPACES`]. Source length and nesting are bounded before
//! parsing, work by fuel, output by a counting writer. It reads no file and no clock.
//!
//! Text without markers never touches the engine: [`Engine::compile`] hands it back borrowed.

mod bounds;
mod convert;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Object;
use minijinja::{Environment, ErrorKind, Expression, Template, UndefinedBehavior};

use crate::bundle::Value;
use crate::limits;

pub use bounds::has_markers;

/// The names that a template may start from.
pub const NAMESPACES: [&str; 4] = ["vars", "traits", "item", "envoy"];
/// Keys of the `envoy` namespace.
pub const ENVOY_KEYS: [&str; 3] = ["environment", "hostname", "uuid"];

/// Why a template was refused or did not render. The caller knows the file and the resource and says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// The source is over its limit.
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Brackets, blocks or chains of operators are nested too deep.
    TooDeep {
        /// Line in the source, from 1.
        line: u32,
    },
    /// The source does not parse.
    Syntax {
        /// Line in the source, from 1.
        line: u32,
        /// What the parser says.
        detail: String,
    },
    /// A name has no value.
    Undefined {
        /// The name, where it could be found out.
        name: Option<String>,
        /// A name that exists and looks like it.
        near: Option<String>,
    },
    /// More output than its limit.
    OutputTooLarge,
    /// More instructions than its limit.
    TooMuchWork,
    /// It parsed, but an operation failed.
    Evaluation {
        /// Line in the source, from 1; 0 where unknown.
        line: u32,
        /// What the engine says.
        detail: String,
    },
    /// The result is nothing that a parameter can hold.
    NotAValue {
        /// What it is instead.
        what: String,
    },
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TemplateError::TooLong { bytes } => {
                write!(f, "a template of {bytes} bytes is over the limit of {}", limits::TEMPLATE_SOURCE_BYTES_MAX)
            }
            TemplateError::TooDeep { line } => write!(
                f,
                "line {line} of the template is nested more than {} deep, chains more than {} operators, or builds too much step by step",
                limits::TEMPLATE_NESTING_MAX,
                limits::TEMPLATE_CHAIN_MAX
            ),
            TemplateError::Syntax { line, detail } => write!(f, "line {line} of the template: {detail}"),
            TemplateError::Undefined { name: Some(name), near } => {
                write!(f, "`{name}` is not defined")?;
                near.as_ref().map_or(Ok(()), |near| write!(f, "; did you mean `{near}`?"))
            }
            TemplateError::Undefined { name: None, .. } => f.write_str("the template uses a value that is not defined"),
            TemplateError::OutputTooLarge => {
                write!(f, "the template gives more than {} bytes", limits::TEMPLATE_OUTPUT_BYTES_MAX)
            }
            TemplateError::TooMuchWork => {
                write!(f, "the template needs more than {} steps: loop over less", limits::TEMPLATE_FUEL)
            }
            TemplateError::Evaluation { line: 0, detail } => write!(f, "the template failed: {detail}"),
            TemplateError::Evaluation { line, detail } => write!(f, "line {line} of the template failed: {detail}"),
            TemplateError::NotAValue { what } => write!(f, "the template gives {what}, which no parameter can hold"),
        }
    }
}

impl std::error::Error for TemplateError {}

/// Whether a value has a template anywhere in it. Values nest at most [`limits::VALUE_DEPTH_MAX`] deep.
pub fn is_templated(value: &Value) -> bool {
    match value {
        Value::Str(text) => has_markers(text),
        Value::List(items) => items.iter().any(is_templated),
        Value::Map(map) => map.values().any(is_templated),
        _ => false,
    }
}

/// The engine. `'s` is the life of the sources that it compiles: usually that of the bundle.
pub struct Engine<'s> {
    environment: Environment<'s>,
}

impl Default for Engine<'_> {
    fn default() -> Self {
        Engine::new()
    }
}

impl<'s> Engine<'s> {
    /// An engine with the house settings.
    pub fn new() -> Engine<'s> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(limits::TEMPLATE_FUEL));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_recursion_limit(limits::TEMPLATE_NESTING_MAX * 2);
        // The one prints the whole context; the other carries values through loops, and with them nests them without bound.
        environment.remove_global("debug");
        environment.remove_global("namespace");
        // The builder fails on bad delimiters only, and these are the defaults.
        if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
            environment.set_syntax(syntax);
        }
        Engine { environment }
    }

    /// Compiles a value with every template in it. Parts without templates stay borrowed.
    pub fn compile<'e>(&'e self, value: &'s Value) -> Result<Compiled<'e, 's>, TemplateError> {
        let parts = match value {
            Value::Str(text) if has_markers(text) => return self.compile_text(text),
            Value::List(items) => {
                let items: Vec<_> = items.iter().map(|item| self.compile(item)).collect::<Result<_, _>>()?;
                if items.iter().all(Compiled::is_plain) { Part::Plain(value) } else { Part::List(items) }
            }
            Value::Map(map) => {
                let entries = map.iter().map(|(key, value)| Ok((key.as_str(), self.compile(value)?)));
                let entries: Vec<_> = entries.collect::<Result<_, _>>()?;
                if entries.iter().all(|(_, value)| value.is_plain()) { Part::Plain(value) } else { Part::Map(entries) }
            }
            _ => Part::Plain(value),
        };
        Ok(Compiled(parts))
    }

    /// Compiles one text: exactly one `{{ }}` keeps the type of its value, everything else gives text.
    pub fn compile_text<'e>(&'e self, source: &'s str) -> Result<Compiled<'e, 's>, TemplateError> {
        let part = match bounds::check_text(source)? {
            Some(range) => Part::Expression(self.expression(&source[range])?),
            None => Part::Text(self.environment.template_from_str(source).map_err(|e| refused(&e))?),
        };
        Ok(Compiled(part))
    }

    /// Compiles a condition: a bare expression, or one `{{ }}`.
    pub fn compile_condition<'e>(&'e self, source: &'s str) -> Result<Condition<'e, 's>, TemplateError> {
        let source = match has_markers(source) {
            true => bounds::check_text(source.trim())?.map_or(source, |range| &source.trim()[range]),
            false => source,
        };
        Ok(Condition(self.expression(source)?))
    }

    /// Renders a text that lives shorter than the engine: a template file.
    pub fn render_once(&self, source: &str, scope: &Scope) -> Result<String, TemplateError> {
        bounds::check_text(source)?;
        if !has_markers(source) {
            return Ok(source.to_string());
        }
        // Environments are covariant in their sources: a shorter borrow of this one may compile a shorter-lived text.
        let environment: &Environment<'_> = &self.environment;
        let template = environment.template_from_str(source).map_err(|e| refused(&e))?;
        render_text(&template, scope)
    }

    fn expression<'e>(&'e self, source: &'s str) -> Result<Expression<'e, 's>, TemplateError> {
        bounds::check_expression(source)?;
        self.environment.compile_expression(source).map_err(|e| refused(&e))
    }
}

/// A compiled policy value.
pub struct Compiled<'e, 's>(Part<'e, 's>);

enum Part<'e, 's> {
    Plain(&'s Value),
    Expression(Expression<'e, 's>),
    Text(Template<'e, 's>),
    List(Vec<Compiled<'e, 's>>),
    Map(Vec<(&'s str, Compiled<'e, 's>)>),
}

impl<'s> Compiled<'_, 's> {
    /// Whether there is no template in it.
    pub fn is_plain(&self) -> bool {
        matches!(self.0, Part::Plain(_))
    }

    /// Its value in a scope.
    pub fn render(&self, scope: &Scope) -> Result<Cow<'s, Value>, TemplateError> {
        Ok(match &self.0 {
            Part::Plain(value) => Cow::Borrowed(*value),
            Part::Expression(expression) => Cow::Owned(evaluate(expression, scope, convert::from_engine)?),
            Part::Text(template) => Cow::Owned(Value::Str(render_text(template, scope)?)),
            Part::List(items) => {
                let items = items.iter().map(|item| item.render(scope).map(Cow::into_owned));
                Cow::Owned(Value::List(items.collect::<Result<_, _>>()?))
            }
            Part::Map(entries) => {
                let entries =
                    entries.iter().map(|(key, value)| Ok((key.to_string(), value.render(scope)?.into_owned())));
                Cow::Owned(Value::Map(entries.collect::<Result<_, _>>()?))
            }
        })
    }

    /// The dotted names that it starts from and does not set itself: `vars.port`, `traits.os.arch`.
    pub fn references(&self) -> BTreeSet<String> {
        match &self.0 {
            Part::Plain(_) => BTreeSet::new(),
            Part::Expression(expression) => names(expression.undeclared_variables(true)),
            Part::Text(template) => names(template.undeclared_variables(true)),
            Part::List(items) => items.iter().flat_map(Compiled::references).collect(),
            Part::Map(entries) => entries.iter().flat_map(|(_, value)| value.references()).collect(),
        }
    }
}

/// A compiled `when`.
pub struct Condition<'e, 's>(Expression<'e, 's>);

impl Condition<'_, '_> {
    /// Whether it holds. An undefined result is an error.
    pub fn holds(&self, scope: &Scope) -> Result<bool, TemplateError> {
        evaluate(&self.0, scope, |value| match value.is_undefined() {
            true => Err(TemplateError::Undefined { name: None, near: None }),
            false => Ok(value.is_true()),
        })
    }

    /// The dotted names that it starts from.
    pub fn references(&self) -> BTreeSet<String> {
        names(self.0.undeclared_variables(true))
    }
}

/// What templates see. Cheap to clone; the trees are shared.
#[derive(Clone, Debug)]
pub struct Scope(Arc<Names>);

#[derive(Clone, Debug)]
struct Names {
    vars: minijinja::Value,
    traits: minijinja::Value,
    envoy: minijinja::Value,
    item: Option<minijinja::Value>,
}

impl Scope {
    /// From variables after precedence, the traits and the `envoy` namespace ([`ENVOY_KEYS`]).
    pub fn new(vars: &BTreeMap<String, Value>, traits: &serde_json::Value, envoy: &BTreeMap<String, Value>) -> Scope {
        let trees = traits.as_object().into_iter().flatten();
        Scope::with_trees(vars, trees.map(|(name, tree)| (name.clone(), Arc::new(tree.clone()))).collect(), envoy)
    }

    /// The same with shared trees, of which only those that a template asks for are looked into.
    pub fn with_trees(
        vars: &BTreeMap<String, Value>,
        trees: Vec<(String, Arc<serde_json::Value>)>,
        envoy: &BTreeMap<String, Value>,
    ) -> Scope {
        let trees = trees.into_iter().map(|(name, tree)| (name, (tree, OnceLock::new()))).collect();
        Scope(Arc::new(Names {
            vars: convert::map_into_engine(vars),
            traits: minijinja::Value::from_object(Trees(trees)),
            envoy: convert::map_into_engine(envoy),
            item: None,
        }))
    }

    /// The same with variables that are looked up first.
    pub fn with_vars(&self, first: &BTreeMap<String, Value>) -> Scope {
        if first.is_empty() {
            return self.clone();
        }
        let layers = Layered { first: convert::map_into_engine(first), then: self.0.vars.clone() };
        Scope(Arc::new(Names { vars: minijinja::Value::from_object(layers), ..(*self.0).clone() }))
    }

    /// The same with an `item`.
    pub fn with_item(&self, item: &Value) -> Scope {
        Scope(Arc::new(Names { item: Some(convert::into_engine(item)), ..(*self.0).clone() }))
    }

    fn root(&self) -> minijinja::Value {
        minijinja::Value::from_dyn_object(Arc::clone(&self.0))
    }

    /// Follows a dotted name as far as it goes: `Err` carries the nearest name where it stops.
    fn follow(&self, name: &str) -> Result<(), Option<String>> {
        let (mut value, mut path) = (self.root(), String::new());
        for part in name.split('.') {
            let next = value.get_attr(part).unwrap_or_default();
            if next.is_undefined() {
                let known: Vec<String> = match value.kind() {
                    minijinja::value::ValueKind::Map => {
                        value.try_iter().into_iter().flatten().map(|key| key.to_string()).collect()
                    }
                    _ => Vec::new(),
                };
                let others = known.iter().map(String::as_str).filter(|name| *name != part);
                let near = crate::units::nearest(part, others);
                return Err(near.map(|near| format!("{path}{near}")));
            }
            path = format!("{path}{part}.");
            value = next;
        }
        Ok(())
    }

    /// Puts the name into an error about an undefined value, found among the names that the template starts from.
    fn explain(&self, error: TemplateError, references: impl FnOnce() -> BTreeSet<String>) -> TemplateError {
        if !matches!(error, TemplateError::Undefined { name: None, .. }) {
            return error;
        }
        let missing = references().into_iter().find_map(|name| self.follow(&name).err().map(|near| (name, near)));
        missing.map_or(error, |(name, near)| TemplateError::Undefined { name: Some(name), near })
    }
}

impl Object for Names {
    fn get_value(self: &Arc<Self>, key: &minijinja::Value) -> Option<minijinja::Value> {
        key.as_str().and_then(|key| self.get_value_by_str(key))
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<minijinja::Value> {
        match key {
            "vars" => Some(self.vars.clone()),
            "traits" => Some(self.traits.clone()),
            "envoy" => Some(self.envoy.clone()),
            "item" => self.item.clone(),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> minijinja::value::Enumerator {
        minijinja::value::Enumerator::Str(&NAMESPACES)
    }
}

/// The trait trees; each is brought into the engine's form when it is first asked for, which is never for most.
#[derive(Debug)]
struct Trees(BTreeMap<String, (Arc<serde_json::Value>, OnceLock<minijinja::Value>)>);

impl Object for Trees {
    fn get_value(self: &Arc<Self>, key: &minijinja::Value) -> Option<minijinja::Value> {
        key.as_str().and_then(|key| self.get_value_by_str(key))
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<minijinja::Value> {
        let (tree, made) = self.0.get(key)?;
        Some(made.get_or_init(|| minijinja::Value::from(minijinja::value::Serde(tree.as_ref()))).clone())
    }

    fn enumerate(self: &Arc<Self>) -> minijinja::value::Enumerator {
        minijinja::value::Enumerator::Values(self.0.keys().map(|name| minijinja::Value::from(name.as_str())).collect())
    }
}

/// Two mappings, the first of which hides the second.
#[derive(Debug)]
struct Layered {
    first: minijinja::Value,
    then: minijinja::Value,
}

impl Object for Layered {
    fn get_value(self: &Arc<Self>, key: &minijinja::Value) -> Option<minijinja::Value> {
        let found = |layer: &minijinja::Value| layer.get_item(key).ok().filter(|value| !value.is_undefined());
        found(&self.first).or_else(|| found(&self.then))
    }

    fn enumerate(self: &Arc<Self>) -> minijinja::value::Enumerator {
        let layers = [&self.first, &self.then].into_iter().flat_map(|layer| layer.try_iter().into_iter().flatten());
        let keys: BTreeSet<minijinja::Value> = layers.collect();
        minijinja::value::Enumerator::Iter(Box::new(keys.into_iter()))
    }
}

fn evaluate<T>(
    expression: &Expression<'_, '_>,
    scope: &Scope,
    read: impl FnOnce(&minijinja::Value) -> Result<T, TemplateError>,
) -> Result<T, TemplateError> {
    let result = expression.eval(scope.root()).map_err(|e| failed(&e)).and_then(|value| read(&value));
    result.map_err(|error| scope.explain(error, || names(expression.undeclared_variables(true))))
}

fn render_text(template: &Template<'_, '_>, scope: &Scope) -> Result<String, TemplateError> {
    let mut out = Bounded::default();
    let result = template.render_captured_to(scope.root(), &mut out).map(|_| ());
    if out.full {
        return Err(TemplateError::OutputTooLarge);
    }
    result.map_err(|e| scope.explain(failed(&e), || names(template.undeclared_variables(true))))?;
    // The engine writes text only, in whole pieces.
    String::from_utf8(out.bytes).map_err(|_| TemplateError::NotAValue { what: "bytes that are not text".to_string() })
}

/// A writer that refuses what is over the output limit.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + piece.len() > limits::TEMPLATE_OUTPUT_BYTES_MAX {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A source that did not compile.
fn refused(error: &minijinja::Error) -> TemplateError {
    TemplateError::Syntax { line: error.line().unwrap_or(1) as u32, detail: describe(error) }
}

/// A template that did not evaluate.
fn failed(error: &minijinja::Error) -> TemplateError {
    match error.kind() {
        ErrorKind::UndefinedError => TemplateError::Undefined { name: None, near: None },
        ErrorKind::OutOfFuel => TemplateError::TooMuchWork,
        _ => TemplateError::Evaluation { line: error.line().unwrap_or(0) as u32, detail: describe(error) },
    }
}

/// The engine's words without its own idea of the place.
fn describe(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_string)
}

/// Without the functions that the engine itself defines.
fn names(found: std::collections::HashSet<String>) -> BTreeSet<String> {
    let builtin = |name: &String| matches!(name.as_str(), "range" | "dict" | "loop");
    found.into_iter().filter(|name| !builtin(name)).collect()
}
