//! Walks an LMDB file without LMDB: every page of every tree, and the list of free pages.
//!
//! What it accepts, LMDB can read and write without leaving the map: page numbers, bounds, order of keys, counts, no page
//! used twice, no page both used and free. It runs in bounded time and memory on any bytes: each page is visited once.

use std::fs::File;

use super::pages::{self, BIG_DATA, BRANCH, BadPage, LEAF, Meta, NO_PAGE, Node, OVERFLOW, PAGE_HEAD, SUB_DATA, Tree};

/// Pages that a file may have: 64 GiB in pages of 4 KiB, far above any bound of the store.
const PAGES_MAX: u64 = 1 << 24;
/// Levels that a tree may have; LMDB's own limit is 32.
const DEPTH_MAX: u16 = 32;

/// Receives every value of every named database: name of the database, key, value.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&str, &[u8], &[u8]) -> Result<(), String>;

/// What a walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walked {
    /// Transaction of the snapshot.
    pub(super) txn: u64,
    /// Pages that hold something.
    pub(super) used_pages: u64,
    /// Pages that are free.
    pub(super) free_pages: u64,
}

/// Walks the newest snapshot, free pages included.
pub(super) fn newest(file: &File, metas: &[Meta; 2], visit: Visit<'_>) -> Result<Walked, BadPage> {
    let meta = &metas[0];
    if meta.last_page >= PAGES_MAX || meta.last_page < 1 {
        return Err(BadPage::new(meta.txn % 2, "its last page is out of range"));
    }
    let mut walk =
        Walk { file, page_bytes: meta.page_bytes, last_page: meta.last_page, seen: Seen::new(meta.last_page) };
    // The meta pages.
    walk.seen.claim(0, 1)?;
    walk.seen.claim(1, 1)?;
    walk.databases(&meta.main, visit)?;
    let mut lists = Vec::new();
    let mut collect = |key: &[u8], value: &[u8]| {
        lists.push((pages::word(key, 0), pages::words(value)));
        Ok(())
    };
    walk.tree(&meta.free, KeyOrder::Number, &mut collect)?;
    let used_pages = walk.seen.count;
    for (txn, list) in lists {
        walk.free_list(meta, txn, &list)?;
    }
    let free_pages = walk.seen.count - used_pages;
    // Every page up to the last belongs to something: a list or a tree that was cut short shows.
    if walk.seen.count != meta.last_page + 1 {
        let text = format!("{} pages belong to nothing", meta.last_page + 1 - walk.seen.count);
        return Err(BadPage::new(meta.txn % 2, text));
    }
    Ok(Walked { txn: meta.txn, used_pages, free_pages })
}

/// One value of the other snapshot: the key in a named database. Bounded by the depth of two trees.
pub(super) fn lookup(file: &File, meta: &Meta, database: &str, key: &[u8]) -> Result<Option<Vec<u8>>, BadPage> {
    let last_page = meta.last_page.min(PAGES_MAX);
    let mut walk = Walk { file, page_bytes: meta.page_bytes, last_page, seen: Seen::new(last_page) };
    let Some(description) = walk.find(&meta.main, database.as_bytes())? else { return Ok(None) };
    let tree = pages::parse_tree(&description).ok_or_else(|| BadPage::new(meta.main.root, "no description"))?;
    walk.find(&tree, key)
}

/// Receives the key and value of each node of a tree of plain values.
type OnValue<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), String>;

