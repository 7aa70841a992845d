use super::*;
use crate::journal::rig::{GROUP, Rig, SEGMENT};
use crate::types::NodeId;

const BASE: Position = Position(0);
/// Steps after which nothing is left to do.
const STEPS: usize = 50;

/// A file is repaired with the help of a peer that has all of it, and leaves before the given turn, if before any: a turn
/// is an order, or the work that follows it. What was reported; whether the file is there; whether the repair took all turns.
fn repair(leaves_before: usize) -> (Vec<RepairReport>, Option<Vec<u8>>, bool) {
    let mut rig = Rig::started();
    rig.fill_to(3 * SEGMENT + 1000);
    rig.sync_all();
    let name = segment_name(BASE);
    let whole = rig.disk.bytes(&name).unwrap();
    rig.disk.rot(&name, 9000, |bytes| bytes[0] ^= 1);
    let settings = ScrubSettings { group: GROUP, segment_bytes: SEGMENT, interval_ns: 1_000_000 };
    let mut mender = Mender::new(rig.disk.clone(), rig.node().shared.clone(), settings, Nanos(0));
    let (mut turn, mut said) = (0, Vec::new());
    let mut next_turn = || {
        if turn == leaves_before {
            rig.disk.remove(&name).unwrap();
        }
        turn += 1;
    };
    let mut order = Some(RepairOrder::Examine(BASE));
    while let Some(next) = order.take() {
        next_turn();
        mender.obey(next);
        next_turn();
        for _ in 0..STEPS {
            mender.step(Nanos(5));
        }
        while let Some(report) = mender.poll_report() {
            order = match report {
                RepairReport::Needs { base, from, to } => {
                    let at = |position: Position| 4096 + position.0 as usize;
                    let bytes = whole[at(from)..at(to)].into();
                    Some(RepairOrder::Patch { base, node: NodeId(2), from, bytes })
                }
                RepairReport::Whole(base) => Some(RepairOrder::Swap(base)),
                _ => order,
            };
            said.push(report);
        }
    }
    assert!(!mender.is_repairing());
    (said, rig.disk.bytes(&name), turn == 6)
}

#[test]
fn d17_a_file_that_leaves_while_it_is_repaired_is_not_put_back() {
    for leaves_before in 0..5 {
        let (said, file, _) = repair(leaves_before);
        assert!(file.is_none(), "before turn {leaves_before} it left, and is back: {said:?}");
        let left = said.iter().filter(|report| **report == RepairReport::Left(BASE));
        assert_eq!(left.count(), 1, "{leaves_before}: {said:?}");
        let troubled = said.iter().find(|report| {
            matches!(report, RepairReport::Failed { .. } | RepairReport::Swapped { .. })
        });
        assert_eq!(troubled, None, "{leaves_before}");
    }
    // One that stays is repaired in those turns.
    let (said, file, all_turns) = repair(usize::MAX);
    assert!(all_turns && file.is_some(), "{said:?}");
    assert!(said.iter().any(|report| matches!(report, RepairReport::Swapped { .. })), "{said:?}");
}
