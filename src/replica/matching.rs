//! Where do two logs part? A follower that enters a leadership asks its leader, going down term by term.
//!
//! Two logs that both hold frames of one leadership hold the same frames of it, up to where the shorter stops: so the
//! match point is the lower of the two ends of the latest leadership that both have. The chain at that point confirms it.

use zerocopy::little_endian::{U32, U64};

use crate::frame::Predecessor;
use crate::journal::SegmentMemory;
use crate::journal::hot::HotLog;
use crate::journal::terms::TermSpan;
use crate::link::{MatchQuestion, MatchReply, Purpose};
use crate::stream::datagram::{MatchAnswer, MatchRequest};
use crate::types::{Chain, Generation, Leadership, Position, Term};

/// [`MatchAnswer::agreed`]: ask again, below the leadership in the answer.
pub const ASK_LOWER: u8 = 0;
/// [`MatchAnswer::agreed`]: the logs are equal up to the position.
pub const AGREED: u8 = 1;
/// [`MatchAnswer::agreed`]: the match point is below what the leader holds in memory, from `position` on.
pub const GONE: u8 = 2;

/// The latest frames of this log at or below `limit`: what a request or an answer speaks of.
fn span_below<M: SegmentMemory>(log: &HotLog<M>, limit: Leadership) -> Span {
    match log.latest_at_or_below(limit) {
        Some(TermSpan { leadership, end, .. }) => Span { leadership, end },
        None => Span::NONE,
    }
}

/// Whether this log may have frames at or below `limit` whose leaderships it does not remember; then: from where on it does.
fn forgotten<M: SegmentMemory>(log: &HotLog<M>, limit: Leadership) -> Option<Position> {
    log.forgot_terms_below().filter(|_| log.latest_at_or_below(limit).is_none())
}

#[derive(Clone, Copy)]
struct Span {
    leadership: Leadership,
    end: Position,
}

impl Span {
    /// No frame is so old.
    const NONE: Self = Self {
        leadership: Leadership { generation: Generation { counter: 0, random: 0 }, term: Term(0) },
        end: Position(0),
    };
}

/// A follower's question: its latest frames at or below `limit`.
#[must_use]
pub fn question<M: SegmentMemory>(
    log: &HotLog<M>,
    request: u64,
    limit: Leadership,
) -> MatchRequest {
    let span = span_below(log, limit);
    let chain = log.predecessor_at(span.end).map_or(Chain(0), |at| at.chain);
    MatchRequest {
        request: U64::new(request),
        end: U64::new(span.end.0),
        generation: U64::new(span.leadership.generation.to_u64()),
        term: U32::new(span.leadership.term.0),
        chain: U32::new(chain.0),
    }
}

/// The leader's answer to `question`.
#[must_use]
pub fn answer<M: SegmentMemory>(log: &HotLog<M>, question: &MatchRequest) -> MatchAnswer {
    let asked = leadership(question.generation, question.term);
    if let Some(below) = forgotten(log, asked) {
        // The lane has what is in files; this log is matched with what it remembers.
        return answered(question, Span::NONE, (GONE, log.hot_base().max(below), Chain(0)));
    }
    let span = span_below(log, asked);
    let same = span.leadership == asked;
    let position = if same { span.end.min(Position(question.end.get())) } else { span.end };
    let told = match log.predecessor_at(position) {
        Some(at) => (if same { AGREED } else { ASK_LOWER }, position, at.chain),
        // Not held any more, or no end of a frame here although the term is the same: both mean the hot log cannot tell.
        None => (GONE, log.hot_base(), Chain(0)),
    };
    answered(question, span, told)
}

fn answered(question: &MatchRequest, span: Span, told: (u8, Position, Chain)) -> MatchAnswer {
    let (agreed, position, chain) = told;
    MatchAnswer {
        request: question.request,
        position: U64::new(position.0),
        generation: U64::new(span.leadership.generation.to_u64()),
        term: U32::new(span.leadership.term.0),
        chain: U32::new(chain.0),
        agreed,
        reserved: [0; 7],
    }
}

