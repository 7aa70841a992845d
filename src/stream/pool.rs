//! The memory that all lanes share: chunks of one size, taken and given back, joined to chains by links beside them.
//!
//! Three rules keep ten thousand lanes within one bound without any of them stopping the others:
//! * a lane that holds nothing gets a chunk as long as there is one;
//! * a lane may hold at most a quarter of what is still free, so that those who take without giving back (a client that
//!   died with replies under way) leave something for the rest, however many they are;
//! * room for one message of the largest size is kept apart, for one lane at a time, so that messages that arrived in part
//!   never block each other for ever.

use crate::limits::LANE_MESSAGE_BYTES_MAX;
use crate::types::Position;

/// No chunk.
const NONE: u32 = u32::MAX;

/// Why no chunk is given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PoolEmpty;

/// The shared memory.
#[derive(Clone, Debug)]
pub struct Pool {
    memory: Box<[u8]>,
    /// Behind each chunk of a chain, or of the free list, the next one.
    links: Box<[u32]>,
    chunk_bytes: usize,
    free: u32,
    free_count: usize,
    /// Chunks kept for the lane that holds the permit.
    reserve: usize,
    /// Whose turn it is to use the reserve.
    permit: Option<u32>,
}

/// How a lane asks for a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Claim {
    /// By the common rules.
    Ordinary,
    /// To complete the message at the front of lane `.0`: may use the reserve if nobody else does.
    Front(u32),
}

impl Pool {
    /// A pool of about `bytes` in chunks of `chunk_bytes` (a power of two).
    #[must_use]
    pub fn new(bytes: usize, chunk_bytes: usize) -> Self {
        assert!(chunk_bytes.is_power_of_two() && chunk_bytes >= 64);
        // One chunk more at each end, for a message that starts and ends inside one.
        let reserve = LANE_MESSAGE_BYTES_MAX / chunk_bytes + 2;
        let count = (bytes / chunk_bytes).max(2 * reserve);
        assert!(count < NONE as usize);
        let mut links: Box<[u32]> = (1..=count as u32).collect();
        links[count - 1] = NONE;
        Self {
            memory: vec![0; count * chunk_bytes].into_boxed_slice(),
            links,
            chunk_bytes,
            free: 0,
            free_count: count,
            reserve,
            permit: None,
        }
    }
    /// Chunks nobody holds.
    #[must_use]
    pub fn free_count(&self) -> usize {
        self.free_count
    }
    /// Chunks in all.
    #[must_use]
    pub fn chunk_count(&self) -> usize {
        self.links.len()
    }
    /// Bytes of a chunk.
    #[must_use]
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Whether a chain that holds `held` chunks may have `more`.
    fn allows(&self, held: usize, more: usize) -> bool {
        let free = self.free_count.saturating_sub(self.reserve);
        let share = if held == 0 && more == 1 { free } else { free / 4 };
        more <= free && held + more <= share.max(1)
    }
    fn take(&mut self) -> u32 {
        let chunk = self.free;
        assert!(chunk != NONE, "the caller asked whether there is one");
        self.free = self.links[chunk as usize];
        self.links[chunk as usize] = NONE;
        self.free_count -= 1;
        chunk
    }
    fn give_back(&mut self, chunk: u32) {
        self.links[chunk as usize] = self.free;
        self.free = chunk;
        self.free_count += 1;
    }
    fn bytes(&self, chunk: u32) -> &[u8] {
        let start = chunk as usize * self.chunk_bytes;
        &self.memory[start..start + self.chunk_bytes]
    }
    fn bytes_mut(&mut self, chunk: u32) -> &mut [u8] {
        let start = chunk as usize * self.chunk_bytes;
        &mut self.memory[start..start + self.chunk_bytes]
    }
    /// The reserve is free for others again.
    pub(crate) fn return_permit(&mut self, lane: u32) {
        if self.permit == Some(lane) {
            self.permit = None;
        }
    }
}

/// A row of chunks that holds a range of lane positions.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Chain {
    /// Position of the first byte of the first chunk.
    base: Position,
    first: u32,
    last: u32,
    count: usize,
    /// The chunk used last, and which of the row it is: bytes come and go mostly in order.
    recent: (usize, u32),
}

