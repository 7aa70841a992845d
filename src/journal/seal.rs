//! The seal: what a batch that was made durable promises, written with the batch itself.
//!
//! The seal of batch *n* names the end of batch *n*−1, whose sync has returned (**certain**), and the end of batch *n*, whose
//! sync is about to be asked for (**claimed**). Recovery judges a bad frame by where it stands against the two. Seals
//! alternate between two places by their number, so tearing one leaves the one before it; which is newest is decided by
//! (cut epoch, number) over all files of the log.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::segment_header::SEAL_OFFSETS;
use crate::frame::Predecessor;
use crate::frame::crc::crc32c;
use crate::limits::SEAL_BYTES;
use crate::types::{Chain, Commit, CutEpoch, GroupId, Position, Sequence, Term};

/// First bytes of a seal.
pub const SEAL_MAGIC: [u8; 8] = *b"QUORSEAL";

/// What is known to be durable, and what is meant to be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Seal {
    /// +1 for each seal of a log, whichever file it stands in.
    pub number: u64,
    /// Cuts that the log has seen. A cut begins a new epoch, whose seals replace all older ones.
    pub epoch: CutEpoch,
    /// End of the batch before: its sync returned before this seal was written.
    pub certain: Predecessor,
    /// End of the batch that this seal was written with.
    pub claimed: Predecessor,
    /// Commit position that this node knew, never above `claimed`.
    pub known_commit: Commit,
}

impl Seal {
    /// Order of seals: later cuts first, then later batches.
    #[must_use]
    pub const fn order(&self) -> (u32, u64) {
        (self.epoch.0, self.number)
    }

    /// Where it stands in the header page.
    #[must_use]
    pub const fn offset(&self) -> usize {
        SEAL_OFFSETS[(self.number & 1) as usize]
    }

    /// The sector.
    #[must_use]
    pub fn encode(&self, group: GroupId) -> [u8; SEAL_BYTES] {
        assert!(
            self.certain.position <= self.claimed.position
                && self.known_commit.position() <= self.claimed.position,
            "nothing is certain or committed above what is claimed"
        );
        let mut sector = Sector {
            magic: SEAL_MAGIC,
            number: U64::new(self.number),
            group: U64::new(group.0),
            epoch: U32::new(self.epoch.0),
            reserved_epoch: U32::new(0),
            certain: Mark::new(self.certain),
            claimed: Mark::new(self.claimed),
            known_commit: U64::new(self.known_commit.position().0),
            reserved: [0; SEAL_BYTES - 92],
            crc: U32::new(0),
        };
        sector.crc = U32::new(sector.checksum());
        zerocopy::transmute!(sector)
    }

    /// Reads a sector; `None` when it is empty, torn, or of another group.
    #[must_use]
    pub fn decode(sector: &[u8], group: GroupId) -> Option<Self> {
        let (sector, _) = Sector::ref_from_prefix(sector).ok()?;
        let seal = Self {
            number: sector.number.get(),
            epoch: CutEpoch(sector.epoch.get()),
            certain: sector.certain.predecessor(),
            claimed: sector.claimed.predecessor(),
            known_commit: Commit(Position(sector.known_commit.get())),
        };
        (sector.magic == SEAL_MAGIC
            && sector.group.get() == group.0
            && sector.crc.get() == sector.checksum()
            && sector.reserved_epoch.get() == 0
            && sector.reserved.iter().all(|&byte| byte == 0)
            && seal.certain.position <= seal.claimed.position
            && seal.known_commit.position() <= seal.claimed.position)
            .then_some(seal)
    }

    /// Both places of a header page hold something, and neither a seal.
    ///
    /// They are written by turns, with a sync between: power that fails tears one of them at most. The one exception is a file
    /// above a cut, which is blanked with its seals.
    #[must_use]
    pub fn both_lost(page: &[u8], group: GroupId) -> bool {
        SEAL_OFFSETS.iter().all(|&offset| {
            page.get(offset..offset + SEAL_BYTES).is_some_and(|sector| {
                sector.iter().any(|&byte| byte != 0)
                    && Self::decode(sector, group).is_none_or(|seal| seal.offset() != offset)
            })
        })
    }

