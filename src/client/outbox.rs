//! What a client has asked and has no answer to: the messages themselves, in one ring, written in place and sent from
//! there, kept until they are answered, so that a new lane can begin with them again.

use std::collections::VecDeque;

use zerocopy::IntoBytes;

use super::Request;
use crate::limits::LANE_MESSAGE_HEADER_BYTES as HEADER_BYTES;
use crate::stream::endpoint::Outgoing;
use crate::stream::message::{RequestHeader, message_span};
use crate::types::{ClientSequence, Position};

/// There is no room for a message now.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct OutboxFull;

/// One message in the ring.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Record {
    /// Where it starts on the current lane.
    start: Position,
    /// Where it starts in the ring.
    offset: usize,
    /// Bytes it takes in both.
    span: usize,
    /// What it asks; `None` for messages without an answer.
    request: Option<Request>,
    /// It was answered (or has none).
    answered: bool,
}

impl Record {
    fn end(&self) -> Position {
        self.start.plus(self.span as u64)
    }
}

/// The ring. Never allocates after construction.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    memory: Box<[u8]>,
    records: VecDeque<Record>,
    records_max: usize,
    /// Requests without an answer.
    unanswered: usize,
    /// Where the next lane byte is: the end of the last record, also when there is none.
    tail: Position,
}

/// Where a message may be written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Place {
    offset: usize,
    length: u32,
}

