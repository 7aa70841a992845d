use super::*;
use crate::journal::rig::{GROUP, Rig, SEGMENT};
use crate::journal::segment_file::file_bytes;

fn scrubber(rig: &mut Rig) -> Scrubber<crate::journal::memory_disk::MemoryDisk> {
    let tail = rig.tail().position;
    let shared: Shared = rig.node().shared.clone();
    shared.words().commit.store(tail.0, Ordering::Release);
    let settings =
        ScrubSettings { group: GROUP, segment_bytes: SEGMENT, interval_ns: Nanos::SECOND };
    Scrubber::new(rig.disk.clone(), shared, settings, Nanos(0))
}

/// A node that runs, all of its log durable, certain and committed.
fn running(position: u64) -> Rig {
    let mut rig = Rig::started();
    rig.fill_to(position);
    rig.sync_all();
    rig
}

/// Plays one round; what was said in it.
fn round(scrub: &mut Scrubber<crate::journal::memory_disk::MemoryDisk>) -> Vec<ScrubEvent> {
    scrub.hurry();
    let mut events = Vec::new();
    for _ in 0..100_000 {
        scrub.step(Nanos(5));
        while let Some(event) = scrub.poll_event() {
            let ends = matches!(event, ScrubEvent::Round(_));
            events.push(event);
            if ends {
                return events;
            }
        }
    }
    panic!("a round ends");
}

fn flaws(events: &[ScrubEvent]) -> Vec<Flaw> {
    let flaw = |event: &ScrubEvent| match event {
        ScrubEvent::Flaw(flaw) => Some(flaw.clone()),
        _ => None,
    };
    events.iter().filter_map(flaw).collect()
}

fn name(base: u64) -> String {
    segment_name(Position(base))
}

