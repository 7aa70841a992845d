//! The catch-up lane: a node takes over another's log by asking for it, piece by piece.
//!
//! The node that needs the log asks; the other answers, and keeps nothing of the asker in mind: so whatever is lost on the
//! way is asked for again, and a take-over that was broken off goes on where its log ends. First the cores find out where
//! the logs part ([`crate::link::MatchQuestion`]); then bytes from there on are asked for, read from the source's durable
//! files, and handed to the core, which takes what chains.
//!
//! So far it serves the leader sync of elections: what is taken ends where the source's log ended when it was canvassed.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::limits::{LANE_PIECE_BYTES, LANE_PIECE_BYTES_MAX};
use crate::link::{ControlToCore, LaneFact, LogChunk, MatchQuestion, MatchReply, Recency};
use crate::types::{Nanos, NodeId, Position};

/// What was not answered, or brought nothing, is asked for again after this, ns.
const ASK_AGAIN_NS: u64 = 10 * Nanos::MILLISECOND;
/// A take-over that gets nowhere for so long is given up, ns.
const STALL_NS: u64 = 300 * Nanos::MILLISECOND;
/// It is given up after this in any case, ns: what was taken stays, and another one goes on from there.
const PULL_NS: u64 = 5 * Nanos::SECOND;

/// What one node asks of another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LaneRequest {
    /// Where the logs part.
    Match(MatchQuestion),
    /// Bytes of the log.
    Range {
        /// Of the take-over.
        number: u64,
        /// First byte.
        from: Position,
        /// Byte after the last.
        to: Position,
    },
}

/// What it is told.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum LaneAnswer {
    /// To [`LaneRequest::Match`].
    Match {
        /// Of the take-over.
        number: u64,
        /// What the other core says.
        reply: MatchReply,
    },
    /// To [`LaneRequest::Range`]: as many of its first bytes as are durable, perhaps none yet.
    Bytes {
        /// Of the take-over.
        number: u64,
        /// Where they stand.
        from: Position,
        /// The bytes.
        bytes: Arc<[u8]>,
    },
}

impl LaneAnswer {
    const fn number(&self) -> u64 {
        match self {
            Self::Match { number, .. } | Self::Bytes { number, .. } => *number,
        }
    }
}

/// What happens to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LaneInput {
    /// Time passed.
    Tick,
    /// Make the log equal to that of `from`, which ends like this.
    Pull {
        /// Whose.
        from: NodeId,
        /// Its end.
        recency: Recency,
    },
    /// The core reports.
    Core(LaneFact),
    /// Another node asks.
    Asked {
        /// Which.
        asker: NodeId,
        /// What.
        request: LaneRequest,
    },
    /// Another node answers.
    Answered {
        /// Which.
        from: NodeId,
        /// What.
        answer: LaneAnswer,
    },
}

/// What it wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LaneOutput {
    /// To the core.
    ToCore(ControlToCore),
    /// To the core's mailbox for bytes. One is under way at a time; if there is no room, the core is gone.
    Chunk(LogChunk),
    /// Ask another node. What is lost is asked again.
    Ask(NodeId, LaneRequest),
    /// Answer another node. What is lost is asked for again.
    Answer(NodeId, LaneAnswer),
    /// Read these bytes from the durable files, as far as they are durable, and send them as [`LaneAnswer::Bytes`].
    Read {
        /// Who asks.
        asker: NodeId,
        /// Of the asker's take-over.
        number: u64,
        /// First byte.
        from: Position,
        /// Byte after the last: not more than [`LANE_PIECE_BYTES_MAX`] further.
        to: Position,
    },
    /// The take-over has ended: whether the log now ends where the source's did.
    Ended(bool),
}

/// The lane of a node: at most one log that it takes over, and what others ask of it.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Of the last take-over.
    number: u64,
    pull: Option<Pull>,
    /// Bytes that the core was given and has not answered for: it must not be the one that frees them.
    held: Option<Arc<[u8]>>,
    outputs: VecDeque<LaneOutput>,
}

/// A take-over under way.
#[derive(Clone, Debug)]
struct Pull {
    from: NodeId,
    /// Where its log ends.
    goal: Position,
    step: Step,
    /// Bytes asked for at once.
    piece: u64,
    /// The request is sent again then.
    ask_at: Nanos,
    /// When it last got further.
    moved: Nanos,
    until: Nanos,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// The core has the word.
    Core,
    /// The other core is asked where the logs part.
    Match(MatchQuestion),
    /// Bytes from here on are asked for.
    Range(Position),
    /// Bytes from here on were given to the core.
    Given { from: Position },
}

