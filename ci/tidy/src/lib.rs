//! What the house rules need to look at the repository: its files, a scanner for Rust, the table of layers, the table of limits.
//!
//! The rules themselves are the tests in `ci/tidy/tests`. Nothing here depends on a crate of the workspace, so that the rules can be
//! checked when nothing compiles.

pub mod layers;
pub mod limits;
pub mod repo;
pub mod rust;

/// Fails the calling test with every violation on its own line; says nothing when there is none.
///
/// # Panics
///
/// When there is a violation: that is its job.
pub fn report(rule: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{rule}\n  {}\n", violations.join("\n  "));
}
