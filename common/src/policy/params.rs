//! How parameters are described and checked: kinds of values, rules between parameters, problems with suggestions. What each
//! type takes is in [`super::types`]. It knows how a value must look and nothing of what it does.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::bundle::{Value, secret_path};
use crate::policy::shapes::Shape;
use crate::policy::template::has_markers;
use crate::units::nearest;

/// How a value must look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text; numbers and truth values are taken as they print.
    Text,
    /// Absolute path without `..`.
    Path,
    /// What a symbolic link says: any text without NUL, not empty.
    LinkText,
    /// File of the policy: `files/..` or `templates/..`.
    Source,
    /// Octal permission bits in quotes.
    Mode,
    /// Truth.
    Bool,
    /// Name or number of a user or group.
    Account,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// Regular expression.
    Pattern,
    /// `end`, `begin`, `after:RE` or `before:RE`.
    Position,
    /// A line of shell, or a list that is run without one.
    Command,
    /// Mapping of names to texts.
    Environment,
    /// Exit status, or a list of them.
    Codes,
    /// Text, or a list of texts.
    Texts,
    /// Name of a package, a service, a user: letters, digits and `_.+@:~-`, not starting with a dash.
    Name,
    /// One such name, or a list of them.
    Names,
    /// Whole number within bounds; also as text, as a variable may hold it.
    Int(i64, i64),
    /// Length of time: `90s`, `5m`, `2h`.
    Duration,
    /// `http://`, `https://` or `file:///`.
    Url,
    /// SHA-256 in 64 hexadecimal digits.
    Digest,
    /// Any value: text, number, list, mapping.
    Any,
    /// Mapping of any values.
    Mapping,
    /// Text of one shape.
    Shape(Shape),
    /// Text of one shape, or a list of such texts, not empty.
    Shapes(Shape),
}

/// One parameter of a type.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// As written in policy.
    pub name: &'static str,
    /// How its value must look.
    pub kind: Kind,
    /// Whether it must be given.
    pub required: bool,
    /// What holds where it is not given, for people; empty where nothing does.
    pub default: &'static str,
    /// One sentence.
    pub meaning: &'static str,
}

/// A relation between the parameters of one type.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// At most one of these.
    AtMostOne(&'static [&'static str]),
    /// At least one of these, unless the parameter has the value.
    OneOfUnless(&'static [&'static str], &'static str, &'static str),
    /// At least one of these where the parameter has the value.
    OneOfWhen(&'static [&'static str], &'static str, &'static str),
    /// The first means nothing without the second.
    Needs(&'static str, &'static str),
}

/// One resource type.
#[derive(Clone, Copy, Debug)]
pub struct Type {
    /// As written in policy.
    pub name: &'static str,
    /// One sentence.
    pub meaning: &'static str,
    /// Its parameters.
    pub params: &'static [Param],
    /// Relations between them.
    pub rules: &'static [Rule],
    /// As in a configcrate, for the reference.
    pub example: &'static str,
}

