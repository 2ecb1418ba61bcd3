//! The hash chain of a lane: every run has a link over the link before it, so that loss and later editing show.

use crate::crypto::sha256;
use crate::ids::Hash32;

/// The two result lanes. Discriminants are on the wire and on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Failures, changes, incidents: never collapsed, delivered first.
    Urgent = 1,
    /// Runs that changed nothing.
    Routine = 2,
}

impl Lane {
    /// Both, in order of delivery.
    pub const ALL: [Lane; 2] = [Lane::Urgent, Lane::Routine];

    /// From its number on the wire.
    pub fn from_u32(n: u32) -> Option<Lane> {
        Lane::ALL.into_iter().find(|lane| *lane as u32 == n)
    }

    /// The word used everywhere.
    pub fn name(self) -> &'static str {
        match self {
            Lane::Urgent => "urgent",
            Lane::Routine => "routine",
        }
    }

    /// 0 or 1, for arrays of two.
    pub fn index(self) -> usize {
        self as usize - 1
    }
}

/// Link of the record at `sequence`: a hash over the link before, lane, sequence and body.
pub fn link(previous: &Hash32, lane: Lane, sequence: u64, body: &[u8]) -> Hash32 {
    let body = sha256(&[body]);
    sha256(&[b"vigo-link-v1\0", &previous.0, &[lane as u8], &sequence.to_be_bytes(), &body.0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_depends_on_every_part() {
        let base = link(&Hash32::ZERO, Lane::Urgent, 1, b"run");
        assert_ne!(base, link(&Hash32([1; 32]), Lane::Urgent, 1, b"run"));
        assert_ne!(base, link(&Hash32::ZERO, Lane::Routine, 1, b"run"));
        assert_ne!(base, link(&Hash32::ZERO, Lane::Urgent, 2, b"run"));
        assert_ne!(base, link(&Hash32::ZERO, Lane::Urgent, 1, b"ruN"));
    }
}
