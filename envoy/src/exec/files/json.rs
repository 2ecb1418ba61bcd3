//! Changing a JSON text in place: the value at a path is found by its position, and only those bytes are replaced. Order,
//! indentation and everything else stay as somebody wrote them. Pure; the text is known to be valid JSON before it is walked.

use std::ops::Range;

use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

/// Indentation where the text shows none.
const INDENT_DEFAULT: &str = "  ";

/// A member of an object, or an item of an array.
struct Entry {
    /// Empty in an array.
    key: String,
    /// From the first byte of its key, or of its value.
    start: usize,
    value: Range<usize>,
}

/// An object or an array that was walked.
struct Container {
    object: bool,
    entries: Vec<Entry>,
    /// Its brackets included.
    range: Range<usize>,
}

/// The text with a value at a path; `None` where it is there already. Objects on the way are made.
pub fn set(text: &str, path: &[&str], wanted: &Value) -> Result<Option<String>, String> {
    let whole = document(text)?;
    let mut range = whole;
    for (depth, key) in path.iter().enumerate() {
        let container = walk(text, &range).ok_or_else(|| not_a_container(path, depth))?;
        match find(&container, path, depth)? {
            Some(entry) => range = entry.value.clone(),
            None if !container.object => return Err(format!("{} has no item {key}", shown(path, depth))),
            None => {
                let value = path[depth + 1..]
                    .iter()
                    .rev()
                    .fold(wanted.clone(), |inner, key| Value::Object([(key.to_string(), inner)].into_iter().collect()));
                return Ok(Some(insert(text, &container, key, &value)));
            }
        }
    }
    let old = &text[range.clone()];
    let same = serde_json::from_str::<Value>(old).is_ok_and(|found| found == *wanted);
    // A fraction may not survive being read, while its text is what we would write.
    if same || compact(wanted) == old {
        return Ok(None);
    }
    let new = match is_multi_line(old) || !is_multi_line(text) && path.is_empty() {
        _ if !wanted.is_object() && !wanted.is_array() => compact(wanted),
        true => pretty(wanted, unit(text), indent_at(text, range.start)),
        false if is_multi_line(text) && !is_container(old) => pretty(wanted, unit(text), indent_at(text, range.start)),
        false => compact(wanted),
    };
    Ok(Some(format!("{}{new}{}", &text[..range.start], &text[range.end..])))
}

/// The text without the member at a path; `None` where there is none.
pub fn remove(text: &str, path: &[&str]) -> Result<Option<String>, String> {
    let mut range = document(text)?;
    for depth in 0..path.len() {
        let Some(container) = walk(text, &range) else { return Ok(None) };
        let Some(entry) = find(&container, path, depth)? else { return Ok(None) };
        if depth + 1 < path.len() {
            range = entry.value.clone();
            continue;
        }
        if !container.object {
            return Err(format!(
                "{} is a list: what comes after a removed item would be the next to go; set the whole list",
                shown(path, depth)
            ));
        }
        let at = container.entries.iter().position(|one| one.start == entry.start).unwrap_or_default();
        let gone = match (at.checked_sub(1).map(|at| &container.entries[at]), container.entries.get(at + 1)) {
            (_, Some(next)) => entry.start..next.start,
            (Some(before), None) => before.value.end..entry.value.end,
            (None, None) => container.range.start + 1..container.range.end - 1,
        };
        return Ok(Some(format!("{}{}", &text[..gone.start], &text[gone.end..])));
    }
    Ok(None)
}

/// Whether there is an object at a path.
pub fn is_object(text: &str, path: &[&str]) -> Result<bool, String> {
    let mut range = document(text)?;
    for depth in 0..path.len() {
        let Some(container) = walk(text, &range) else { return Ok(false) };
        match find(&container, path, depth)? {
            Some(entry) => range = entry.value.clone(),
            None => return Ok(false),
        }
    }
    Ok(text[range].starts_with('{'))
}

/// Refuses what is not JSON; says where.
pub fn validate(text: &str) -> Result<(), String> {
    serde_json::from_str::<Value>(text).map(|_| ()).map_err(|error| format!("it is not JSON: {error}"))
}

fn document(text: &str) -> Result<Range<usize>, String> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err("it is empty".to_string());
    }
    let start = text.len() - text.trim_start().len();
    Ok(start..start + trimmed.len())
}

fn find<'c>(container: &'c Container, path: &[&str], depth: usize) -> Result<Option<&'c Entry>, String> {
    let key = path[depth];
    if !container.object {
        let at = key.parse::<usize>().ok().filter(|at| at.to_string() == key);
        let at = at.ok_or_else(|| format!("{} is a list, and `{key}` is no index of one", shown(path, depth)))?;
        return Ok(container.entries.get(at));
    }
    let mut found = container.entries.iter().filter(|entry| entry.key == key);
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(format!("{} has the key `{key}` twice; leave one of them", shown(path, depth))),
        (first, None) => Ok(first),
    }
}