    /// The newest whole seal in a header page.
    #[must_use]
    pub fn newest(page: &[u8], group: GroupId) -> Option<Self> {
        SEAL_OFFSETS
            .iter()
            .filter_map(|&offset| {
                let seal = Self::decode(page.get(offset..offset + SEAL_BYTES)?, group)?;
                (seal.offset() == offset).then_some(seal)
            })
            .max_by_key(Self::order)
    }
}

/// A predecessor as it lies in a file.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Mark {
    position: U64,
    sequence: U64,
    term: U32,
    chain: U32,
}

impl Mark {
    pub(super) fn new(at: Predecessor) -> Self {
        Self {
            position: U64::new(at.position.0),
            sequence: U64::new(at.sequence.0),
            term: U32::new(at.term.0),
            chain: U32::new(at.chain.0),
        }
    }

    pub(super) fn predecessor(&self) -> Predecessor {
        Predecessor {
            position: Position(self.position.get()),
            sequence: Sequence(self.sequence.get()),
            term: Term(self.term.get()),
            chain: Chain(self.chain.get()),
        }
    }
}

/// A seal as it lies in a file.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Sector {
    magic: [u8; 8],
    number: U64,
    group: U64,
    epoch: U32,
    reserved_epoch: U32,
    certain: Mark,
    claimed: Mark,
    known_commit: U64,
    reserved: [u8; SEAL_BYTES - 92],
    /// Covers the whole sector, so that any torn part of it is noticed.
    crc: U32,
}

const _: () = assert!(size_of::<Sector>() == SEAL_BYTES && align_of::<Sector>() == 1);

impl Sector {
    fn checksum(&self) -> u32 {
        crc32c(0, &self.as_bytes()[..SEAL_BYTES - 4])
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::limits::SEGMENT_HEADER_BYTES;

    const GROUP: GroupId = GroupId(42);

    pub(crate) fn example(number: u64) -> Seal {
        let at = |position: u64| Predecessor {
            position: Position(position),
            sequence: Sequence(position / 32),
            term: Term(2),
            chain: Chain(position as u32 ^ 0xABCD),
        };
        Seal {
            number,
            epoch: CutEpoch(1),
            certain: at(number * 64),
            claimed: at(number * 64 + 96),
            known_commit: Commit(Position(number * 64)),
        }
    }

    #[test]
    fn a_torn_seal_leaves_the_other() {
        let mut page = [0; SEGMENT_HEADER_BYTES];
        assert_eq!(Seal::newest(&page, GROUP), None);
        for number in 1..=6 {
            let seal = example(number);
            let sector = seal.encode(GROUP);
            for torn_at in [1, 20, 100, 511] {
                let mut torn = page;
                torn[seal.offset()..seal.offset() + torn_at].copy_from_slice(&sector[..torn_at]);
                let newest = Seal::newest(&torn, GROUP);
                let before = (number > 1).then(|| example(number - 1));
                assert!(newest == before || newest == Some(seal), "torn at {torn_at}");
            }
            page[seal.offset()..][..SEAL_BYTES].copy_from_slice(&sector);
            assert_eq!(Seal::newest(&page, GROUP), Some(seal));
        }
        assert_eq!(Seal::newest(&page, GroupId(43)), None);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let sector = example(3).encode(GROUP);
        for bit in 0..SEAL_BYTES * 8 {
            let mut bad = sector;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Seal::decode(&bad, GROUP), None, "bit {bit}");
        }
    }

    #[test]
    fn a_newer_epoch_beats_a_higher_number() {
        let mut page = [0; SEGMENT_HEADER_BYTES];
        let old = example(9);
        let new = Seal { epoch: CutEpoch(2), ..example(4) };
        for seal in [old, new] {
            page[seal.offset()..][..SEAL_BYTES].copy_from_slice(&seal.encode(GROUP));
        }
        assert_eq!(Seal::newest(&page, GROUP), Some(new));
    }
}
