//! `config diff`: what each enrolled envoy would get before anyone publishes. Envoys whose difference reads the same are one
//! group. Reads the database; changes nothing; needs no server.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use argh::{ArgsInfo, FromArgs};
use common::bundle::Bundle;
use common::cli::{Common, Exit, Failure, print};
use common::ids::Hash32;
use common::limits;
use serde_json::{Value, json};

use super::history::reader;
use super::{root, show_lines};
use crate::boot;
use crate::policy::{Compiled, Facts, difference, needs_facts};
use crate::publish;
use crate::store::read::{HostItem, Reader};

/// Envoys with the same old and new bundle whose traits are looked at one by one; the others of such a group are counted to
/// those that they are most likely like, and said to be.
const RENDERED_MAX: usize = 2_000;
/// Names shown of a group.
const NAMES_SHOWN: usize = 5;

/// Shows what each envoy would get if stacks/ were published now.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "diff", example = "{command_name} --root /srv/vigo")]
pub(super) struct Diff {}

/// Envoys that see one and the same difference.
#[derive(Debug, Default)]
struct Group {
    n: usize,
    names: Vec<String>,
    mapping: String,
    /// So many of them were not rendered by themselves.
    assumed: usize,
}

pub(super) fn run(common: &Common) -> Result<Exit, Failure> {
    let root = root(common);
    let failed = |error| show_lines(boot::publish_failure(&error));
    let new = publish::validate(publish::Site::with_secrets(&root, super::known_secrets(common)?)).map_err(failed)?;
    let old = publish::load_live(&root).map_err(failed)?;
    let groups = match reader(common) {
        Ok(mut reader) => groups(&mut reader, old.as_ref(), &new)?,
        // Nobody is enrolled where there is no database.
        Err(_) => BTreeMap::new(),
    };
    let n: usize = groups.values().map(|group| group.n).sum();
    if common.json() {
        let rows = groups.iter().map(|(diff, group)| {
            json!({
                "envoys": group.n, "names": group.names, "mapping": group.mapping, "assumed": group.assumed, "diff": diff,
            })
        });
        let summary = new.changes_from(old.as_ref()).to_string();
        let document = json!({
            "schema": 1, "tree": new.tree_hash().to_string(), "summary": summary, "envoys": n,
            "changes": rows.collect::<Vec<_>>(),
        });
        return print(&format!("{document}\n")).map(|()| Exit::Done);
    }
    let mut out = format!("{}\n", new.changes_from(old.as_ref()));
    let _ = match n {
        0 => writeln!(out, "no envoy gets anything new"),
        _ => writeln!(out, "{n} envoys, {} distinct changes", groups.len()),
    };
    let mut sorted: Vec<_> = groups.iter().collect();
    sorted.sort_by_key(|(_, group)| std::cmp::Reverse(group.n));
    for (diff, group) in sorted {
        let more = if group.n > group.names.len() { ", ..." } else { "" };
        let _ = writeln!(out, "\n{} envoys ({}{more}) of {}", group.n, group.names.join(", "), group.mapping);
        if group.assumed > 0 {
            let _ = writeln!(out, "  {} of them have the same policy, their traits were not looked at", group.assumed);
        }
        diff.lines().for_each(|line| out += &format!("  {line}\n"));
    }
    print(&out).map(|()| Exit::Done)
}

fn groups(reader: &mut Reader, old: Option<&Compiled>, new: &Compiled) -> Result<BTreeMap<String, Group>, Failure> {
    let mut pairs: HashMap<(Option<Hash32>, Option<Hash32>), Vec<HostItem>> = HashMap::new();
    let mut after = 0;
    loop {
        let page = reader.hosts(after, limits::READ_ROWS_MAX).map_err(|error| Failure::failed(error.to_string()))?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for host in page {
            let bundles = (old.and_then(|old| old.bundle_for(&host.hostname)), new.bundle_for(&host.hostname));
            if bundles.0 != bundles.1 {
                pairs.entry(bundles).or_default().push(host);
            }
        }
    }
    let mut groups = BTreeMap::new();
    for ((was, is), hosts) in pairs {
        let before = was.and_then(|hash| decoded(old?, &hash));
        let after = is.and_then(|hash| decoded(new, &hash));
        pair(reader, (before.as_ref(), after.as_ref()), &hosts, &mut groups)?;
    }
    Ok(groups)
}

fn decoded(compiled: &Compiled, hash: &Hash32) -> Option<Bundle> {
    Bundle::decode(&compiled.payload(hash)?).ok()
}

/// The hosts that go from one bundle to another.
fn pair(
    reader: &mut Reader,
    bundles: (Option<&Bundle>, Option<&Bundle>),
    hosts: &[HostItem],
    groups: &mut BTreeMap<String, Group>,
) -> Result<(), Failure> {
    let mapping = match bundles.1 {
        Some(bundle) => bundle.mapping.clone(),
        None => "no mapping any more: they keep the policy that they have".to_string(),
    };
    let most = if needs_facts(bundles.0, bundles.1) { RENDERED_MAX } else { 1 };
    let mut last = String::new();
    for (at, host) in hosts.iter().enumerate() {
        if at < most {
            let facts = if most > 1 { facts(reader, host)? } else { Facts::default() };
            last = difference(bundles.0, bundles.1, &facts);
            if last.is_empty() {
                last = "~ a new bundle that asks for nothing else of these hosts\n".to_string();
            }
        }
        let group = groups.entry(last.clone()).or_default();
        group.n += 1;
        group.assumed += usize::from(at >= most && most > 1);
        group.mapping.clone_from(&mapping);
        if group.names.len() < NAMES_SHOWN {
            group.names.push(host.hostname.clone());
        }
    }
    Ok(())
}

fn facts(reader: &mut Reader, host: &HostItem) -> Result<Facts, Failure> {
    let trees = reader.traits(&host.uuid).map_err(|error| Failure::failed(error.to_string()))?;
    let pairs = trees.into_iter().filter_map(|tree| Some((tree.path, serde_json::from_str::<Value>(&tree.json).ok()?)));
    let traits = Value::Object(pairs.collect());
    Ok(Facts { traits, hostname: host.hostname.clone(), uuid: host.uuid.to_string() })
}
