//! What a template needs: the names that it uses and where, and what is wrong with it before any host renders it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::template::{ENVOY_KEYS, Engine, NAMESPACES, Scope, TemplateError, has_markers};
use super::trait_keys;
use crate::bundle::Value;
use crate::units::nearest;

/// A place in a template, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// Line.
    pub line: u32,
    /// Column in characters.
    pub column: u32,
}

/// Something wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Where in the template.
    pub spot: Spot,
    /// What is wrong.
    pub what: String,
    /// What to do; may be empty.
    pub cure: String,
}

/// What a template uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Names below `vars` that must exist (`vars.port`), with their first place. Those that the template itself asks for
    /// with `is defined` or `default` are left out.
    pub required: BTreeMap<String, Spot>,
    /// First parts of all names below `vars`.
    pub keys: BTreeSet<String>,
    /// `vars` is used as a whole: every variable may matter.
    pub all_vars: bool,
    /// It uses `item`.
    pub item: bool,
    /// What is wrong whatever the variables are.
    pub flaws: Vec<Flaw>,
}

/// Looks into templates. `'s` is the life of their sources.
#[derive(Default)]
pub struct Looker<'s> {
    engine: Engine<'s>,
    /// Filters (false) and tests (true) that were tried, and whether they exist.
    tried: RefCell<BTreeMap<(bool, String), bool>>,
}

impl<'s> Looker<'s> {
    /// What a text with markers uses.
    pub fn text(&self, source: &'s str, has_item: bool) -> Uses {
        match self.engine.compile_text(source) {
            Ok(compiled) => self.checked(source, uses(source, compiled.references(), has_item), false),
            Err(error) => broken(source, &error, "template"),
        }
    }

    /// What a condition uses.
    pub fn condition(&self, source: &'s str, has_item: bool) -> Uses {
        match self.engine.compile_condition(source) {
            Ok(condition) => {
                let bare = !has_markers(source);
                self.checked(source, uses(source, condition.references(), has_item), bare)
            }
            Err(error) => broken(source, &error, "condition"),
        }
    }

    /// Adds filters and tests that do not exist: the engine itself finds out only when it gets there.
    fn checked(&self, source: &str, mut uses: Uses, bare: bool) -> Uses {
        for call in calls(source, bare) {
            if !self.exists(&call) {
                let kind = if call.is_test { "test" } else { "filter" };
                let what = format!("there is no {kind} `{}`", call.name);
                uses.flaws.push(Flaw {
                    spot: spot_at(source, call.at),
                    what,
                    cure: "see the list of MiniJinja".into(),
                });
            }
        }
        uses.flaws.sort_by_key(|flaw| flaw.spot);
        uses
    }

    /// Whether the engine has a filter or test: it only says so when one is used.
    fn exists(&self, call: &Call<'_>) -> bool {
        let key = (call.is_test, call.name.to_string());
        if let Some(known) = self.tried.borrow().get(&key) {
            return *known;
        }
        let probe = format!("{{{{ '' {} {} }}}}", if call.is_test { "is" } else { "|" }, call.name);
        let scope = Scope::new(&BTreeMap::new(), &serde_json::Value::Null, &BTreeMap::new());
        let answer = self.engine.render_once(&probe, &scope);
        let exists = !matches!(answer, Err(TemplateError::Evaluation { detail, .. }) if detail.ends_with("is unknown"));
        self.tried.borrow_mut().insert(key, exists);
        exists
    }
}

/// Follows a name such as `vars.ports.http`; `Err` says what is missing, with a name nearby.
pub fn follow<'v>(name: &str, lookup: impl Fn(&str) -> Option<&'v Value>, known: &[&str]) -> Result<(), String> {
    let mut parts = name.split('.').skip(1);
    let Some(first) = parts.next() else { return Ok(()) };
    let Some(mut value) = lookup(first) else {
        return Err(undefined(
            &format!("vars.{first}"),
            nearest(first, known.iter().copied()).map(|near| format!("vars.{near}")),
        ));
    };
    for (n, part) in parts.enumerate() {
        // Made only for an error: nearly every name is there, and this runs for each mapping.
        let path = || name.split('.').take(n + 2).collect::<Vec<_>>().join(".");
        value = match value {
            Value::Map(map) => match map.get(part) {
                Some(value) => value,
                None => {
                    let path = path();
                    let near = nearest(part, map.keys().map(String::as_str)).map(|near| format!("{path}.{near}"));
                    return Err(undefined(&format!("{path}.{part}"), near));
                }
            },
            // A list is indexed by number, and text with a template in it may be anything once rendered.
            Value::List(_) => return Ok(()),
            _ => {
                let path = path();
                return Err(format!("`{path}.{part}` is not defined: `{path}` is no mapping"));
            }
        };
    }
    Ok(())
}

fn undefined(name: &str, near: Option<String>) -> String {
    near.map_or(format!("`{name}` is not defined"), |near| format!("`{name}` is not defined; did you mean `{near}`?"))
}

