//! `vigo`: the agent itself.

use common::cli::{COMMIT, TARGET, VERSION};
use serde_json::{Value, json};

use super::{Facts, Root};

pub(super) fn collect(_: &Root, facts: &Facts) -> Result<Value, String> {
    Ok(json!({
        "version": VERSION,
        "commit": COMMIT,
        "target": TARGET,
        "serial": facts.serial,
        "sysroot": facts.sysroot,
    }))
}