impl Lane {
    /// A lane that does nothing yet. Take-overs are numbered from `first` on: another number in each life of the process.
    #[must_use]
    pub fn new(first: u64) -> Self {
        Self { number: first, pull: None, held: None, outputs: VecDeque::new() }
    }

    /// Takes one input; drain [`Lane::poll`] afterwards.
    pub fn handle(&mut self, now: Nanos, input: LaneInput) {
        match input {
            LaneInput::Tick => {}
            LaneInput::Pull { from, recency } => self.start(now, from, recency),
            LaneInput::Core(fact) => self.on_core(now, fact),
            LaneInput::Asked { asker, request } => self.serve(asker, request),
            LaneInput::Answered { from, answer } => self.on_answer(now, from, answer),
        }
        self.advance(now);
    }

    /// The next thing to do, if there is one.
    pub fn poll(&mut self) -> Option<LaneOutput> {
        self.outputs.pop_front()
    }

    /// When to tick again.
    #[must_use]
    pub fn deadline(&self) -> Nanos {
        let Some(pull) = &self.pull else { return Nanos(u64::MAX) };
        let given_up = pull.moved.plus(STALL_NS).min(pull.until);
        match pull.step {
            Step::Core | Step::Given { .. } => given_up,
            Step::Match(_) | Step::Range(_) => given_up.min(pull.ask_at),
        }
    }

    fn start(&mut self, now: Nanos, from: NodeId, recency: Recency) {
        self.number = self.number.wrapping_add(1);
        self.pull = Some(Pull {
            from,
            goal: recency.tail.0,
            step: Step::Core,
            piece: LANE_PIECE_BYTES,
            ask_at: now,
            moved: now,
            until: now.plus(PULL_NS),
        });
        let order = ControlToCore::TakeOver { number: self.number, last: recency.last };
        self.outputs.push_back(LaneOutput::ToCore(order));
    }

    fn on_core(&mut self, now: Nanos, fact: LaneFact) {
        match fact {
            LaneFact::Answers { asker, number, reply } => {
                let answer = LaneAnswer::Match { number, reply };
                self.outputs.push_back(LaneOutput::Answer(asker, answer));
            }
            LaneFact::Asks(question) if question.number == self.number => {
                if let Some(pull) = &mut self.pull {
                    (pull.step, pull.ask_at, pull.moved) = (Step::Match(question), now, now);
                }
            }
            LaneFact::Stands { number, tail } if number == self.number => self.stands(now, tail),
            LaneFact::Refuses { number } if number == self.number => {
                self.held = None;
                self.end(false);
            }
            LaneFact::Asks(_) | LaneFact::Stands { .. } | LaneFact::Refuses { .. } => {}
        }
    }

    /// The core's log is the other's up to `tail`.
    fn stands(&mut self, now: Nanos, tail: Position) {
        self.held = None;
        let Some(pull) = &mut self.pull else { return };
        if tail >= pull.goal {
            let whole = tail == pull.goal;
            return self.end(whole);
        }
        let further = !matches!(pull.step, Step::Given { from } if from == tail);
        pull.ask_at = now;
        if further {
            (pull.moved, pull.piece) = (now, LANE_PIECE_BYTES);
        } else if pull.piece < LANE_PIECE_BYTES_MAX {
            pull.piece = LANE_PIECE_BYTES_MAX; // the frame there is longer, or no segment is ready for it
        } else {
            pull.ask_at = now.plus(ASK_AGAIN_NS);
        }
        pull.step = Step::Range(tail);
    }

