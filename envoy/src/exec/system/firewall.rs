//! `firewall`: what may come in. With nftables in a table of its own, replaced whole and at once; with ufw, in rules that carry
//! a mark of ours. Compared with what the kernel has, not with what was written last time.

use common::policy::firewall::Rule;

use super::{nftables, ufw};
use crate::exec::contract::{Statement, settle};
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::read::Reader;
use crate::exec::tool::Tool;
use crate::plan::{Task, Verdict};
use common::time::Mono;

/// Name of the table, and mark of the rules, where none is given.
const TABLE_DEFAULT: &str = "vigo";

/// Settles one `firewall`.
pub fn run(host: &mut Host, task: &Task<'_>) -> Verdict {
    match read(host, task) {
        Ok(mut wanted) => settle(wanted.as_mut(), host, task),
        Err(fault) => fault.verdict(),
    }
}

/// What is asked for.
pub struct Wanted {
    /// Whether it should be there.
    pub present: bool,
    /// Name of the table, or mark of the rules.
    pub table: String,
    /// What no rule names comes in.
    pub open: bool,
    /// In the order in which they decide.
    pub rules: Vec<Rule>,
    /// More chains for the table, as nftables reads them.
    pub chains: String,
    /// Tools end by then.
    pub deadline: Mono,
}

fn read(host: &Host, task: &Task<'_>) -> Result<Box<dyn Statement>, Fault> {
    let reader = Reader::of(task)?;
    let wanted = Wanted {
        present: reader.is("state", "present", "present"),
        table: reader.text("table").map_or_else(|| TABLE_DEFAULT.to_string(), |text| text.into_owned()),
        open: reader.is("policy", "accept", "drop"),
        rules: reader.texts("rules").iter().filter_map(|text| Rule::parse(text)).collect(),
        chains: reader.text("chains").unwrap_or_default().trim().to_string(),
        deadline: task.deadline,
    };
    if !host.is_live() {
        let message = "rules belong to the kernel of a running host: in a sysroot there is none";
        return Err(Fault::Failed(message.to_string()));
    }
    let backend = reader.text("backend").map(|text| text.into_owned());
    match backend.as_deref() {
        Some("ufw") => ufw::statement(host, wanted),
        None if Tool::find(host, "nft").is_none() && Tool::find(host, "ufw").is_some() => ufw::statement(host, wanted),
        _ => nftables::statement(host, wanted),
    }
}
