//! The two buffers of a lane, in the shared pool: bytes that arrived until their message is taken, and bytes written until
//! they are acknowledged.

use zerocopy::IntoBytes;

use super::message::{
    AnswerHeader, RequestHeader, is_message_length, message_length, message_span,
};
use super::pool::{Chain, Claim, Parts, Pool, PoolEmpty};
use crate::limits::LANE_MESSAGE_HEADER_BYTES as HEADER_BYTES;
use crate::types::Position;

/// Why a message is not taken. Nothing of it was written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LaneRefusal {
    /// As many bytes as may be are unacknowledged on this lane.
    LaneFull,
    /// The memory shared by all lanes is used up.
    PoolEmpty,
    /// It is longer than a message may be.
    TooLong {
        /// Its payload, in bytes.
        payload_bytes: usize,
    },
}

impl From<PoolEmpty> for LaneRefusal {
    fn from(_: PoolEmpty) -> Self {
        Self::PoolEmpty
    }
}

/// The bytes at the front of a lane are no message: the other side breaks the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BadMessage {
    /// The length it claims.
    pub length: u32,
}

/// A whole message at the front of a lane.
#[derive(Clone, Debug)]
pub struct Message<'p> {
    header: [u8; HEADER_BYTES],
    /// The payload.
    pub payload: Parts<'p>,
}

impl Message<'_> {
    /// Its header, if a client sent it.
    #[must_use]
    pub fn request(&self) -> RequestHeader {
        zerocopy::transmute!(self.header)
    }
    /// Its header, if a node sent it.
    #[must_use]
    pub fn answer(&self) -> AnswerHeader {
        zerocopy::transmute!(self.header)
    }
}

