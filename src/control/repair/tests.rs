use super::*;
use crate::types::Commit;

const SEGMENT: u64 = 65_536;
const BASE: Position = Position(SEGMENT);

fn machine() -> Repairs {
    let mut repairs = Repairs::new(100, NodeId(1), (0..3).map(NodeId), SEGMENT);
    repairs.handle(Nanos(0), RepairReport::Reach(Position(10 * SEGMENT)));
    repairs
}

fn outputs(repairs: &mut Repairs) -> Vec<RepairOutput> {
    core::iter::from_fn(|| repairs.poll()).collect()
}

/// Whom it asks, and with which number.
fn asked(repairs: &mut Repairs) -> Option<(NodeId, u64)> {
    outputs(repairs).into_iter().find_map(|output| match output {
        RepairOutput::Ask(node, LaneRequest::Range(range)) => {
            assert_eq!(range.purpose, Purpose::Repair);
            Some((node, range.number))
        }
        _ => None,
    })
}

fn needs(repairs: &mut Repairs, now: u64) {
    let (from, to) = (Position(SEGMENT + 64), Position(SEGMENT + 128));
    repairs.handle(Nanos(now), RepairReport::Needs { base: BASE, from, to });
}

fn answer(number: u64, from: u64, bytes: &[u8]) -> LaneAnswer {
    let (end, committed) = (Position(0), Commit(Position(0)));
    LaneAnswer::Bytes { number, from: Position(from), end, committed, bytes: bytes.into() }
}

fn told(repairs: &mut Repairs, now: u64, node: NodeId, answer: LaneAnswer) {
    repairs.lane(Nanos(now), &LaneInput::Answered { from: node, answer });
}

#[test]
fn a_file_is_read_its_gaps_are_asked_for_and_it_is_swapped_when_all_fits() {
    let mut repairs = machine();
    repairs.handle(Nanos(1), RepairReport::Damaged(BASE));
    assert_eq!(outputs(&mut repairs), [RepairOutput::Order(RepairOrder::Examine(BASE))]);
    needs(&mut repairs, 2);
    let (node, number) = asked(&mut repairs).unwrap();
    assert_eq!(node, NodeId(2), "the one behind it on the list");
    told(&mut repairs, 3, node, answer(number, SEGMENT + 64, &[7; 64]));
    let patch = outputs(&mut repairs);
    assert!(
        matches!(&patch[..], [RepairOutput::Order(RepairOrder::Patch { node: NodeId(2), bytes, .. })] if bytes.len() == 64)
    );
    repairs.handle(Nanos(4), RepairReport::Whole(BASE));
    assert_eq!(outputs(&mut repairs), [RepairOutput::Order(RepairOrder::Swap(BASE))]);
    let kept_at = Some("quarantine/x".to_owned());
    repairs.handle(Nanos(5), RepairReport::Swapped { base: BASE, bytes: 64, kept_at });
    let [RepairOutput::Event(event)] = &outputs(&mut repairs)[..] else { panic!("said") };
    assert_eq!(event.code(), 1171);
    assert!(
        event.to_string().contains("64 bytes of node 2; the damaged file is kept in quarantine/x")
    );
    assert_eq!((repairs.counts(), repairs.damaged_segments().count()), ((1, 64), 0));
    assert_eq!(repairs.deadline(), Nanos(u64::MAX));
}

/// The file behind the one that is repaired began damaged, too: both were repaired as one.
#[test]
fn files_that_were_repaired_with_another_one_are_told_and_left_alone() {
    let next = BASE.plus(SEGMENT);
    let mut repairs = machine();
    repairs.handle(Nanos(1), RepairReport::Damaged(BASE));
    repairs.handle(Nanos(1), RepairReport::Damaged(next));
    repairs.handle(Nanos(1), RepairReport::Whole(BASE));
    outputs(&mut repairs);
    for base in [next, BASE] {
        let swapped = RepairReport::Swapped { base, bytes: 64, kept_at: None };
        repairs.handle(Nanos(5), swapped);
        let said = outputs(&mut repairs);
        assert!(
            matches!(said[..], [RepairOutput::Event(RepairEvent::Repaired { base: told, .. })] if told == base),
            "{said:?}"
        );
    }
    assert_eq!((repairs.counts().0, repairs.damaged_segments().count()), (2, 0));
    assert_eq!(repairs.deadline(), Nanos(u64::MAX));
}

#[test]
fn only_a_file_that_the_log_has_left_is_touched() {
    let mut repairs = machine();
    let last = Position(9 * SEGMENT);
    repairs.handle(Nanos(1), RepairReport::Damaged(last));
    let said = outputs(&mut repairs);
    assert_eq!(said, [RepairOutput::Event(RepairEvent::Waits { base: last })], "and it says so");
    // The very end of the file is not enough: a cut there would seal it.
    repairs.handle(Nanos(2), RepairReport::Reach(Position(10 * SEGMENT)));
    assert_eq!(outputs(&mut repairs), []);
    repairs.handle(Nanos(3), RepairReport::Reach(Position(10 * SEGMENT + 32)));
    assert_eq!(outputs(&mut repairs), [RepairOutput::Order(RepairOrder::Examine(last))]);
}

