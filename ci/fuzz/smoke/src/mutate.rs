//! A deterministic mutator: one seed and one corpus give one sequence of inputs on every machine.

use common::rng::{Rng, SplitMix64};

/// Bytes of the largest input that is made.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// Changes that are piled onto one input, at most.
const CHANGES_MAX: u64 = 6;
/// Numbers at which decoders break: signs, powers of two, protobuf lengths that lie.
const NUMBERS: [u64; 12] =
    [0, 1, 2, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX - 1, u64::MAX];
/// Pieces at which text formats break.
const PIECES: [&[u8]; 20] = [
    b"{{",
    b"}}",
    b"{%",
    b"%}",
    b"\n",
    b"\t",
    b"- ",
    b": ",
    b"&a ",
    b"*a",
    b"[",
    b"{",
    b"\"",
    b"'",
    b"!!",
    b"<<: ",
    b"|\n",
    b"\xff",
    b"\xe2\x80\xa8",
    b"\0",
];

/// Makes inputs out of a corpus.
#[derive(Debug)]
pub struct Mutator<'a> {
    corpus: &'a [Vec<u8>],
    rng: SplitMix64,
}

impl<'a> Mutator<'a> {
    /// Over a corpus; an empty one gives random bytes.
    pub fn new(corpus: &'a [Vec<u8>], seed: u64) -> Mutator<'a> {
        Mutator { corpus, rng: SplitMix64(seed) }
    }

    /// The next input.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.pick().to_vec();
        for _ in 0..=self.rng.below(CHANGES_MAX) {
            self.change(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn pick(&mut self) -> &'a [u8] {
        let at = self.rng.below(self.corpus.len() as u64) as usize;
        self.corpus.get(at).map_or(&[], Vec::as_slice)
    }

    /// A range of the input, possibly empty, of at most `max` bytes.
    fn range(&mut self, input: &[u8], max: u64) -> std::ops::Range<usize> {
        let start = self.rng.below(input.len() as u64 + 1) as usize;
        let length = self.rng.below(max + 1).min((input.len() - start) as u64) as usize;
        start..start + length
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.rng.below(input.len().max(1) as u64) as usize;
        match self.rng.below(9) {
            0 if !input.is_empty() => input[at] ^= 1 << self.rng.below(8),
            1 if !input.is_empty() => input[at] = self.rng.next_u64() as u8,
            2 => {
                let gone = self.range(input, 32);
                input.drain(gone);
            }
            3 => {
                let copy = self.range(input, 64);
                let copied = input[copy.clone()].to_vec();
                let times = 1 + self.rng.below(8) as usize;
                input.splice(copy.end..copy.end, copied.repeat(times));
            }
            4 => {
                // The front of this, the back of another.
                let other = self.pick();
                let back = self.range(other, other.len() as u64);
                input.truncate(at);
                input.extend_from_slice(&other[back.start..]);
            }
            5 => {
                let number = NUMBERS[self.rng.below(NUMBERS.len() as u64) as usize];
                let width = [1, 2, 4, 8][self.rng.below(4) as usize];
                let bytes = number.to_be_bytes();
                let end = (at + width).min(input.len());
                input.splice(at.min(end)..end, bytes[8 - width..].iter().copied());
            }
            6 => {
                // A varint, as protobuf writes lengths and numbers.
                let mut number = NUMBERS[self.rng.below(NUMBERS.len() as u64) as usize];
                let mut varint = Vec::new();
                while number >= 0x80 {
                    varint.push(number as u8 | 0x80);
                    number >>= 7;
                }
                varint.push(number as u8);
                let gone = usize::from(self.rng.below(2) == 0).min(input.len() - at.min(input.len()));
                let at = at.min(input.len());
                input.splice(at..at + gone, varint);
            }
            7 => {
                let piece = PIECES[self.rng.below(PIECES.len() as u64) as usize];
                let at = at.min(input.len());
                input.splice(at..at, piece.iter().copied());
            }
            _ => input.truncate(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence() {
        let corpus = [b"hello world".to_vec(), vec![1, 2, 3]];
        let inputs = |seed| {
            let mut mutator = Mutator::new(&corpus, seed);
            (0..200).map(|_| mutator.next_input()).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
    }

    #[test]
    fn an_empty_corpus_and_an_empty_input_are_fine() {
        for corpus in [vec![], vec![Vec::new()]] {
            let mut mutator = Mutator::new(&corpus, 3);
            assert!((0..2_000).any(|_| !mutator.next_input().is_empty()));
        }
    }

    #[test]
    fn most_inputs_are_new() {
        let corpus = [vec![0; 40]];
        let mut mutator = Mutator::new(&corpus, 4);
        let inputs: std::collections::BTreeSet<Vec<u8>> = (0..1_000).map(|_| mutator.next_input()).collect();
        assert!(inputs.len() > 700, "{}", inputs.len());
    }
}