fn uses(source: &str, names: BTreeSet<String>, has_item: bool) -> Uses {
    let mut out = Uses::default();
    for name in names {
        let (root, rest) = name.split_once('.').map_or((name.as_str(), ""), |(root, rest)| (root, rest));
        let first = rest.split('.').next().unwrap_or_default();
        let flaw = |what: String, cure: String| Flaw { spot: spot_of(source, &name), what, cure };
        match root {
            "vars" if first.is_empty() => out.all_vars = true,
            "vars" => {
                out.keys.insert(first.to_string());
                if !is_guarded(source, &name) {
                    out.required.insert(name.clone(), spot_of(source, &name));
                }
            }
            "item" if !has_item => {
                let cure = "add `foreach` to the resource, or use `vars`".to_string();
                out.flaws.push(flaw("`item` exists only in a resource with `foreach`".to_string(), cure));
            }
            "envoy" if !first.is_empty() && !ENVOY_KEYS.contains(&first) => {
                let cure = match nearest(first, ENVOY_KEYS) {
                    Some(near) => format!("did you mean `envoy.{near}`?"),
                    None => format!("there are envoy.{}", ENVOY_KEYS.join(", envoy.")),
                };
                out.flaws.push(flaw(format!("`envoy.{first}` does not exist"), cure));
            }
            "item" => out.item = true,
            "traits" if !is_guarded(source, &name) => {
                if let Err((what, cure)) = trait_keys::check(rest) {
                    out.flaws.push(flaw(what, cure));
                }
            }
            "traits" | "envoy" => {}
            _ => {
                let cure = match nearest(root, NAMESPACES) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("a variable is written `vars.{root}`; there are also traits, item and envoy"),
                };
                out.flaws.push(flaw(format!("a template knows no name `{root}`"), cure));
            }
        }
    }
    out
}

/// A filter or test that a template applies.
struct Call<'s> {
    name: &'s str,
    at: usize,
    is_test: bool,
}

/// Every filter and test in the expressions of a template, or in a bare expression.
fn calls(source: &str, bare: bool) -> Vec<Call<'_>> {
    let bytes = source.as_bytes();
    let (mut out, mut at, mut inside) = (Vec::new(), 0, bare);
    let word_at = |from: usize| {
        let from = from + source[from..].len() - source[from..].trim_start().len();
        let length = source[from..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(source.len() - from);
        (from, &source[from..from + length])
    };
    while at < bytes.len() {
        let two = bytes.get(at..at + 2).unwrap_or_default();
        match bytes[at] {
            _ if !inside && two == b"{#" => {
                at = source[at..].find("#}").map_or(bytes.len(), |end| at + end);
            }
            _ if !inside && (two == b"{{" || two == b"{%") => {
                inside = true;
                // What stands between `raw` and `endraw` is text.
                if two == b"{%" && word_at(at + 2).1 == "raw" {
                    at = source[at + 2..].find("endraw").map_or(bytes.len(), |end| at + 2 + end);
                }
                at += 1;
            }
            _ if inside && !bare && (two == b"}}" || two == b"%}") => inside = false,
            quote @ (b'\'' | b'"') if inside => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'|' if inside => {
                let (at, name) = word_at(at + 1);
                out.push(Call { name, at, is_test: false });
            }
            b'i' if inside && two == b"is" && word_at(at).1 == "is" && !source[..at].ends_with(is_word) => {
                let (mut start, mut name) = word_at(at + 2);
                if name == "not" {
                    (start, name) = word_at(start + 3);
                }
                out.push(Call { name, at: start, is_test: true });
            }
            _ => {}
        }
        at += 1;
    }
    out.retain(|call| !call.name.is_empty());
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn broken(source: &str, error: &TemplateError, kind: &str) -> Uses {
    let (line, what) = match error {
        TemplateError::Syntax { line, detail } => (*line, format!("the {kind} does not parse: {detail}")),
        TemplateError::TooDeep { line } => {
            (*line, "the template is nested too deep, or chains too many operators".to_string())
        }
        other => (1, other.to_string()),
    };
    let text = source.lines().nth(line.saturating_sub(1) as usize).unwrap_or_default();
    let marker = ["{{", "{%", "{#"].iter().filter_map(|marker| text.find(marker)).min();
    let indent = text.len() - text.trim_start().len();
    let column = text[..marker.unwrap_or(indent)].chars().count() as u32 + 1;
    let flaw = Flaw { spot: Spot { line: line.max(1), column }, what, cure: String::new() };
    Uses { flaws: vec![flaw], ..Uses::default() }
}

/// Where a name first stands by itself.
fn spot_of(source: &str, name: &str) -> Spot {
    spot_at(source, occurrences(source, name).next().unwrap_or(0))
}

fn spot_at(source: &str, at: usize) -> Spot {
    let before = &source[..at];
    let line = before.matches('\n').count() as u32 + 1;
    Spot { line, column: before.rsplit('\n').next().unwrap_or_default().chars().count() as u32 + 1 }
}

/// Offsets at which the name stands, not as a part of a longer word.
fn occurrences<'a>(source: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    source.match_indices(name).map(|(at, _)| at).filter(move |&at| {
        !source[..at].ends_with(|c| is_word(c) || c == '.') && !source[at + name.len()..].starts_with(is_word)
    })
}

