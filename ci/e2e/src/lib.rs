//! Placeholder doc, replaced by the crate's own.
