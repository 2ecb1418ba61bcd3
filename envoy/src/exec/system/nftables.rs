//! The firewall of nftables. Rules are written by people in many ways and printed by the kernel in one: to compare, the wanted
//! table is loaded into a network namespace that lives as long as the question, and printed there by the same program.

use common::policy::firewall::{Action as Answer, Rule, What};
use std::fmt::Write;

use super::firewall::Wanted;
use crate::exec::contract::{Action, Drift, Statement};
use crate::exec::diff::unified;
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::tool::Tool;
use crate::exec::undo::Back;
use crate::sys::child::Ended;

struct Table {
    wanted: Wanted,
    nft: Tool,
    unshare: Tool,
    /// As nftables prints it; asked once.
    canonical: Option<String>,
}

/// A table as a statement.
pub fn statement(host: &Host, wanted: Wanted) -> Result<Box<dyn Statement>, Fault> {
    let (nft, unshare) = (Tool::need(host, "nft")?, Tool::need(host, "unshare")?);
    Ok(Box::new(Table { wanted, nft, unshare, canonical: None }))
}

impl Table {
    /// What the kernel has; `None` where there is no such table.
    fn live(&self, host: &mut Host) -> Result<Option<String>, Fault> {
        let args = ["-s", "list", "table", "inet", &self.wanted.table];
        let done = self.nft.ask(host, &args, "", self.wanted.deadline)?;
        match done.ended {
            Ended::Exited(0) => Ok(Some(done.stdout.text())),
            _ if done.stderr.text().contains("No such file or directory") => Ok(None),
            _ => Err(self.nft.fault(&done)),
        }
    }

    fn canonical(&mut self, host: &mut Host) -> Result<String, Fault> {
        if let Some(known) = &self.canonical {
            return Ok(known.clone());
        }
        // Two programs: one that loads does not print what it has loaded.
        let line = "nft -f - && nft -s list table inet \"$0\"";
        let args = ["-n", "/bin/sh", "-c", line, &self.wanted.table];
        let printed = self.unshare.feed(host, &args, &text(&self.wanted), self.wanted.deadline)?;
        self.canonical = Some(printed.clone());
        Ok(printed)
    }
}

impl Statement for Table {
    fn probe(&mut self, host: &mut Host, diff: bool) -> Result<Option<Drift>, Fault> {
        let live = self.live(host)?;
        let name = format!("table inet {}", self.wanted.table);
        let wanted = if self.wanted.present { Some(self.canonical(host)?) } else { None };
        if live == wanted {
            return Ok(None);
        }
        let action = match (&live, &wanted) {
            (None, _) => Action::Create,
            (Some(_), None) => Action::Remove,
            (Some(_), Some(_)) => Action::Change,
        };
        let side = |text: Option<String>| text.unwrap_or_default().into_bytes();
        let diff = if diff { unified(&name, &side(live), &side(wanted)) } else { String::new() };
        Ok(Some(Drift { diff, ..Drift::new(action, name) }))
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        let table = &self.wanted.table;
        // Made where it is missing, so that it can be deleted; all in one transaction of the kernel.
        let fresh = format!("table inet {table}\ndelete table inet {table}\n");
        let script = if self.wanted.present { fresh + &text(&self.wanted) } else { fresh };
        self.nft.feed(host, &["-f", "-"], &script, self.wanted.deadline).map(|_| ())
    }

    fn back(&mut self, host: &mut Host) -> Result<Back, Fault> {
        let table = &self.wanted.table;
        let live = self.live(host)?.unwrap_or_default();
        let script = format!("table inet {table}\ndelete table inet {table}\n{live}");
        Ok(Back::Feed(["nft", "-f", "-"].map(str::to_string).to_vec(), script))
    }

    fn spare_self(&self, _host: &mut Host) -> Result<(), Fault> {
        Ok(())
    }
}

/// The table, as nftables reads it.
fn text(wanted: &Wanted) -> String {
    let policy = if wanted.open { "accept" } else { "drop" };
    let mut out = format!(
        "table inet {} {{\nchain input {{\ntype filter hook input priority filter; policy {policy};\n",
        wanted.table
    );
    // Answers to what the host asked, the host itself, and what IPv6 cannot live without.
    out.push_str("ct state established,related accept\niifname \"lo\" accept\n");
    out.push_str("icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept\n");
    for rule in &wanted.rules {
        let _ = writeln!(out, "{}", line(rule));
    }
    let _ = writeln!(out, "}}\n{}\n}}", wanted.chains);
    out
}

fn line(rule: &Rule) -> String {
    let mut parts = Vec::new();
    parts.extend(rule.on.as_ref().map(|name| format!("iifname \"{name}\"")));
    parts.extend(rule.from.map(|(address, bits)| {
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        format!("{family} saddr {address}/{bits}")
    }));
    match &rule.what {
        What::Any => {}
        What::Icmp => parts.push("meta l4proto { icmp, ipv6-icmp }".to_string()),
        What::Ports(ports, protocol) => {
            let range = |(first, last): &(u16, u16)| match first == last {
                true => first.to_string(),
                false => format!("{first}-{last}"),
            };
            let list: Vec<String> = ports.iter().map(range).collect();
            parts.push(format!("{protocol} dport {{ {} }}", list.join(", ")));
        }
    }
    parts.push(
        match rule.action {
            Answer::Allow => "accept",
            Answer::Deny => "drop",
            Answer::Reject => "reject",
        }
        .to_string(),
    );
    parts.join(" ")
}