impl Chain {
    /// An empty chain at `start`.
    pub(crate) fn new(start: Position) -> Self {
        Self { base: start, first: NONE, last: NONE, count: 0, recent: (0, NONE) }
    }
    /// Makes sure that positions up to `to` have a chunk. All or nothing.
    pub(crate) fn cover(
        &mut self,
        pool: &mut Pool,
        to: Position,
        claim: Claim,
    ) -> Result<(), PoolEmpty> {
        let needed = to.since(self.base).div_ceil(pool.chunk_bytes as u64) as usize;
        let more = needed.saturating_sub(self.count);
        if more == 0 {
            return Ok(());
        }
        if !pool.allows(self.count, more) {
            let Claim::Front(lane) = claim else { return Err(PoolEmpty) };
            if pool.permit.is_some_and(|holder| holder != lane) || more > pool.free_count {
                return Err(PoolEmpty);
            }
            pool.permit = Some(lane);
        }
        for _ in 0..more {
            let chunk = pool.take();
            if self.count == 0 {
                self.first = chunk;
                self.recent = (0, chunk);
            } else {
                pool.links[self.last as usize] = chunk;
            }
            self.last = chunk;
            self.count += 1;
        }
        Ok(())
    }
    /// Copies `bytes` to where `at` lies; the chain covers it.
    pub(crate) fn write(&mut self, pool: &mut Pool, at: Position, mut bytes: &[u8]) {
        let mut at = at;
        while !bytes.is_empty() {
            let (chunk, offset) = self.find(pool, at);
            let room = pool.chunk_bytes - offset;
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            pool.bytes_mut(chunk)[offset..offset + now.len()].copy_from_slice(now);
            at = at.plus(now.len() as u64);
            bytes = rest;
        }
    }
    /// The bytes from `from` on that lie together, at most up to `to`.
    pub(crate) fn slice<'p>(&mut self, pool: &'p Pool, from: Position, to: Position) -> &'p [u8] {
        let (chunk, offset) = self.find(pool, from);
        let end = pool.chunk_bytes.min(offset + to.since(from) as usize);
        &pool.bytes(chunk)[offset..end]
    }
    /// All bytes of `from..to`, piece by piece.
    pub(crate) fn parts<'p>(&self, pool: &'p Pool, from: Position, to: Position) -> Parts<'p> {
        if from == to {
            return Parts { pool, chunk: NONE, offset: 0, left: 0 };
        }
        let (chunk, offset) = self.locate(pool, from);
        Parts { pool, chunk, offset, left: to.since(from) as usize }
    }
    /// Gives back the chunks that lie wholly below `position`.
    pub(crate) fn release(&mut self, pool: &mut Pool, position: Position) {
        let chunk_bytes = pool.chunk_bytes as u64;
        while self.count > 0 && self.base.plus(chunk_bytes) <= position {
            let chunk = self.first;
            self.first = pool.links[chunk as usize];
            pool.give_back(chunk);
            self.base = self.base.plus(chunk_bytes);
            self.count -= 1;
            self.recent = match self.recent {
                (index, recent) if index > 0 => (index - 1, recent),
                _ => (0, self.first),
            };
        }
        if self.count == 0 {
            (self.first, self.last, self.recent) = (NONE, NONE, (0, NONE));
        }
    }
    /// Gives back everything and starts over at `start`.
    pub(crate) fn clear(&mut self, pool: &mut Pool, start: Position) {
        while self.count > 0 {
            let next = pool.links[self.first as usize];
            pool.give_back(self.first);
            self.first = next;
            self.count -= 1;
        }
        *self = Self::new(start);
    }

    fn find(&mut self, pool: &Pool, at: Position) -> (u32, usize) {
        let (chunk, offset) = self.locate(pool, at);
        self.recent = ((at.since(self.base) / pool.chunk_bytes as u64) as usize, chunk);
        (chunk, offset)
    }
    fn locate(&self, pool: &Pool, at: Position) -> (u32, usize) {
        let offset = at.since(self.base) as usize;
        let (index, offset) = (offset / pool.chunk_bytes, offset % pool.chunk_bytes);
        assert!(index < self.count, "the chain does not cover {at:?}");
        let (mut at, mut chunk) = if index < self.recent.0 { (0, self.first) } else { self.recent };
        while at < index {
            chunk = pool.links[chunk as usize];
            at += 1;
        }
        (chunk, offset)
    }
}

/// The bytes of a message, piece by piece, in order.
#[derive(Clone, Debug)]
pub struct Parts<'p> {
    pool: &'p Pool,
    chunk: u32,
    offset: usize,
    left: usize,
}

