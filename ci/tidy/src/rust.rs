//! A scanner that knows just enough Rust: comments, strings, test modules, identifiers and `::` paths.
//!
//! It does not parse. It must never mistake text for code, because a rule that cries wolf gets switched off.

use std::ops::Range;

/// A Rust source with comments and the content of strings blanked out; lines stay where they are.
#[derive(Clone, Debug)]
pub struct Source {
    /// Code only.
    pub code: String,
    /// Byte ranges of `code` that are inline test modules.
    pub tests: Vec<Range<usize>>,
}

impl Source {
    /// Scans a file.
    pub fn new(text: &str) -> Source {
        let code = blank(text);
        let tests = test_modules(&code);
        Source { code, tests }
    }

    /// Code with inline test modules blanked out as well.
    pub fn production(&self) -> String {
        let mut bytes = self.code.clone().into_bytes();
        for range in &self.tests {
            bytes[range.clone()].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        }
        String::from_utf8(bytes).unwrap_or_default()
    }

    /// Lines of code outside test modules: not blank, not comment.
    pub fn code_lines(&self) -> usize {
        self.production().lines().filter(|line| !line.trim().is_empty()).count()
    }

    /// Lines of the longest inline test module.
    pub fn test_lines(&self) -> usize {
        self.tests.iter().map(|range| self.code[range.clone()].lines().count()).max().unwrap_or(0)
    }
}

/// Names of the modules that a source declares in files of their own for tests only: `#[cfg(test)] mod tests;`.
pub fn test_only_modules(source: &Source) -> Vec<String> {
    let tokens = tokens(&source.code);
    let test = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut out = Vec::new();
    for start in 0..tokens.len() {
        let Some(rest) = tokens[start..].strip_prefix(&test[..]) else { continue };
        let rest = rest.strip_prefix(&["pub"][..]).unwrap_or(rest);
        if let ["mod", name, ";", ..] = rest {
            out.push((*name).to_string());
        }
    }
    out
}

/// Every `::` path of a source that starts with `first`, brace groups unfolded: `crate::{a::B, c}` gives `a::B` and `c`.
/// A name that `as` renames is the original one; `*` stays.
pub fn paths_from(code: &str, first: &str) -> Vec<Vec<String>> {
    let tokens = tokens(code);
    let mut out = Vec::new();
    for at in 0..tokens.len() {
        let starts = tokens[at] == first && tokens.get(at + 1) == Some(&"::");
        // `x::first::y` is another path's middle.
        if starts && (at == 0 || tokens[at - 1] != "::") {
            unfold(&tokens, at + 2, &mut Vec::new(), &mut out);
        }
    }
    out
}

/// Identifiers, `::` and single punctuation characters.
pub fn tokens(code: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let bytes = code.as_bytes();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        if word(bytes[at]) {
            while at < bytes.len() && word(bytes[at]) {
                at += 1;
            }
        } else if bytes[at..].starts_with(b"::") {
            at += 2;
        } else {
            at += 1;
        }
        if !bytes[start].is_ascii_whitespace() {
            out.push(&code[start..at]);
        }
    }
    out
}

/// Reads one use tree from token `at`; returns the token after it.
fn unfold(tokens: &[&str], mut at: usize, prefix: &mut Vec<String>, out: &mut Vec<Vec<String>>) -> usize {
    let depth = prefix.len();
    loop {
        match tokens.get(at) {
            Some(&"{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| *token != "}") {
                    at = unfold(tokens, at, prefix, out);
                    // Skips `as name` and commas.
                    while tokens.get(at).is_some_and(|token| *token != "," && *token != "}") {
                        at += 1;
                    }
                    at += usize::from(tokens.get(at) == Some(&","));
                }
                prefix.truncate(depth);
                return at + 1;
            }
            Some(token) if *token == "*" || token.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
                prefix.push((*token).to_string());
                at += 1;
                if tokens.get(at) == Some(&"::") {
                    at += 1;
                    continue;
                }
            }
            // `path::<T>` and whatever else ends a path.
            _ => {}
        }
        if prefix.len() > depth {
            out.push(prefix.clone());
        }
        prefix.truncate(depth);
        return at.max(1);
    }
}

