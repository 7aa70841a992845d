use super::super::*;
use super::SILENT_TRIES;
use crate::link::{RepairReport, SnapshotPiece, SnapshotTaken};

const SEGMENT: u64 = 65_536;
const BASE: Position = Position(SEGMENT);
const REACH: Position = Position(10 * SEGMENT);
const SNAPSHOT: Position = Position(7 * SEGMENT);

/// A machine that was told of a damaged file, and asks for what it lacks.
fn asking() -> Repairs {
    let mut repairs = Repairs::new(100, NodeId(1), (0..3).map(NodeId), SEGMENT);
    repairs.handle(Nanos(0), RepairReport::Reach(REACH));
    repairs.handle(Nanos(1), RepairReport::Damaged(BASE));
    needs(&mut repairs, 2);
    repairs
}

fn needs(repairs: &mut Repairs, now: u64) {
    let (from, to) = (Position(SEGMENT + 64), Position(SEGMENT + 128));
    repairs.handle(Nanos(now), RepairReport::Needs { base: BASE, from, to });
}

fn outputs(repairs: &mut Repairs) -> Vec<RepairOutput> {
    core::iter::from_fn(|| repairs.poll()).collect()
}

/// The last question.
fn asked(repairs: &mut Repairs) -> (NodeId, LaneRequest) {
    let asks = outputs(repairs).into_iter().filter_map(|output| match output {
        RepairOutput::Ask(node, request) => Some((node, request)),
        _ => None,
    });
    asks.last().expect("a question")
}

fn told(repairs: &mut Repairs, now: u64, from: NodeId, answer: LaneAnswer) {
    repairs.lane(Nanos(now), &LaneInput::Answered { from, answer });
}

/// The node that is asked has let it go.
fn gone(repairs: &mut Repairs, now: u64) {
    let (node, LaneRequest::Range(range)) = asked(repairs) else { panic!("bytes are asked for") };
    let first = Position(5 * SEGMENT);
    told(repairs, now, node, LaneAnswer::Gone { number: range.number, first });
}

/// Everybody has let it go.
fn all_gone(repairs: &mut Repairs) {
    gone(repairs, 3);
    gone(repairs, 4);
}

fn piece(repairs: &mut Repairs, now: u64, position: Position, bytes: usize) -> NodeId {
    let (node, LaneRequest::Snapshot(request)) = asked(repairs) else { panic!("a snapshot") };
    assert!(repairs.has_asked(request.number) && !repairs.has_asked(request.number + 1));
    let bytes = vec![7; bytes];
    let piece = SnapshotPiece { position, total: 1000, from: request.from, bytes };
    told(repairs, now, node, LaneAnswer::Part { number: request.number, piece });
    node
}

fn orders(said: &[RepairOutput]) -> Vec<&RepairOrder> {
    let orders = said.iter().filter_map(|output| match output {
        RepairOutput::Order(order) => Some(order),
        _ => None,
    });
    orders.collect()
}

fn gives_up(repairs: &mut Repairs, why: &NotRepaired) {
    let said = outputs(repairs);
    assert_eq!(orders(&said), [&RepairOrder::Leave]);
    let told = said.iter().any(|output| {
        matches!(output, RepairOutput::Event(RepairEvent::NotRepaired { why: told, .. }) if told == why)
    });
    assert!(told, "{said:?}");
}

#[test]
fn d17_what_all_have_let_go_is_covered_by_an_own_snapshot_or_by_one_that_a_node_gives() {
    let mut repairs = asking();
    all_gone(&mut repairs);
    let said = outputs(&mut repairs);
    assert_eq!(orders(&said), [&RepairOrder::Cover(BASE)], "an own one first");
    repairs.handle(Nanos(5), RepairReport::Uncovered(BASE));
    let node = piece(&mut repairs, 6, SNAPSHOT, 600);
    assert_eq!(node, NodeId(2));
    let said = outputs(&mut repairs);
    assert!(
        matches!(orders(&said)[..], [RepairOrder::Piece { node: NodeId(2), piece, .. }] if piece.bytes.len() == 600),
        "{said:?}"
    );
    let what = SnapshotTaken::Part { position: SNAPSHOT, total: 1000, end: 600 };
    repairs.handle(Nanos(7), RepairReport::Took { base: BASE, node, what });
    assert_eq!(piece(&mut repairs, 8, SNAPSHOT, 400), node, "the same node goes on");
    let _ = outputs(&mut repairs);
    let what = SnapshotTaken::Whole(SNAPSHOT);
    repairs.handle(Nanos(9), RepairReport::Took { base: BASE, node, what });
    assert_eq!(orders(&outputs(&mut repairs)), [&RepairOrder::Cover(BASE)]);
    let next = Position(2 * SEGMENT);
    repairs.handle(Nanos(9), RepairReport::Damaged(next));
    let report = RepairReport::Covered { base: BASE, through: next, by: SNAPSHOT, segments: 3 };
    repairs.handle(Nanos(10), report);
    let [RepairOutput::Event(event)] = &outputs(&mut repairs)[..] else { panic!("it is told") };
    assert_eq!(event.code(), 1176);
    assert!(event.to_string().contains("taken from node 2"), "{event}");
    assert_eq!(repairs.damaged_segments().count(), 0, "what left with it is no case any more");
    assert_eq!(repairs.deadline(), Nanos(u64::MAX));
}

