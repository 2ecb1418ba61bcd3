//! Connections by small index, each with a number that is never used again.
//!
//! The index is what `mio` hands back (a `Token` is only 32 bits wide on some targets). An index that was freed is used
//! again only after [`Slab::end_turn`], so an event of this turn cannot reach a newcomer.

/// Bits of an id that hold the index: 16 million connections.
const INDEX_BITS: u32 = 24;

/// The connections of one loop.
#[derive(Debug)]
pub(super) struct Slab<T> {
    entries: Vec<Option<(u64, Box<T>)>>,
    free: Vec<usize>,
    freed: Vec<usize>,
    generation: u64,
    len: usize,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Slab<T> {
        Slab { entries: Vec::new(), free: Vec::new(), freed: Vec::new(), generation: 0, len: 0 }
    }

    /// The index that [`Slab::insert`] will use next; none when the index space is full.
    pub(super) fn next_index(&self) -> Option<usize> {
        let index = self.free.last().copied().unwrap_or(self.entries.len());
        (index < 1 << INDEX_BITS).then_some(index)
    }

    /// Adds a connection at [`Slab::next_index`] and returns its id.
    pub(super) fn insert(&mut self, entry: T) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        self.generation += 1;
        let id = self.generation << INDEX_BITS | index as u64;
        self.entries[index] = Some((id, Box::new(entry)));
        self.len += 1;
        id
    }

    pub(super) fn at(&mut self, index: usize) -> Option<&mut T> {
        self.entries.get_mut(index)?.as_mut().map(|(_, entry)| &mut **entry)
    }

    /// The index of an id, if that connection still lives.
    pub(super) fn find(&self, id: u64) -> Option<usize> {
        let index = usize::try_from(id & ((1 << INDEX_BITS) - 1)).ok()?;
        matches!(self.entries.get(index)?, Some((found, _)) if *found == id).then_some(index)
    }

    pub(super) fn id(&self, index: usize) -> Option<u64> {
        self.entries.get(index)?.as_ref().map(|(id, _)| *id)
    }

    pub(super) fn remove(&mut self, index: usize) -> Option<(u64, Box<T>)> {
        let entry = self.entries.get_mut(index)?.take()?;
        self.freed.push(index);
        self.len -= 1;
        Some(entry)
    }

    /// Indices freed in this turn may be used again.
    pub(super) fn end_turn(&mut self) {
        self.free.append(&mut self.freed);
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Every index in use.
    pub(super) fn indices(&self) -> Vec<usize> {
        (0..self.entries.len()).filter(|index| self.entries[*index].is_some()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_never_used_again_and_an_index_not_within_a_turn() {
        let mut slab = Slab::new();
        let first = slab.insert('a');
        let index = slab.find(first).unwrap();
        assert_eq!(slab.remove(index).map(|(id, entry)| (id, *entry)), Some((first, 'a')));
        assert_ne!(slab.next_index(), Some(index));
        slab.end_turn();
        assert_eq!(slab.next_index(), Some(index));
        let second = slab.insert('b');
        assert_eq!((slab.find(first), slab.find(second), slab.len()), (None, Some(index), 1));
        assert_eq!(slab.at(index), Some(&mut 'b'));
        assert_eq!(slab.at(9), None);
        assert_eq!(slab.indices(), [index]);
        assert_eq!(slab.id(index), Some(second));
    }
}