/// [`question`], as it goes from control to control.
#[must_use]
pub fn lane_question<M: SegmentMemory>(
    log: &HotLog<M>,
    number: u64,
    purpose: Purpose,
    limit: Leadership,
) -> MatchQuestion {
    let Span { leadership, end } = span_below(log, limit);
    let chain = log.predecessor_at(end).map_or(Chain(0), |at| at.chain);
    MatchQuestion { number, purpose, leadership, end, chain }
}

/// The answer to a question that came from control to control.
#[must_use]
pub fn reply<M: SegmentMemory>(log: &HotLog<M>, question: &MatchQuestion) -> MatchReply {
    if let Some(below) = forgotten(log, question.leadership) {
        let &MatchQuestion { leadership, end, .. } = question;
        return MatchReply::Older { leadership, end, below };
    }
    let Span { leadership, end } = span_below(log, question.leadership);
    if leadership != question.leadership {
        return MatchReply::AskBelow(leadership);
    }
    let position = end.min(question.end);
    match log.predecessor_at(position) {
        Some(at) => MatchReply::Agreed { position, chain: at.chain },
        None if position < log.hot_base() => MatchReply::Filed(position),
        None => MatchReply::Unknown,
    }
}

fn leadership(generation: U64, term: U32) -> Leadership {
    Leadership { generation: Generation::from_u64(generation.get()), term: Term(term.get()) }
}

/// What a follower makes of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Ask again, with this limit.
    AskBelow(Leadership),
    /// The logs are equal up to here; cut what lies above.
    Match(Predecessor),
    /// The leader's memory starts here, above the match point.
    Gone(Position),
    /// Same leadership and position, but another chain: one of the two logs is not what it claims.
    Contradiction {
        /// Where.
        position: Position,
        /// This log's chain there.
        own: Chain,
        /// The leader's.
        leaders: Chain,
    },
    /// An answer that fits no question.
    Nonsense,
}

/// Judges the leader's answer against the follower's own log.
#[must_use]
pub fn judge<M: SegmentMemory>(log: &HotLog<M>, answer: &MatchAnswer) -> Verdict {
    let position = Position(answer.position.get());
    let leaders = Chain(answer.chain.get());
    match answer.agreed {
        AGREED => agreed(log, position, leaders),
        ASK_LOWER => match below(log, leadership(answer.generation, answer.term)) {
            Verdict::Nonsense => Verdict::Gone(log.tail().position),
            verdict => verdict,
        },
        GONE => Verdict::Gone(position),
        _ => Verdict::Nonsense,
    }
}

/// Judges what another node's log said against this node's own.
#[must_use]
pub fn judge_reply<M: SegmentMemory>(log: &HotLog<M>, reply: MatchReply) -> Verdict {
    match reply {
        MatchReply::Agreed { position, chain } => agreed(log, position, chain),
        MatchReply::AskBelow(limit) => below(log, limit),
        MatchReply::Filed(_)
        | MatchReply::Older { .. }
        | MatchReply::Gone(_)
        | MatchReply::Unknown => Verdict::Nonsense,
    }
}

/// A node asks for nothing below what it remembers of its own log: nothing is cut there, as if it had nothing so old.
fn below<M: SegmentMemory>(log: &HotLog<M>, limit: Leadership) -> Verdict {
    forgotten(log, limit).map_or(Verdict::AskBelow(limit), |_| Verdict::Nonsense)
}

fn agreed<M: SegmentMemory>(log: &HotLog<M>, position: Position, leaders: Chain) -> Verdict {
    match log.predecessor_at(position) {
        Some(at) if at.chain == leaders => Verdict::Match(at),
        Some(at) => Verdict::Contradiction { position, own: at.chain, leaders },
        None => Verdict::Nonsense,
    }
}
