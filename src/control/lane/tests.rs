//! The machine alone: its core, the other nodes and time are played by hand.

use super::*;
use crate::types::{Chain, Generation, Tail, Term};

const SOURCE: NodeId = NodeId(2);
const MS: u64 = Nanos::MILLISECOND;

fn leadership(term: u32) -> Leadership {
    Leadership { generation: Generation { counter: 1, random: 1 }, term: Term(term) }
}

fn new() -> Lane {
    Lane::new(41, NodeId(0), (0..4).map(NodeId))
}

fn outputs(lane: &mut Lane) -> Vec<LaneOutput> {
    core::iter::from_fn(|| lane.poll()).collect()
}

fn core(lane: &mut Lane, now: Nanos, fact: LaneFact) -> Vec<LaneOutput> {
    lane.handle(now, LaneInput::Core(fact));
    outputs(lane)
}

fn stands(lane: &mut Lane, now: Nanos, number: u64, tail: u64) -> Vec<LaneOutput> {
    let (tail, received) = (Position(tail), Position(tail));
    core(lane, now, LaneFact::Stands { number, tail, received })
}

fn bytes(
    lane: &mut Lane,
    now: Nanos,
    number: u64,
    (at, count, end): (u64, u64, u64),
) -> Vec<LaneOutput> {
    let answer = LaneAnswer::Bytes {
        number,
        from: Position(at),
        end: Position(end),
        committed: Commit(Position(end)),
        bytes: vec![1; count as usize].into(),
    };
    let from = lane.pull.as_ref().map_or(SOURCE, |pull| pull.from);
    lane.handle(now, LaneInput::Answered { from, answer });
    outputs(lane)
}

fn asked(outputs: &[LaneOutput]) -> Vec<(u64, u64)> {
    let range = |output: &LaneOutput| match output {
        LaneOutput::Ask(_, LaneRequest::Range(range)) => Some((range.from.0, range.to.0)),
        _ => None,
    };
    outputs.iter().filter_map(range).collect()
}

fn given(outputs: &[LaneOutput]) -> Vec<(u64, u64)> {
    let chunk = |output: &LaneOutput| match output {
        LaneOutput::Chunk(chunk) => Some((chunk.from.0, chunk.bytes.len() as u64)),
        _ => None,
    };
    outputs.iter().filter_map(chunk).collect()
}

/// Plays the part in which the cores find out where the logs part; the source answers for its log up to `end`.
fn match_up(lane: &mut Lane, now: Nanos, purpose: Purpose, tail: u64, end: u64) -> (u64, NodeId) {
    let orders = outputs(lane);
    let Some(LaneOutput::ToCore(ControlToCore::TakeOver { number, purpose: told, .. })) =
        orders.first()
    else {
        panic!("the core is told first: {orders:?}")
    };
    let number = *number;
    assert_eq!(*told, purpose);
    let (leadership, position) = (leadership(2), Position(tail));
    let question = MatchQuestion { number, purpose, leadership, end: position, chain: Chain(9) };
    let asks = core(lane, now, LaneFact::Asks(question));
    let [LaneOutput::Ask(source, request)] = asks[..] else { panic!("{asks:?}") };
    assert_eq!(request, LaneRequest::Match(question));
    let reply = MatchReply::Agreed { position, chain: Chain(9) };
    let answer = MatchAnswer { number, reply, end: Position(end) };
    for from in [NodeId(99), source, source] {
        lane.handle(now, LaneInput::Answered { from, answer: LaneAnswer::Match(answer) });
    }
    let end = Position(end);
    let told = LaneOutput::ToCore(ControlToCore::MatchReply { number, reply, end });
    assert_eq!(outputs(lane), [told], "once, and only of the source");
    (number, source)
}

fn syncing(goal: u64, tail: u64) -> (Lane, u64) {
    let mut lane = new();
    let recency = Recency { last: leadership(3), tail: Tail(Position(goal)) };
    lane.handle(Nanos(0), LaneInput::Pull { from: SOURCE, recency });
    let (number, source) = match_up(&mut lane, Nanos(0), Purpose::LeaderSync, tail, goal + 9999);
    assert_eq!(source, SOURCE);
    (lane, number)
}

