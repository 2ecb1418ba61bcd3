//! The layout of an LMDB file (data version 1), read without LMDB: meta pages, page headers, nodes.
//!
//! LMDB trusts its file: a damaged one makes it read outside the map. Here every offset is checked before it is used, and
//! the file is read, not mapped, so that a bad sector is an error and not a signal. Byte order and word size are those of
//! this host, as in the file; any other file is [`Format::Foreign`].

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes of a page number, of a size and of a transaction number in the file.
const WORD: usize = size_of::<usize>();
/// Bytes of a page header: number, pad, flags, bounds.
pub(super) const PAGE_HEAD: usize = WORD + 8;
/// Bytes of a tree's description.
const TREE: usize = 8 + 5 * WORD;
/// Bytes of a node's header.
pub(super) const NODE_HEAD: usize = 8;
/// Bytes of a meta page that say something.
const META: usize = PAGE_HEAD + 24 + 14 * WORD;
const MAGIC: u32 = 0xBEEF_C0DE;
const DATA_VERSION: u32 = 1;
/// "No page": the root of an empty tree.
pub(super) const NO_PAGE: u64 = usize::MAX as u64;

pub(super) const BRANCH: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
pub(super) const OVERFLOW: u16 = 0x04;
const META_PAGE: u16 = 0x08;
/// A node whose data is the number of an overflow page.
pub(super) const BIG_DATA: u16 = 0x01;
/// A node whose data is the description of a tree.
pub(super) const SUB_DATA: u16 = 0x02;
/// Flag of the tree of free pages: its keys are native integers.
const INTEGER_KEY: u16 = 0x08;

/// What is wrong with a file, with the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadPage {
    /// Number of the page.
    pub(super) page: u64,
    /// What is wrong with it.
    pub(super) what: String,
}

impl BadPage {
    pub(super) fn new(page: u64, what: impl Into<String>) -> BadPage {
        BadPage { page, what: what.into() }
    }
}

impl fmt::Display for BadPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {}: {}", self.page, self.what)
    }
}

/// What kind of file this is, by its first page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// An LMDB file of this host's word size and byte order.
    Native,
    /// An LMDB file of another: which.
    Foreign(String),
    /// No LMDB file, or the first page is damaged.
    Unknown,
}

/// One B+tree, as its description says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) flags: u16,
    pub(super) depth: u16,
    pub(super) branch_pages: u64,
    pub(super) leaf_pages: u64,
    pub(super) overflow_pages: u64,
    pub(super) entries: u64,
    pub(super) root: u64,
}

/// One of the two meta pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) free: Tree,
    pub(super) main: Tree,
    pub(super) last_page: u64,
    pub(super) txn: u64,
    pub(super) page_bytes: usize,
}

/// One node of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node<'a> {
    pub(super) flags: u16,
    pub(super) key: &'a [u8],
    /// Branch: the child.
    pub(super) child: u64,
    /// Leaf: bytes of the data, wherever it is.
    pub(super) data_bytes: usize,
    /// Leaf: the data, or the number of its overflow page.
    pub(super) data: &'a [u8],
}

/// Tells the format of a file from its first bytes.
pub(super) fn format(head: &[u8]) -> Format {
    let at = |offset: usize| head.get(offset..offset + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    for (bits, offset) in [(64, 16), (32, 12)] {
        let Some(bytes) = at(offset) else { continue };
        for (order, magic) in [("little", u32::from_le_bytes(bytes)), ("big", u32::from_be_bytes(bytes))] {
            let native = bits == usize::BITS && (order == "little") == cfg!(target_endian = "little");
            if magic == MAGIC {
                return if native { Format::Native } else { Format::Foreign(format!("{bits}-bit {order}-endian")) };
            }
        }
    }
    Format::Unknown
}

/// Reads both meta pages, checked against each other: page 0 holds even transactions, page 1 odd ones, and they are
/// neighbours. Gives back the newer one first.
pub(super) fn read_metas(file: &File) -> Result<[Meta; 2], BadPage> {
    let mut head = [0; META];
    read_at(file, 0, 0, &mut head)?;
    let first = parse_meta(0, &head)?;
    read_at(file, 1, first.page_bytes as u64, &mut head)?;
    let second = parse_meta(1, &head)?;
    if second.page_bytes != first.page_bytes {
        return Err(BadPage::new(1, "the two meta pages differ in page size"));
    }
    let new = first.txn == 0 && second.txn == 0;
    if !new && (first.txn % 2 != 0 || second.txn % 2 != 1 || first.txn.abs_diff(second.txn) != 1) {
        let text = format!("transactions {} and {} do not follow each other", first.txn, second.txn);
        return Err(BadPage::new(1, text));
    }
    Ok(if first.txn > second.txn { [first, second] } else { [second, first] })
}

/// Reads `out` at byte `offset`, which belongs to `page`.
pub(super) fn read_at(file: &File, page: u64, offset: u64, out: &mut [u8]) -> Result<(), BadPage> {
    file.read_exact_at(out, offset).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => BadPage::new(page, "it lies behind the end of the file"),
        _ => BadPage::new(page, format!("it cannot be read: {error}")),
    })
}