/// Receives each leaf node: number of its page, node, value.
type OnNode<'a> = &'a mut dyn FnMut(u64, &Node<'_>, &[u8]) -> Result<(), BadPage>;

/// Pages that were met, each at most once.
struct Seen {
    bits: Vec<u64>,
    last_page: u64,
    count: u64,
}

impl Seen {
    fn new(last_page: u64) -> Seen {
        Seen { bits: vec![0; (last_page / 64) as usize + 1], last_page, count: 0 }
    }

    fn claim(&mut self, page: u64, pages: u64) -> Result<(), BadPage> {
        let last = page.checked_add(pages - 1).filter(|last| *last <= self.last_page);
        let last = last.ok_or_else(|| BadPage::new(page, "it lies behind the last page"))?;
        for page in page..=last {
            let (word, bit) = ((page / 64) as usize, 1 << (page % 64));
            if self.bits[word] & bit != 0 {
                return Err(BadPage::new(page, "it is used twice, or used and free"));
            }
            self.bits[word] |= bit;
            self.count += 1;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyOrder {
    Bytes,
    Number,
}

/// What a tree was found to have, to compare with what it says.
#[derive(Default)]
struct Counted {
    branch: u64,
    leaf: u64,
    overflow: u64,
    entries: u64,
    newest_key: Option<Vec<u8>>,
}

struct Walk<'f> {
    file: &'f File,
    page_bytes: usize,
    last_page: u64,
    seen: Seen,
}

impl Walk<'_> {
    /// The main tree and the named databases in it.
    fn databases(&mut self, main: &Tree, visit: Visit<'_>) -> Result<(), BadPage> {
        let mut named = Vec::new();
        self.tree_with(main, KeyOrder::Bytes, &mut |page, node, _| {
            let tree = pages::parse_tree(node.data).filter(|_| node.flags == SUB_DATA);
            let name = std::str::from_utf8(node.key).ok().map(str::to_owned);
            let (name, tree) = name.zip(tree).ok_or_else(|| BadPage::new(page, "a database has no description"))?;
            named.push((page, name, tree));
            Ok(())
        })?;
        for (page, name, tree) in named {
            if tree.flags != 0 {
                return Err(BadPage::new(page, format!("database {name} has flags that this program does not set")));
            }
            self.tree(&tree, KeyOrder::Bytes, &mut |key, value| visit(&name, key, value))?;
        }
        Ok(())
    }

    /// A tree of plain values.
    fn tree(&mut self, tree: &Tree, order: KeyOrder, visit: OnValue<'_>) -> Result<(), BadPage> {
        self.tree_with(tree, order, &mut |page, node, value| {
            if node.flags & !BIG_DATA != 0 {
                return Err(BadPage::new(page, "a node has flags that this program does not set"));
            }
            visit(node.key, value).map_err(|what| BadPage::new(page, what))
        })
    }

    fn tree_with(&mut self, tree: &Tree, order: KeyOrder, visit: OnNode<'_>) -> Result<(), BadPage> {
        let mut counted = Counted::default();
        if tree.root != NO_PAGE {
            if tree.depth == 0 || tree.depth > DEPTH_MAX {
                return Err(BadPage::new(tree.root, "its tree has a depth that cannot be"));
            }
            self.page(tree.root, tree.depth, order, &mut counted, visit)?;
        } else if tree.depth != 0 {
            return Err(BadPage::new(0, "a tree without pages has a depth"));
        }
        let found = (counted.branch, counted.leaf, counted.overflow, counted.entries);
        if found != (tree.branch_pages, tree.leaf_pages, tree.overflow_pages, tree.entries) {
            return Err(BadPage::new(tree.root, "its tree has other counts than its description"));
        }
        Ok(())
    }

    /// One page and all below it. Recursion ends at depth 1, and the depth is bounded.
    fn page(
        &mut self,
        number: u64,
        depth: u16,
        order: KeyOrder,
        counted: &mut Counted,
        visit: OnNode<'_>,
    ) -> Result<(), BadPage> {
        let bad = |what: &str| BadPage::new(number, what);
        self.seen.claim(number, 1)?;
        let mut bytes = vec![0; self.page_bytes];
        pages::read_at(self.file, number, number * self.page_bytes as u64, &mut bytes)?;
        let (own, flags, _, _) = pages::page_head(&bytes).ok_or_else(|| bad("it is too short"))?;
        let leaf = depth == 1;
        if own != number || flags != if leaf { LEAF } else { BRANCH } {
            return Err(bad("its header is not that of the page that is wanted"));
        }
        let nodes = pages::nodes(number, &bytes, leaf)?;
        if nodes.is_empty() || (!leaf && nodes.len() < 2) {
            return Err(bad("it has too few nodes"));
        }
        if leaf {
            counted.leaf += 1;
        } else {
            counted.branch += 1;
        }
        for (at, node) in nodes.iter().enumerate() {
            if leaf {
                if counted.newest_key.as_deref().is_some_and(|before| !ascends(order, before, node.key)) {
                    return Err(bad("its keys are out of order"));
                }
                counted.newest_key = Some(node.key.to_vec());
                counted.entries += 1;
                let value = self.value(number, node, counted)?;
                visit(number, node, value.as_deref().unwrap_or(node.data))?;
                continue;
            }
            // A separator lies above everything to its left and not above anything to its right; the first has no key.
            if at > 0 && counted.newest_key.as_deref().is_none_or(|before| !ascends(order, before, node.key)) {
                return Err(bad("its keys are out of order"));
            }
            let separator = (at > 0).then(|| node.key.to_vec());
            let child_from = counted.entries;
            let mut first_key = None;
            self.page(node.child, depth - 1, order, counted, &mut |page, node, value| {
                first_key.get_or_insert_with(|| node.key.to_vec());
                visit(page, node, value)
            })?;
            let fits =
                separator.as_deref().zip(first_key.as_deref()).is_none_or(|(s, f)| s == f || ascends(order, s, f));
            if !fits || counted.entries == child_from {
                return Err(bad("a child holds keys that belong elsewhere"));
            }
        }
        Ok(())
    }

    /// Descends to a key.
    fn find(&mut self, tree: &Tree, key: &[u8]) -> Result<Option<Vec<u8>>, BadPage> {
        let mut number = tree.root;
        for depth in (1..=tree.depth.min(DEPTH_MAX)).rev() {
            self.seen.claim(number, 1)?;
            let mut bytes = vec![0; self.page_bytes];
            pages::read_at(self.file, number, number * self.page_bytes as u64, &mut bytes)?;
            let nodes = pages::nodes(number, &bytes, depth == 1)?;
            if depth == 1 {
                let Some(node) = nodes.iter().find(|node| node.key == key) else { return Ok(None) };
                let value = self.value(number, node, &mut Counted::default())?;
                return Ok(Some(value.unwrap_or_else(|| node.data.to_vec())));
            }
            // The first node has no key: everything below the second separator is there.
            let child = nodes.iter().skip(1).take_while(|node| node.key <= key).last().or(nodes.first());
            number = child.ok_or_else(|| BadPage::new(number, "it has too few nodes"))?.child;
        }
        Ok(None)
    }

    /// The value of a leaf node that lies in overflow pages.
    fn value(&mut self, page: u64, node: &Node<'_>, counted: &mut Counted) -> Result<Option<Vec<u8>>, BadPage> {
        if node.flags & BIG_DATA == 0 {
            return Ok(None);
        }
        let number = pages::word(node.data, 0).ok_or_else(|| BadPage::new(page, "a node lies outside"))?;
        let offset = number.checked_mul(self.page_bytes as u64).filter(|_| number <= self.last_page);
        let offset = offset.ok_or_else(|| BadPage::new(number, "it lies behind the last page"))?;
        let mut head = [0; PAGE_HEAD];
        pages::read_at(self.file, number, offset, &mut head)?;
        let (own, flags, _, _) = pages::page_head(&head).ok_or_else(|| BadPage::new(number, "it is too short"))?;
        let run = u64::from(pages::overflow_pages(&head).unwrap_or(0));
        let needed = ((PAGE_HEAD + node.data_bytes) as u64).div_ceil(self.page_bytes as u64);
        if own != number || flags != OVERFLOW || run < needed {
            return Err(BadPage::new(number, "it is not the overflow page that is wanted"));
        }
        self.seen.claim(number, run)?;
        counted.overflow += run;
        // Bounded: the run lies within the pages of the file, and was claimed once.
        let mut value = vec![0; node.data_bytes];
        pages::read_at(self.file, number, offset + PAGE_HEAD as u64, &mut value)?;
        Ok(Some(value))
    }

    /// One list of free pages: as many as it says, in falling order, of a transaction that was.
    fn free_list(&mut self, meta: &Meta, txn: Option<u64>, list: &[u64]) -> Result<(), BadPage> {
        let bad = |what: &str| BadPage::new(meta.txn % 2, format!("a list of free pages {what}"));
        if txn.is_none_or(|txn| txn == 0 || txn > meta.txn) {
            return Err(bad("is of a transaction that cannot be"));
        }
        let Some((count, rest)) = list.split_first() else { return Err(bad("is empty")) };
        // LMDB may reserve more room than it fills.
        let count = usize::try_from(*count).ok().filter(|count| *count <= rest.len());
        let listed = &rest[..count.ok_or_else(|| bad("is shorter than it says"))?];
        if !listed.is_sorted_by(|a, b| a > b) {
            return Err(bad("is not in order"));
        }
        listed.iter().try_for_each(|page| self.seen.claim(*page, 1))
    }
}

fn ascends(order: KeyOrder, before: &[u8], after: &[u8]) -> bool {
    match order {
        KeyOrder::Bytes => before < after,
        KeyOrder::Number => pages::word(before, 0) < pages::word(after, 0) && after.len() == size_of::<usize>(),
    }
}