fn behind(lane: &mut Lane, now: Nanos, lowest: u64) {
    let (leadership, leader) = (leadership(3), NodeId(1));
    let (lowest, tail) = (Position(lowest), Position(0));
    lane.handle(now, LaneInput::Core(LaneFact::Behind { leadership, leader, lowest, tail }));
}

const CATCH_UP: fn() -> Purpose = || Purpose::CatchUp(leadership(3));
const PIECE: u64 = LANE_PIECE_BYTES;

#[test]
fn a_leader_sync_takes_piece_after_piece_and_nothing_beyond_the_goal() {
    let goal = 10 * PIECE + 960;
    let (mut lane, number) = syncing(goal, 320);
    let now = Nanos(MS);
    let first: Vec<_> = (0..8).map(|n| (320 + n * PIECE, 320 + (n + 1) * PIECE)).collect();
    assert_eq!(asked(&stands(&mut lane, now, number, 320)), first, "a few pieces ahead");
    assert_eq!(bytes(&mut lane, now, number - 1, (320, 64, 0)), [], "of another take-over");
    let mut tail = 320;
    while tail < goal {
        let count = PIECE.min(goal - tail);
        let told = bytes(&mut lane, now, number, (tail, PIECE, goal + 9999));
        assert_eq!(given(&told), [(tail, count)]);
        tail += count;
        let told = stands(&mut lane, now, number, tail);
        assert!(asked(&told).iter().all(|(_, to)| *to <= goal));
        if tail == goal {
            assert_eq!(told, [LaneOutput::Ended(true)]);
        }
    }
    assert_eq!(lane.deadline(), Nanos(u64::MAX));
}

#[test]
fn pieces_wait_for_the_core_in_order_and_never_more_than_were_asked_for() {
    let (mut lane, number) = syncing(100 * PIECE, 0);
    let now = Nanos(MS);
    stands(&mut lane, now, number, 0);
    let depth = LANE_MAILBOX_DEPTH as u64;
    for n in 0..20 {
        let told = given(&bytes(&mut lane, now, number, (n * PIECE, PIECE, 0)));
        assert_eq!(told, if n < depth { vec![(n * PIECE, PIECE)] } else { vec![] });
    }
    let Some(Pull { step: Step::Taking(taking), .. }) = &lane.pull else { panic!("it takes") };
    assert!(taking.waiting.len() <= LANE_PIECES_MAX, "{}", taking.waiting.len());
    assert_eq!(given(&stands(&mut lane, now, number, PIECE)), [(depth * PIECE, PIECE)]);
    // No room: when it has spoken of all, the same bytes again, when there may be some.
    let part = LaneFact::Stands { number, tail: Position(PIECE), received: Position(PIECE + 64) };
    for _ in 0..depth {
        lane.handle(now.plus(ROOM_AGAIN_NS), LaneInput::Tick);
        assert_eq!(given(&outputs(&mut lane)), []);
        assert_eq!(given(&core(&mut lane, now, part)), []);
    }
    lane.handle(now.plus(ROOM_AGAIN_NS), LaneInput::Tick);
    let again: Vec<_> = (1..=depth).map(|n| (n * PIECE, PIECE)).collect();
    assert_eq!(given(&outputs(&mut lane)), again);
}

#[test]
fn what_is_not_there_or_lost_is_asked_for_again_from_where_it_is_missing() {
    let (mut lane, number) = syncing(100 * PIECE, 0);
    let now = Nanos(MS);
    stands(&mut lane, now, number, 0);
    // Half a piece is durable: the rest in a while, and what was asked behind it does not count.
    let told = bytes(&mut lane, now, number, (0, PIECE / 2, 0));
    assert_eq!((given(&told), asked(&told)), (vec![(0, PIECE / 2)], vec![]));
    assert_eq!(bytes(&mut lane, now, number, (PIECE, PIECE, 0)), []);
    let later = now.plus(ASK_AGAIN_NS);
    lane.handle(later, LaneInput::Tick);
    assert_eq!(asked(&outputs(&mut lane))[0], (PIECE / 2, PIECE / 2 + PIECE));
    // The connection breaks.
    lane.handle(later, LaneInput::Broken(NodeId(3)));
    lane.handle(later, LaneInput::Broken(SOURCE));
    assert_eq!(outputs(&mut lane), []);
    let later = later.plus(ASK_AGAIN_NS);
    lane.handle(later, LaneInput::Tick);
    assert_eq!(asked(&outputs(&mut lane))[0].0, PIECE / 2);
    // Nothing comes: for a leader sync that is not long.
    lane.handle(later.plus(SYNC_PATIENCE.silence_ns), LaneInput::Tick);
    assert_eq!(asked(&outputs(&mut lane))[0].0, PIECE / 2);
    lane.handle(later.plus(SYNC_PATIENCE.stall_ns), LaneInput::Tick);
    assert_eq!(outputs(&mut lane), [LaneOutput::Ended(false)]);
}