/// Number, flags and the two bounds of a page, in this order.
pub(super) fn page_head(bytes: &[u8]) -> Option<(u64, u16, u16, u16)> {
    Some((word(bytes, 0)?, half(bytes, WORD + 2)?, half(bytes, WORD + 4)?, half(bytes, WORD + 6)?))
}

/// Pages of an overflow run, from the header of its first.
pub(super) fn overflow_pages(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(WORD + 4..WORD + 8)?.try_into().ok()?))
}

/// The nodes of a branch or leaf page, each checked to lie inside it, and together to fill it up to its end.
pub(super) fn nodes(page: u64, bytes: &[u8], leaf: bool) -> Result<Vec<Node<'_>>, BadPage> {
    let bad = |what: &str| BadPage::new(page, what);
    let (_, _, lower, upper) = page_head(bytes).ok_or_else(|| bad("it is too short"))?;
    let (lower, upper) = (usize::from(lower), usize::from(upper));
    if lower < PAGE_HEAD || lower % 2 != 0 || lower > upper || upper > bytes.len() {
        return Err(bad("its bounds are out of range"));
    }
    let mut out = Vec::with_capacity((lower - PAGE_HEAD) / 2);
    let mut filled = upper;
    for at in (PAGE_HEAD..lower).step_by(2) {
        let start = usize::from(half(bytes, at).unwrap_or(0));
        let node = (start >= upper).then(|| bytes.get(start..)).flatten();
        let (node, size) = node.and_then(|node| parse_node(node, leaf)).ok_or_else(|| bad("a node lies outside"))?;
        filled += size;
        out.push(node);
    }
    if filled != bytes.len() {
        return Err(bad("its nodes do not fill it"));
    }
    Ok(out)
}

/// A tree from its description in a node.
pub(super) fn parse_tree(bytes: &[u8]) -> Option<Tree> {
    let at = |n: usize| word(bytes, 8 + n * WORD);
    (bytes.len() == TREE).then_some(())?;
    Some(Tree {
        flags: half(bytes, 4)?,
        depth: half(bytes, 6)?,
        branch_pages: at(0)?,
        leaf_pages: at(1)?,
        overflow_pages: at(2)?,
        entries: at(3)?,
        root: at(4)?,
    })
}

/// Words of a list of free pages.
pub(super) fn words(bytes: &[u8]) -> Vec<u64> {
    (0..bytes.len() / WORD).filter_map(|n| word(bytes, n * WORD)).collect()
}

/// A native number, such as an overflow page or a key of the tree of free pages.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes: [u8; WORD] = bytes.get(at..at + WORD)?.try_into().ok()?;
    Some(usize::from_ne_bytes(bytes) as u64)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A node and the bytes that it takes in its page (an even number).
fn parse_node(bytes: &[u8], leaf: bool) -> Option<(Node<'_>, usize)> {
    // LMDB stores the two halves of the size so that they read as one native number.
    let low = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let (flags, key_bytes) = (half(bytes, 4)?, usize::from(half(bytes, 6)?));
    let key = bytes.get(NODE_HEAD..NODE_HEAD + key_bytes)?;
    let data_at = NODE_HEAD + key_bytes;
    let (node, size) = if leaf {
        let in_page = if flags & BIG_DATA != 0 { WORD } else { low as usize };
        let data = bytes.get(data_at..data_at.checked_add(in_page)?)?;
        (Node { flags, key, child: NO_PAGE, data_bytes: low as usize, data }, data_at + in_page)
    } else {
        // On 64-bit hosts the flags are the upper bits of the page number.
        let high = if WORD == 8 { u64::from(flags) << 32 } else { 0 };
        (Node { flags: 0, key, child: high | u64::from(low), data_bytes: 0, data: &[] }, data_at)
    };
    Some((node, size.next_multiple_of(2)))
}

fn parse_meta(number: u64, bytes: &[u8]) -> Result<Meta, BadPage> {
    let bad = |what: &str| BadPage::new(number, what);
    let parsed = (|| {
        let (page, flags, _, _) = page_head(bytes)?;
        let at = &bytes[PAGE_HEAD..];
        let n32 = |at: usize| Some(u32::from_ne_bytes(bytes.get(PAGE_HEAD + at..PAGE_HEAD + at + 4)?.try_into().ok()?));
        let trees = 8 + 2 * WORD;
        let free = parse_tree(at.get(trees..trees + TREE)?)?;
        let main = parse_tree(at.get(trees + TREE..trees + 2 * TREE)?)?;
        let (last_page, txn) = (word(at, 24 + 12 * WORD)?, word(at, 24 + 13 * WORD)?);
        let page_bytes = n32(trees)? as usize;
        Some(((page, flags), (n32(0)?, n32(4)?), Meta { free, main, last_page, txn, page_bytes }))
    })();
    let ((page, flags), (magic, version), meta) = parsed.ok_or_else(|| bad("it is too short"))?;
    if page != number || flags != META_PAGE || magic != MAGIC {
        return Err(bad("it is not a meta page"));
    }
    if version != DATA_VERSION {
        return Err(bad("it has a data version that this program does not know"));
    }
    if !meta.page_bytes.is_power_of_two() || !(512..=65_536).contains(&meta.page_bytes) {
        return Err(bad("its page size is out of range"));
    }
    if meta.free.flags != INTEGER_KEY || meta.main.flags != 0 {
        return Err(bad("its flags are none that this program sets"));
    }
    Ok(meta)
}