/// Whether the template asks somewhere if the name, or what it is part of, is defined. It then takes care itself.
fn is_guarded(source: &str, name: &str) -> bool {
    let asks = |rest: &str| {
        let words: String = rest.split_whitespace().collect::<Vec<_>>().join(" ");
        let filter = words.strip_prefix('|').map(str::trim_start);
        filter.is_some_and(|filter| filter.starts_with("default") || filter.starts_with("d("))
            || ["is defined", "is undefined", "is not defined", "is not undefined"]
                .iter()
                .any(|ask| words.starts_with(ask))
    };
    let ends = name.match_indices('.').map(|(at, _)| at).skip(1).chain([name.len()]);
    let bounded = |rest: &str| rest.chars().take(64).collect::<String>();
    ends.map(|end| &name[..end])
        .any(|part| occurrences(source, part).any(|at| asks(&bounded(&source[at + part.len()..]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(source: &str) -> Uses {
        Looker::default().text(source, false)
    }

    #[test]
    fn required_names_have_their_place() {
        let uses = look("a {{ vars.port }}\n  b {{ vars.site.name }} {{ vars.port }}");
        let names: Vec<_> = uses.required.iter().map(|(name, spot)| (name.as_str(), spot.line, spot.column)).collect();
        assert_eq!(names, [("vars.port", 1, 6), ("vars.site.name", 2, 8)]);
        assert_eq!(uses.keys.len(), 2);
    }

    #[test]
    fn names_that_the_template_asks_for_are_not_required() {
        for source in [
            "{{ vars.x | default('a') }}",
            "{{ vars.x|d('a') }}",
            "{% if vars.x is defined %}{{ vars.x.y }}{% endif %}",
            "{% if vars.x  is  not defined %}{% endif %}",
            "{{ traits.os.nope | default(vars.x | default(1)) }}",
        ] {
            let uses = look(source);
            assert!(uses.required.is_empty() && uses.keys.contains("x") && uses.flaws.is_empty(), "{source} {uses:?}");
        }
        assert_eq!(look("{{ vars.xx | default(1) }}{{ vars.x }}").required.len(), 1);
    }

    #[test]
    fn flaws_say_what_to_write() {
        for (source, what, cure, line, column) in [
            ("{{ port }}", "no name `port`", "vars.port", 1, 4),
            ("x\n {{ var.port }}", "no name `var`", "did you mean `vars`?", 2, 5),
            ("{{ item.name }}", "`item` exists only", "foreach", 1, 4),
            ("{{ traits.os.arc }}", "`traits.os.arc` does not exist", "did you mean `traits.os.arch`?", 1, 4),
            ("{{ envoy.hostnam }}", "`envoy.hostnam` does not exist", "envoy.hostname", 1, 4),
            ("a\n  {{ vars.x", "does not parse", "", 2, 3),
            (
                "{% raw %}{{ a | nope }}{% endraw %}{# | nope #} | nope {{ '| nope' | upper }}\n {{ 1 | nope }}",
                "no filter `nope`",
                "",
                2,
                9,
            ),
            ("{% if vars.x is defined and vars.y is  not odd_ish %}{% endif %}", "no test `odd_ish`", "", 1, 44),
            ("a\n  {% if vars.x %}\nb", "does not parse", "", 2, 3),
        ] {
            let uses = look(source);
            let flaw = &uses.flaws[0];
            assert!(flaw.what.contains(what) && flaw.cure.contains(cure), "{source}: {flaw:?}");
            assert_eq!((flaw.spot.line, flaw.spot.column), (line, column), "{source}");
        }
        assert!(look("{% for i in range(3) %}{{ loop.index }} {{ i }}{% endfor %}{{ vars }}").flaws.is_empty());
    }

    #[test]
    fn names_are_followed_into_mappings() {
        let site = Value::Map([("name".to_string(), Value::Int(1))].into());
        let lookup = |name: &str| (name == "site").then_some(&site);
        assert_eq!(follow("vars.site.name", lookup, &["site"]), Ok(()));
        for (name, message) in [
            ("vars.sit", "`vars.sit` is not defined; did you mean `vars.site`?"),
            ("vars.site.nam", "`vars.site.nam` is not defined; did you mean `vars.site.name`?"),
            ("vars.site.name.x", "`vars.site.name.x` is not defined: `vars.site.name` is no mapping"),
        ] {
            assert_eq!(follow(name, lookup, &["site"]), Err(message.to_string()));
        }
    }
}
