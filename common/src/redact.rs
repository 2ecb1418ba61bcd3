//! The filter on what leaves a process: takes out every loaded secret, also as base64, hexadecimal, percent-encoded or JSON text.
//!
//! It is the second net. The first is that secrets are values which do not print.

use std::borrow::Cow;
use std::fmt::Write;

use zeroize::Zeroizing;

/// What stands where a secret was.
pub const REDACTED: &str = "[secret]";

/// Lines of a secret of several lines that are shorter are not looked for alone: they are no secret by themselves.
const LINE_BYTES_MIN: usize = 8;
/// The same for the parts of one with slashes in it: a path or an address that holds it may be told in parts.
const PART_BYTES_MIN: usize = 8;
/// Encoded forms that are shorter would be found everywhere.
const FORM_BYTES_MIN: usize = 6;
/// The beginning of a secret at the very end of a text (which was cut there) is taken out from this length on.
const CUT_BYTES_MIN: usize = 4;

/// Knows the secrets of one process. Does not print.
#[derive(Default)]
pub struct Filter {
    /// Every form of every value, the longest first.
    needles: Vec<Zeroizing<String>>,
    /// The values as they are, for files.
    values: Vec<Zeroizing<String>>,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filter({} values)", self.values.len())
    }
}

impl Filter {
    /// For these values. Empty ones are passed over.
    pub fn new<'v>(values: impl IntoIterator<Item = &'v str>) -> Filter {
        let mut filter = Filter::default();
        for value in values {
            let value = value.trim_end_matches('\n');
            if value.is_empty() {
                continue;
            }
            filter.add(value);
            if value.contains('\n') {
                let lines = value.lines().map(str::trim).filter(|line| line.len() >= LINE_BYTES_MIN);
                lines.for_each(|line| filter.add(line));
            }
            let parts = value.split(['/', '\n']).map(str::trim).filter(|part| part.len() >= PART_BYTES_MIN);
            parts.for_each(|part| filter.look_for(part));
        }
        filter.needles.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        filter.needles.dedup();
        filter
    }

    /// Nothing is looked for.
    pub fn is_empty(&self) -> bool {
        self.needles.is_empty()
    }

    /// The text without any secret in it.
    pub fn clean<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut out = Cow::Borrowed(text);
        for needle in &self.needles {
            if out.contains(needle.as_str()) {
                out = Cow::Owned(out.replace(needle.as_str(), REDACTED));
            }
        }
        // What cut the text may have cut a secret.
        if let Some(at) = self.needles.iter().filter_map(|needle| cut_at(&out, needle)).min() {
            let mut cut = out.into_owned();
            cut.truncate(at);
            cut.push_str(REDACTED);
            out = Cow::Owned(cut);
        }
        out
    }

    /// The same for a text whose beginning was cut off, and perhaps a secret with it.
    pub fn clean_rest<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.needles.iter().filter_map(|needle| rest_at(text, needle)).max() {
            Some(at) => Cow::Owned(format!("{REDACTED}{}", self.clean(&text[at..]))),
            None => self.clean(text),
        }
    }

    /// Whether a text or the content of a file holds a secret, as it is.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        self.values.iter().any(|value| find(bytes, value.as_bytes()))
    }

    fn add(&mut self, value: &str) {
        self.values.push(Zeroizing::new(value.to_string()));
        self.look_for(value);
    }

    /// In every form, in what leaves the process.
    fn look_for(&mut self, value: &str) {
        self.needles.push(Zeroizing::new(value.to_string()));
        let json = Zeroizing::new(quoted(value));
        let mut forms = vec![json.to_string()];
        // Of a document that was encoded whole: in there it may be quoted already.
        for text in [value, &json] {
            let bytes = text.as_bytes();
            let lower = crate::ids::hex(bytes);
            forms.extend([lower.to_uppercase(), lower, percent(bytes, false), percent(bytes, true)]);
            for alphabet in [STANDARD, URL_SAFE] {
                // A secret inside a longer text that was encoded whole may begin at any of three places of a group.
                forms.extend((0..3).map(|shift| base64_core(bytes, shift, alphabet)));
            }
            if *json == value {
                break;
            }
        }
        let forms = forms.into_iter().filter(|form| form.len() >= FORM_BYTES_MIN);
        self.needles.extend(forms.map(Zeroizing::new));
    }
}

/// Where the beginning of a needle ends a text.
fn cut_at(text: &str, needle: &str) -> Option<usize> {
    let most = text.len().min(needle.len().saturating_sub(1));
    (CUT_BYTES_MIN..=most)
        .rev()
        .map(|n| text.len() - n)
        .find(|&at| text.is_char_boundary(at) && needle.as_bytes().starts_with(&text.as_bytes()[at..]))
}

/// Where the end of a needle, of which a text begins with a part, is over.
fn rest_at(text: &str, needle: &str) -> Option<usize> {
    let most = text.len().min(needle.len().saturating_sub(1));
    (CUT_BYTES_MIN..=most)
        .rev()
        .find(|&n| text.is_char_boundary(n) && needle.as_bytes().ends_with(&text.as_bytes()[..n]))
}

