//! Which mapping is a host's: the first, in path order, with a pattern that matches.
//!
//! A fleet of 100,000 hosts and 10,000 mappings must not cost a thousand million pattern matches. A literal pattern is
//! looked up; every other one is filed under its literal beginning or end, whichever fewer patterns share, and is tried
//! only against names that have it.

use std::collections::{BTreeMap, HashMap};

use common::glob::Glob;

use super::MappingId;

/// Characters that begin a part of a pattern that is not literal.
const WILD: [char; 3] = ['*', '?', '['];

/// Patterns of all mappings, filed for lookup.
#[derive(Debug, Default)]
pub(super) struct HostIndex {
    literal: HashMap<String, MappingId>,
    /// By number of bytes, then by the bytes: patterns in order of their mapping.
    prefixes: BTreeMap<usize, HashMap<String, Vec<Filed>>>,
    suffixes: BTreeMap<usize, HashMap<String, Vec<Filed>>>,
    /// Patterns that are wild at both ends.
    anywhere: Vec<Filed>,
}

#[derive(Debug)]
struct Filed {
    mapping: MappingId,
    glob: Glob,
}

impl HostIndex {
    /// From patterns in order of their mappings.
    pub(super) fn new(patterns: Vec<(MappingId, Glob)>) -> HostIndex {
        let mut sharing: HashMap<(bool, String), usize> = HashMap::new();
        let ends: Vec<(String, String)> = patterns.iter().map(|(_, glob)| literal_ends(glob.source())).collect();
        for (prefix, suffix) in &ends {
            *sharing.entry((true, prefix.clone())).or_default() += 1;
            *sharing.entry((false, suffix.clone())).or_default() += 1;
        }
        let mut index = HostIndex::default();
        for ((mapping, glob), (prefix, suffix)) in patterns.into_iter().zip(ends) {
            if !glob.source().contains(WILD) {
                index.literal.entry(prefix).or_insert(mapping);
                continue;
            }
            let shared = |beginning: bool, part: &String| match part.is_empty() {
                true => usize::MAX,
                false => sharing.get(&(beginning, part.clone())).copied().unwrap_or_default(),
            };
            let (by_prefix, by_suffix) = (shared(true, &prefix), shared(false, &suffix));
            let filed = Filed { mapping, glob };
            if by_prefix == usize::MAX && by_suffix == usize::MAX {
                index.anywhere.push(filed);
            } else {
                let (files, part) =
                    if by_prefix <= by_suffix { (&mut index.prefixes, prefix) } else { (&mut index.suffixes, suffix) };
                files.entry(part.len()).or_default().entry(part).or_default().push(filed);
            }
        }
        index
    }

    /// The mapping of a host.
    pub(super) fn find(&self, hostname: &str) -> Option<MappingId> {
        let name = hostname.to_lowercase();
        let mut best = self.literal.get(&name).copied();
        let mut try_filed = |filed: &[Filed]| {
            let better = filed.iter().take_while(|filed| best.is_none_or(|best| filed.mapping < best));
            best = better.into_iter().find(|filed| filed.glob.matches(&name)).map(|filed| filed.mapping).or(best);
        };
        for (length, files) in self.prefixes.range(..=name.len()) {
            name.get(..*length).and_then(|part| files.get(part)).into_iter().for_each(|filed| try_filed(filed));
        }
        for (length, files) in self.suffixes.range(..=name.len()) {
            let part = name.get(name.len() - length..);
            part.and_then(|part| files.get(part)).into_iter().for_each(|filed| try_filed(filed));
        }
        try_filed(&self.anywhere);
        best
    }
}

/// The literal beginning and end of a pattern, in lower case; a literal pattern is its own beginning.
fn literal_ends(pattern: &str) -> (String, String) {
    let pattern = pattern.to_lowercase();
    let first = pattern.find(WILD).unwrap_or(pattern.len());
    // A set ends with `]`, every other wild part is one character.
    let last = pattern.rfind(['*', '?', ']']).map_or(pattern.len(), |at| at + 1);
    (pattern[..first].to_string(), pattern[last..].to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index(patterns: &[&str]) -> (HostIndex, Vec<Glob>) {
        let globs: Vec<Glob> = patterns.iter().map(|pattern| Glob::try_new(pattern).unwrap()).collect();
        (HostIndex::new(globs.iter().enumerate().map(|(n, glob)| (MappingId(n as u32), glob.clone())).collect()), globs)
    }

    #[test]
    fn the_first_mapping_in_order_wins() {
        let (hosts, _) = index(&["web-1.example.com", "*.test", "web-*", "*", "web-2", "[a-c]x*y"]);
        for (host, expected) in [
            ("web-1.example.com", 0),
            ("WEB-1.example.com", 0),
            ("a.test", 1),
            ("web-9.test", 1),
            ("web-2", 2),
            ("db", 3),
        ] {
            assert_eq!(hosts.find(host), Some(MappingId(expected)), "{host}");
        }
        let (hosts, _) = index(&["a", "b*"]);
        assert_eq!(hosts.find("c"), None);
        assert_eq!(hosts.find(""), None);
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_trying_every_pattern_law(
            patterns in proptest::collection::vec("[ab*?.]{1,5}|\\[ab\\][ab.]{0,3}", 1..12),
            hosts in proptest::collection::vec("[abAB.ü]{0,6}", 1..12),
        ) {
            let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
            let (index, globs) = index(&patterns);
            for host in hosts {
                let expected = globs.iter().position(|glob| glob.matches(&host)).map(|n| MappingId(n as u32));
                prop_assert_eq!(index.find(&host), expected, "{:?} {}", &patterns, host);
            }
        }
    }
}
