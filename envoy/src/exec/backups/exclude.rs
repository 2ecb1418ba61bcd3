//! What a snapshot leaves out, by patterns. Names that are not UTF-8 are compared as they would be shown.

use common::glob::Glob;

use crate::exec::fault::Fault;

/// Patterns of one resource.
#[derive(Debug, Default)]
pub struct Exclude {
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    glob: Glob,
    /// Compared with the whole path, not with the name.
    whole: bool,
    directories: bool,
}

impl Exclude {
    /// From patterns with commas between them.
    pub fn try_new(text: &str) -> Result<Exclude, Fault> {
        let parse = |text: &str| {
            let (text, directories) = text.strip_suffix('/').map_or((text, false), |text| (text, true));
            let glob = Glob::try_new_exact(text.strip_prefix('/').unwrap_or(text));
            let glob = glob.map_err(|error| Fault::Parameter(format!("`exclude`: {text}: {error}")))?;
            Ok(Pattern { glob, whole: text.contains('/'), directories })
        };
        let patterns = text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(parse);
        Ok(Exclude { patterns: patterns.collect::<Result<_, Fault>>()? })
    }

    /// Whether something is left out. The path is below the source, without a slash at either end.
    pub fn takes(&self, path: &[u8], is_directory: bool) -> bool {
        if self.patterns.is_empty() {
            return false;
        }
        let path = String::from_utf8_lossy(path);
        let name = path.rsplit('/').next().unwrap_or_default();
        self.patterns.iter().any(|pattern| {
            (is_directory || !pattern.directories) && pattern.glob.matches(if pattern.whole { &path } else { name })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_names_paths_and_directories() {
        let exclude = Exclude::try_new("*.tmp, db/vigo.db*, /run/, cache/").unwrap();
        for (path, is_directory, taken) in [
            ("a.tmp", false, true),
            ("x/y/a.tmp", false, true),
            ("A.TMP", false, false),
            ("db/vigo.db", false, true),
            ("db/vigo.db-wal", false, true),
            ("x/db/vigo.db", false, false),
            ("run", true, true),
            ("run", false, false),
            ("x/run", true, false),
            ("x/cache", true, true),
            ("x/cache", false, false),
        ] {
            assert_eq!(exclude.takes(path.as_bytes(), is_directory), taken, "{path}");
        }
        assert!(!Exclude::try_new("").unwrap().takes(b"a", false));
        assert!(Exclude::try_new("n*").unwrap().takes(b"n\xff", false));
        assert!(Exclude::try_new("a,[b").is_err());
    }
}