impl<'p> Parts<'p> {
    /// Bytes left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.left
    }
    /// Whether none are left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }
    /// All that is left in one slice, if it lies together.
    #[must_use]
    pub fn contiguous(&self) -> Option<&'p [u8]> {
        match self.left {
            0 => Some(&[]),
            left if self.offset + left <= self.pool.chunk_bytes => {
                Some(&self.pool.bytes(self.chunk)[self.offset..self.offset + left])
            }
            _ => None,
        }
    }
    /// Copies all that is left to the front of `buffer`, which has room for it.
    pub fn copy_to(self, buffer: &mut [u8]) {
        let mut at = 0;
        for part in self {
            buffer[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
    }
}

impl<'p> Iterator for Parts<'p> {
    type Item = &'p [u8];

    fn next(&mut self) -> Option<&'p [u8]> {
        if self.left == 0 {
            return None;
        }
        let end = self.pool.chunk_bytes.min(self.offset + self.left);
        let part = &self.pool.bytes(self.chunk)[self.offset..end];
        self.left -= part.len();
        self.offset = 0;
        self.chunk = self.pool.links[self.chunk as usize];
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool() -> Pool {
        Pool::new(8 << 20, 2048)
    }

    #[test]
    fn one_lane_gets_at_most_a_quarter_of_what_is_free_and_the_first_chunk_always() {
        let mut pool = pool();
        let free = (pool.free_count() - pool.reserve) as u64;
        let mut greedy = Chain::new(Position(0));
        let quarter = free / 4 * 2048;
        assert_eq!(greedy.cover(&mut pool, Position(quarter + 1), Claim::Ordinary), Err(PoolEmpty));
        assert_eq!(greedy.cover(&mut pool, Position(quarter), Claim::Ordinary), Ok(()));
        let mut chains = Vec::new();
        loop {
            let mut chain = Chain::new(Position(0));
            if chain.cover(&mut pool, Position(2048), Claim::Ordinary).is_err() {
                break;
            }
            chains.push(chain);
        }
        assert_eq!(pool.free_count(), pool.reserve, "only the reserve is left");
        assert_eq!(chains.len() as u64, free - free / 4);
    }

    #[test]
    fn the_reserve_completes_one_message_at_a_time() {
        let mut pool = pool();
        let mut chains = vec![Chain::new(Position(0)); 20_000];
        for chain in &mut chains {
            let _ = chain.cover(&mut pool, Position(1), Claim::Ordinary);
        }
        let end = Position(LANE_MESSAGE_BYTES_MAX as u64);
        assert_eq!(chains[0].cover(&mut pool, end, Claim::Ordinary), Err(PoolEmpty));
        assert_eq!(chains[0].cover(&mut pool, Position(9_000), Claim::Front(0)), Ok(()));
        assert_eq!(chains[1].cover(&mut pool, Position(9_000), Claim::Front(1)), Err(PoolEmpty));
        assert_eq!(chains[0].cover(&mut pool, end, Claim::Front(0)), Ok(()));
        chains[0].clear(&mut pool, Position(0));
        pool.return_permit(0);
        assert_eq!(chains[1].cover(&mut pool, end, Claim::Front(1)), Ok(()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_chain_holds_what_was_written_and_gives_everything_back(
            pieces in prop::collection::vec((0_usize..3, 1_usize..5_000), 1..40),
        ) {
            let mut pool = Pool::new(8 << 20, 256);
            let all = pool.free_count();
            let (mut chain, mut base, mut model) = (Chain::new(Position(0)), 0, Vec::new());
            for (index, (act, bytes)) in pieces.into_iter().enumerate() {
                let end = base + model.len() as u64;
                if act > 0 {
                    let piece = vec![index as u8; bytes];
                    chain.cover(&mut pool, Position(end + bytes as u64), Claim::Ordinary)
                        .expect("room");
                    chain.write(&mut pool, Position(end), &piece);
                    model.extend(piece);
                } else {
                    let gone = bytes.min(model.len());
                    model.drain(..gone);
                    base += gone as u64;
                    chain.release(&mut pool, Position(base));
                }
                let end = base + model.len() as u64;
                let parts = chain.parts(&pool, Position(base), Position(end));
                prop_assert_eq!(parts.len(), model.len());
                let mut copy = vec![0; model.len()];
                parts.copy_to(&mut copy);
                prop_assert_eq!(&copy, &model);
                if !model.is_empty() {
                    let middle = model.len() / 2;
                    let from = Position(base + middle as u64);
                    let slice = chain.slice(&pool, from, Position(end));
                    prop_assert_eq!(slice, &model[middle..middle + slice.len()]);
                }
            }
            chain.clear(&mut pool, Position(0));
            prop_assert_eq!(pool.free_count(), all);
        }
    }
}
