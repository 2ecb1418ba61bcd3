//! The firewall of ufw. Rules of ours carry a comment; rules of others stay, and stay in front of ours.

use common::policy::firewall::{Action as Answer, Rule, What};

use super::firewall::Wanted;
use crate::exec::contract::{Drift, Statement};
use crate::exec::fault::Fault;
use crate::exec::host::Host;
use crate::exec::look::text_of;
use crate::exec::tool::Tool;
use crate::exec::undo::Back;

struct Ufw {
    wanted: Wanted,
    tool: Tool,
    todo: Vec<Vec<String>>,
    /// What undoes that.
    undo: Vec<Vec<String>>,
}

/// What comes in by itself while it is not in force.
const DEFAULTS: &str = "/etc/default/ufw";

/// The rules as a statement.
pub fn statement(host: &Host, wanted: Wanted) -> Result<Box<dyn Statement>, Fault> {
    if !wanted.chains.is_empty() {
        return Err(Fault::Parameter("`chains` go with nftables only".to_string()));
    }
    Ok(Box::new(Ufw { wanted, tool: Tool::need(host, "ufw")?, todo: Vec::new(), undo: Vec::new() }))
}

impl Ufw {
    /// Its answer to what no rule names, as it takes it; nothing where that is not to be found out.
    fn policy(&self, host: &mut Host, status: &str) -> Result<Option<&'static str>, Fault> {
        let text = text_of(host, DEFAULTS)?;
        let named = |word: &str, kept: &str| {
            let kept = text.lines().any(|line| line.trim() == format!("DEFAULT_INPUT_POLICY=\"{kept}\""));
            status.contains(&format!("Default: {word} (incoming)")) || !status.contains("Default: ") && kept
        };
        let words = [("deny", "DROP"), ("allow", "ACCEPT"), ("reject", "REJECT")];
        Ok(words.into_iter().find(|(word, kept)| named(word, kept)).map(|(word, _)| word))
    }

    /// Our rules that are there, as ufw prints them, without their comment.
    fn ours(&self, added: &str) -> Vec<String> {
        let mark = format!(" comment '{}'", self.wanted.table);
        let rules = added.lines().filter_map(|line| line.strip_prefix("ufw ")?.strip_suffix(&mark));
        rules.map(str::to_string).collect()
    }
}

impl Statement for Ufw {
    fn probe(&mut self, host: &mut Host, diff: bool) -> Result<Option<Drift>, Fault> {
        let deadline = self.wanted.deadline;
        let ours = self.ours(&self.tool.run(host, &["show", "added"], deadline)?);
        let wanted: Vec<String> = match self.wanted.present {
            true => self.wanted.rules.iter().flat_map(lines).collect(),
            false => Vec::new(),
        };
        let split = |line: &String| line.split(' ').map(str::to_string).collect::<Vec<_>>();
        let (mut todo, mut details, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        let mut undo = Vec::new();
        let removed = |rule: &String| [vec!["--force".to_string(), "delete".to_string()], split(rule)].concat();
        let added = |rule: &String| [split(rule), vec!["comment".to_string(), self.wanted.table.clone()]].concat();
        if ours != wanted {
            // ufw adds at the end: where the order differs, everything of ours is made anew.
            let stays = ours.iter().zip(&wanted).take_while(|(have, want)| have == want).count();
            let kept = if ours.len() == stays { stays } else { 0 };
            for rule in &ours[kept..] {
                todo.push(removed(rule));
                lines.push(format!("-{rule}"));
            }
            for rule in &wanted[kept..] {
                todo.push(added(rule));
                lines.push(format!("+{rule}"));
            }
            undo.extend(wanted[kept..].iter().map(removed));
            undo.extend(ours[kept..].iter().map(added));
            details.push(format!("{} of {} rules", wanted.len() - kept.min(wanted.len()), wanted.len()));
        }
        if self.wanted.present {
            let status = self.tool.run(host, &["status", "verbose"], deadline)?;
            let policy = if self.wanted.open { "allow" } else { "deny" };
            let active = status.contains("Status: active");
            // The policy is printed only while it is in force.
            if !active || !status.contains(&format!("Default: {policy} (incoming)")) {
                todo.push(["default", policy, "incoming"].map(str::to_string).to_vec());
                let before = self.policy(host, &status)?;
                undo.extend(before.map(|before| ["default", before, "incoming"].map(str::to_string).to_vec()));
                lines.push(format!("+default {policy} incoming"));
                details.push(format!("default {policy}"));
            }
            if !active {
                todo.push(["--force", "enable"].map(str::to_string).to_vec());
                // First of all: nothing is cut off by it any more.
                undo.insert(0, vec!["disable".to_string()]);
                lines.push("+enable".to_string());
                details.push("enabled".to_string());
            }
        }
        (self.todo, self.undo) = (todo, undo);
        let diff = if diff { format!("--- ufw\n+++ ufw\n{}\n", lines.join("\n")) } else { String::new() };
        Ok(Drift::change(details).map(|drift| Drift { diff, ..drift }))
    }

    fn converge(&mut self, host: &mut Host) -> Result<(), Fault> {
        for args in std::mem::take(&mut self.todo) {
            let words: Vec<&str> = args.iter().map(String::as_str).collect();
            self.tool.run(host, &words, self.wanted.deadline)?;
        }
        Ok(())
    }

    fn back(&mut self, _host: &mut Host) -> Result<Back, Fault> {
        let command = |args: &Vec<String>| ["ufw".to_string()].into_iter().chain(args.iter().cloned()).collect();
        Ok(Back::After(self.undo.iter().map(command).collect()))
    }

    fn spare_self(&self, _host: &mut Host) -> Result<(), Fault> {
        Ok(())
    }
}

/// A rule as `ufw show added` prints it, which is also how ufw takes it.
fn lines(rule: &Rule) -> Vec<String> {
    let action = match rule.action {
        Answer::Allow => "allow",
        Answer::Deny => "deny",
        Answer::Reject => "reject",
    };
    let via = rule.on.as_ref().map_or_else(String::new, |name| format!(" in on {name}"));
    let from = rule.from.map(|(address, bits)| match (address.is_ipv4(), bits) {
        (true, 32) | (false, 128) => address.to_string(),
        _ => format!("{address}/{bits}"),
    });
    let what = match &rule.what {
        What::Any | What::Icmp => String::new(),
        What::Ports(ports, protocol) => {
            let range = |(first, last): &(u16, u16)| match first == last {
                true => first.to_string(),
                false => format!("{first}:{last}"),
            };
            let list: Vec<String> = ports.iter().map(range).collect();
            if via.is_empty() && from.is_none() {
                return vec![format!("{action} {}/{protocol}", list.join(","))];
            }
            format!(" to any port {} proto {protocol}", list.join(","))
        }
    };
    // ufw lets pings in by itself and has no word for them.
    if rule.what == What::Icmp {
        return Vec::new();
    }
    vec![format!("{action}{via} from {}{what}", from.unwrap_or_else(|| "any".to_string()))]
}
