//! Patterns of host names and paths: `*` any run of characters, `?` one character, `[a-z]` and `[!a-z]` one of a set. Case does
//! not matter in names of hosts, as in DNS; it does in paths. Matching is linear in pattern times text, whatever the pattern.

/// A pattern that has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    source: String,
    tokens: Vec<Token>,
    exact: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    Any,
    AnyRun,
    Set { negated: bool, ranges: Vec<(char, char)> },
}

/// Why a pattern is not one; `at` is a character offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadGlob {
    /// Character offset in the pattern.
    pub at: usize,
    /// What is wrong there.
    pub reason: &'static str,
}

impl std::fmt::Display for BadGlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "character {} of the pattern: {}", self.at + 1, self.reason)
    }
}

impl std::error::Error for BadGlob {}

impl Glob {
    /// Parses a pattern of host names.
    pub fn try_new(source: &str) -> Result<Glob, BadGlob> {
        Glob::parse(source, false)
    }

    /// Parses a pattern of paths: case matters, and `*` and `?` match a slash like any other character.
    pub fn try_new_exact(source: &str) -> Result<Glob, BadGlob> {
        Glob::parse(source, true)
    }

    fn parse(source: &str, exact: bool) -> Result<Glob, BadGlob> {
        if source.is_empty() {
            return Err(BadGlob { at: 0, reason: "a pattern must not be empty" });
        }
        let chars: Vec<char> = if exact { source.chars().collect() } else { source.to_lowercase().chars().collect() };
        let (mut tokens, mut at) = (Vec::new(), 0);
        while at < chars.len() {
            match chars[at] {
                '*' if tokens.last() == Some(&Token::AnyRun) => {}
                '*' => tokens.push(Token::AnyRun),
                '?' => tokens.push(Token::Any),
                '[' => {
                    let (token, end) = set(&chars, at)?;
                    tokens.push(token);
                    at = end;
                }
                ']' => return Err(BadGlob { at, reason: "`]` without `[`" }),
                other => tokens.push(Token::Literal(other)),
            }
            at += 1;
        }
        Ok(Glob { source: source.to_string(), tokens, exact })
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the whole text matches.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = if self.exact { text.chars().collect() } else { text.to_lowercase().chars().collect() };
        // Greedy with one point of return: the last `*` seen. Enough, because a later `*` can absorb what an earlier one could.
        let (mut t, mut p, mut retry) = (0, 0, None);
        while t < text.len() {
            match self.tokens.get(p) {
                Some(Token::AnyRun) => {
                    retry = Some((p + 1, t));
                    p += 1;
                    continue;
                }
                Some(token) if token.fits(text[t]) => {
                    (t, p) = (t + 1, p + 1);
                    continue;
                }
                _ => {}
            }
            match retry {
                Some((after, from)) => {
                    (t, p) = (from + 1, after);
                    retry = Some((after, from + 1));
                }
                None => return false,
            }
        }
        self.tokens[p..].iter().all(|token| *token == Token::AnyRun)
    }
}

impl Token {
    fn fits(&self, c: char) -> bool {
        match self {
            Token::Literal(literal) => *literal == c,
            Token::Any | Token::AnyRun => true,
            Token::Set { negated, ranges } => ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated,
        }
    }
}

/// The set that starts at `[`, and the offset of its `]`.
fn set(chars: &[char], start: usize) -> Result<(Token, usize), BadGlob> {
    let mut at = start + 1;
    let negated = matches!(chars.get(at), Some('!' | '^'));
    at += usize::from(negated);
    let mut ranges = Vec::new();
    loop {
        match (chars.get(at), chars.get(at + 1), chars.get(at + 2)) {
            (None, ..) => return Err(BadGlob { at: start, reason: "`[` is not closed" }),
            (Some(']'), ..) if !ranges.is_empty() => return Ok((Token::Set { negated, ranges }, at)),
            (Some(']'), ..) => return Err(BadGlob { at, reason: "an empty set matches nothing" }),
            (Some(low), Some('-'), Some(high)) if *high != ']' => {
                if low > high {
                    return Err(BadGlob { at, reason: "the range is upside down" });
                }
                ranges.push((*low, *high));
                at += 3;
            }
            (Some(one), ..) => {
                ranges.push((*one, *one));
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_matters_in_patterns_of_paths() {
        let glob = Glob::try_new_exact("Cache/*.tmp").unwrap();
        assert!(glob.matches("Cache/a/b.tmp") && !glob.matches("cache/b.tmp") && !glob.matches("Cache/b.TMP"));
    }

    #[test]
    fn patterns_match_as_people_expect() {
        for (pattern, text, expected) in [
            ("web-*.prod.example.com", "web-1.prod.example.com", true),
            ("web-*.prod.example.com", "WEB-1.PROD.example.com", true),
            ("web-*.prod.example.com", "db-1.prod.example.com", false),
            ("*", "anything", true),
            ("db?", "db1", true),
            ("db?", "db12", false),
            ("n[0-9a]x", "nax", true),
            ("n[!0-9]x", "n5x", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
        ] {
            assert_eq!(Glob::try_new(pattern).unwrap().matches(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn bad_patterns_name_the_place() {
        for (pattern, at) in [("", 0), ("web-[", 4), ("a]", 1), ("[]", 1), ("[z-a]", 1)] {
            assert_eq!(Glob::try_new(pattern).unwrap_err().at, at, "{pattern}");
        }
    }

    #[test]
    fn many_stars_stay_fast() {
        let glob = Glob::try_new(&"a*".repeat(60)).unwrap();
        assert!(!glob.matches(&format!("{}b", "ab".repeat(20))));
    }
}
