//! The small fixed encodings of meta values: big-endian numbers behind a version byte. What does not read as such is treated
//! as absent: meta values say where the queue stands, and every one of them can be rebuilt from its records and the server.

use common::ids::Hash32;

/// Builds a value.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

/// Reads one.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl Writer {
    /// A value of this version.
    pub fn new(version: u8) -> Writer {
        Writer(vec![version])
    }

    /// Appends a number.
    pub fn u64(mut self, n: u64) -> Writer {
        self.0.extend_from_slice(&n.to_be_bytes());
        self
    }

    /// Appends a hash.
    pub fn hash(mut self, hash: &Hash32) -> Writer {
        self.0.extend_from_slice(&hash.0);
        self
    }

    /// Appends a text of at most 65,535 bytes with its length in front.
    pub fn text(mut self, text: &str) -> Writer {
        let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
        self.0.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    /// The value.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

impl<'a> Reader<'a> {
    /// Starts on a value, when it has this version.
    pub fn open(bytes: &'a [u8], version: u8) -> Option<Reader<'a>> {
        let (first, rest) = bytes.split_first()?;
        (*first == version).then_some(Reader(rest))
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    /// The next number.
    pub fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_be_bytes)
    }

    /// The next hash.
    pub fn hash(&mut self) -> Option<Hash32> {
        Hash32::try_from_slice(self.take(32)?).ok()
    }

    /// The next text.
    pub fn text(&mut self) -> Option<String> {
        let len = u16::from_be_bytes(self.take(2)?.try_into().ok()?);
        String::from_utf8(self.take(usize::from(len))?.to_vec()).ok()
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_reads_back() {
        let bytes = Writer::new(1).u64(7).hash(&Hash32([3; 32])).text("a b").finish();
        let mut reader = Reader::open(&bytes, 1).expect("version 1");
        assert_eq!((reader.u64(), reader.hash(), reader.text()), (Some(7), Some(Hash32([3; 32])), Some("a b".into())));
        assert!(reader.is_empty() && reader.u64().is_none());
        assert!(Reader::open(&bytes, 2).is_none() && Reader::open(&[], 1).is_none());
    }
}
