//! `config history` and `config rollback`.

use argh::{ArgsInfo, FromArgs};
use common::cli::{Common, Exit, Failure, Table, color_wanted, one_line, print};
use common::ids::Hash32;
use serde_json::json;

use super::{publish, root};
use crate::publish::{self as tree, Source};
use crate::store::read::{PublishItem, Reader};

/// Characters of a hash that are shown.
const HASH_SHOWN: usize = 12;

/// Shows what was published: when, by whom, why, and what it changed.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "history", example = "{command_name} --limit 50")]
pub(super) struct History {
    /// at most so many, newest first (default 20)
    #[argh(option, default = "20")]
    limit: usize,
}

/// Publishes a tree of the history again; stacks/ stays as it is.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(subcommand, name = "rollback", example = "{command_name} 41 --message 'the new sysctls lock us out'")]
pub(super) struct Rollback {
    /// serial, or the first characters of the hash; without it, what was published before the present one
    #[argh(positional)]
    publish: Option<String>,
    /// why, for the history
    #[argh(option, short = 'm', default = "String::new()")]
    message: String,
}

/// The database of the root, for questions.
pub(super) fn reader(common: &Common) -> Result<Reader, Failure> {
    let database = super::config(common)?.database;
    if !database.exists() {
        return Err(Failure::failed(format!("there is no database {} yet", database.display()))
            .hint("nothing was ever published or enrolled in this root"));
    }
    Reader::open(&database).map_err(|error| Failure::failed(error.to_string()))
}

fn publishes(common: &Common, limit: usize) -> Result<Vec<PublishItem>, Failure> {
    reader(common)?.publishes(limit).map_err(|error| Failure::failed(error.to_string()))
}

pub(super) fn history(verb: &History, common: &Common) -> Result<Exit, Failure> {
    let (root, items) = (root(common), publishes(common, verb.limit)?);
    let live = tree::live_tree(&root).ok().flatten();
    if common.json() {
        let rows = items.iter().map(|item| {
            json!({
                "serial": item.serial, "tree": item.tree.to_string(), "author": item.author, "message": item.message,
                "summary": item.summary, "at": item.at.to_string(), "envoys": item.envoys,
                "live": live == Some(item.tree), "kept": tree::is_kept(&root, &item.tree),
            })
        });
        let document = json!({"schema": 1, "publishes": rows.collect::<Vec<_>>()});
        return print(&format!("{document}\n")).map(|()| Exit::Done);
    }
    let mut table = Table::new(&["SERIAL", "TREE", "AT", "BY", "ENVOYS", "WHAT", "MESSAGE"]).right(0).right(4);
    for (at, item) in items.iter().enumerate() {
        // The newest publish of the live tree is the live one; the same tree may have been published before.
        let newest = !items[..at].iter().any(|newer| newer.tree == item.tree);
        let mark = if live == Some(item.tree) && newest { "*" } else { " " };
        let gone = if tree::is_kept(&root, &item.tree) { "" } else { " (not kept)" };
        let hash = item.tree.to_string();
        table.row([
            format!("{mark} {}", item.serial),
            format!("{}{gone}", &hash[..HASH_SHOWN]),
            item.at.to_string(),
            one_line(&item.author),
            item.envoys.to_string(),
            one_line(&item.summary),
            one_line(&item.message),
        ]);
    }
    print(&table.render(color_wanted())).map(|()| Exit::Done)
}

pub(super) fn rollback(verb: &Rollback, common: &Common) -> Result<Exit, Failure> {
    let items = publishes(common, common::limits::READ_ROWS_MAX)?;
    let live = tree::live_tree(&root(common)).ok().flatten();
    let chosen = find(&items, live, verb.publish.as_deref())?;
    let message = match verb.message.as_str() {
        "" => format!("rollback to serial {}", chosen.serial),
        message => message.to_string(),
    };
    let done = publish(&message, Source::Kept(chosen.tree), common)?;
    if !common.json() {
        eprintln!("stacks/ stays as it is: the next `config publish` publishes what is there");
    }
    Ok(done)
}

fn find<'i>(items: &'i [PublishItem], live: Option<Hash32>, wanted: Option<&str>) -> Result<&'i PublishItem, Failure> {
    let none = |what: String| Failure::failed(what).hint("`vigocli config history` shows what there is");
    let Some(wanted) = wanted else {
        let before = items.iter().find(|item| Some(item.tree) != live);
        return before.ok_or_else(|| none("nothing else was published before".to_string()));
    };
    if let Some(found) = items.iter().find(|item| wanted.parse() == Ok(item.serial)) {
        return Ok(found);
    }
    let mut found: Vec<&PublishItem> = Vec::new();
    for item in items.iter().filter(|item| item.tree.to_string().starts_with(wanted)) {
        if !found.iter().any(|known| known.tree == item.tree) {
            found.push(item);
        }
    }
    match found[..] {
        [one] if wanted.len() >= 4 => Ok(one),
        [] | [_] => Err(none(format!("no publish has the serial or hash `{wanted}`"))),
        _ => Err(none(format!("{} publishes have a hash that begins with `{wanted}`", found.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::time::Wall;

    fn item(serial: u64, byte: u8) -> PublishItem {
        let (author, message, summary) = (String::new(), String::new(), String::new());
        PublishItem { serial, tree: Hash32([byte; 32]), author, message, summary, at: Wall(0), envoys: 0 }
    }

    #[test]
    fn publishes_are_found_by_serial_and_hash() {
        let items = [item(9, 0xab), item(8, 0xcd), item(7, 0xab), item(6, 0xac)];
        let live = Some(Hash32([0xab; 32]));
        let serial = |wanted| find(&items, live, wanted).map(|item| item.serial).map_err(|failure| failure.what);
        assert_eq!(serial(None), Ok(8));
        assert_eq!(serial(Some("7")), Ok(7));
        assert_eq!(serial(Some("abab")), Ok(9));
        assert!(serial(Some("ab")).unwrap_err().starts_with("no publish"));
        assert!(serial(Some("a")).unwrap_err().starts_with("2 publishes"));
        assert!(serial(Some("5")).unwrap_err().starts_with("no publish"));
        assert!(find(&items[..1], live, None).is_err());
    }
}