    fn on_answer(&mut self, now: Nanos, from: NodeId, answer: LaneAnswer) {
        let number = self.number;
        let Some(pull) = self.pull.as_mut().filter(|pull| pull.from == from) else { return };
        if answer.number() != number {
            return;
        }
        match (pull.step, answer) {
            (Step::Match(_), LaneAnswer::Match { reply, .. }) => {
                pull.step = Step::Core;
                pull.moved = now;
                let order = ControlToCore::MatchReply { number, reply };
                self.outputs.push_back(LaneOutput::ToCore(order));
            }
            (Step::Range(tail), LaneAnswer::Bytes { from, bytes, .. })
                if from == tail && !bytes.is_empty() =>
            {
                let wanted = pull.goal.since(tail).min(bytes.len() as u64) as usize;
                let bytes = if wanted < bytes.len() { bytes[..wanted].into() } else { bytes };
                pull.step = Step::Given { from };
                self.held = Some(Arc::clone(&bytes));
                self.outputs.push_back(LaneOutput::Chunk(LogChunk { number, from, bytes }));
            }
            _ => {} // a late one, or nothing yet: asked for again
        }
    }

    /// Another node asks.
    fn serve(&mut self, asker: NodeId, request: LaneRequest) {
        let output = match request {
            LaneRequest::Match(question) => {
                LaneOutput::ToCore(ControlToCore::MatchQuestion { asker, question })
            }
            LaneRequest::Range { number, from, to } => {
                let to = to.min(Position(from.0.saturating_add(LANE_PIECE_BYTES_MAX)));
                LaneOutput::Read { asker, number, from, to }
            }
        };
        self.outputs.push_back(output);
    }

    /// Asks again, or gives up.
    fn advance(&mut self, now: Nanos) {
        let number = self.number;
        let Some(pull) = &mut self.pull else { return };
        if now >= pull.moved.plus(STALL_NS).min(pull.until) {
            return self.end(false);
        }
        if now < pull.ask_at {
            return;
        }
        let request = match pull.step {
            Step::Core | Step::Given { .. } => return,
            Step::Match(question) => LaneRequest::Match(question),
            Step::Range(from) => {
                let to = pull.goal.min(from.plus(pull.piece));
                LaneRequest::Range { number, from, to }
            }
        };
        pull.ask_at = now.plus(ASK_AGAIN_NS);
        self.outputs.push_back(LaneOutput::Ask(pull.from, request));
    }

