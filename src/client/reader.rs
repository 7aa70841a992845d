//! A reader: asks nodes by themselves, whoever leads, and is told with each answer how old it may be. It has no session,
//! leaves nothing in the log, and needs no leader for what may be old.
//!
//! A question is one datagram, sent again until the answer is here; asking twice changes nothing. Like the
//! [`Client`](super::Client) it is polled, and has no clock and no thread.

use core::fmt;
use core::net::SocketAddr;

use zerocopy::{FromBytes, IntoBytes};

use crate::limits::{LOCAL_QUESTION_BYTES_MAX, LOCAL_REPLY_BYTES_MAX};
use crate::stream::datagram::{DatagramHeader, DatagramKind, parse};
use crate::stream::local::{ANY_AGE_NS, LocalAnswerBody, LocalOutcome, LocalQueryBody};
use crate::stream::network::{Destination, Network};
use crate::types::{GroupId, Leadership, Nanos, NodeId, Position, Sequence, Term};

/// Questions without an answer at once.
pub const READS_MAX: usize = 8;
/// A question is sent again after this, doubling, ns.
const AGAIN_MIN_NS: u64 = 20 * Nanos::MILLISECOND;
/// Longest time between two of them, ns.
const AGAIN_MAX_NS: u64 = 200 * Nanos::MILLISECOND;
/// A node that says nothing is given up so long after the end of what it could wait, ns.
const SILENCE_NS: u64 = 500 * Nanos::MILLISECOND;
/// Separate parts of a reply that are kept track of; what would be one more is dropped, and comes with the next answer.
const PARTS_MAX: usize = 64;

/// What is asked of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Demand {
    /// It holds all that anybody was told up to so long before the question reached the node, ns. 0: all of it.
    /// `u64::MAX`, the default: what the node has.
    pub within_ns: u64,
    /// It holds this entry of the log: that of a command of one's own, for example. 0, the default: any.
    pub at_least: Sequence,
    /// How long the node may wait until it can say so, ns. 0: it says at once what it can.
    pub wait_ns: u64,
}

impl Default for Demand {
    fn default() -> Self {
        Self { within_ns: ANY_AGE_NS, at_least: Sequence(0), wait_ns: 0 }
    }
}

/// How far the state of an answer is, and how old it may be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Lag {
    /// Which node says so.
    pub node: Option<NodeId>,
    /// The leadership that it obeys.
    pub leadership: Leadership,
    /// Term of the last entry that the answer holds.
    pub term: Term,
    /// Where that entry ends.
    pub applied: Position,
    /// Its number.
    pub sequence: Sequence,
    /// Commit position that the node has heard of.
    pub commit: Position,
    /// The answer holds all that anybody was told up to so long before it was given, ns: a leader whom a quorum heard said
    /// so. None: the node cannot tell.
    pub lag_ns: Option<u64>,
    /// How long before it took something of its leader in, ns; 0 on the leader. That says that they reach each other, and
    /// nothing of the age of what came.
    pub heard_ns: Option<u64>,
    /// When it was given, on the node's monotonic clock.
    pub given_at: Nanos,
}

/// What became of a question.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReadOutcome {
    /// It was answered as was asked.
    Answered,
    /// The service or the engine refused it.
    Rejected {
        /// Why: the service's own code, or one of the engine's (from 0xFF00 up).
        code: u16,
    },
    /// The node cannot make sure that its state is as fresh as was asked: it hears no leader that a quorum hears.
    TooStale,
    /// The node does not hold the entry that was asked for.
    Behind,
    /// The node is stopping, or has stopped for good.
    Stopping,
    /// Too many questions wait there.
    BackPressured,
    /// Longer than the node takes.
    TooLong,
    /// The node said nothing.
    Silent,
}

