//! A node that was away for more leaderships than the others remember finds in their files where the logs part.

use super::{Fault, MS, Played, Script};

/// Leaderships that are remembered.
const KNOWN: usize = 3;

/// Node 2 is away while the lead goes to and fro more often than is remembered. `long`: what it lacks has left memory, too.
fn away(long: bool, known: usize) -> Script {
    let mut script = Script::of(3);
    let plan = &mut script.plan;
    (plan.terms_max, plan.think_ns, plan.commands) = (known, 3 * MS, 900);
    if long {
        (plan.segment_bytes, plan.window_bytes) = (64 * 1024, 32 * 1024);
        plan.command_bytes_max = 4_000;
    }
    let script = script.on(800, Fault::Crash, (2, 2), 2_000);
    (0..9).fold(script, |script, turn| {
        let to = (turn as usize + 1) % 2;
        script.on(900 + 200 * turn, Fault::HandOver, (to, to), 0)
    })
}

fn assert_back(played: &Played) {
    assert!(played.leads().len() > 2 * KNOWN, "{:?}", played.leads());
    assert!(played.lines("Diverged").is_empty());
    assert!(!played.lines("node 2: CaughtUp").is_empty());
    assert_eq!(played.outcome.coverage.of("cut"), 0, "it has nothing that the others lack");
}

#[test]
fn k2_a_node_that_was_away_for_more_terms_than_are_remembered_catches_up() {
    let played = away(true, KNOWN).play();
    assert_back(&played);
    let told = |known| !away(true, known).play().lines("Older {").is_empty();
    assert!(told(KNOWN) && !told(100), "the files are asked only where memory does not tell");
}

#[test]
fn k2_all_that_it_lacks_is_in_memory_and_the_terms_are_not() {
    assert_back(&away(false, KNOWN).play());
    let played = away(false, 100).play();
    assert!(played.lines("node 2: CaughtUp").is_empty(), "the stream has it all");
}

#[test]
fn d12_what_an_ex_leader_has_alone_is_cut_where_the_files_say_that_the_logs_part() {
    // It was cut off with the clients, stops, and the others have had many leaderships when it comes back.
    let mut script = Script::of(3);
    (script.plan.terms_max, script.plan.think_ns) = (KNOWN, 3 * MS);
    let script = script.part_off(800, 0b001, true, 300).on(1000, Fault::Crash, (0, 0), 2_000);
    let script = (0..8).fold(script, |s, turn| s.at(1300 + 200 * turn, Fault::HandOver, 2, 0));
    let script = (0..8).fold(script, |s, turn| s.at(1400 + 200 * turn, Fault::HandOver, 1, 0));
    let played = script.play();
    assert!(played.leads().len() > 2 * KNOWN, "{:?}", played.leads());
    let cut = played.lines("node 0: Event(Cut {");
    assert_eq!(cut.len(), 1, "{cut:?}");
    assert!(played.lines("Diverged").is_empty());
}