#[test]
fn a_whole_log_is_read_once_an_interval_and_nothing_is_said() {
    let mut rig = running(3 * SEGMENT + 1000);
    let tail = rig.tail().position;
    let mut scrub = scrubber(&mut rig);
    assert_eq!(scrub.step(Nanos(Nanos::SECOND - 1)), 0, "a start has just read everything");
    let events = round(&mut scrub);
    let [ScrubEvent::Round(round)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((round.segments, round.flaws), (4, 0));
    assert!(round.bytes >= tail.0 && round.bytes < tail.0 + 5 * 4096 + 100, "{round:?}");
    assert_eq!(scrub.step(Nanos(6)), 0, "not again before its time");
    assert!(scrub.step(Nanos(Nanos::SECOND + 5)) > 0, "and then again");
}

#[test]
fn bytes_that_may_still_be_cut_or_written_are_let_be() {
    let mut rig = running(SEGMENT + 9000);
    let mut scrub = scrubber(&mut rig);
    let committed = *rig.ends.range(..Position(SEGMENT + 4000)).next_back().unwrap().0;
    rig.node().shared.commit.store(committed.0, Ordering::Release);
    rig.disk.rot(&name(SEGMENT), 4096 + 8000, |bytes| bytes[0] ^= 1);
    assert_eq!(flaws(&round(&mut scrub)), []);
    rig.disk.rot(&name(SEGMENT), 4096 + 3000, |bytes| bytes[0] ^= 1);
    assert_eq!(flaws(&round(&mut scrub)).len(), 1);
}

/// Every kind of injury to every part of a segment file: found, named with its file, offset and rule, and told once.
#[test]
#[allow(clippy::too_many_lines)] // a table
fn k11_rot_is_found_wherever_it_is_and_named() {
    type Injury = fn(&mut Rig);
    type Expected = fn(&Flaw) -> bool;
    let cases: &[(&str, Injury, Expected)] = &[
        (
            "header page",
            |rig| rig.disk.rot(&name(SEGMENT), 20, |b| b[0] ^= 1),
            |flaw| {
                flaw.offset == 0 && matches!(flaw.what, Wrong::Header(HeaderError::Checksum { .. }))
            },
        ),
        (
            "magic",
            |rig| rig.disk.rot(&name(SEGMENT), 0, |b| b[0] ^= 1),
            |flaw| matches!(flaw.what, Wrong::Header(HeaderError::Foreign { .. })),
        ),
        (
            "first seal",
            |rig| rig.disk.rot(&name(SEGMENT), 1024 + 7, |b| b[0] ^= 1),
            |flaw| flaw.offset == 1024 && flaw.what == Wrong::Seal,
        ),
        (
            "second seal",
            |rig| rig.disk.rot(&name(SEGMENT), 1536 + 300, |b| b[0] ^= 1),
            |flaw| flaw.offset == 1536 && flaw.what == Wrong::Seal,
        ),
        (
            "first frame",
            |rig| rig.disk.rot(&name(SEGMENT), 4096 + 9, |b| b[0] ^= 1),
            |flaw| flaw.offset == 4096 && matches!(flaw.what, Wrong::Frame(_)),
        ),
        (
            "a frame in the middle",
            |rig| rig.disk.rot(&name(SEGMENT), 4096 + 30_000, |b| b[0] ^= 1),
            |flaw| {
                flaw.offset > 4096 + 28_000
                    && flaw.offset <= 4096 + 30_000
                    && matches!(flaw.what, Wrong::Frame(_))
            },
        ),
        (
            "zeroes in the middle",
            |rig| rig.disk.rot(&name(SEGMENT), 4096 + 30_000, |b| b[..8192].fill(0)),
            |flaw| matches!(flaw.what, Wrong::Frame(_)),
        ),
        (
            "the last frames",
            |rig| rig.disk.rot(&name(2 * SEGMENT), 4096 + 900, |b| b[0] ^= 1),
            |flaw| flaw.base == Position(2 * SEGMENT) && matches!(flaw.what, Wrong::Frame(_)),
        ),
        (
            "a file cut short",
            |rig| {
                let bytes = rig.disk.bytes(&name(SEGMENT)).unwrap();
                rig.disk.put(&name(SEGMENT), &bytes[..30_000]);
            },
            |flaw| matches!(flaw.what, Wrong::Frame(_)),
        ),
        (
            "a file that is gone",
            |rig| rig.disk.remove(&name(SEGMENT)).unwrap(),
            |flaw| flaw.what == Wrong::Missing,
        ),
        (
            "a bad sector",
            |rig| rig.disk.fail_reads(&name(SEGMENT), 20_000..20_512),
            |flaw| matches!(flaw.what, Wrong::Unreadable(_)),
        ),
        (
            "a bad sector in the page",
            |rig| rig.disk.fail_reads(&name(SEGMENT), 0..512),
            |flaw| matches!(flaw.what, Wrong::Unreadable(_)),
        ),
        (
            "another history",
            |rig| {
                rig.disk.rot(&name(SEGMENT), 0, |page| {
                    let mut header = SegmentHeader::decode(page).unwrap();
                    header.before.chain = crate::types::Chain(9);
                    header.encode_into(page);
                });
            },
            |flaw| flaw.what == Wrong::Joint,
        ),
    ];
    for (what, injury, expected) in cases {
        let mut rig = running(2 * SEGMENT + 1000);
        let mut scrub = scrubber(&mut rig);
        assert_eq!(flaws(&round(&mut scrub)), [], "{what}");
        let before = rig.disk.list().unwrap();
        injury(&mut rig);
        let found = flaws(&round(&mut scrub));
        assert_eq!(found.len(), 1, "{what}: {found:?}");
        assert!(expected(&found[0]), "{what}: {found:?}");
        assert!(
            found[0].base >= Position(SEGMENT) && found[0].to_string().contains(".qlog at byte ")
        );
        assert_eq!(flaws(&round(&mut scrub)), [], "{what}: told once");
        assert_eq!(scrub.flaws().count(), 1, "{what}: and still known");
        if *what != "a file that is gone" {
            assert_eq!(rig.disk.list().unwrap(), before, "{what}: nothing was touched");
        }
    }
}

#[test]
fn what_is_right_again_is_said_and_may_be_told_anew() {
    let mut rig = running(2 * SEGMENT + 1000);
    let mut scrub = scrubber(&mut rig);
    let flip = |rig: &Rig| rig.disk.rot(&name(0), 9000, |b| b[0] ^= 1);
    flip(&rig);
    assert_eq!(flaws(&round(&mut scrub)).len(), 1);
    flip(&rig);
    scrub.suspect(Position(9));
    for _ in 0..10 {
        scrub.step(Nanos(6));
    }
    assert_eq!(scrub.poll_event(), Some(ScrubEvent::Mended(Position(0))));
    flip(&rig);
    assert_eq!(flaws(&round(&mut scrub)).len(), 1);
}

#[test]
fn segments_that_were_removed_from_below_are_not_missed() {
    let mut rig = running(3 * SEGMENT + 1000);
    let mut scrub = scrubber(&mut rig);
    rig.disk.remove(&name(0)).unwrap();
    assert_eq!(flaws(&round(&mut scrub)), []);
    // Also while the round is under way.
    scrub.hurry();
    scrub.step(Nanos(5));
    rig.disk.remove(&name(SEGMENT)).unwrap();
    let mut said = Vec::new();
    for _ in 0..100 {
        scrub.step(Nanos(5));
        while let Some(event) = scrub.poll_event() {
            said.push(event);
        }
    }
    assert_eq!(flaws(&said), []);
    assert_eq!(rig.disk.bytes(&name(2 * SEGMENT)).unwrap().len() as u64, file_bytes(SEGMENT));
}