/// What arrives on a lane. Which bytes are there the lane's receiver knows.
#[derive(Clone, Debug)]
pub struct LaneIn {
    /// Names this lane to the pool.
    lane: u32,
    chain: Chain,
    /// Everything below was taken.
    consumed: Position,
    /// End of the highest byte there is memory for.
    covered: Position,
    /// End of the message at the front, once its length is there.
    front: Option<Front>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Front {
    Ends(Position),
    Bad(BadMessage),
}

impl LaneIn {
    /// Nothing arrived yet. `lane` is different for each lane of a pool.
    #[must_use]
    pub fn new(lane: u32) -> Self {
        let start = Position(0);
        Self { lane, chain: Chain::new(start), consumed: start, covered: start, front: None }
    }
    /// Makes room for bytes up to `to`, to be called before the receiver takes them in. `in_order` says that they follow
    /// what is contiguous: only such bytes, and those of the message at the front, may use the pool's reserve.
    ///
    /// # Errors
    /// The pool has nothing to spare: the datagram is dropped, and comes again.
    pub fn cover(
        &mut self,
        pool: &mut Pool,
        to: Position,
        in_order: bool,
    ) -> Result<(), PoolEmpty> {
        if to <= self.covered {
            return Ok(());
        }
        let of_front = matches!(self.front, Some(Front::Ends(end)) if to <= end);
        let claim = if in_order || of_front { Claim::Front(self.lane) } else { Claim::Ordinary };
        self.chain.cover(pool, to, claim)?;
        self.covered = to;
        Ok(())
    }
    /// Places bytes that the receiver says are new.
    pub fn place(&mut self, pool: &mut Pool, at: Position, bytes: &[u8]) {
        self.chain.write(pool, at, bytes);
    }
    /// Looks at what is contiguous up to `received`. Returns the end of the message at the front if its length is known:
    /// the window must reach there, or the message could never be taken.
    pub fn look(&mut self, pool: &Pool, received: Position) -> Option<Position> {
        if self.front.is_none() && received >= self.consumed.plus(HEADER_BYTES as u64) {
            let length = self.header(pool).length.get();
            self.front = Some(if is_message_length(length) {
                Front::Ends(self.consumed.plus(message_span(length)))
            } else {
                Front::Bad(BadMessage { length })
            });
        }
        match self.front {
            Some(Front::Ends(end)) => Some(end),
            _ => None,
        }
    }
    /// Whether [`LaneIn::message`] has something to say.
    #[must_use]
    pub fn has_message(&self, received: Position) -> bool {
        match self.front {
            Some(Front::Ends(end)) => end <= received,
            Some(Front::Bad(_)) => true,
            None => false,
        }
    }
    /// The message at the front, once whole.
    ///
    /// # Errors
    /// What is there can be no message; nothing behind it can be understood.
    pub fn message<'p>(
        &self,
        pool: &'p Pool,
        received: Position,
    ) -> Result<Option<Message<'p>>, BadMessage> {
        match self.front {
            Some(Front::Bad(bad)) => Err(bad),
            Some(Front::Ends(end)) if end <= received => {
                let header = self.header(pool);
                let start = self.consumed.plus(HEADER_BYTES as u64);
                let end = self.consumed.plus(u64::from(header.length.get()));
                let payload = self.chain.parts(pool, start, end);
                Ok(Some(Message { header: zerocopy::transmute!(header), payload }))
            }
            _ => Ok(None),
        }
    }
    /// The message at the front was taken.
    pub fn consume(&mut self, pool: &mut Pool, received: Position) {
        let Some(Front::Ends(end)) = self.front.take() else {
            panic!("only a whole message is taken");
        };
        assert!(end <= received, "only a whole message is taken");
        self.consumed = end;
        if end == self.covered {
            self.chain.clear(pool, end);
        } else {
            self.chain.release(pool, end);
        }
        pool.return_permit(self.lane);
        self.look(pool, received);
    }
    /// Everything below was taken.
    #[must_use]
    pub fn consumed(&self) -> Position {
        self.consumed
    }
    /// Forgets everything and starts over at position 0.
    pub fn clear(&mut self, pool: &mut Pool) {
        let start = Position(0);
        self.chain.clear(pool, start);
        pool.return_permit(self.lane);
        (self.consumed, self.covered, self.front) = (start, start, None);
    }

    fn header(&self, pool: &Pool) -> RequestHeader {
        let mut bytes = [0; HEADER_BYTES];
        let end = self.consumed.plus(HEADER_BYTES as u64);
        self.chain.parts(pool, self.consumed, end).copy_to(&mut bytes);
        zerocopy::transmute!(bytes)
    }
}

/// What leaves on a lane.
#[derive(Clone, Debug)]
pub struct LaneOut {
    /// Names this lane to the pool.
    lane: u32,
    chain: Chain,
    /// Everything below is acknowledged.
    acknowledged: Position,
    /// End of what was written.
    written: Position,
    /// Unacknowledged bytes at most, but for a single message that is larger.
    buffer_bytes: u64,
}

