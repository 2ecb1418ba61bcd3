//! `users`: the accounts of `/etc/passwd` and the groups that they are in. What a directory service adds is not asked for.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Facts, Root, entries};

/// Accounts at most, before the bound in bytes is looked at.
const ACCOUNTS_MAX: usize = 20_000;

pub(super) fn collect(root: &Root, _: &Facts) -> Result<Value, String> {
    // A name that is there twice: the first counts, as for getpwnam(3).
    let mut accounts: BTreeMap<String, (u32, u32, String, String)> = BTreeMap::new();
    let mut take = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        if let [name, _, uid, gid, _, home, shell, ..] = fields.as_slice()
            && let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
            && accounts.len() < ACCOUNTS_MAX
        {
            let account = (uid, gid, home.to_string(), shell.to_string());
            accounts.entry(name.to_string()).or_insert(account);
        }
    };
    if !root.lines("/etc/passwd", &mut take) {
        return Err("cannot read /etc/passwd".into());
    }
    let (mut by_gid, mut by_member) = (BTreeMap::new(), BTreeMap::<String, Vec<String>>::new());
    root.lines("/etc/group", &mut |line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [group, _, gid, members, ..] = fields.as_slice() else { return };
        if let Ok(gid) = gid.parse::<u32>() {
            by_gid.entry(gid).or_insert(group.to_string());
        }
        for member in members.split(',').filter(|member| accounts.contains_key(*member)) {
            by_member.entry(member.to_string()).or_default().push(group.to_string());
        }
    });
    let one = |(name, (uid, gid, home, shell))| {
        let mut groups = by_member.remove(&name).unwrap_or_default();
        groups.extend(by_gid.get(&gid).cloned());
        groups.sort_unstable();
        groups.dedup();
        let value = json!({"uid": uid, "gid": gid, "home": home, "shell": shell, "groups": groups});
        (name, value)
    };
    Ok(entries::tree(accounts.into_iter().map(one).collect()))
}
