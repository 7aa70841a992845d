//! Segments that leave while nodes are away.

use super::super::faults::Fault;
use super::super::world::run_script;
use super::{MS, Script};
use crate::mutants::Mutant;

/// A busy group with small segments, of whose log little stays.
pub(super) fn trimming(nodes: usize) -> Script {
    let mut script = Script::of(nodes);
    let plan = &mut script.plan;
    (plan.segment_bytes, plan.window_bytes) = (64 * 1024, 32 * 1024);
    (plan.command_bytes_max, plan.commands, plan.in_flight) = (4_000, 900, 16);
    plan.think_ns = MS;
    plan.retention_bytes = 128 * 1024;
    script
}

#[test]
fn r6_a_node_that_was_away_for_longer_than_the_log_reaches_comes_back_with_a_snapshot() {
    let played = trimming(3).at(300, Fault::Isolate, 1, 3_000).play();
    let coverage = &played.outcome.coverage;
    for state in ["snapshot-taken", "segment-left", "snapshot-installed"] {
        assert!(coverage.of(state) > 0, "{state}: {coverage:?}");
    }
}

#[test]
fn a10_segments_that_leave_uncovered_are_noticed() {
    let mut script = trimming(3).at(300, Fault::Isolate, 1, 3_000);
    for at in (600..3_000).step_by(200) {
        script = script.at(at, Fault::Crash, 0, 50);
    }
    script.plan.mutant = Some(Mutant::TrimUncovered);
    let outcome = run_script(&script.plan, &script.strikes);
    let (_, violation) = outcome.violation.expect("a checker notices");
    assert_eq!(violation.checker, "recovery", "{violation:?}");
}
