use super::super::rig::{GENERATION, GROUP, Rig, SEGMENT};
use super::*;
use crate::journal::TermStartAt;
use crate::types::Term;

/// Terms of the log: they fill many segments.
const TERMS: u32 = 60;

fn of(term: u32) -> Leadership {
    Leadership { generation: GENERATION, term: Term(term) }
}

/// A durable log of many terms, each with two entries, and where the frames of each but the last end. Every fifth term has none.
fn many_terms() -> (Rig, Vec<(u32, Position)>) {
    let mut rig = Rig::started();
    for term in (1..=TERMS).filter(|term| !term.is_multiple_of(5)) {
        if term > 1 {
            rig.append_term_start(term);
        }
        rig.append(&vec![term as u8; 9_000]);
        rig.append(&vec![term as u8; 4_000 + 97 * term as usize]);
    }
    rig.sync_all();
    let starts: Vec<_> = rig.node().log.terms().iter().collect();
    let end = |pair: &[TermStartAt]| (pair[0].leadership.term.0, pair[1].base);
    let ends = starts.windows(2).map(end).collect();
    (rig, ends)
}

#[test]
fn what_the_files_say_of_old_leaderships_is_what_the_log_says() {
    let (mut rig, _) = many_terms();
    let whole = rig.node().log.terms().clone();
    let tail = rig.node().log.tail().position;
    assert!(tail > Position(4 * SEGMENT), "several segments");
    let disk = rig.disk.clone();
    let files = LogFiles::new(&disk, SEGMENT);
    for known in [1, 2, 7, 30] {
        // Of a log that remembers so many.
        let below = whole.iter().nth(whole.iter().count() - known).unwrap().base;
        for term in 0..=TERMS {
            let Some(span) = whole.latest_at_or_below(of(term), tail).filter(|s| s.base < below)
            else {
                continue;
            };
            let found = files.latest_at_or_below(GROUP, of(term), below);
            assert_eq!(found, Ok(Some((span.leadership, span.end))), "term {term}, {known} known");
            let ask = MatchReply::Older { leadership: of(term), end: tail, below };
            let reply = files.filed(GROUP, ask);
            if span.leadership == of(term) {
                let chain = files.chain_at(GROUP, span.end).unwrap().unwrap();
                assert_eq!(reply, MatchReply::Agreed { position: span.end, chain });
            } else {
                assert_eq!(reply, MatchReply::AskBelow(span.leadership));
            }
        }
        let none = files.latest_at_or_below(GROUP, of(0), below);
        assert_eq!(none, Ok(Some((Leadership::default(), Position(0)))));
    }
}

#[test]
fn the_shorter_of_two_ends_of_a_leadership_is_where_logs_part() {
    let (mut rig, ends) = many_terms();
    let below = rig.node().log.terms().iter().last().unwrap().base;
    let disk = rig.disk.clone();
    let files = LogFiles::new(&disk, SEGMENT);
    let (term, whole) = ends[7];
    let inside = rig.ends.keys().rev().find(|end| **end < whole).copied().unwrap();
    let reply = |end| files.filed(GROUP, MatchReply::Older { leadership: of(term), end, below });
    let agreed = |at| MatchReply::Agreed { position: at, chain: rig.ends[&at].chain };
    assert_eq!(reply(whole), agreed(whole));
    assert_eq!(reply(inside), agreed(inside));
    assert_eq!(reply(whole.plus(4096)), agreed(whole));
    assert_eq!(reply(Position(inside.0 + 32)), MatchReply::Unknown, "no frame ends there");
}

#[test]
fn what_has_left_is_named_and_what_cannot_be_read_is_not_known() {
    let (mut rig, ends) = many_terms();
    let below = rig.node().log.terms().iter().last().unwrap().base;
    let names = |rig: &Rig| {
        let names = rig.disk.list().unwrap();
        let mut bases: Vec<_> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
        bases.sort_unstable();
        bases
    };
    let bases = names(&rig);
    let ask = |rig: &Rig, term: u32| {
        let disk = rig.disk.clone();
        let older = MatchReply::Older { leadership: of(term), end: below, below };
        LogFiles::new(&disk, SEGMENT).filed(GROUP, older)
    };
    rig.disk.rot(&crate::journal::segment_name(bases[1]), 20, |bytes| bytes[0] ^= 1);
    assert_eq!(ask(&rig, ends[0].0), MatchReply::Unknown, "a header page is damaged");
    for base in &bases[..2] {
        rig.disk.remove(&crate::journal::segment_name(*base)).unwrap();
    }
    assert_eq!(ask(&rig, ends[0].0), MatchReply::Gone(bases[2]));
    // A core that has started since knows nothing of what was before the log's beginning.
    for leadership in [Leadership::default(), of(ends[0].0)] {
        let older = MatchReply::Older { leadership, end: Position(0), below: bases[2] };
        let reply = LogFiles::new(&rig.disk, SEGMENT).filed(GROUP, older);
        assert_eq!(reply, MatchReply::Gone(bases[2]));
    }
    let (last, end) = *ends.last().unwrap();
    let chain = rig.ends[&end].chain;
    assert_eq!(ask(&rig, last), MatchReply::Agreed { position: end, chain });
}