#[test]
fn d16_who_is_behind_takes_what_is_committed_of_a_follower_and_goes_back_to_the_leader() {
    let mut lane = new();
    let now = Nanos(MS);
    behind(&mut lane, now, 3 * PIECE);
    let (number, source) = match_up(&mut lane, now, CATCH_UP(), 0, 2 * PIECE);
    assert_eq!(source, NodeId(2), "not the leader, node 1");
    assert_eq!(asked(&stands(&mut lane, now, number, 0)).len(), 2, "so much it has");
    let told = bytes(&mut lane, now, number, (0, PIECE, 4 * PIECE));
    assert!(matches!(told[0], LaneOutput::Event(Event::CatchUpStarted { .. })), "{told:?}");
    assert_eq!(asked(&told).len(), 2, "it has more by now");
    for n in 1..4 {
        bytes(&mut lane, now, number, (n * PIECE, PIECE, 4 * PIECE));
        stands(&mut lane, now, number, n * PIECE);
    }
    let progress = lane.progress(now.plus(1000 * MS)).unwrap();
    assert_eq!((progress.position.0, progress.goal.0), (3 * PIECE, 4 * PIECE));
    assert_eq!(progress.bytes_per_second, 3 * PIECE);
    let told = stands(&mut lane, now, number, 4 * PIECE);
    assert!(matches!(told[0], LaneOutput::Event(Event::CaughtUp { .. })), "{told:?}");
    assert_eq!(told[1..], [LaneOutput::ToCore(ControlToCore::Rejoin { number })]);
    assert!(!lane.is_behind() && lane.deadline() == Nanos(u64::MAX));
}

#[test]
fn a4_a_source_that_has_no_more_or_is_silent_or_does_not_fit_is_left_for_the_next() {
    let mut lane = new();
    let mut now = Nanos(MS);
    behind(&mut lane, now, 3 * PIECE);
    let mut seen = Vec::new();
    for why in [CatchUpFailure::NothingMore, CatchUpFailure::Silent, CatchUpFailure::Refused] {
        let end = if why == CatchUpFailure::NothingMore { 0 } else { 9 * PIECE };
        let (number, source) = match_up(&mut lane, now, CATCH_UP(), 0, end);
        seen.push(source.0);
        let told = match why {
            CatchUpFailure::Refused => {
                core(&mut lane, now, LaneFact::Refuses { number, why: LaneRefusal::Log })
            }
            CatchUpFailure::NothingMore => stands(&mut lane, now, number, 0),
            CatchUpFailure::Silent => {
                stands(&mut lane, now, number, 0);
                now = now.plus(CATCH_UP_PATIENCE.stall_ns);
                lane.handle(now, LaneInput::Tick);
                outputs(&mut lane)
            }
            CatchUpFailure::Gone | CatchUpFailure::Damaged | CatchUpFailure::OtherGeneration => {
                unreachable!("not in the list")
            }
        };
        let failed = LaneOutput::Event(Event::CatchUpFailed { from: source, why });
        assert!(told.contains(&failed), "{told:?}");
        now = now.max(lane.deadline());
        lane.handle(now, LaneInput::Tick);
    }
    assert_eq!(seen, [2, 3, 1], "the leader last");
}

/// A leader sync from a node whose log begins at 5000.
fn syncing_from_a_short_log() -> (Lane, u64) {
    let mut lane = new();
    let recency = Recency { last: leadership(2), tail: Tail(Position(9000)) };
    lane.handle(Nanos(0), LaneInput::Pull { from: SOURCE, recency });
    let number = lane.number;
    outputs(&mut lane);
    let (leadership, end) = (leadership(2), Position(100));
    let purpose = Purpose::LeaderSync;
    let question = MatchQuestion { number, purpose, leadership, end, chain: Chain(9) };
    core(&mut lane, Nanos(0), LaneFact::Asks(question));
    let reply = MatchReply::Gone(Position(5000));
    let answer = LaneAnswer::Match(MatchAnswer { number, reply, end: Position(9000) });
    lane.handle(Nanos(0), LaneInput::Answered { from: SOURCE, answer });
    assert_eq!(outputs(&mut lane), [LaneOutput::Resume(number + 1)]);
    (lane, number + 1)
}

