//! What a value may be, how it is checked, and how the reference describes it.

use super::{Level, Setting, Value, read_entry};
use crate::bundle::{is_secret_path, secret_path};
use crate::ids::is_hostname;
use crate::units::{human_bytes, human_duration};
use crate::yaml::{Doc, Error, Kind, Node};

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// `true` or `false`.
    Bool,
    /// Any text, also none.
    Text,
    /// A text, not empty, that may hold a password: `secret:PATH` stands for the value of a secret.
    Sensitive,
    /// The same, or nothing.
    SensitiveOrNone,
    /// One of these. The second list is known and not available yet.
    Choice(&'static [&'static str], &'static [&'static str]),
    /// A path, relative to the root of the program that reads it.
    Path,
    /// A host name, or nothing.
    Hostname,
    /// `host:port`, `:port`, `[::1]:port`; port 0 lets the system choose.
    Listen,
    /// A whole number within these bounds.
    Number(u64, u64),
    /// A duration within these bounds, in milliseconds; a lower bound of 0 allows `0`.
    Duration(u64, u64),
    /// A duration as before, or `0`, which means what the text says.
    DurationOrZero(u64, u64, &'static str),
    /// A size within these bounds, in bytes.
    Size(u64, u64),
    /// Texts.
    List,
    /// `host` or `host:port`, at most so many.
    Servers(usize),
    /// A list of mappings with keys of their own, at most so many.
    Entries(&'static [Setting], usize),
    /// Something that this version does not know: empty, or refused.
    Later,
}

/// A host and a port. An empty host is every address of this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Gives the value of the secret of a path; `Err` says why there is none, and what to do.
pub type Secrets<'a> = &'a dyn Fn(&str) -> Result<String, (String, String)>;

/// Why values of this kind are refused, for now.
const LATER: &str = "is not available yet";

impl HostPort {
    /// Takes `host:port`, `[v6]:port`, `:port`, and, where there is a default port, `host` and a bare IPv6 address.
    pub fn parse(text: &str, default_port: Option<u16>) -> Option<HostPort> {
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((inner, rest)) => {
                inner.parse::<std::net::Ipv6Addr>().ok()?;
                (inner, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
            }
            None if text.parse::<std::net::Ipv6Addr>().is_ok() => (text, None),
            None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
            None => default_port?,
        };
        let fits = host.is_empty() || host.parse::<std::net::IpAddr>().is_ok() || is_hostname(host);
        fits.then(|| HostPort { host: host.to_string(), port })
    }
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Form {
    /// Checks a value; `key` is what errors call it.
    pub(super) fn check(&self, level: &Level<'_>, node: &Node, key: &str) -> Result<Value, Vec<Error>> {
        let doc = level.doc;
        if let Some(path) = node.as_str().and_then(secret_path) {
            return self.refer(level, node, key, path).map_err(|error| vec![error]);
        }
        match self {
            Form::Entries(table, max) => entries(table, *max, level, node, key),
            _ => self.check_one(doc, node, key).map_err(|error| vec![error]),
        }
    }

    /// The value of a secret. It is in no error: those are shown and logged.
    fn refer(&self, level: &Level<'_>, node: &Node, key: &str, path: &str) -> Result<Value, Error> {
        let wrong = |why: &str| level.doc.error(node.at, format!("`{key}` is `secret:{path}`, {why}"));
        if key.starts_with("secrets.") {
            return Err(wrong("but it says where secrets are").cure("write the value itself"));
        }
        if !matches!(self, Form::Sensitive | Form::SensitiveOrNone) {
            return Err(wrong("but it is shown and logged, so no secret may stand here").cure("write the value itself"));
        }
        if !is_secret_path(path) {
            return Err(wrong("which can name no secret").expected("a path such as secret:prod/db/password"));
        }
        match (level.secrets)(path) {
            Ok(value) if !value.is_empty() => Ok(Value::Text(value)),
            Ok(_) => Err(wrong("which is empty").cure(format!("set it: `vigocli secrets set {path}`"))),
            Err((why, cure)) => Err(wrong(&why).cure(cure)),
        }
    }

    fn check_one(&self, doc: &Doc, node: &Node, key: &str) -> Result<Value, Error> {
        let text = || doc.expect_str(node, key);
        let wrong = || doc.wrong_type(node, key, &self.describe());
        match *self {
            Form::Bool => doc.expect_bool(node, key).map(Value::Bool),
            Form::Text | Form::SensitiveOrNone => Ok(Value::Text(text()?.to_string())),
            Form::Path | Form::Sensitive => Ok(Value::Text(doc.expect_name(node, key)?.to_string())),
            Form::Choice(now, later) => match text()? {
                given if now.contains(&given) => Ok(Value::Text(given.to_string())),
                given if later.contains(&given) => {
                    let error = doc.error(node.at, format!("`{key}: {given}` {LATER}"));
                    Err(error.cure(format!("write `{}`", now[0])))
                }
                given => Err(match crate::units::nearest(given, now.iter().copied()) {
                    Some(near) => wrong().cure(format!("did you mean `{near}`?")),
                    None => wrong(),
                }),
            },
            Form::Hostname if text()?.is_empty() || is_hostname(text()?) => Ok(Value::Text(text()?.to_lowercase())),
            Form::Listen => match HostPort::parse(text()?, None) {
                Some(found) => Ok(Value::Text(found.to_string())),
                None => Err(wrong()),
            },
            Form::Number(min, max) => match node.kind {
                Kind::Int(n) if n >= 0 && (min..=max).contains(&(n as u64)) => Ok(Value::Number(n as u64)),
                _ => Err(wrong()),
            },
            Form::Duration(min, max) => doc.expect_duration_ms(node, key, min, max).map(Value::Number),
            Form::DurationOrZero(min, max, _) => match doc.expect_duration_ms(node, key, 0, max)? {
                ms if ms == 0 || ms >= min => Ok(Value::Number(ms)),
                _ => Err(wrong()),
            },
            Form::Size(min, max) => match doc.expect_size_bytes(node, key)? {
                bytes if (min..=max).contains(&bytes) => Ok(Value::Number(bytes)),
                _ => Err(wrong()),
            },
            Form::List => {
                let items = doc.expect_str_list(node, key)?;
                Ok(Value::List(items.into_iter().map(|(text, _)| text.to_string()).collect()))
            }
            Form::Servers(max) => servers(max, doc, node, key),
            Form::Later => match &node.kind {
                Kind::Null => Ok(Value::List(Vec::new())),
                Kind::Map(map) if map.entries.is_empty() => Ok(Value::List(Vec::new())),
                Kind::List(items) if items.is_empty() => Ok(Value::List(Vec::new())),
                Kind::Map(map) => {
                    let entry = &map.entries[0];
                    Err(doc.error(entry.at, format!("`{key}.{}` {LATER}", entry.key)).cure(format!("remove `{key}`")))
                }
                _ => Err(doc.error(node.at, format!("`{key}` {LATER}")).cure("remove it")),
            },
            Form::Hostname | Form::Entries(..) => Err(wrong()),
        }
    }

    /// What the value may be, in words, for errors and the reference.
    pub fn describe(&self) -> String {
        let duration = |min: u64, max| match min {
            0 => format!("a duration up to {}", human_duration(max)),
            _ => format!("a duration from {} to {}", human_duration(min), human_duration(max)),
        };
        match *self {
            Form::Bool => "true or false".into(),
            Form::Text => "text".into(),
            Form::Path => "a path".into(),
            Form::Sensitive | Form::SensitiveOrNone => "text, or `secret:PATH`".into(),
            Form::Choice(now, _) => format!("one of {}", now.join(", ")),
            Form::Hostname => "a host name".into(),
            Form::Listen => "an address to listen on, such as `:1530`, `10.0.0.1:1530` or `[::1]:0`".into(),
            Form::Number(min, max) => format!("a whole number from {min} to {max}"),
            Form::Duration(min, max) => duration(min, max),
            Form::DurationOrZero(min, max, zero) => format!("{}, or 0: {zero}", duration(min, max)),
            Form::Size(min, max) => format!("a size from {} to {}", human_bytes(min), human_bytes(max)),
            Form::List => "a list of texts".into(),
            Form::Servers(max) => {
                format!("a list of up to {max} servers, such as `vigo.example.com` or `10.0.0.1:1530`")
            }
            Form::Entries(_, max) => format!("a list of up to {max} mappings"),
            Form::Later => "not available yet".into(),
        }
    }
}

fn entries(
    table: &'static [Setting],
    max: usize,
    level: &Level<'_>,
    node: &Node,
    key: &str,
) -> Result<Value, Vec<Error>> {
    let doc = level.doc;
    let items = doc.expect_list(node, key).map_err(|error| vec![error])?;
    if items.len() > max {
        return Err(vec![
            doc.error(node.at, format!("`{key}` has {} entries", items.len())).expected(format!("at most {max}")),
        ]);
    }
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    for (n, item) in items.iter().enumerate() {
        match read_entry(table, level, item, &format!("{key}[{n}]")) {
            Ok(entry) => out.push(entry),
            Err(more) => errors.extend(more),
        }
    }
    if errors.is_empty() { Ok(Value::Entries(out)) } else { Err(errors) }
}

fn servers(max: usize, doc: &Doc, node: &Node, key: &str) -> Result<Value, Error> {
    let items = doc.expect_str_list(node, key)?;
    if let Some((_, at)) = items.get(max) {
        return Err(doc.error(*at, format!("`{key}` has {} entries", items.len())).expected(format!("at most {max}")));
    }
    let check = |(text, at): &(&str, _)| match HostPort::parse(text, Some(crate::limits::GRPC_PORT)) {
        Some(found) if !found.host.is_empty() && found.port != 0 => Ok(found.to_string()),
        _ => Err(doc.error(*at, format!("`{key}` has `{text}`")).expected("`host` or `host:port`")),
    };
    items.iter().map(check).collect::<Result<_, _>>().map(Value::List)
}