/// Something wrong with the parameters of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The parameter, as written, where one is to blame.
    pub param: Option<String>,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl Type {
    /// The parameter of that name.
    pub fn param(&self, name: &str) -> Option<&'static Param> {
        self.params.iter().find(|param| param.name == name)
    }

    /// Whether `defaults` reach this parameter. A `group` there owns files; as the primary group of users it would, unseen,
    /// be that of root.
    pub fn inherits(&self, name: &str) -> bool {
        self.param(name).is_some() && (self.name, name) != ("user", "group")
    }

    /// Everything that can be known to be wrong before templates are rendered. Values with a template in them are
    /// taken on trust; a null counts as not given.
    pub fn check(&self, params: &BTreeMap<String, Value>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut blame = |param: Option<&str>, message: String| {
            problems.push(Problem { param: param.map(str::to_string), message });
        };
        for (name, value) in params {
            match self.param(name) {
                None => blame(Some(name), self.unknown(name)),
                Some(param) => {
                    if let Err(message) = param.check(value, true) {
                        blame(Some(name), message);
                    }
                }
            }
        }
        let given = |name: &str| params.get(name).filter(|value| **value != Value::Null);
        for param in self.params.iter().filter(|param| param.required && given(param.name).is_none()) {
            blame(None, self.missing(param.name));
        }
        problems.extend(self.rules.iter().filter_map(|rule| self.broken(rule, &given)));
        problems
    }

    /// The first rule that does not hold between parameters; they are given without the nulls.
    pub fn broken_rule<'v>(&self, given: &dyn Fn(&str) -> Option<&'v Value>) -> Option<Problem> {
        self.rules.iter().find_map(|rule| self.broken(rule, given))
    }

    fn broken<'v>(&self, rule: &Rule, given: &dyn Fn(&str) -> Option<&'v Value>) -> Option<Problem> {
        let blame = |param: Option<&str>, message| Some(Problem { param: param.map(str::to_string), message });
        // A templated switch may turn out either way.
        let is = |name: &str, word: &str| match given(name) {
            Some(Value::Str(text)) if has_markers(text) => None,
            Some(Value::Str(text)) => Some(text == word),
            _ => Some(self.param(name).is_some_and(|param| param.default == word)),
        };
        let any = |names: &[&str]| names.iter().any(|name| given(name).is_some());
        match rule {
            Rule::AtMostOne(names) if names.iter().filter(|name| given(name).is_some()).count() > 1 => {
                blame(Some(names[1]), format!("write only one of {}", quoted(names, " and ")))
            }
            Rule::OneOfUnless(names, switch, word) if is(switch, word) == Some(false) && !any(names) => {
                blame(None, self.missing(&quoted(names, " or ").replace('`', "")))
            }
            Rule::OneOfWhen(names, switch, word) if is(switch, word) == Some(true) && !any(names) => {
                blame(None, format!("{switch} {word} needs {}", quoted(names, " or ")))
            }
            Rule::Needs(name, other) if given(name).is_some() && given(other).is_none() => {
                blame(Some(name), format!("`{name}` needs `{other}` beside it"))
            }
            _ => None,
        }
    }

    /// What to say of a parameter that the type does not have.
    pub fn unknown(&self, name: &str) -> String {
        let names = self.params.iter().map(|param| param.name);
        match nearest(name, names.clone()) {
            Some(near) => format!("`{}` has no parameter `{name}`; did you mean `{near}`?", self.name),
            None => {
                format!("`{}` has no parameter `{name}`; it has {}", self.name, names.collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// What to say of a parameter that must be there.
    pub fn missing(&self, name: &str) -> String {
        format!("`{}` needs the parameter `{name}`", self.name)
    }
}

impl Param {
    /// One that must be given.
    pub const fn required(name: &'static str, kind: Kind, meaning: &'static str) -> Param {
        Param { name, kind, required: true, default: "", meaning }
    }

    /// One that need not be given, with what holds then.
    pub const fn optional(name: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Param {
        Param { name, kind, required: false, default, meaning }
    }

    /// Whether the value looks as it must. With `templates`, text with a template in it passes.
    pub fn check(&self, value: &Value, templates: bool) -> Result<(), String> {
        if *value == Value::Null || (templates && is_templated(value)) {
            return Ok(());
        }
        let fits = match (self.kind, value) {
            (Kind::Text, _) => text_of(value).is_some(),
            (Kind::Path, Value::Str(text)) => is_absolute(text),
            (Kind::LinkText, Value::Str(text)) => {
                !text.is_empty() && text.len() < PATH_BYTES_MAX && !text.contains('\0')
            }
            (Kind::Source, Value::Str(text)) => is_source(text),
            (Kind::Mode, Value::Str(text)) => parse_mode(text).is_some(),
            (Kind::Bool, Value::Bool(_)) => true,
            (Kind::Account, Value::Str(text)) => !text.is_empty() && !text.contains([':', '\n', '\0']),
            (Kind::Account, Value::Int(id)) => u32::try_from(*id).is_ok(),
            (Kind::Word(words), Value::Str(text)) => words.contains(&text.as_str()),
            // On a host the executor compiles it anyway, and says what is wrong with it.
            (Kind::Pattern, Value::Str(text)) => {
                !text.is_empty() && (!templates || regex_lite::Regex::new(text).is_ok())
            }
            (Kind::Position, Value::Str(text)) => Position::parse(text).is_some(),
            (Kind::Command, Value::Str(text)) => !text.trim().is_empty() && !text.contains('\0'),
            (Kind::Command, Value::List(items)) => {
                let fits = |item: &Value| text_of(item).is_some_and(|text| !text.contains('\0'));
                !items.is_empty() && items.iter().all(|item| is_templated(item) && templates || fits(item))
            }
            (Kind::Environment, Value::Map(map)) => map.iter().all(|(name, item)| {
                let named = !name.is_empty() && !name.contains(['=', '\0']);
                named && (is_templated(item) && templates || text_of(item).is_some_and(|text| !text.contains('\0')))
            }),
            (Kind::Texts, Value::List(items)) => {
                items.iter().all(|item| is_templated(item) && templates || text_of(item).is_some())
            }
            (Kind::Texts, _) => text_of(value).is_some(),
            (Kind::Name, _) => text_of(value).is_some_and(|text| is_name(&text)),
            (Kind::Names, Value::List(items)) => items
                .iter()
                .all(|item| is_templated(item) && templates || text_of(item).is_some_and(|text| is_name(&text))),
            (Kind::Names, _) => text_of(value).is_some_and(|text| is_name(&text)),
            (Kind::Int(least, most), Value::Int(n)) => (least..=most).contains(n),
            (Kind::Int(least, most), Value::Str(text)) => {
                // No sign, no blanks: what an executor parses of it is the same number.
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                text.parse().is_ok_and(|n| digits && (least..=most).contains(&n))
            }
            (Kind::Duration, Value::Str(text)) => crate::units::duration_ms(text).is_ok(),
            (Kind::Url, Value::Str(text)) => is_url(text),
            (Kind::Digest, Value::Str(text)) => text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
            (Kind::Any, _) => true,
            (Kind::Mapping, Value::Map(map)) => !map.is_empty(),
            (Kind::Shapes(shape), Value::List(items)) => {
                let fits = |item: &Value| text_of(item).is_some_and(|text| shape.fits(&text));
                !items.is_empty() && items.iter().all(|item| is_templated(item) && templates || fits(item))
            }
            (Kind::Shape(shape) | Kind::Shapes(shape), _) => text_of(value).is_some_and(|text| shape.fits(&text)),
            (Kind::Codes, Value::Int(code)) => (0..256).contains(code),
            (Kind::Codes, Value::List(codes)) => {
                !codes.is_empty() && codes.iter().all(|code| matches!(code, Value::Int(0..256)))
            }
            _ => false,
        };
        if fits { Ok(()) } else { Err(format!("`{}` must be {}", self.name, self.kind.expected())) }
    }
}

impl Kind {
    /// What to write, for people.
    pub fn expected(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Kind::Text => "text",
            Kind::Path => "a path that starts with / and has no `..` in it",
            Kind::LinkText => "a path",
            Kind::Source => "a file below files/ or templates/ of the policy",
            Kind::Mode => "permission bits in quotes, such as \"0644\"",
            Kind::Bool => "true or false",
            Kind::Account => "a name or a number",
            Kind::Word(words) => return Cow::Owned(quoted(words, " or ")),
            Kind::Pattern => "a regular expression (without look-around and back-references)",
            Kind::Position => "`end`, `begin`, `after:PATTERN` or `before:PATTERN`",
            Kind::Command => "a line of shell, or a list of a program and its arguments",
            Kind::Environment => "a mapping of names to texts",
            Kind::Codes => "an exit status from 0 to 255, or a list of them",
            Kind::Texts => "text, or a list of texts",
            Kind::Name => "a name of letters, digits and _.+@:~- that does not start with a dash",
            Kind::Names => "a name, or a list of names, of letters, digits and _.+@:~-, not starting with a dash",
            Kind::Int(least, most) => return Cow::Owned(format!("a whole number from {least} to {most}")),
            Kind::Duration => "a length of time, such as 90s, 5m or 2h",
            Kind::Url => "a URL that starts with https://, http:// or file:///",
            Kind::Digest => "a SHA-256 in 64 hexadecimal digits",
            Kind::Any => "any value",
            Kind::Mapping => "a mapping that is not empty",
            Kind::Shape(shape) => shape.expected(),
            Kind::Shapes(shape) => return Cow::Owned(format!("{}, or a list of such", shape.expected())),
        })
    }
}

/// Longest path (`PATH_MAX` of Linux, with its NUL).
const PATH_BYTES_MAX: usize = 4096;
/// Longest name of a package, service or account.
const NAME_BYTES_MAX: usize = 255;

/// Where a line goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position<'a> {
    /// After the last line.
    End,
    /// Before the first line.
    Begin,
    /// After the last line that matches; at the end where none does.
    After(&'a str),
    /// Before the first line that matches; at the end where none does.
    Before(&'a str),
}

impl<'a> Position<'a> {
    /// From its text.
    pub fn parse(text: &'a str) -> Option<Position<'a>> {
        match (text, text.split_once(':')) {
            ("end", _) => Some(Position::End),
            ("begin", _) => Some(Position::Begin),
            (_, Some(("after", pattern))) if !pattern.is_empty() => Some(Position::After(pattern)),
            (_, Some(("before", pattern))) if !pattern.is_empty() => Some(Position::Before(pattern)),
            _ => None,
        }
    }
}

/// Permission bits of their octal text.
pub fn parse_mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal = (3..=5).contains(&digits.len()) && digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    u32::from_str_radix(digits, 8).ok().filter(|mode| octal && *mode <= 0o7777)
}

/// A scalar as text; `None` for null, lists and mappings.
pub fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Str(text) => Some(Cow::Borrowed(text)),
        Value::Int(n) => Some(Cow::Owned(n.to_string())),
        Value::Float(n) => Some(Cow::Owned(n.to_string())),
        Value::Bool(b) => Some(Cow::Borrowed(if *b { "true" } else { "false" })),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    }
}

/// Whether a path is absolute and stays where it says.
pub fn is_absolute(path: &str) -> bool {
    path.len() > 1
        && path.len() < PATH_BYTES_MAX
        && path.starts_with('/')
        && !path.contains('\0')
        && path.split('/').all(|part| part != "..")
        && path.split('/').any(|part| !part.is_empty() && part != ".")
}

/// Whether it can be handed to a tool as a name: never taken for an option, a path or two words.
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+@:~-".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.starts_with(['-', '.']) && text.bytes().all(plain)
}