impl fmt::Display for ReadOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered => write!(f, "answered"),
            Self::Rejected { code } => write!(f, "rejected with code {code}"),
            Self::TooStale => {
                write!(f, "the node cannot tell that its state is as fresh as that (TOO_STALE)")
            }
            Self::Behind => write!(f, "the node does not hold that entry (BEHIND)"),
            Self::Stopping => write!(f, "the node has stopped (STOPPING)"),
            Self::BackPressured => write!(f, "too many questions wait there (BACK_PRESSURE)"),
            Self::TooLong => write!(f, "longer than the node takes (TOO_LONG)"),
            Self::Silent => write!(f, "the node says nothing"),
        }
    }
}

/// The end of a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading<'a> {
    /// Which question: the number that [`Reader::ask`] gave it.
    pub number: u64,
    /// What became of it.
    pub outcome: ReadOutcome,
    /// Where the node is; also with a refusal. None where the node said nothing.
    pub lag: Option<Lag>,
    /// The service's reply.
    pub reply: &'a [u8],
}

/// Why a question is not taken. Nothing was sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReadRefusal {
    /// [`READS_MAX`] wait for answers.
    BackPressured,
    /// It does not fit in one datagram, or is longer than a node takes.
    TooLong {
        /// As given, in bytes.
        bytes: usize,
        /// What is allowed, in bytes.
        bytes_max: usize,
    },
}

impl fmt::Display for ReadRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BackPressured => write!(f, "{READS_MAX} questions wait for answers"),
            Self::TooLong { bytes, bytes_max } => {
                write!(f, "a question of {bytes} bytes, at most {bytes_max} are taken")
            }
        }
    }
}

impl core::error::Error for ReadRefusal {}

/// What happened so far.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct ReaderCounters {
    /// Datagrams of questions sent.
    pub sent: u64,
    /// Datagrams that were for no question that waits, or not understood.
    pub dropped: u64,
}

/// Asks nodes by themselves. Never allocates after construction.
#[derive(Debug)]
pub struct Reader<N> {
    network: N,
    group: GroupId,
    nonce: u64,
    number: u64,
    asked: Vec<Asked>,
    /// What questions need that wait no longer.
    spare: Vec<Parts>,
    counters: ReaderCounters,
}

/// A question that waits.
#[derive(Debug)]
struct Asked {
    number: u64,
    node: SocketAddr,
    demand: Demand,
    /// End of what the node may wait.
    until: Nanos,
    again_at: Nanos,
    again_ns: u64,
    parts: Parts,
}

impl<N: Network> Reader<N> {
    /// A reader of this group. `seed` must differ between any two readers at one address.
    #[must_use]
    pub fn new(group: GroupId, seed: u64, network: N) -> Self {
        Self {
            network,
            group,
            nonce: seed,
            number: 0,
            asked: Vec::with_capacity(READS_MAX),
            spare: (0..READS_MAX).map(|_| Parts::new()).collect(),
            counters: ReaderCounters::default(),
        }
    }
    /// Asks the node at `node`. Returns the number of the question; its end comes out of [`Reader::poll`].
    ///
    /// # Errors
    /// [`ReadRefusal`]: nothing was sent.
    pub fn ask(
        &mut self,
        now: Nanos,
        node: SocketAddr,
        question: &[u8],
        demand: Demand,
    ) -> Result<u64, ReadRefusal> {
        let room = self.network.body_bytes(size_of::<LocalQueryBody>());
        let (bytes, bytes_max) = (question.len(), room.min(LOCAL_QUESTION_BYTES_MAX));
        if bytes > bytes_max {
            return Err(ReadRefusal::TooLong { bytes, bytes_max });
        }
        let mut parts = self.spare.pop().ok_or(ReadRefusal::BackPressured)?;
        parts.begin(question);
        self.number += 1;
        let until = Nanos(now.0.saturating_add(demand.wait_ns));
        let (number, again_ns) = (self.number, AGAIN_MIN_NS);
        self.asked.push(Asked { number, node, demand, until, again_at: now, again_ns, parts });
        self.send_due(now);
        Ok(number)
    }
    /// Receives, hands ends of questions to `handler`, and sends what is due. Returns how much was done: 0 means idle.
    pub fn poll(&mut self, now: Nanos, mut handler: impl FnMut(Reading<'_>)) -> usize {
        let mut work = 0;
        loop {
            let count = self.network.poll();
            for index in 0..count {
                self.on_datagram(index, &mut handler);
            }
            work += count;
            if count == 0 {
                break;
            }
        }
        let silent = |asked: &Asked| now.0 >= asked.until.0.saturating_add(SILENCE_NS);
        while let Some(at) = self.asked.iter().position(silent) {
            let Asked { number, parts, .. } = self.asked.remove(at);
            self.spare.push(parts);
            handler(Reading { number, outcome: ReadOutcome::Silent, lag: None, reply: &[] });
            work += 1;
        }
        work + self.send_due(now)
    }
    /// When [`Reader::poll`] has something to do, if nothing arrives before.
    #[must_use]
    pub fn deadline(&self) -> Nanos {
        let due =
            |asked: &Asked| asked.again_at.min(Nanos(asked.until.0.saturating_add(SILENCE_NS)));
        self.asked.iter().map(due).min().unwrap_or(Nanos(u64::MAX))
    }
    /// Questions without an answer.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.asked.len()
    }
    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> &ReaderCounters {
        &self.counters
    }
    /// The network, to look at.
    #[must_use]
    pub fn network(&self) -> &N {
        &self.network
    }