fn find(haystack: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return false };
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

fn percent(bytes: &[u8], lower: bool) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = match byte {
            b if b.is_ascii_alphanumeric() || b"-_.~".contains(b) => write!(out, "{}", *b as char),
            b if lower => write!(out, "%{b:02x}"),
            b => write!(out, "%{b:02X}"),
        };
        out
    })
}

/// As between the quotes of JSON, and of Rust's own debug form.
fn quoted(value: &str) -> String {
    value.chars().fold(String::new(), |mut out, c| {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
        out
    })
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The digits of base64 that depend on `bytes` alone when `shift` other bytes stand before them.
fn base64_core(bytes: &[u8], shift: usize, alphabet: &[u8; 64]) -> String {
    let bit = |at: usize| {
        let byte = at / 8;
        byte.checked_sub(shift).and_then(|at| bytes.get(at)).map(|byte| usize::from(byte >> (7 - at % 8) & 1))
    };
    let n_digits = (bytes.len() + shift) * 8 / 6;
    let digit = |at: usize| (0..6).try_fold(0, |digit, n| Some(digit << 1 | bit(at * 6 + n)?));
    (0..n_digits).filter_map(digit).map(|digit: usize| alphabet[digit] as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "p4ss/w0rd? \"ä\"";

    #[test]
    fn every_form_of_a_secret_is_taken_out() {
        let filter = Filter::new([SECRET]);
        let forms = [
            SECRET.to_string(),
            format!("a{SECRET}b{SECRET}"),
            "cDRzcy93MHJkPyAiw6Qi".to_string(),
            // "user:" in front, base64 of the whole.
            "dXNlcjpwNHNzL3cwcmQ/ICLDpCI=".to_string(),
            "dTpwNHNzL3cwcmQ_ICLDpCI".to_string(),
            "703473732f773072643f2022c3a422".to_string(),
            "703473732F773072643F2022C3A422".to_string(),
            "p4ss%2Fw0rd%3F%20%22%C3%A4%22".to_string(),
            "p4ss%2fw0rd%3f%20%22%c3%a4%22".to_string(),
            serde_json::to_string(SECRET).unwrap(),
            format!("{SECRET:?}"),
            // {"k":"p4ss/w0rd? \\"\u{e4}\\""}, base64 of the whole.
            "eyJrIjoicDRzcy93MHJkPyBcIsOkXCIifQ==".to_string(),
        ];
        for form in &forms {
            let text = format!("before {form} after");
            let clean = filter.clean(&text);
            assert!(clean.contains(REDACTED), "{form}: {clean}");
            assert!(clean.starts_with("before") && clean.ends_with("after"), "{clean}");
            assert!(!clean.contains("p4ss") && !clean.contains("w0rd"), "{clean}");
        }
        assert!(matches!(filter.clean("nothing in here"), Cow::Borrowed(_)));
    }

    #[test]
    fn each_line_of_a_key_is_a_secret_and_a_cut_one_too() {
        let filter = Filter::new(["-----BEGIN KEY-----\nabcdefghijklmnop\nq\n-----END KEY-----\n"]);
        assert_eq!(filter.clean("line: abcdefghijklmnop"), "line: [secret]");
        assert_eq!(filter.clean("line: abcdefghijkl"), "line: [secret]");
        assert_eq!(filter.clean("q and abc"), "q and abc");
        assert!(filter.holds(b"x abcdefghijklmnop y") && !filter.holds(b"abcdefghijklmno"));
    }

    #[test]
    fn the_rest_of_a_secret_at_the_start_is_taken_out_and_so_are_parts_of_one_with_slashes() {
        let filter = Filter::new(["abcdefghijklmnop", "wJalrXUtnFEMI/K7MDENGbPx/x"]);
        assert_eq!(filter.clean_rest("klmnop and more"), "[secret] and more");
        assert_eq!(filter.clean_rest("mnop"), "[secret]");
        assert_eq!(filter.clean_rest("nop abcdefghijklmnop"), "nop [secret]");
        assert_eq!(filter.clean_rest("abcdefghijklmnopabcdefghijklmnop"), "[secret][secret]");
        assert_eq!(filter.clean("no directory /wJalrXUtnFEMI in /K7MDENGbPx"), "no directory /[secret] in /[secret]");
        assert!(!filter.holds(b"wJalrXUtnFEMI"), "it is no secret by itself");
        assert_eq!(filter.clean("x 4b374d44454e47625078 y"), "x [secret] y");
        let accented = Filter::new(["\u{e4}bcdefgh"]);
        assert_eq!(accented.clean_rest("bcdefgh \u{e4}"), "[secret] \u{e4}");
    }

    #[test]
    fn nothing_prints_and_nothing_is_found_for_nothing() {
        let filter = Filter::new(["hunter2", ""]);
        assert_eq!(format!("{filter:?}"), "Filter(1 values)");
        assert!(Filter::new([""]).is_empty());
        assert_eq!(Filter::default().clean("hunter2"), "hunter2");
    }
}