impl LaneOut {
    /// Nothing written yet; up to `buffer_bytes` may be unacknowledged. `lane` is different for each lane of a pool.
    #[must_use]
    pub fn new(lane: u32, buffer_bytes: u64) -> Self {
        let start = Position(0);
        Self { lane, chain: Chain::new(start), acknowledged: start, written: start, buffer_bytes }
    }
    /// Writes a message whose payload is the `parts` one behind the other. Returns the new end of the lane.
    ///
    /// # Errors
    /// [`LaneRefusal`]: nothing was written; later it may be.
    pub fn write(
        &mut self,
        pool: &mut Pool,
        header: AnswerHeader,
        parts: &[&[u8]],
    ) -> Result<Position, LaneRefusal> {
        let payload_bytes = parts.iter().map(|part| part.len()).sum();
        let length = message_length(payload_bytes).ok_or(LaneRefusal::TooLong { payload_bytes })?;
        let end = self.written.plus(message_span(length));
        let held = self.written.since(self.acknowledged);
        if held > 0 && end.since(self.acknowledged) > self.buffer_bytes {
            return Err(LaneRefusal::LaneFull);
        }
        // Alone on its lane, a message may use the reserve: so every lane gets its turn, however full the pool is.
        let claim = if held == 0 { Claim::Front(self.lane) } else { Claim::Ordinary };
        self.chain.cover(pool, end, claim)?;
        let header = AnswerHeader { length: length.into(), ..header };
        let mut at = self.written;
        let fill = [0_u8; 8];
        let fill = &fill[..(message_span(length) - u64::from(length)) as usize];
        for bytes in core::iter::once(header.as_bytes()).chain(parts.iter().copied()).chain([fill])
        {
            self.chain.write(pool, at, bytes);
            at = at.plus(bytes.len() as u64);
        }
        self.written = end;
        Ok(end)
    }
    /// End of what was written.
    #[must_use]
    pub fn written(&self) -> Position {
        self.written
    }
    /// Everything below was received by the other side: its memory is given back.
    pub fn acknowledge(&mut self, pool: &mut Pool, received: Position) {
        assert!(received <= self.written, "the sender lets nobody acknowledge the future");
        if received <= self.acknowledged {
            return;
        }
        self.acknowledged = received;
        if received == self.written {
            self.chain.clear(pool, received);
            pool.return_permit(self.lane);
        } else {
            self.chain.release(pool, received);
        }
    }
    /// Everything below is acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> Position {
        self.acknowledged
    }
    /// Bytes from `from` on, up to `to`: in place if they lie together, else gathered in `scratch` as far as it goes.
    pub fn chunk<'a>(
        &mut self,
        pool: &'a Pool,
        from: Position,
        to: Position,
        scratch: &'a mut [u8],
    ) -> &'a [u8] {
        let slice = self.chain.slice(pool, from, to);
        if slice.len() as u64 == to.since(from) || slice.len() >= scratch.len() {
            return slice;
        }
        let to = to.min(from.plus(scratch.len() as u64));
        let length = to.since(from) as usize;
        self.chain.parts(pool, from, to).copy_to(scratch);
        &scratch[..length]
    }
    /// Forgets everything and starts over at position 0.
    pub fn clear(&mut self, pool: &mut Pool) {
        let start = Position(0);
        self.chain.clear(pool, start);
        pool.return_permit(self.lane);
        (self.acknowledged, self.written) = (start, start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::COMMAND_BYTES_MAX;
    use crate::stream::message::AnswerKind;
    use crate::types::{ClientSequence, Sequence};
    use proptest::prelude::*;

    fn answer(number: u64) -> AnswerHeader {
        AnswerHeader::new(AnswerKind::Applied, ClientSequence(number), Sequence(number * 10))
    }

    /// Moves what was written to the other buffer, in pieces of at most `piece` bytes.
    fn carry(
        pool: &mut Pool,
        out: &mut LaneOut,
        lane_in: &mut LaneIn,
        from: Position,
        piece: usize,
    ) {
        let (mut at, mut scratch) = (from, vec![0; piece]);
        while at < out.written() {
            let to = out.written().min(at.plus(piece as u64));
            let bytes = out.chunk(pool, at, to, &mut scratch).to_vec();
            let end = at.plus(bytes.len() as u64);
            lane_in.cover(pool, end, true).expect("room");
            lane_in.place(pool, at, &bytes);
            lane_in.look(pool, end);
            at = end;
        }
    }

    #[test]
    fn messages_from_nothing_to_the_largest_come_out_as_they_went_in() {
        let mut pool = Pool::new(16 << 20, 2048);
        let free = pool.free_count();
        let (mut out, mut lane_in) = (LaneOut::new(0, 64 * 1024), LaneIn::new(0));
        for (number, bytes) in
            [0, 1, 7, 8, 2_024, 2_025, 70_000, COMMAND_BYTES_MAX].iter().enumerate()
        {
            let payload: Vec<u8> = (0..*bytes).map(|at| (at * 31 + number) as u8).collect();
            let (one, two) = payload.split_at(bytes / 3);
            let from = out.written();
            let end = out.write(&mut pool, answer(number as u64), &[one, two]).expect("room");
            carry(&mut pool, &mut out, &mut lane_in, from, 1_300);
            out.acknowledge(&mut pool, end);
            let message = lane_in.message(&pool, end).expect("good").expect("whole");
            assert_eq!(message.answer().client_sequence(), ClientSequence(number as u64));
            assert_eq!(message.answer().sequence(), Sequence(number as u64 * 10));
            let contiguous = message.payload.contiguous();
            assert!(*bytes >= 2_024 || contiguous.is_some());
            assert_eq!(message.payload.flatten().copied().collect::<Vec<u8>>(), payload);
            lane_in.consume(&mut pool, end);
            assert!(lane_in.message(&pool, end).expect("good").is_none());
        }
        assert_eq!(pool.free_count(), free, "an idle lane holds nothing");
    }

    #[test]
    fn refusals_are_by_name_and_write_nothing() {
        let mut pool = Pool::new(4 << 20, 2048);
        let mut out = LaneOut::new(0, 100);
        let long = vec![0; COMMAND_BYTES_MAX];
        let too_long = [&long[..], &[0; 9]];
        let payload_bytes = COMMAND_BYTES_MAX + 9;
        let refused = out.write(&mut pool, answer(1), &too_long);
        assert_eq!(refused, Err(LaneRefusal::TooLong { payload_bytes }));
        let mut other = LaneOut::new(1, 100);
        assert!(other.write(&mut pool, answer(1), &[&long]).is_ok());
        assert_eq!(out.write(&mut pool, answer(1), &[&long]), Err(LaneRefusal::PoolEmpty));
        other.acknowledge(&mut pool, other.written());
        assert_eq!(out.written(), Position(0));
        assert_eq!(out.write(&mut pool, answer(1), &[&[0; 200]]), Ok(Position(224)));
        assert_eq!(out.write(&mut pool, answer(2), &[]), Err(LaneRefusal::LaneFull));
        out.acknowledge(&mut pool, Position(200));
        assert_eq!(out.write(&mut pool, answer(2), &[]), Ok(Position(248)));
    }

    #[test]
    fn a_length_that_cannot_be_is_said_and_not_believed() {
        for length in [0_u32, 23, u32::MAX] {
            let mut pool = Pool::new(4 << 20, 2048);
            let mut lane_in = LaneIn::new(0);
            lane_in.cover(&mut pool, Position(24), true).expect("room");
            lane_in.place(&mut pool, Position(0), &length.to_le_bytes());
            assert_eq!(lane_in.look(&pool, Position(24)), None);
            assert!(lane_in.has_message(Position(24)));
            let bad = lane_in.message(&pool, Position(24)).expect_err("bad");
            assert_eq!(bad, BadMessage { length });
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_cut_of_the_lane_gives_the_messages(
            sizes in prop::collection::vec(0_usize..6_000, 1..20),
            piece in 1_usize..4_000,
            chunk in prop::sample::select(vec![64_usize, 256, 2048]),
        ) {
            let mut pool = Pool::new(8 << 20, chunk);
            let free = pool.free_count();
            let (mut out, mut lane_in) = (LaneOut::new(1, 1 << 20), LaneIn::new(0));
            for (number, &size) in sizes.iter().enumerate() {
                let payload = vec![number as u8; size];
                out.write(&mut pool, answer(number as u64), &[&payload]).expect("room");
            }
            carry(&mut pool, &mut out, &mut lane_in, Position(0), piece);
            let end = out.written();
            for (number, &size) in sizes.iter().enumerate() {
                let message = lane_in.message(&pool, end).expect("good").expect("whole");
                prop_assert_eq!(message.answer().client_sequence().0, number as u64);
                prop_assert_eq!(message.payload.len(), size);
                prop_assert!(message.payload.flatten().all(|&byte| byte == number as u8));
                lane_in.consume(&mut pool, end);
            }
            out.acknowledge(&mut pool, end);
            prop_assert_eq!(pool.free_count(), free);
        }
    }
}