    fn end(&mut self, whole: bool) {
        self.pull = None;
        self.outputs.push_back(LaneOutput::Ended(whole));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Recency;
    use crate::types::{Chain, Generation, Leadership, Tail, Term};

    const SOURCE: NodeId = NodeId(2);

    fn last() -> Leadership {
        Leadership { generation: Generation { counter: 1, random: 1 }, term: Term(3) }
    }

    /// A lane that was told to take over a log that ends at `goal`, and whose core stands at `tail`; its number.
    fn pulling(goal: u64, tail: u64) -> (Lane, u64) {
        let mut lane = Lane::new(41);
        let recency = Recency { last: last(), tail: Tail(Position(goal)) };
        lane.handle(Nanos(0), LaneInput::Pull { from: SOURCE, recency });
        let Some(LaneOutput::ToCore(ControlToCore::TakeOver { number, last: told })) = lane.poll()
        else {
            panic!("the core is told first")
        };
        assert_eq!(told, last());
        let tail = Position(tail);
        let question = MatchQuestion { number, leadership: last(), end: tail, chain: Chain(9) };
        lane.handle(Nanos(0), LaneInput::Core(LaneFact::Asks(question)));
        let asks = Some(LaneOutput::Ask(SOURCE, LaneRequest::Match(question)));
        assert_eq!(lane.poll(), asks);
        // No answer: it is asked again.
        lane.handle(Nanos(ASK_AGAIN_NS), LaneInput::Tick);
        assert_eq!(lane.poll(), asks);
        let reply = MatchReply::Agreed { position: tail, chain: Chain(9) };
        let answer = LaneAnswer::Match { number, reply };
        for from in [NodeId(1), SOURCE, SOURCE] {
            lane.handle(Nanos(ASK_AGAIN_NS), LaneInput::Answered { from, answer: answer.clone() });
        }
        let told = LaneOutput::ToCore(ControlToCore::MatchReply { number, reply });
        assert_eq!((lane.poll(), lane.poll()), (Some(told), None), "once, and only of the source");
        (lane, number)
    }

    fn stands(lane: &mut Lane, now: Nanos, number: u64, tail: u64) -> Option<LaneOutput> {
        lane.handle(now, LaneInput::Core(LaneFact::Stands { number, tail: Position(tail) }));
        lane.poll()
    }

    fn bytes(lane: &mut Lane, number: u64, from: u64, count: usize) -> Option<LaneOutput> {
        let (from, bytes) = (Position(from), vec![1; count].into());
        let answer = LaneAnswer::Bytes { number, from, bytes };
        lane.handle(Nanos(ASK_AGAIN_NS), LaneInput::Answered { from: SOURCE, answer });
        lane.poll()
    }

    fn range(number: u64, from: u64, to: u64) -> LaneOutput {
        let request = LaneRequest::Range { number, from: Position(from), to: Position(to) };
        LaneOutput::Ask(SOURCE, request)
    }

    #[test]
    fn takes_piece_after_piece_and_nothing_beyond_the_goal() {
        let (mut lane, number) = pulling(960, 320);
        let now = Nanos(ASK_AGAIN_NS);
        assert_eq!(stands(&mut lane, now, number, 320), Some(range(number, 320, 960)));
        assert_eq!(bytes(&mut lane, number, 320, 0), None, "not durable yet: asked for again");
        assert_eq!(bytes(&mut lane, number, 640, 64), None, "not what was asked for");
        assert_eq!(bytes(&mut lane, number - 1, 320, 64), None, "of another take-over");
        let Some(LaneOutput::Chunk(chunk)) = bytes(&mut lane, number, 320, 9000) else {
            panic!("handed to the core")
        };
        assert_eq!((chunk.from, chunk.bytes.len()), (Position(320), 640));
        assert_eq!(bytes(&mut lane, number, 320, 64), None, "one piece is under way at a time");
        assert_eq!(stands(&mut lane, now, number, 640), Some(range(number, 640, 960)));
        assert_eq!(stands(&mut lane, now, number, 960), Some(LaneOutput::Ended(true)));
        assert_eq!(lane.deadline(), Nanos(u64::MAX));
    }

    #[test]
    fn a_frame_longer_than_a_piece_is_asked_for_in_a_larger_one() {
        let (mut lane, number) = pulling(1 << 24, 0);
        let now = Nanos(ASK_AGAIN_NS);
        assert_eq!(stands(&mut lane, now, number, 0), Some(range(number, 0, LANE_PIECE_BYTES)));
        assert!(bytes(&mut lane, number, 0, LANE_PIECE_BYTES as usize).is_some());
        assert_eq!(stands(&mut lane, now, number, 0), Some(range(number, 0, LANE_PIECE_BYTES_MAX)));
        assert!(bytes(&mut lane, number, 0, LANE_PIECE_BYTES_MAX as usize).is_some());
        assert_eq!(stands(&mut lane, now, number, 0), None, "no segment yet: a little later");
        lane.handle(now.plus(ASK_AGAIN_NS), LaneInput::Tick);
        assert_eq!(lane.poll(), Some(range(number, 0, LANE_PIECE_BYTES_MAX)));
    }

    #[test]
    fn a_source_that_says_nothing_is_given_up_and_so_is_a_log_that_is_longer_already() {
        let (mut lane, number) = pulling(960, 320);
        let at = lane.deadline();
        assert!(at <= Nanos(ASK_AGAIN_NS + STALL_NS));
        lane.handle(at, LaneInput::Tick);
        assert_eq!(lane.poll(), Some(LaneOutput::Ended(false)));
        assert_eq!(stands(&mut lane, at, number, 320), None, "it has ended");
        let (mut lane, number) = pulling(960, 320);
        let ended = stands(&mut lane, Nanos(ASK_AGAIN_NS), number, 992);
        assert_eq!(ended, Some(LaneOutput::Ended(false)));
    }

    #[test]
    fn what_others_ask_goes_to_the_core_and_to_the_disk_within_bounds() {
        let mut lane = Lane::new(1);
        let from = Position(u64::MAX - 5);
        let request = LaneRequest::Range { number: 9, from, to: Position(u64::MAX) };
        lane.handle(Nanos(0), LaneInput::Asked { asker: SOURCE, request });
        assert!(matches!(lane.poll(), Some(LaneOutput::Read { number: 9, .. })));
        let request = LaneRequest::Range { number: 9, from: Position(0), to: Position(u64::MAX) };
        lane.handle(Nanos(0), LaneInput::Asked { asker: SOURCE, request });
        let to = Position(LANE_PIECE_BYTES_MAX);
        let read = LaneOutput::Read { asker: SOURCE, number: 9, from: Position(0), to };
        assert_eq!(lane.poll(), Some(read));
    }
}