    fn send_due(&mut self, now: Nanos) -> usize {
        let mut sent = 0;
        for asked in self.asked.iter_mut().filter(|asked| now >= asked.again_at) {
            asked.again_at = now.plus(asked.again_ns);
            asked.again_ns = (2 * asked.again_ns).min(AGAIN_MAX_NS);
            let body = LocalQueryBody {
                nonce: self.nonce.into(),
                number: asked.number.into(),
                within: asked.demand.within_ns.into(),
                at_least: asked.demand.at_least.0.into(),
                wait: asked.until.since(now).into(),
            };
            let kind = DatagramKind::LocalQuery;
            let mut header = DatagramHeader::new(kind, self.group, None, Leadership::default());
            header.stamp = now.0.into();
            let to = Destination::Address(asked.node);
            self.network.send(to, &header, body.as_bytes(), asked.parts.question());
            sent += 1;
        }
        self.counters.sent += sent as u64;
        sent
    }

    fn on_datagram(&mut self, index: usize, handler: &mut impl FnMut(Reading<'_>)) {
        let (from, bytes) = self.network.datagram(index);
        let found = part_of(bytes, self.group).filter(|part| part.body.nonce.get() == self.nonce);
        let found = found.and_then(|part| {
            let ours = |asked: &Asked| asked.number == part.body.number.get() && asked.node == from;
            Some((self.asked.iter().position(ours)?, part))
        });
        let Some((at, part)) = found else {
            self.counters.dropped += 1;
            return;
        };
        if !self.asked[at].parts.take(&part) {
            return;
        }
        let Asked { number, parts, .. } = self.asked.remove(at);
        let (outcome, lag) = (outcome(&part), Some(lag(&part)));
        handler(Reading { number, outcome, lag, reply: parts.reply() });
        self.spare.push(parts);
    }
}

/// One datagram of an answer.
struct Part<'a> {
    header: &'a DatagramHeader,
    body: &'a LocalAnswerBody,
    outcome: LocalOutcome,
    bytes: &'a [u8],
}

/// The datagram, if it can be one.
fn part_of(bytes: &[u8], group: GroupId) -> Option<Part<'_>> {
    let (header, kind, rest) = parse(bytes, group).ok()?;
    if kind != DatagramKind::LocalAnswer {
        return None;
    }
    let (body, bytes) = LocalAnswerBody::ref_from_prefix(rest).ok()?;
    let end = header.position().0.checked_add(bytes.len() as u64)?;
    let length = body.length.get();
    let fits = end <= u64::from(length) && length as usize <= LOCAL_REPLY_BYTES_MAX;
    let outcome = LocalOutcome::from_u8(body.outcome)?;
    fits.then_some(Part { header, body, outcome, bytes })
}

