//! Kept replies: a ring of descriptors per session, and their bytes in chunks of one shared arena.

use crate::limits::REPLY_CHUNK_BYTES;
use crate::service::Rejection;
use crate::service::hash::Fingerprint;
use crate::types::Sequence;

/// No chunk.
const NONE: u32 = u32::MAX;

/// What became of a command.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// It took effect.
    Applied,
    /// The service, or the engine for it, said no: it left no trace.
    Rejected(Rejection),
}

impl Answer {
    /// One number for it: 0 for applied, else the rejection's code with bit 16 set.
    #[must_use]
    pub const fn to_u32(self) -> u32 {
        match self {
            Self::Applied => 0,
            Self::Rejected(Rejection(code)) => 0x1_0000 | code as u32,
        }
    }
    /// The inverse of [`Answer::to_u32`].
    #[must_use]
    pub const fn from_u32(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Applied),
            0x1_0000..=0x1_FFFF => Some(Self::Rejected(Rejection(number as u16))),
            _ => None,
        }
    }
}

/// A kept reply, as the table hands it out.
#[derive(Clone, Debug)]
pub struct StoredReply<'a> {
    /// What became of the command.
    pub answer: Answer,
    /// The command's place in the log.
    pub sequence: Sequence,
    /// Bytes of the reply.
    pub length: usize,
    /// The bytes, piece by piece.
    pub chunks: Chunks<'a>,
}

impl StoredReply<'_> {
    /// Copies the reply to the start of `target`; returns its length, or `None` when `target` is too small.
    pub fn copy_to(&self, target: &mut [u8]) -> Option<usize> {
        let mut rest = target.get_mut(..self.length)?;
        for chunk in self.chunks.clone() {
            let (front, behind) = rest.split_at_mut(chunk.len());
            front.copy_from_slice(chunk);
            rest = behind;
        }
        Some(self.length)
    }
}

/// The bytes of a reply in pieces: each but the last is a whole chunk.
#[derive(Clone, Debug)]
pub struct Chunks<'a> {
    arena: &'a Arena,
    next: u32,
    left: usize,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.left == 0 {
            return None;
        }
        let length = self.left.min(REPLY_CHUNK_BYTES);
        let chunk = &self.arena.chunks[self.next as usize][..length];
        self.next = self.arena.links[self.next as usize];
        self.left -= length;
        Some(chunk)
    }
}

/// Descriptor of a kept reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) sequence: u64,
    pub(super) digest: u64,
    pub(super) length: u32,
    pub(super) answer: u32,
    first: u32,
    last: u32,
}

impl Kept {
    pub(super) const EMPTY: Self =
        Self { sequence: 0, digest: 0, length: 0, answer: 0, first: NONE, last: NONE };

    /// Chunks it takes.
    pub(super) fn chunks(&self) -> usize {
        chunks_of(self.length as usize)
    }
}

/// Chunks that a reply of `length` bytes takes: none if it is empty.
pub(super) const fn chunks_of(length: usize) -> usize {
    length.div_ceil(REPLY_CHUNK_BYTES)
}

/// Chunks for the bytes of all replies. Which chunk holds what is of no consequence: only how many are free is.
#[derive(Clone, Debug)]
pub(super) struct Arena {
    chunks: Box<[[u8; REPLY_CHUNK_BYTES]]>,
    links: Box<[u32]>,
    /// Released chunks, the last released first: still in the cache.
    released: u32,
    /// Chunks from here on were never used.
    untouched: u32,
    free: usize,
}