fn fetched(lane: &mut Lane, now: Nanos, number: u64, what: Fetched) -> Vec<LaneOutput> {
    lane.handle(now, LaneInput::Fetched { number, what });
    outputs(lane)
}

fn asked_at_most(outputs: &[LaneOutput]) -> Option<Position> {
    outputs.iter().find_map(|output| match output {
        LaneOutput::Ask(SOURCE, LaneRequest::Snapshot(request)) => Some(request.at_most),
        _ => None,
    })
}

const NOTHING: Fetched = Fetched::Part { position: Position(0), total: 0, end: 0 };

#[test]
fn a_leader_sync_takes_a_snapshot_where_the_log_has_left() {
    let (mut lane, number) = syncing_from_a_short_log();
    let asks = fetched(&mut lane, Nanos(0), number, NOTHING);
    assert_eq!(asked_at_most(&asks), Some(Position(u64::MAX)));
    assert_eq!(lane.progress(Nanos(MS)), None, "of what is not known yet");
    let part = Fetched::Part { position: Position(6000), total: 300, end: 200 };
    fetched(&mut lane, Nanos(MS), number, part);
    assert!(lane.progress(Nanos(2 * MS)).is_some_and(|progress| progress.leader_sync));
    let whole = fetched(&mut lane, Nanos(2 * MS), number, Fetched::Whole(Position(6000)));
    assert!(whole.contains(&LaneOutput::Install(Position(6000))), "{whole:?}");
    // The node's own log goes further all the same: it looks again.
    lane.handle(Nanos(3 * MS), LaneInput::NotInstalled);
    let told = outputs(&mut lane);
    assert!(told.contains(&LaneOutput::Ended(false)));
    assert_eq!(told[0], LaneOutput::Discard, "a newer one may come next time");
}

#[test]
fn a_snapshot_that_leaves_its_source_half_way_is_thrown_away_and_the_newest_is_asked_for() {
    let (mut lane, number) = syncing_from_a_short_log();
    let part = Fetched::Part { position: Position(6000), total: 9 * PIECE, end: 200 };
    let asks = fetched(&mut lane, Nanos(0), number, part);
    assert_eq!(asked_at_most(&asks), Some(Position(6000)), "that one");
    let told = fetched(&mut lane, Nanos(MS), number, Fetched::Nothing);
    assert_eq!(told, [LaneOutput::Discard, LaneOutput::Resume(number + 1)]);
    assert_eq!(fetched(&mut lane, Nanos(MS), number, Fetched::Nothing), [], "about the old one");
    let asks = fetched(&mut lane.clone(), Nanos(MS), number + 1, NOTHING);
    assert_eq!(asked_at_most(&asks), Some(Position(u64::MAX)), "the newest");
    // Once: also if it could not be thrown away.
    for here in [NOTHING, part] {
        let mut lane = lane.clone();
        fetched(&mut lane, Nanos(MS), number + 1, here);
        let told = fetched(&mut lane, Nanos(2 * MS), number + 1, Fetched::Nothing);
        assert!(told.contains(&LaneOutput::Ended(false)), "{told:?}");
    }
}

#[test]
fn what_is_here_from_before_and_does_not_fit_is_thrown_away_and_not_held_against_the_source() {
    let part = |position| Fetched::Part { position, total: 300, end: 200 };
    let (below, above) = (Position(4999), Position(7000));
    for here in [part(below), Fetched::Whole(below), part(above), Fetched::Whole(above)] {
        let (mut lane, number) = syncing_from_a_short_log();
        let Some(Pull { step: Step::Fetching(fetch), .. }) = &mut lane.pull else { panic!() };
        fetch.lower(Position(6999));
        let told = fetched(&mut lane, Nanos(0), number, here);
        assert_eq!(told[0], LaneOutput::Discard, "{here:?}");
        assert_eq!(asked_at_most(&told), Some(Position(6999)), "{here:?}");
        assert_eq!(lane.gone.of(SOURCE).map(gone::Ceiling::at_most), Some(Position(u64::MAX)));
    }
    // What the source itself sent is.
    let (mut lane, number) = syncing_from_a_short_log();
    fetched(&mut lane, Nanos(0), number, NOTHING);
    let told = fetched(&mut lane, Nanos(MS), number, Fetched::Whole(below));
    assert!(told.starts_with(&[LaneOutput::Discard]), "{told:?}");
    assert_eq!(lane.gone.of(SOURCE).map(gone::Ceiling::at_most), Some(Position(4998)));
}