fn is_url(text: &str) -> bool {
    let rest = ["https://", "http://", "file:///"].iter().find_map(|scheme| text.strip_prefix(scheme));
    rest.is_some_and(|rest| !rest.is_empty()) && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn is_source(path: &str) -> bool {
    let below = path.strip_prefix("files/").or_else(|| path.strip_prefix("templates/"));
    below.is_some_and(|rest| rest.split('/').all(|part| !part.is_empty() && part != "." && part != ".."))
}

/// Whether the value is known on the host only: by a template, or because it is a secret.
fn is_templated(value: &Value) -> bool {
    matches!(value, Value::Str(text) if has_markers(text) || secret_path(text).is_some())
}

fn quoted(names: &[&str], between: &str) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::types::find;

    fn problems(kind: &str, params: &[(&str, Value)]) -> Vec<String> {
        let params = params.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        find(kind).unwrap().check(&params).into_iter().map(|problem| problem.message).collect()
    }

    fn text(text: &str) -> Value {
        Value::Str(text.to_string())
    }

    #[test]
    fn good_parameters_pass() {
        let path = ("target_path", text("/etc/motd"));
        assert_eq!(problems("file", &[path.clone(), ("content", Value::Int(5)), ("mode", text("0644"))]), [""; 0]);
        assert_eq!(problems("file", &[path.clone(), ("owner", Value::Int(0)), ("source", Value::Null)]), [""; 0]);
        assert_eq!(problems("file", &[("target_path", text("{{ vars.p }}")), ("mode", text("{{ vars.m }}"))]), [""; 0]);
        assert_eq!(
            problems("file_line", &[path.clone(), ("line", text("a")), ("position", text("after:^x"))]),
            [""; 0]
        );
        assert_eq!(problems("file_line", &[path.clone(), ("state", text("{{ vars.s }}"))]), [""; 0]);
        let argv = Value::List(vec![text("echo"), Value::Int(1)]);
        assert_eq!(problems("exec", &[("command", argv), ("returns", Value::Int(3))]), [""; 0]);
        assert_eq!(problems("group", &[("groupname", text("g")), ("gid", text("07"))]), [""; 0]);
    }

    #[test]
    fn bad_parameters_say_what_to_write() {
        let path = ("target_path", text("/x"));
        for (kind, params, expected) in [
            ("file", vec![], "`file` needs the parameter `target_path`"),
            ("file", vec![path.clone(), ("contents", text("a"))], "did you mean `content`?"),
            (
                "file",
                vec![path.clone(), ("content", text("a")), ("source", text("files/a"))],
                "only one of `content` and `source`",
            ),
            ("file", vec![path.clone(), ("mode", Value::Int(644))], "permission bits in quotes"),
            ("file", vec![path.clone(), ("mode", text("0899"))], "permission bits in quotes"),
            ("file", vec![path.clone(), ("state", text("gone"))], "`present` or `absent`"),
            ("file", vec![path.clone(), ("source", text("files/../x"))], "below files/ or templates/"),
            ("file", vec![("target_path", text("etc/x"))], "starts with /"),
            ("file", vec![("target_path", text("/a/../x"))], "starts with /"),
            ("file", vec![("target_path", text("/"))], "starts with /"),
            ("file_line", vec![path.clone()], "needs the parameter `line`"),
            (
                "file_line",
                vec![path.clone(), ("state", text("absent"))],
                "state absent needs `line` or `match_pattern`",
            ),
            ("file_line", vec![path.clone(), ("line", text("a")), ("position", text("after:"))], "`after:PATTERN`"),
            ("symlink", vec![path.clone()], "needs the parameter `to`"),
            ("exec", vec![("command", Value::List(vec![]))], "a line of shell"),
            ("exec", vec![("command", text("x")), ("returns", Value::Int(256))], "0 to 255"),
            ("directory", vec![path.clone(), ("recurse", text("yes"))], "true or false"),
        ] {
            let found = problems(kind, &params);
            assert!(found.len() == 1 && found[0].contains(expected), "{params:?}: {found:?}");
        }
    }
}