impl Arena {
    pub(super) fn new(bytes: usize) -> Self {
        let count = bytes / REPLY_CHUNK_BYTES;
        assert!(count < NONE as usize, "chunks are numbered with 32 bits");
        Self {
            chunks: vec![[0; REPLY_CHUNK_BYTES]; count].into_boxed_slice(),
            links: vec![0; count].into_boxed_slice(),
            released: NONE,
            untouched: 0,
            free: count,
        }
    }
    /// Chunks that are free.
    pub(super) fn free(&self) -> usize {
        self.free
    }
    /// Frees all chunks.
    pub(super) fn clear(&mut self) {
        (self.released, self.untouched, self.free) = (NONE, 0, self.chunks.len());
    }
    /// Keeps a reply; the caller knows that it fits.
    pub(super) fn keep(
        &mut self,
        client_sequence: u64,
        sequence: u64,
        answer: Answer,
        bytes: &[u8],
    ) -> Kept {
        let mut kept = Kept {
            sequence,
            digest: Fingerprint::new(client_sequence)
                .pair(sequence, u64::from(answer.to_u32()))
                .bytes(bytes)
                .finish(),
            length: u32::try_from(bytes.len()).expect("a reply is at most REPLY_BYTES_MAX"),
            answer: answer.to_u32(),
            ..Kept::EMPTY
        };
        for piece in bytes.chunks(REPLY_CHUNK_BYTES) {
            let chunk = self.take();
            self.chunks[chunk as usize][..piece.len()].copy_from_slice(piece);
            match kept.last {
                NONE => kept.first = chunk,
                last => self.links[last as usize] = chunk,
            }
            kept.last = chunk;
        }
        kept
    }
    /// Gives the chunks of a reply back: one splice, however long it is.
    pub(super) fn release(&mut self, kept: &Kept) {
        if kept.first != NONE {
            self.links[kept.last as usize] = self.released;
            self.released = kept.first;
            self.free += kept.chunks();
        }
    }
    /// The bytes of a kept reply.
    pub(super) fn bytes(&self, kept: &Kept) -> Chunks<'_> {
        Chunks { arena: self, next: kept.first, left: kept.length as usize }
    }

    fn take(&mut self) -> u32 {
        assert!(self.free > 0, "space for a reply is checked before it is kept");
        self.free -= 1;
        if self.released == NONE {
            self.untouched += 1;
            self.untouched - 1
        } else {
            let chunk = self.released;
            self.released = self.links[chunk as usize];
            chunk
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(arena: &Arena, kept: &Kept) -> Vec<u8> {
        arena.bytes(kept).flatten().copied().collect()
    }

    #[test]
    fn replies_of_all_lengths_come_back_and_their_space_too() {
        let mut arena = Arena::new(64 * 100);
        for length in [0, 1, 63, 64, 65, 128, 6399, 6400] {
            let bytes: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let kept = arena.keep(1, 2, Answer::Applied, &bytes);
            assert_eq!(joined(&arena, &kept), bytes);
            assert_eq!(arena.free(), 100 - chunks_of(length));
            arena.release(&kept);
            assert_eq!(arena.free(), 100);
        }
    }

    #[test]
    fn released_chunks_are_mixed_without_mixing_bytes() {
        let mut arena = Arena::new(64 * 8);
        let kept: Vec<Kept> =
            (1..=4).map(|n| arena.keep(n, n, Answer::Applied, &[n as u8; 100])).collect();
        arena.release(&kept[2]);
        arena.release(&kept[0]);
        let long = arena.keep(9, 9, Answer::Applied, &[9; 256]);
        assert_eq!(joined(&arena, &long), [9; 256]);
        assert_eq!(joined(&arena, &kept[1]), [2; 100]);
        assert_eq!(joined(&arena, &kept[3]), [4; 100]);
        assert_eq!(arena.free(), 0);
    }

    #[test]
    fn answers_round_trip() {
        for answer in
            [Answer::Applied, Answer::Rejected(Rejection(0)), Answer::Rejected(Rejection(u16::MAX))]
        {
            assert_eq!(Answer::from_u32(answer.to_u32()), Some(answer));
        }
        assert_eq!(Answer::from_u32(1), None);
        assert_eq!(Answer::from_u32(0x2_0000), None);
    }
}