impl Outbox {
    /// A ring of `bytes` for at most `records_max` messages.
    pub(crate) fn new(bytes: usize, records_max: usize) -> Self {
        Self {
            memory: vec![0; bytes].into_boxed_slice(),
            records: VecDeque::with_capacity(records_max),
            records_max,
            unanswered: 0,
            tail: Position(0),
        }
    }
    /// Room for a message of `length` bytes, header included, in one piece.
    pub(crate) fn find_room(&self, length: u32) -> Result<Place, OutboxFull> {
        if self.records.len() == self.records_max {
            return Err(OutboxFull);
        }
        let span = message_span(length) as usize;
        let (first, end) = match (self.records.front(), self.records.back()) {
            (Some(first), Some(last)) => (first.offset, last.offset + last.span),
            _ => (0, 0),
        };
        let at_end = self.memory.len() - end;
        // What is held either lies in one piece, with room behind it and before it, or leaves room in the middle.
        let offset = if self.records.is_empty() || first < end {
            if at_end >= span { Some(end) } else { (first >= span).then_some(0) }
        } else {
            (first - end >= span).then_some(end)
        };
        offset.map(|offset| Place { offset, length }).ok_or(OutboxFull)
    }
    /// The payload bytes of a place.
    pub(crate) fn payload(&self, place: Place) -> &[u8] {
        &self.memory[place.offset + HEADER_BYTES..place.offset + place.length as usize]
    }
    /// The payload bytes of a place, to be written.
    pub(crate) fn payload_mut(&mut self, place: Place) -> &mut [u8] {
        &mut self.memory[place.offset + HEADER_BYTES..place.offset + place.length as usize]
    }
    /// The message at `place` is complete but for its header, and is the next one of the lane.
    pub(crate) fn push(&mut self, place: Place, header: RequestHeader, request: Option<Request>) {
        let header = RequestHeader { length: place.length.into(), ..header };
        let span = message_span(place.length) as usize;
        let message = &mut self.memory[place.offset..place.offset + span];
        message[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        message[place.length as usize..].fill(0);
        let (start, offset, answered) = (self.tail, place.offset, request.is_none());
        self.records.push_back(Record { start, offset, span, request, answered });
        self.unanswered += usize::from(!answered);
        self.tail = self.tail.plus(span as u64);
    }
    /// End of the lane.
    pub(crate) fn tail(&self) -> Position {
        self.tail
    }
    /// Requests without an answer.
    pub(crate) fn unanswered(&self) -> usize {
        self.unanswered
    }
    /// Marks a request as answered; false if it was not waiting.
    pub(crate) fn answer(&mut self, request: Request) -> bool {
        let waits = |record: &&mut Record| record.request == Some(request) && !record.answered;
        let Some(record) = self.records.iter_mut().find(waits) else { return false };
        record.answered = true;
        self.unanswered -= 1;
        true
    }
    /// The first command without an answer.
    pub(crate) fn first_waiting_command(&self) -> Option<ClientSequence> {
        self.records.iter().find_map(|record| match record.request {
            Some(Request::Command(sequence)) if !record.answered => Some(sequence),
            _ => None,
        })
    }
    /// Lets go of what is answered and also acknowledged below `acknowledged`.
    pub(crate) fn release(&mut self, acknowledged: Position) {
        while let Some(record) = self.records.front() {
            if !record.answered || record.end() > acknowledged {
                break;
            }
            self.records.pop_front();
        }
    }
    /// A new lane begins: what has no answer is sent again, from position 0 on.
    pub(crate) fn rewind(&mut self) {
        self.release(Position(u64::MAX));
        let mut at = Position(0);
        for record in &mut self.records {
            record.start = at;
            at = record.end();
        }
        self.tail = at;
    }
    /// Takes out the oldest request without an answer.
    pub(crate) fn give_up_first(&mut self) -> Option<Request> {
        let record = self.records.iter_mut().find(|record| !record.answered)?;
        record.answered = true;
        self.unanswered -= 1;
        record.request
    }
}

impl Outgoing for Outbox {
    fn bytes(&mut self, from: Position, to: Position) -> &[u8] {
        let index = self.records.partition_point(|record| record.end() <= from);
        let record = self.records[index];
        let offset = record.offset + from.since(record.start) as usize;
        let mut end = record.offset + record.span;
        for next in self.records.range(index + 1..) {
            if next.offset != end || next.start >= to {
                break;
            }
            end += next.span;
        }
        &self.memory[offset..end.min(offset + to.since(from) as usize)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::message::RequestKind;
    use proptest::prelude::*;

    fn put(outbox: &mut Outbox, number: u64, payload: &[u8]) -> bool {
        let Ok(place) = outbox.find_room((HEADER_BYTES + payload.len()) as u32) else {
            return false;
        };
        outbox.payload_mut(place).copy_from_slice(payload);
        let sequence = ClientSequence(number);
        let header = RequestHeader::new(RequestKind::Command, sequence, ClientSequence(0));
        outbox.push(place, header, Some(Request::Command(sequence)));
        true
    }
    fn read(outbox: &mut Outbox, from: Position) -> Vec<u8> {
        let (mut at, to, mut all) = (from, outbox.tail(), Vec::new());
        while at < to {
            let bytes = outbox.bytes(at, to);
            assert!(!bytes.is_empty());
            all.extend_from_slice(bytes);
            at = at.plus(bytes.len() as u64);
        }
        all
    }

    #[test]
    fn a_new_lane_begins_with_what_has_no_answer() {
        let mut outbox = Outbox::new(1_000, 8);
        for number in 1..=3 {
            assert!(put(&mut outbox, number, &[number as u8; 10]));
        }
        assert!(outbox.answer(Request::Command(ClientSequence(1))));
        assert!(!outbox.answer(Request::Command(ClientSequence(1))), "one answer each");
        outbox.release(Position(0));
        assert_eq!(outbox.tail(), Position(120), "answered, but not acknowledged on this lane");
        let rest = read(&mut outbox, Position(40));
        outbox.rewind();
        assert_eq!(outbox.tail(), Position(80));
        assert_eq!(read(&mut outbox, Position(0)), rest);
        assert_eq!(outbox.unanswered(), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn the_ring_holds_what_was_written_however_it_wraps(
            acts in prop::collection::vec((any::<bool>(), 0_usize..300), 1..200),
        ) {
            let mut outbox = Outbox::new(1_024, 16);
            let mut model: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
            let (mut number, mut start) = (0, Position(0));
            for (write, bytes) in acts {
                if write {
                    number += 1;
                    let payload = vec![number as u8; bytes];
                    if put(&mut outbox, number, &payload) {
                        model.push_back((number, payload));
                    } else {
                        prop_assert!(!model.is_empty(), "an empty ring has room");
                    }
                } else if let Some((number, payload)) = model.pop_front() {
                    prop_assert!(outbox.answer(Request::Command(ClientSequence(number))));
                    start = start.plus(message_span((HEADER_BYTES + payload.len()) as u32));
                    outbox.release(start);
                }
                let all = read(&mut outbox, start);
                let mut at = 0;
                for (number, payload) in &model {
                    let header: [u8; HEADER_BYTES] = all[at..at + HEADER_BYTES].try_into().expect("24");
                    let header: RequestHeader = zerocopy::transmute!(header);
                    prop_assert_eq!(header.client_sequence().0, *number);
                    let length = header.length.get() as usize;
                    prop_assert_eq!(&all[at + HEADER_BYTES..at + length], &payload[..]);
                    at += message_span(length as u32) as usize;
                }
                prop_assert_eq!(at, all.len());
            }
        }
    }
}