#[test]
fn who_is_silent_gone_empty_or_wrong_is_left_for_the_next() {
    type Fails = fn(&mut Repairs, NodeId, u64);
    let cases: [Fails; 4] = [
        |repairs, _, _| repairs.tick(Nanos(2 + ANSWER_NS)),
        |repairs, node, _| repairs.lane(Nanos(3), &LaneInput::Broken(node)),
        |repairs, node, number| told(repairs, 3, node, answer(number, SEGMENT + 64, &[])),
        |repairs, node, number| {
            told(repairs, 3, node, answer(number, SEGMENT + 64, &[1; 64]));
            repairs.handle(Nanos(4), RepairReport::Refused { base: BASE, node });
            needs(repairs, 5);
        },
    ];
    for fails in cases {
        let mut repairs = machine();
        repairs.handle(Nanos(1), RepairReport::Damaged(BASE));
        needs(&mut repairs, 2);
        let (first, number) = asked(&mut repairs).unwrap();
        fails(&mut repairs, first, number);
        let (second, number) = asked(&mut repairs).unwrap();
        assert_eq!((first, second), (NodeId(2), NodeId(0)));
        // The first one's answer comes late: it is void.
        told(&mut repairs, 6, first, answer(number, SEGMENT + 64, &[9; 64]));
        told(&mut repairs, 6, second, answer(number - 1, SEGMENT + 64, &[9; 64]));
        assert_eq!(outputs(&mut repairs), []);
        // Nor does the second help: nobody is left. It says so, and begins anew later.
        repairs.lane(Nanos(7), &LaneInput::Broken(second));
        let said = outputs(&mut repairs);
        assert!(
            matches!(
                &said[..],
                [
                    RepairOutput::Order(RepairOrder::Leave),
                    RepairOutput::Event(RepairEvent::NotRepaired {
                        why: NotRepaired::Nobody { .. },
                        again_ms: 500,
                        ..
                    })
                ]
            ),
            "{said:?}"
        );
        assert_eq!(repairs.deadline(), Nanos(7 + AGAIN_NS));
        repairs.tick(Nanos(7 + AGAIN_NS));
        assert_eq!(outputs(&mut repairs), [RepairOutput::Order(RepairOrder::Examine(BASE))]);
    }
}

#[test]
fn waits_grow_and_have_an_end_and_other_files_go_on_meanwhile() {
    let mut repairs = machine();
    let other = Position(3 * SEGMENT);
    repairs.handle(Nanos(1), RepairReport::Damaged(BASE));
    repairs.handle(Nanos(1), RepairReport::Damaged(other));
    let mut now = 1;
    for _ in 0..30 {
        let failed = RepairReport::Failed { base: BASE, why: "no space".to_owned() };
        repairs.handle(Nanos(now), failed);
        assert!(
            repairs.deadline().0 - now <= AGAIN_MAX_NS
                || outputs(&mut repairs)
                    .contains(&RepairOutput::Order(RepairOrder::Examine(other)))
        );
        repairs
            .handle(Nanos(now), RepairReport::Failed { base: other, why: "no space".to_owned() });
        now = repairs.deadline().0;
        repairs.tick(Nanos(now));
        let said = outputs(&mut repairs);
        assert!(
            said.iter()
                .any(|output| matches!(output, RepairOutput::Order(RepairOrder::Examine(_)))),
            "{said:?}"
        );
    }
}

#[test]
fn nobody_else_in_the_group_is_said_at_once() {
    let mut repairs = Repairs::new(1, NodeId(0), [NodeId(0)], SEGMENT);
    repairs.handle(Nanos(0), RepairReport::Reach(Position(10 * SEGMENT)));
    repairs.handle(Nanos(1), RepairReport::Damaged(BASE));
    needs(&mut repairs, 2);
    let said = outputs(&mut repairs);
    assert!(said.contains(&RepairOutput::Order(RepairOrder::Leave)), "{said:?}");
}

#[test]
fn d17_a_file_that_leaves_is_repaired_no_more_and_the_next_one_has_its_turn() {
    let mut repairs = machine();
    let next = Position(2 * SEGMENT);
    repairs.handle(Nanos(1), RepairReport::Damaged(BASE));
    repairs.handle(Nanos(1), RepairReport::Damaged(next));
    needs(&mut repairs, 2);
    let (node, number) = asked(&mut repairs).unwrap();
    repairs.handle(Nanos(3), RepairReport::Left(BASE));
    assert_eq!(outputs(&mut repairs), [RepairOutput::Order(RepairOrder::Examine(next))]);
    told(&mut repairs, 4, node, answer(number, SEGMENT + 64, &[7; 64]));
    assert_eq!(outputs(&mut repairs), [], "nobody waits for that any more");
    repairs.handle(Nanos(5), RepairReport::Left(next));
    assert_eq!((outputs(&mut repairs).len(), repairs.damaged_segments().count()), (0, 0));
    assert_eq!(repairs.deadline(), Nanos(u64::MAX));
}