fn not_a_container(path: &[&str], depth: usize) -> String {
    format!("{} is neither an object nor a list", shown(path, depth))
}

fn shown(path: &[&str], depth: usize) -> String {
    match depth {
        0 => "the document".to_string(),
        _ => path[..depth].iter().map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1"))).collect(),
    }
}

/// Adds a member behind the last one, laid out as that one is.
fn insert(text: &str, container: &Container, key: &str, value: &Value) -> String {
    let Range { start, end } = container.range;
    let key = compact(&Value::String(key.to_string()));
    let Some(last) = container.entries.last() else {
        let outer = indent_at(text, start);
        let inner = format!("{outer}{}", unit(text));
        let value = pretty(value, unit(text), &inner);
        return format!("{}{{\n{inner}{key}: {value}\n{outer}}}{}", &text[..start], &text[end..]);
    };
    let before_last = match container.entries.len() {
        1 => start + 1,
        n => container.entries[n - 2].value.end,
    };
    // Between two members there is a comma and blanks, in front of the first only blanks.
    let blanks = text[before_last..last.start].trim_start_matches(|c: char| c.is_whitespace() && c != '\n');
    let gap = blanks.rsplit(',').next().unwrap_or_default();
    let at = last.value.end;
    let new = if is_multi_line(gap) {
        let indent = indent_at(text, last.start);
        format!(",\n{indent}{key}: {}", pretty(value, unit(text), indent))
    } else {
        // On one line: as tight or as airy as its neighbour.
        let airy = text[last.start..last.value.start].ends_with(' ');
        let (comma, colon) = if airy { (", ", ": ") } else { (",", ":") };
        format!("{comma}{key}{colon}{}", compact(value))
    };
    format!("{}{new}{}", &text[..at], &text[at..])
}

fn is_multi_line(text: &str) -> bool {
    text.contains('\n')
}

fn is_container(text: &str) -> bool {
    text.starts_with(['{', '['])
}

/// Blanks at the start of the line that a position is on.
fn indent_at(text: &str, at: usize) -> &str {
    let line = &text[text[..at].rfind('\n').map_or(0, |end| end + 1)..];
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}

/// One step of indentation: that of the first line that has any.
fn unit(text: &str) -> &str {
    let indented = text.lines().find(|line| line.starts_with([' ', '\t']) && !line.trim().is_empty());
    indented.map_or(INDENT_DEFAULT, |line| &line[..line.len() - line.trim_start().len()])
}

fn compact(value: &Value) -> String {
    value.to_string()
}

fn pretty(value: &Value, unit: &str, indent: &str) -> String {
    use serde::Serialize;
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(unit.as_bytes()));
    // Writing to memory does not fail; should it ever, one line is as valid.
    match value.serialize(&mut serializer).ok().and_then(|()| String::from_utf8(bytes).ok()) {
        Some(text) => text.replace('\n', &format!("\n{indent}")),
        None => compact(value),
    }
}

/// The entries of the container that starts a range; `None` for a scalar.
fn walk(text: &str, range: &Range<usize>) -> Option<Container> {
    let bytes = text.as_bytes();
    let object = match bytes.get(range.start)? {
        b'{' => true,
        b'[' => false,
        _ => return None,
    };
    let mut entries = Vec::new();
    let mut at = blanks(bytes, range.start + 1);
    while !matches!(bytes.get(at)?, b'}' | b']') {
        let start = at;
        let mut key = String::new();
        if object {
            let end = skip(bytes, at)?;
            key = serde_json::from_str(&text[at..end]).ok()?;
            at = blanks(bytes, blanks(bytes, end) + 1);
        }
        let end = skip(bytes, at)?;
        entries.push(Entry { key, start, value: at..end });
        at = blanks(bytes, end);
        if bytes.get(at)? == &b',' {
            at = blanks(bytes, at + 1);
        }
    }
    Some(Container { object, entries, range: range.start..at + 1 })
}