/// Ranges of `#[cfg(test)] mod name { ... }`, braces included.
fn test_modules(code: &str) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    for (start, _) in code.match_indices("#[cfg(test)]") {
        let rest = &code[start..];
        let Some(open) = rest.find('{') else { continue };
        let head = &rest[..open];
        if head.contains(';') || !head.split_whitespace().any(|word| word == "mod") {
            continue;
        }
        let mut depth = 0usize;
        let end = rest[open..].char_indices().find_map(|(at, c)| {
            depth = if c == '{' { depth + 1 } else { depth - usize::from(c == '}') };
            (depth == 0).then_some(start + open + at + 1)
        });
        out.push(start..end.unwrap_or(code.len()));
    }
    out
}

/// Replaces comments and the content of strings and characters by spaces.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => find(bytes, at, b"\n"),
            b'/' if bytes[at..].starts_with(b"/*") => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' | b'b' | b'c' if !follows_word(bytes, at) => match raw_string_end(bytes, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            b'\'' => match char_end(bytes, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            _ => {
                at += 1;
                continue;
            }
        };
        let end = end.min(bytes.len());
        out[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        // What is left of a string is an empty one, so that a line that holds only a string is still a line of code.
        if bytes[at] != b'/' {
            out[at] = b'"';
            out[end - 1] = b'"';
        }
        at = end;
    }
    String::from_utf8(out).unwrap_or_default()
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    bytes[from..].windows(what.len()).position(|window| window == what).map_or(bytes.len(), |at| from + at)
}

fn follows_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn block_comment_end(bytes: &[u8], from: usize) -> usize {
    let (mut at, mut depth) = (from, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if bytes[at..].starts_with(b"*/") {
            (at, depth) = (at + 2, depth - 1);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn string_end(bytes: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

/// End of `r"..."`, `r#"..."#`, `br"..."`, `cr"..."`; `None` where no raw string starts.
fn raw_string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + usize::from(matches!(bytes[start], b'b' | b'c'));
    if bytes.get(at) != Some(&b'r') {
        return None;
    }
    at += 1;
    let hashes = bytes[at..].iter().take_while(|byte| **byte == b'#').count();
    at += hashes;
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    Some(find(bytes, at + 1, &close) + close.len())
}

/// End of a character literal; `None` for a lifetime.
fn char_end(bytes: &[u8], open: usize) -> Option<usize> {
    if bytes.get(open + 1) == Some(&b'\\') {
        let mut at = open + 3;
        while at < bytes.len() && bytes[at] != b'\'' {
            at += 1;
        }
        return Some(at + 1);
    }
    // One character of up to four bytes.
    (2..=5).find(|length| bytes.get(open + length) == Some(&b'\'')).and_then(|length| {
        let inside = std::str::from_utf8(&bytes[open + 1..open + length]).ok()?;
        (inside.chars().count() == 1).then_some(open + length + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(code: &str) -> Vec<String> {
        paths_from(code, "crate").iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn comments_and_strings_are_no_code() {
        let text = "let a = \"unsafe // x\"; // unsafe\n/* unsafe /* */ unsafe */ let b = r#\"un\"safe\"#; 'u'; '\\''; &'a u8;";
        let code = blank(text);
        assert!(!code.contains("unsafe"), "{code}");
        assert!(code.contains("&'a u8;"));
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn use_trees_unfold() {
        assert_eq!(paths("use crate::{a::{B, c as d}, e};"), ["a::B", "a::c", "e"]);
        assert_eq!(paths("use crate::a::*; crate::b::C::<u8>::new(crate::d)"), ["a::*", "b::C", "d"]);
        assert_eq!(paths("not_crate::a; pub(crate) fn f() {}"), Vec::<String>::new());
    }

    #[test]
    fn test_modules_are_found_and_left_out() {
        let source =
            Source::new("fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n#[cfg(test)]\nmod more;\n");
        assert_eq!(source.code_lines(), 4);
        assert!(!source.production().contains("fn b"));
        assert!(source.production().contains("fn c"));
        assert_eq!(test_only_modules(&source), ["more"]);
    }
}