fn outcome(part: &Part<'_>) -> ReadOutcome {
    match part.outcome {
        LocalOutcome::Answered => ReadOutcome::Answered,
        LocalOutcome::Rejected => ReadOutcome::Rejected { code: part.body.code.get() },
        LocalOutcome::TooStale => ReadOutcome::TooStale,
        LocalOutcome::Behind => ReadOutcome::Behind,
        LocalOutcome::Stopping => ReadOutcome::Stopping,
        LocalOutcome::BackPressure => ReadOutcome::BackPressured,
        LocalOutcome::TooLong => ReadOutcome::TooLong,
    }
}

fn lag(part: &Part<'_>) -> Lag {
    let known = |age_ns: u64| (age_ns != ANY_AGE_NS).then_some(age_ns);
    Lag {
        node: part.header.node(),
        leadership: part.header.leadership(),
        term: Term(part.body.term.get()),
        applied: Position(part.body.applied.get()),
        sequence: Sequence(part.body.sequence.get()),
        commit: part.header.commit(),
        lag_ns: known(part.body.lag.get()),
        heard_ns: known(part.body.heard.get()),
        given_at: part.header.stamp(),
    }
}

/// A question, and what has come of its answer.
#[derive(Debug)]
struct Parts {
    question: Box<[u8]>,
    question_bytes: usize,
    reply: Box<[u8]>,
    length: usize,
    /// Which answer they are of: a node that was asked twice may answer twice, from two states.
    stamp: Option<Nanos>,
    /// What of it is here, in order and apart.
    here: Vec<(usize, usize)>,
}