#[test]
fn a_leader_sync_that_gets_no_snapshot_ends_by_name_and_asks_for_an_older_one_next() {
    let failed = |why| LaneOutput::Event(Event::CatchUpFailed { from: SOURCE, why });
    for (what, why) in [
        (Fetched::Nothing, CatchUpFailure::NothingMore),
        (Fetched::Damaged(Position(6000)), CatchUpFailure::Damaged),
    ] {
        let (mut lane, number) = syncing_from_a_short_log();
        fetched(&mut lane, Nanos(0), number, NOTHING);
        let ended = fetched(&mut lane, Nanos(MS), number, what);
        let damaged = why == CatchUpFailure::Damaged;
        assert_eq!(ended[usize::from(damaged)..], [failed(why), LaneOutput::Ended(false)]);
        assert_eq!(lane.deadline(), Nanos(u64::MAX), "nothing is left of it");
        let at_most = lane.gone.of(SOURCE).map(gone::Ceiling::at_most);
        assert_eq!(at_most, damaged.then_some(Position(5999)));
    }
    // One that is silent is given up, too.
    let (mut lane, number) = syncing_from_a_short_log();
    fetched(&mut lane, Nanos(0), number, NOTHING);
    lane.handle(Nanos(CATCH_UP_PATIENCE.stall_ns), LaneInput::Tick);
    let ended = [failed(CatchUpFailure::Silent), LaneOutput::Ended(false)];
    assert_eq!(outputs(&mut lane), ended);
}

/// Whoever is asked says that the log has left, to a node whose own ends with `own`; what came of it in the end.
fn all_gone(own: Leadership, end: u64) -> Vec<LaneOutput> {
    let mut lane = new();
    let mut now = Nanos(MS);
    behind(&mut lane, now, 3 * PIECE);
    let mut told = Vec::new();
    for _ in 0..4 {
        let number = lane.number;
        told.extend(outputs(&mut lane));
        if told.contains(&LaneOutput::Resume(number)) {
            break; // the core has no part in it
        }
        let end = Position(end);
        let question = |leadership| MatchQuestion {
            number,
            purpose: CATCH_UP(),
            leadership,
            end,
            chain: Chain(9),
        };
        core(&mut lane, now, LaneFact::Asks(question(own)));
        core(&mut lane, now, LaneFact::Asks(question(Leadership::default())));
        let Some(from) = lane.pull.as_ref().map(|pull| pull.from) else { break };
        let reply = MatchReply::Gone(Position(5000));
        let answer = LaneAnswer::Match(MatchAnswer { number, reply, end: Position(9000) });
        lane.handle(now, LaneInput::Answered { from, answer });
        told.extend(outputs(&mut lane));
        now = now.max(lane.deadline());
        lane.handle(now, LaneInput::Tick);
    }
    told
}

#[test]
fn no_snapshot_takes_the_place_of_a_log_of_another_generation() {
    let older = Leadership { generation: Generation { counter: 0, random: 5 }, term: Term(3) };
    let resumed = |told: &[LaneOutput]| told.iter().any(|o| matches!(o, LaneOutput::Resume(_)));
    let why = CatchUpFailure::OtherGeneration;
    let named = |told: &[LaneOutput]| {
        let of = |o: &LaneOutput| matches!(o, LaneOutput::Event(Event::CatchUpFailed { why: said, .. }) if *said == why);
        told.iter().filter(|o| of(o)).count()
    };
    let told = all_gone(older, 100);
    assert!(!resumed(&told) && named(&told) == 3, "once of each: {told:?}");
    // Of this generation, or empty.
    for (own, end) in [(leadership(2), 100), (older, 0)] {
        let told = all_gone(own, end);
        assert!(resumed(&told) && named(&told) == 0, "{told:?}");
    }
    // The same before it leads itself.
    let mut lane = new();
    let recency = Recency { last: leadership(2), tail: Tail(Position(9000)) };
    lane.handle(Nanos(0), LaneInput::Pull { from: SOURCE, recency });
    let (number, purpose, end) = (lane.number, Purpose::LeaderSync, Position(100));
    let question = MatchQuestion { number, purpose, leadership: older, end, chain: Chain(9) };
    core(&mut lane, Nanos(0), LaneFact::Asks(question));
    outputs(&mut lane);
    let reply = MatchReply::Gone(Position(5000));
    let answer = LaneAnswer::Match(MatchAnswer { number, reply, end: Position(9000) });
    lane.handle(Nanos(0), LaneInput::Answered { from: SOURCE, answer });
    let failed = LaneOutput::Event(Event::CatchUpFailed { from: SOURCE, why });
    assert_eq!(outputs(&mut lane), [failed, LaneOutput::Ended(false)]);
}