#[test]
fn a_node_that_may_have_it_is_waited_for_and_not_for_ever() {
    let mut repairs = asking();
    let mut now = 3;
    for attempt in 0..=SILENT_TRIES {
        gone(&mut repairs, now);
        let (node, _) = asked(&mut repairs);
        repairs.lane(Nanos(now + 1), &LaneInput::Broken(node));
        if attempt == SILENT_TRIES {
            break;
        }
        let said = outputs(&mut repairs);
        assert_eq!(orders(&said), [&RepairOrder::Leave], "attempt {attempt}");
        now = repairs.deadline().0;
        repairs.tick(Nanos(now));
        needs(&mut repairs, now);
    }
    assert_eq!(orders(&outputs(&mut repairs)), [&RepairOrder::Cover(BASE)]);
    // Nobody has said that it has left: nobody's snapshot is taken for it, however long that lasts.
    let mut repairs = asking();
    for _ in 0..10 {
        for _ in 0..2 {
            let (node, _) = asked(&mut repairs);
            repairs.lane(Nanos(now), &LaneInput::Broken(node));
        }
        assert_eq!(orders(&outputs(&mut repairs)), [&RepairOrder::Leave]);
        now = repairs.deadline().0;
        repairs.tick(Nanos(now));
        needs(&mut repairs, now);
    }
}

#[test]
fn snapshots_that_do_not_cover_it_or_do_not_fit_are_refused_one_node_after_the_other() {
    type Fails = fn(&mut Repairs);
    let cases: [Fails; 6] = [
        |repairs| _ = piece(repairs, 6, Position(0), 0),
        |repairs| _ = piece(repairs, 6, Position(2 * SEGMENT), 600),
        |repairs| _ = piece(repairs, 6, REACH.plus(32), 600),
        |repairs| _ = piece(repairs, 6, SNAPSHOT, 0),
        |repairs| {
            let node = piece(repairs, 6, SNAPSHOT, 600);
            let what = SnapshotTaken::Damaged(SNAPSHOT);
            repairs.handle(Nanos(7), RepairReport::Took { base: BASE, node, what });
        },
        |repairs| {
            let node = piece(repairs, 6, SNAPSHOT, 600);
            let what = SnapshotTaken::Part { position: SNAPSHOT, total: 1000, end: 600 };
            repairs.handle(Nanos(7), RepairReport::Took { base: BASE, node, what });
            // It has another one now.
            piece(repairs, 8, Position(SNAPSHOT.0 + 64), 300);
        },
    ];
    for fails in cases {
        let mut repairs = asking();
        all_gone(&mut repairs);
        let _ = outputs(&mut repairs);
        repairs.handle(Nanos(5), RepairReport::Uncovered(BASE));
        fails(&mut repairs);
        let (node, LaneRequest::Snapshot(request)) = asked(&mut repairs) else { panic!("next") };
        assert_eq!((node, request.at_most, request.from), (NodeId(0), REACH, 0));
        repairs.lane(Nanos(9), &LaneInput::Broken(node));
        gives_up(&mut repairs, &NotRepaired::NoSnapshot);
        assert_eq!(repairs.deadline(), Nanos(9 + AGAIN_NS));
    }
}

#[test]
fn a_snapshot_that_was_taken_and_covers_nothing_is_not_taken_for_ever() {
    let mut repairs = asking();
    all_gone(&mut repairs);
    let _ = outputs(&mut repairs);
    repairs.handle(Nanos(5), RepairReport::Uncovered(BASE));
    let node = piece(&mut repairs, 6, SNAPSHOT, 600);
    let _ = outputs(&mut repairs);
    let what = SnapshotTaken::Whole(SNAPSHOT);
    repairs.handle(Nanos(7), RepairReport::Took { base: BASE, node, what });
    let _ = outputs(&mut repairs);
    repairs.handle(Nanos(8), RepairReport::Uncovered(BASE));
    gives_up(&mut repairs, &NotRepaired::NoSnapshot);
}

#[test]
fn a_first_file_whose_page_is_damaged_needs_no_bytes_but_cover() {
    let mut repairs = asking();
    let _ = outputs(&mut repairs);
    repairs.handle(Nanos(3), RepairReport::Unjoined(BASE));
    assert_eq!(orders(&outputs(&mut repairs)), [&RepairOrder::Cover(BASE)]);
    repairs.handle(Nanos(4), RepairReport::Uncovered(BASE));
    assert!(matches!(asked(&mut repairs), (NodeId(2), LaneRequest::Snapshot(_))));
}

#[test]
fn a_node_that_does_not_run_takes_none_above_what_is_certain() {
    let mut repairs = Repairs::new(100, NodeId(1), (0..3).map(NodeId), SEGMENT);
    repairs.not_running(SNAPSHOT);
    repairs.handle(Nanos(1), RepairReport::Damaged(BASE));
    needs(&mut repairs, 2);
    all_gone(&mut repairs);
    let _ = outputs(&mut repairs);
    repairs.handle(Nanos(5), RepairReport::Uncovered(BASE));
    let (_, LaneRequest::Snapshot(request)) = asked(&mut repairs) else { panic!("a snapshot") };
    assert_eq!(request.at_most, SNAPSHOT);
}