impl Parts {
    fn new() -> Self {
        Self {
            question: vec![0; LOCAL_QUESTION_BYTES_MAX].into_boxed_slice(),
            question_bytes: 0,
            reply: vec![0; LOCAL_REPLY_BYTES_MAX].into_boxed_slice(),
            length: 0,
            stamp: None,
            here: Vec::with_capacity(PARTS_MAX + 1),
        }
    }
    fn begin(&mut self, question: &[u8]) {
        self.question[..question.len()].copy_from_slice(question);
        self.question_bytes = question.len();
        self.stamp = None;
        self.here.clear();
    }
    fn question(&self) -> &[u8] {
        &self.question[..self.question_bytes]
    }
    fn reply(&self) -> &[u8] {
        &self.reply[..self.length]
    }
    /// Takes a part in; whether the answer is whole.
    fn take(&mut self, part: &Part<'_>) -> bool {
        let stamp = part.header.stamp();
        if self.stamp.is_some_and(|known| stamp < known) {
            return false; // of an answer before the one that is coming in
        }
        if self.stamp != Some(stamp) {
            (self.stamp, self.length) = (Some(stamp), part.body.length.get() as usize);
            self.here.clear();
        }
        let from = part.header.position().0 as usize;
        let to = from + part.bytes.len();
        if to > self.length {
            return false; // two answers that claim to be one
        }
        self.reply[from..to].copy_from_slice(part.bytes);
        self.note(from, to);
        self.length == 0 || self.here.first() == Some(&(0, self.length))
    }
    fn note(&mut self, from: usize, to: usize) {
        let at = self.here.partition_point(|range| range.1 < from);
        let end = self.here.partition_point(|range| range.0 <= to);
        let mut joined = (from, to);
        for range in &self.here[at..end] {
            joined = (joined.0.min(range.0), joined.1.max(range.1));
        }
        if at < end || self.here.len() < PARTS_MAX {
            self.here.splice(at..end, [joined]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const GROUP: GroupId = GroupId(9);
    const STAMP: u64 = 70;
    /// Where the body of a datagram begins.
    const BODY: usize = size_of::<DatagramHeader>();

    /// What was sent, and what comes.
    #[derive(Default)]
    struct Wire {
        sent: Vec<Vec<u8>>,
        inbox: VecDeque<Vec<u8>>,
        batch: Vec<Vec<u8>>,
        from: u16,
    }

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    impl Network for Wire {
        fn poll(&mut self) -> usize {
            self.batch = self.inbox.drain(..).collect();
            self.batch.len()
        }
        fn datagram(&self, index: usize) -> (SocketAddr, &[u8]) {
            (at(self.from), &self.batch[index])
        }
        fn send(&mut self, _: Destination, header: &DatagramHeader, prefix: &[u8], bytes: &[u8]) {
            self.sent.push([header.as_bytes(), prefix, bytes].concat());
        }
        fn body_bytes(&self, prefix: usize) -> usize {
            1344 - prefix
        }
    }

    fn reader() -> Reader<Wire> {
        Reader::new(GROUP, 5, Wire { from: 1, ..Wire::default() })
    }

    /// A part of an answer to question `number`.
    fn part(number: u64, stamp: u64, whole: &[u8], range: core::ops::Range<usize>) -> Vec<u8> {
        let kind = DatagramKind::LocalAnswer;
        let mut header = DatagramHeader::new(kind, GROUP, Some(NodeId(2)), Leadership::default());
        (header.position, header.stamp) = ((range.start as u64).into(), stamp.into());
        let body = LocalAnswerBody {
            nonce: 5.into(),
            number: number.into(),
            outcome: LocalOutcome::Answered as u8,
            reserved: 0,
            code: 0.into(),
            length: (whole.len() as u32).into(),
            term: 3.into(),
            reserved_term: 0.into(),
            applied: 64.into(),
            sequence: 2.into(),
            lag: 11.into(),
            heard: ANY_AGE_NS.into(),
        };
        [header.as_bytes(), body.as_bytes(), &whole[range]].concat()
    }

    fn take(reader: &mut Reader<Wire>, now: u64) -> Vec<(u64, ReadOutcome, Option<Lag>, Vec<u8>)> {
        let mut ends = Vec::new();
        reader.poll(Nanos(now), |end| {
            ends.push((end.number, end.outcome, end.lag, end.reply.to_vec()));
        });
        ends
    }

    #[test]
    fn an_answer_says_where_the_node_is_and_how_old_it_may_be() {
        let mut reader = reader();
        let number = reader.ask(Nanos(1), at(1), b"what", Demand::default()).expect("room");
        reader.network.inbox.push_back(part(number, STAMP, b"that", 0..4));
        let ends = take(&mut reader, 2);
        let lag = ends[0].2.expect("it says");
        assert_eq!((ends[0].1, &ends[0].3[..]), (ReadOutcome::Answered, &b"that"[..]));
        assert_eq!((lag.node, lag.sequence, lag.term), (Some(NodeId(2)), Sequence(2), Term(3)));
        assert_eq!((lag.lag_ns, lag.heard_ns, lag.given_at), (Some(11), None, Nanos(STAMP)));
        reader.network.inbox.push_back(part(number, STAMP, b"that", 0..4));
        assert!(take(&mut reader, 3).is_empty(), "each question ends once");
        assert_eq!((reader.unanswered(), reader.deadline()), (0, Nanos(u64::MAX)));
    }

    #[test]
    fn what_others_say_is_not_heard() {
        let mut reader = reader();
        let number = reader.ask(Nanos(1), at(1), b"what", Demand::default()).expect("room");
        let good = part(number, STAMP, b"that", 0..4);
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            bytes
        };
        for bad in [
            part(number + 1, STAMP, b"that", 0..4),
            changed(&|bytes| bytes[BODY] ^= 1), // another reader's
            changed(&|bytes| bytes[BODY + 16] = 0), // no outcome
            changed(&|bytes| bytes[BODY + 22] = 0xFF), // longer than any may be
            changed(&|bytes| bytes[32..40].fill(0xFF)), // beyond everything
            changed(&|bytes| bytes.truncate(BODY + 63)), // no whole body
            changed(&|bytes| bytes[8] ^= 1),    // of another group
        ] {
            reader.network.inbox.push_back(bad);
        }
        reader.network.inbox.push_back(good.clone());
        reader.network.from = 7;
        assert!(take(&mut reader, 2).is_empty(), "from elsewhere");
        assert_eq!(reader.counters().dropped, 8);
        reader.network.from = 1;
        reader.network.inbox.push_back(good);
        assert_eq!(take(&mut reader, 3).len(), 1);
    }

    #[test]
    fn a_question_is_sent_again_with_what_is_left_of_its_time_and_then_given_up() {
        let mut reader = reader();
        let demand = Demand { wait_ns: Nanos::SECOND, ..Demand::default() };
        let number = reader.ask(Nanos(0), at(1), b"what", demand).expect("room");
        let mut ends = Vec::new();
        let mut now = Nanos(0);
        while ends.is_empty() {
            now = reader.deadline();
            ends = take(&mut reader, now.0);
        }
        assert_eq!((ends[0].0, ends[0].1), (number, ReadOutcome::Silent));
        assert_eq!(now, Nanos(Nanos::SECOND + SILENCE_NS));
        let waits: Vec<u64> = reader
            .network
            .sent
            .iter()
            .map(|bytes| {
                let body = &bytes[size_of::<DatagramHeader>()..];
                LocalQueryBody::read_from_prefix(body).expect("whole").0.wait.get()
            })
            .collect();
        assert!(waits.len() > 5 && waits.is_sorted_by(|a, b| a >= b), "{waits:?}");
        assert_eq!((waits[0], waits.last()), (Nanos::SECOND, Some(&0)));
    }

    #[test]
    fn so_many_questions_at_once_and_none_that_is_too_long() {
        let mut reader = reader();
        let long = vec![0; LOCAL_QUESTION_BYTES_MAX + 1];
        let refused = reader.ask(Nanos(0), at(1), &long, Demand::default());
        let (bytes, bytes_max) = (long.len(), LOCAL_QUESTION_BYTES_MAX);
        assert_eq!(refused, Err(ReadRefusal::TooLong { bytes, bytes_max }));
        for number in 1..=READS_MAX as u64 {
            let asked = reader.ask(Nanos(0), at(1), &long[1..], Demand::default());
            assert_eq!(asked, Ok(number));
        }
        let refused = reader.ask(Nanos(0), at(1), b"", Demand::default());
        assert_eq!(refused, Err(ReadRefusal::BackPressured));
        reader.network.inbox.push_back(part(3, STAMP, b"", 0..0));
        assert_eq!(take(&mut reader, 1).len(), 1);
        assert!(reader.ask(Nanos(1), at(1), b"", Demand::default()).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn parts_of_one_answer_make_it_whole_in_any_order_and_those_of_two_do_not_mix(
            length in 1_usize..5000,
            size in 50_usize..1280,
            order in prop::collection::vec((any::<u16>(), any::<bool>()), 1..400),
        ) {
            let mut reader = reader();
            let number = reader.ask(Nanos(1), at(1), b"", Demand::default()).expect("room");
            let (old, new) = (vec![1; length], vec![2; length]);
            let starts: Vec<usize> = (0..length).step_by(size).collect();
            let mut order: Vec<_> = order.iter().map(|(at, late)| {
                (starts[*at as usize % starts.len()], *late)
            }).collect();
            // In the end all of the later one comes.
            order.extend(starts.iter().rev().map(|at| (*at, true)));
            let mut ends = Vec::new();
            for (at, late) in order {
                let (whole, stamp) = if late { (&new, STAMP + 1) } else { (&old, STAMP) };
                let bytes = part(number, stamp, whole, at..length.min(at + size));
                reader.network.inbox.push_back(bytes);
                ends.extend(take(&mut reader, 2));
            }
            prop_assert_eq!(ends.len(), 1);
            prop_assert!(ends[0].3 == old || ends[0].3 == new, "{:?}", ends);
        }
    }
}
