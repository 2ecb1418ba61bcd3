//! Diffs that a person can read, bounded.

use std::time::Duration;

use similar::TextDiff;

/// Bytes of either side of a diff; larger files are only said to differ.
const SIDE_BYTES_MAX: usize = 128 << 10;
/// Time for one diff: beyond it the result is correct but coarse.
const TIME_MAX: Duration = Duration::from_millis(200);
/// Bytes of a diff: what a report keeps, and some for the note that it was cut.
const DIFF_BYTES_MAX: usize = 2 * common::limits::OUTCOME_TEXT_BYTES_MAX;

/// In place of a diff of what holds a secret: context would show it, or what stands around it.
pub const NOT_SHOWN: &str = "not shown: it holds a secret";

/// Unified diff of two contents.
pub fn unified(path: &str, old: &[u8], new: &[u8]) -> String {
    if old.len() > SIDE_BYTES_MAX || new.len() > SIDE_BYTES_MAX {
        return format!("{path}: {} bytes become {}", old.len(), new.len());
    }
    let (Ok(old), Ok(new)) = (std::str::from_utf8(old), std::str::from_utf8(new)) else {
        return format!("{path}: not text; {} bytes become {}", old.len(), new.len());
    };
    let diff = TextDiff::configure().timeout(TIME_MAX).diff_lines(old, new);
    let mut text = diff.unified_diff().context_radius(3).header(path, path).to_string();
    if text.len() > DIFF_BYTES_MAX {
        let mut at = DIFF_BYTES_MAX;
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        text.truncate(at);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diffs_are_readable_and_bounded() {
        let text = unified("/x", b"a\nb\nc\n", b"a\nB\nc\n");
        assert_eq!(text, "--- /x\n+++ /x\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n");
        assert_eq!(unified("/x", b"\xff", b"a"), "/x: not text; 1 bytes become 1");
        let long = "ä\n".repeat(20_000);
        assert!(unified("/x", b"", long.as_bytes()).len() <= DIFF_BYTES_MAX);
        assert!(unified("/x", &vec![0; SIDE_BYTES_MAX + 1], b"").contains("bytes become 0"));
    }
}
