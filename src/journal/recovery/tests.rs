//! Recovery against a node that really wrote, crashed in every way.

use crate::journal::rig::{Rig, SEGMENT};

#[test]
fn a_blank_directory_is_the_genesis() {
    let mut rig = Rig::new();
    rig.start().unwrap();
    assert_eq!(rig.tail().position.0, 0);
    let report = rig.node().report.clone();
    assert!(rig.node().stateless && report.provisional && !report.state_missing);
    rig.crash_process();
    rig.start().unwrap();
    assert!(rig.node().stateless);
}

#[test]
fn everything_is_there_after_an_orderly_stop() {
    let mut rig = Rig::started();
    rig.fill_to(3 * SEGMENT + 1000);
    rig.sync_all();
    let tail = rig.tail();
    rig.power_loss(1);
    rig.start().unwrap();
    assert_eq!(rig.tail(), tail);
    assert!(rig.node().report.rewritten.is_empty(), "{}", rig.node().report);
}