fn blanks(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// The index after the value at an index: brackets are counted, strings jumped over.
fn skip(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match bytes.get(at)? {
            b'"' => {
                at += 1;
                while *bytes.get(at)? != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            b',' | b':' => at += 1,
            byte if byte.is_ascii_whitespace() => at += 1,
            _ => {
                while bytes.get(at).is_some_and(|byte| !byte.is_ascii_whitespace() && !b",]}:".contains(byte)) {
                    at += 1;
                }
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NESTED: &str = "{\n    \"b\": 1,\n    \"a\": {\n        \"x\": [1, {\"y\": \"}\\\"\"}]\n    }\n}\n";

    #[test]
    fn only_the_value_changes_and_a_second_time_nothing_does() {
        for (old, path, value, new) in [
            ("{}\n", &["a"][..], json!(1), Some("{\n  \"a\": 1\n}\n")),
            ("{}", &["a", "b"], json!(true), Some("{\n  \"a\": {\n    \"b\": true\n  }\n}")),
            ("{\"a\":1}", &["b"], json!({"c": 2}), Some("{\"a\":1,\"b\":{\"c\":2}}")),
            ("{\"a\": 1, \"b\": 2}", &["c"], json!("x"), Some("{\"a\": 1, \"b\": 2, \"c\": \"x\"}")),
            (
                "{\n\t\"z\": 1,\n\t\"a\": 2\n}\n",
                &["m"],
                json!([1]),
                Some("{\n\t\"z\": 1,\n\t\"a\": 2,\n\t\"m\": [\n\t\t1\n\t]\n}\n"),
            ),
            ("{\n  \"a\": 1\n}\n", &["a"], json!(1), None),
            ("{\n  \"a\": 1\n}\n", &["a"], json!("1"), Some("{\n  \"a\": \"1\"\n}\n")),
            (
                "{\n  \"a\": {},\n  \"b\": 1\n}\n",
                &["a", "c"],
                json!(2),
                Some("{\n  \"a\": {\n    \"c\": 2\n  },\n  \"b\": 1\n}\n"),
            ),
            ("[1, 2]", &["1"], json!(3), Some("[1, 3]")),
            ("{\"k\\u0061\": 1}", &["ka"], json!(2), Some("{\"k\\u0061\": 2}")),
            ("{\"a\": 0.1}", &["a"], json!(0.1), None),
            ("{\"a\": [1,  2]}", &["a"], json!([1, 2]), None),
            ("7", &[], json!(8), Some("8")),
        ] {
            let found = set(old, path, &value).unwrap();
            assert_eq!(found.as_deref(), new, "{old:?} {path:?}");
            assert_eq!(set(&found.unwrap_or(old.to_string()), path, &value), Ok(None), "{old:?} {path:?}");
        }
        let found = set(NESTED, &["a", "x", "1", "y"], &json!("z")).unwrap().unwrap();
        assert_eq!(found, NESTED.replace("\"}\\\"\"", "\"z\""));
        let found = set(NESTED, &["a", "n"], &json!(5)).unwrap().unwrap();
        assert_eq!(found, NESTED.replace("\"}]\n", "\"}],\n        \"n\": 5\n"));
    }

    #[test]
    fn members_go_with_their_commas() {
        for (old, path, new) in [
            ("{\"a\": 1}", &["a"][..], Some("{}")),
            ("{\"a\": 1, \"b\": 2}", &["a"], Some("{\"b\": 2}")),
            ("{\"a\": 1, \"b\": 2}", &["b"], Some("{\"a\": 1}")),
            ("{\n  \"a\": 1,\n  \"b\": 2,\n  \"c\": 3\n}\n", &["b"], Some("{\n  \"a\": 1,\n  \"c\": 3\n}\n")),
            ("{\n  \"a\": 1,\n  \"b\": 2\n}\n", &["b"], Some("{\n  \"a\": 1\n}\n")),
            ("{\"a\": {\"b\": 1}}", &["a", "b"], Some("{\"a\": {}}")),
            ("{\"a\": 1}", &["b"], None),
            ("{\"a\": 1}", &["a", "b"], None),
        ] {
            let found = remove(old, path).unwrap();
            assert_eq!(found.as_deref(), new, "{old:?} {path:?}");
            assert_eq!(remove(&found.unwrap_or(old.to_string()), path), Ok(None));
        }
    }

    #[test]
    fn what_cannot_be_is_said() {
        for (text, path, reason) in [
            ("{\"a\": 1}", &["a", "b"][..], "/a is neither an object nor a list"),
            ("[1]", &["x"], "`x` is no index"),
            ("[1]", &["-"], "`-` is no index"),
            ("[1]", &["5"], "has no item 5"),
            ("{\"a\": 1, \"a\": 2}", &["a"], "the key `a` twice"),
        ] {
            assert!(set(text, path, &json!(0)).unwrap_err().contains(reason), "{text}");
        }
        assert!(remove("[1]", &["0"]).unwrap_err().contains("set the whole list"));
        for text in ["{", "{\"a\": 1,}", "// c\n{}", "\u{feff}{}", "{} {}", "nul", &"[".repeat(100_000)] {
            assert!(validate(text).unwrap_err().contains("not JSON"), "{}", &text[..text.len().min(9)]);
        }
    }
}