#[test]
fn d7_a_newer_fence_ends_the_snapshot_of_a_leader_sync() {
    let (mut lane, number) = syncing_from_a_short_log();
    fetched(&mut lane, Nanos(0), number, NOTHING);
    lane.handle(Nanos(MS), LaneInput::Fenced(leadership(3)));
    assert_eq!(outputs(&mut lane), [LaneOutput::Ended(false)]);
    assert_eq!(fetched(&mut lane, Nanos(MS), number, Fetched::Whole(Position(6000))), []);
}

#[test]
fn d7_a_newer_fence_voids_a_catch_up_and_not_a_leader_sync() {
    let mut lane = new();
    let now = Nanos(MS);
    behind(&mut lane, now, 3 * PIECE);
    let (number, _) = match_up(&mut lane, now, CATCH_UP(), 0, 9 * PIECE);
    lane.handle(now, LaneInput::Fenced(leadership(3)));
    assert!(lane.is_behind(), "of the leadership itself");
    lane.handle(now, LaneInput::Fenced(leadership(4)));
    assert!(!lane.is_behind() && outputs(&mut lane).is_empty());
    assert_eq!(stands(&mut lane, now, number, 0), []);
    // The core says that it is about something else: nothing is told of that.
    behind(&mut lane, now, 3 * PIECE);
    let (number, _) = match_up(&mut lane, now, CATCH_UP(), 0, 9 * PIECE);
    let void = LaneFact::Refuses { number, why: LaneRefusal::Void };
    assert_eq!(core(&mut lane, now, void), []);
    assert!(!lane.is_behind());
    let (mut lane, number) = syncing(9 * PIECE, 0);
    lane.handle(now, LaneInput::Fenced(leadership(4)));
    assert!(!asked(&stands(&mut lane, now, number, 0)).is_empty());
    let refused = LaneFact::Refuses { number, why: LaneRefusal::Log };
    assert_eq!(core(&mut lane, now, refused), [LaneOutput::Ended(false)]);
}

#[test]
fn a_source_answers_for_what_is_committed_and_its_leader_for_all() {
    let source = Source {
        leads: Some(leadership(3)),
        committed: Commit(Position(1000)),
        durable: Position(5000),
    };
    let follower = Source { leads: None, ..source };
    let range = |purpose, from| RangeRequest {
        number: 1,
        purpose,
        from: Position(from),
        to: Position(u64::MAX),
    };
    let served = |source: &Source, purpose, from| {
        let (to, end) = source.serves(&range(purpose, from));
        (to.0, end.0)
    };
    assert_eq!(served(&follower, CATCH_UP(), 64), (1000, 1000));
    assert_eq!(served(&source, CATCH_UP(), 64), (5000, 5000), "as its stream would");
    assert_eq!(served(&source, Purpose::CatchUp(leadership(2)), 64), (1000, 1000));
    assert_eq!(served(&follower, Purpose::LeaderSync, 64), (5000, 5000));
    assert_eq!(served(&follower, CATCH_UP(), 4096), (4096, 1000), "nothing");
    let slow = Source { durable: Position(700), ..follower };
    assert_eq!(served(&slow, CATCH_UP(), 64), (700, 1000), "what is on its disk");
    let long = Source { durable: Position(9 * PIECE), ..source };
    assert_eq!(served(&long, Purpose::LeaderSync, 64).0, 64 + PIECE);
    assert_eq!(served(&long, Purpose::LeaderSync, u64::MAX), (u64::MAX, 9 * PIECE));
}
