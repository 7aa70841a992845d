//! `quorate-log`: what it tells of logs as a whole: where two part, checksums, leaderships, clients, gaps, times, lives.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod log_files;

use std::fs;
use std::io::Write;
use std::path::Path;

use quorate::frame::Kind;
use quorate::frame::payload::Member;
use quorate::io::files::HostDisk;
use quorate::journal::snapshot::{SnapshotWriter, Stamp};
use quorate::types::Timestamp;
use zerocopy::IntoBytes;

use log_files::program::{code, err, json, log, out, shell};
use log_files::{Folder, GENERATION, GROUP, Log};

/// The same 2,000 commands, then some of its own.
fn forked(folder: &Folder, name: &str, own: &[u8], more: u64) -> (String, Log) {
    let mut made = Log::with_commands(2000);
    (1..=more).for_each(|number| made.command(2, 2000 + number, own));
    fs::create_dir(folder.0.join(name)).unwrap();
    made.write(&folder.0.join(name), made.tail.position);
    (folder.file(name), made)
}

#[test]
fn diff_says_where_two_logs_part() {
    let folder = Folder::new();
    let (one, made) = forked(&folder, "one", b"AAAA", 2500);
    let (other, _) = forked(&folder, "other", b"BBBB", 2600);
    let (behind, short) = forked(&folder, "behind", b"AAAA", 7);
    let part = log(&["diff", &one, &other]);
    let at = made.position_of(2003);
    let lines: Vec<_> = out(&part).lines().map(str::to_owned).collect();
    assert_eq!(code(&part), 1);
    assert_eq!(lines[0], format!("the same up to position {at}, entry 2002"));
    assert!(lines[1].starts_with("- ") && lines[1].ends_with("command=\"AAAA\""), "{lines:?}");
    assert!(lines[2].starts_with("+ ") && lines[2].ends_with("command=\"BBBB\""), "{lines:?}");
    let (lines, status) = json(&["diff", &one, &other]);
    assert_eq!((&lines[0]["verdict"], &lines[0]["position"]), (&"different".into(), &at.0.into()));
    assert_eq!((lines[1]["sequence"].as_u64(), lines.len(), status), (Some(2003), 3, 1));

    let same = log(&["diff", &one, &behind]);
    let end = short.tail;
    let expected = format!(
        "the same up to position {}, entry 2009\n{one} has 2493 entries more\n{behind} ends there\n",
        end.position
    );
    assert_eq!((out(&same), code(&same)), (expected, 0));
    let (lines, status) = json(&["diff", &one, &one, "--deep"]);
    assert_eq!((&lines[0]["verdict"], &lines[0]["sequence"]), (&"same".into(), &4502.into()));
    assert_eq!((&lines[0]["last_sequences"], status), (&serde_json::json!([4502, 4502]), 0));
}

#[test]
fn diff_reads_only_the_segment_in_which_logs_part_unless_told_otherwise() {
    let folder = Folder::new();
    let (one, made) = forked(&folder, "one", b"AAAA", 2500);
    let (other, _) = forked(&folder, "other", b"AAAA", 2500);
    // A rotten byte in the first segment of one: the header pages still say what was there.
    let at = log_files::offset(made.position_of(10)) + 40;
    folder.change("other/0000000000000000.qlog", |file| file[at] ^= 1);
    assert_eq!(json(&["diff", &one, &other]).1, 0);
    let deep = log(&["diff", &one, &other, "--deep"]);
    assert_eq!(code(&deep), 3);
    assert!(err(&deep).contains("other/0000000000000000.qlog at byte "), "{}", err(&deep));
    // Segments that have left on one side: the common ones are compared.
    fs::remove_file(Path::new(&other).join("0000000000000000.qlog")).unwrap();
    assert_eq!(json(&["diff", &one, &other, "--deep"]).1, 0);
}

#[test]
fn logs_that_cannot_be_compared_are_said_to_be_so() {
    let folder = Folder::new();
    let (one, made) = forked(&folder, "one", b"AAAA", 2500);
    let (other, _) = forked(&folder, "other", b"AAAA", 2500);
    let second = made.starts[1].position.0;
    for start in &made.starts[1..] {
        fs::remove_file(Path::new(&one).join(format!("{:016x}.qlog", start.position.0))).unwrap();
    }
    fs::remove_file(Path::new(&other).join("0000000000000000.qlog")).unwrap();
    let (lines, status) = json(&["diff", &one, &other]);
    assert_eq!((&lines[0]["verdict"], status), (&"apart".into(), 1));
    // From the first segment that both have, they are two.
    let (third, _) = forked(&folder, "third", b"AAAA", 2500);
    let mut alien = made.header(1);
    alien.before.chain.0 ^= 1;
    let name = format!("third/{second:016x}.qlog");
    folder.change(&name, |file| alien.encode_into(&mut file[..4096]));
    fs::remove_file(folder.0.join("third/0000000000000000.qlog")).unwrap();
    let (lines, status) = json(&["diff", &third, &other]);
    assert_eq!((&lines[0]["verdict"], status), (&"different below".into(), 1));
    assert_eq!(lines[0]["position"], second);
}

#[test]
fn hash_prints_the_running_checksum_where_two_nodes_compare_it() {
    let (folder, made) = (Folder::new(), Log::with_commands(1500));
    made.write(&folder.0, made.tail.position);
    let path = folder.file("");
    let text = out(&log(&["hash", &path]));
    let lines: Vec<_> = text.lines().skip(1).collect();
    let places: Vec<_> = made.starts.iter().chain([&made.tail]).collect();
    assert_eq!(lines.len(), places.len());
    for (line, at) in lines.iter().zip(places) {
        let expected =
            format!("{:>16} {:>12} {:>8}  {:08x}", at.position, at.sequence, at.term, at.chain.0);
        assert_eq!(*line, expected);
    }
    let (lines, status) = json(&["hash", &path, "--every", "500"]);
    let told: Vec<_> = lines.iter().map(|line| line["sequence"].as_u64().unwrap()).collect();
    assert_eq!((told, status), (vec![500, 1000, 1500, 1502], 0));
    // A segment ends between two entries: the checksum is that of the last of them.
    for line in &lines[..3] {
        let sequence = line["sequence"].as_u64().unwrap();
        let crc = made.bytes[made.position_of(sequence).0 as usize + 4..][..4].try_into().unwrap();
        assert_eq!(line["chain"], format!("{:08x}", u32::from_le_bytes(crc)));
    }
    assert_eq!(code(&log(&["hash", &path, "--every", "0"])), 2);
}

/// Two leaderships and two clients, one of which closes; a silence, and numbers that were never there.
fn eventful() -> Log {
    let mut made = Log::with_commands(4);
    made.start_term(3);
    made.open_session("desk 7");
    let desk = made.tail.sequence.0;
    made.command(desk, 1, b"one");
    made.command(desk, 4, b"four");
    made.close_session(desk);
    made.command(2, 5, b"five");
    made
}

#[test]
fn terms_and_sessions_are_listed() {
    let (folder, made) = (Folder::new(), eventful());
    made.write(&folder.0, made.tail.position);
    let path = folder.file("");
    let expected = format!(
        "TERM  GENERATION  LEADER  POSITION  FIRST  LAST  ENTRIES  STARTED                         SECONDS\n\
         \x20  1  1.c0ffee00       0         0      1     6        6  2026-11-22T09:00:00.001000000Z    0.005\n\
         \x20  3  1.c0ffee00       0       {}      7    12        6  2026-11-22T09:00:00.007000000Z    0.005\n",
        made.position_of(7)
    );
    assert_eq!(out(&log(&["terms", &path])), expected);
    let (lines, _) = json(&["terms", &path, "--term", "2.."]);
    assert_eq!((lines.len(), lines[0]["term"].as_u64()), (1, Some(3)));
    assert_eq!((&lines[0]["leader"], &lines[0]["entries"]), (&0.into(), &6.into()));

    let expected = "SESSION  NAME    OPENED                          CLOSED  COMMANDS  BYTES  LAST  SEEN\n\
                    \x20     2  tester  2026-11-22T09:00:00.002000000Z  -              5     40     5  2026-11-22T09:00:00.012000000Z\n\
                    \x20     8  desk 7  2026-11-22T09:00:00.008000000Z  asked          2      7     4  2026-11-22T09:00:00.011000000Z\n";
    assert_eq!(out(&log(&["sessions", &path])), expected);
    let (lines, _) = json(&["sessions", &path, "--session", "8"]);
    assert_eq!((lines.len(), &lines[0]["reason"]), (1, &"asked".into()));
}

#[test]
fn gaps_are_named_one_to_a_line() {
    let (folder, made) = (Folder::new(), eventful());
    made.write(&folder.0, made.tail.position);
    let path = folder.file("");
    let shown = log(&["gaps", &path]);
    assert_eq!(code(&shown), 1);
    assert_eq!(
        out(&shown),
        "2026-11-22T09:00:00.010000000Z  before entry 10: session 8: numbers 2 to 3 are not there\n"
    );
    let (lines, status) = json(&["gaps", &path, "--kind", "command", "--over", "1500us"]);
    let silent: Vec<_> = lines
        .iter()
        .filter(|line| line["gap"] == "silence")
        .map(|line| &line["before_sequence"])
        .collect();
    assert_eq!((silent, status), (vec![&9.into(), &12.into()], 1));
    let quiet = log(&["gaps", &path, "--session", "2"]);
    assert_eq!((out(&quiet), code(&quiet)), (String::new(), 0));
    let at = log_files::offset(made.position_of(4));
    folder.change("0000000000000000.qlog", |file| file[at + 40] ^= 1);
    assert_eq!(code(&log(&["gaps", &path])), 3);
}

#[test]
fn trace_tells_the_life_of_a_command() {
    let (folder, made) = (Folder::new(), eventful());
    made.write(&folder.0, made.tail.position);
    let path = folder.file("");
    let told = log(&["trace", &path, "9"]);
    let chain = made.before(10).chain.0;
    let (end, at) = (made.tail.position, made.position_of(9));
    let expected = format!(
        "EVENT           TIME                            DETAIL\n\
         session opened  2026-11-22T09:00:00.008000000Z  session=8 name=desk 7\n\
         term began      2026-11-22T09:00:00.007000000Z  term=3 leader=0\n\
         appended        2026-11-22T09:00:00.009000000Z  sequence=9 position={at} client_sequence=1 chain={chain:08x}\n\
         reply received  2026-11-22T09:00:00.010000000Z  sequence=10 after_ns=1000000\n\
         committed       -                               known_commit={end}\n\
         durable here    -                               certain={end}\n"
    );
    assert_eq!((out(&told), code(&told)), (expected, 0));
    let (lines, _) = json(&["trace", &path, "--session", "8", "--client-sequence", "4"]);
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    let expected =
        ["session opened", "term began", "appended", "session closed", "committed", "durable here"];
    assert_eq!(events, expected);
    for absent in [&["99"][..], &["7"], &["--session", "8", "--client-sequence", "3"]] {
        let output = log(&[&["trace", &path], absent].concat());
        assert_eq!((out(&output), code(&output)), (String::new(), 1), "{absent:?}");
    }
    assert_eq!(code(&log(&["trace", &path, "--session", "8"])), 2);
}

#[test]
fn latency_is_read_from_stamps() {
    let (folder, made) = (Folder::new(), Log::with_commands(1000));
    made.write(&folder.0, made.tail.position);
    let path = folder.file("");
    let (lines, status) = json(&["latency", &path]);
    assert_eq!((&lines[0]["times"], &lines[0]["count"]), (&"between".into(), &1001.into()));
    assert_eq!((&lines[1]["times"], &lines[1]["count"]), (&"replied".into(), &999.into()));
    // A millisecond apart, to three digits.
    let p50 = lines[1]["p50_ns"].as_u64().unwrap();
    assert!(p50.abs_diff(1_000_000) < 1_000 && status == 0, "{p50}");
    let text = out(&log(&["latency", &path]));
    assert!(text.starts_with("TIMES_US  COUNT  "), "{text}");
    let hgrm = out(&log(&["latency", &path, "--hgrm", "replied"]));
    let rows: Vec<Vec<f64>> = hgrm
        .lines()
        .skip(2)
        .take_while(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect())
        .collect();
    assert_eq!(rows.last().unwrap()[1..], [1.0, 999.0]);
    assert!(rows.windows(2).all(|pair| pair[0][1] <= pair[1][1] && pair[0][2] <= pair[1][2]));
    assert!(hgrm.ends_with("Total count    =          999]\n"), "{hgrm}");
}

#[test]
fn members_are_those_of_the_last_list() {
    let (folder, mut made) = (Folder::new(), Log::with_commands(3));
    made.write(&folder.0, made.tail.position);
    let path = folder.file("");
    let none = log(&["members", &path]);
    assert_eq!(code(&none), 1);
    assert!(err(&none).contains("no list of members"), "{}", err(&none));
    for name in ["a", "bb"] {
        let member = Member {
            node: 0.into(),
            flags: 1,
            priority: 1,
            name_length: (name.len() as u16).into(),
            address_length: 3.into(),
        };
        made.append(Kind::Membership, &[member.as_bytes(), name.as_bytes(), b"h:1"].concat());
    }
    made.write(&folder.0, made.tail.position);
    let (lines, status) = json(&["members", &path]);
    assert_eq!((lines.len(), status), (1, 0));
    assert_eq!((&lines[0]["sequence"], &lines[0]["members"][0]["name"]), (&7.into(), &"bb".into()));
    assert_eq!(json(&["members", &path, "--all"]).0.len(), 2);
}

#[test]
fn snapshots_are_listed_and_read() {
    let (folder, made) = (Folder::new(), Log::with_commands(30));
    made.write(&folder.0, made.tail.position);
    let path = folder.file("");
    snapshot(&folder, made.before(20));
    let text = out(&log(&["snapshots", &path, "--deep"]));
    assert!(text.contains(" 1.c0ffee00  echo 1   100000  000000000000abcd  2026-"), "{text}");
    let (lines, status) = json(&["snapshots", &path]);
    assert_eq!((&lines[0]["sequence"], status), (&19.into(), 0));
    // It holds what command 9 did; the trace says so.
    let (lines, _) = json(&["trace", &path, "11"]);
    assert_eq!(lines.last().unwrap()["event"], "in a snapshot");
    let file = lines_file(&folder);
    folder.change(&file, |bytes| bytes[5000] ^= 1);
    assert_eq!(json(&["snapshots", &path]).1, 0, "the stamp is whole");
    let (lines, status) = json(&["snapshots", &path, "--deep"]);
    assert!(lines[0]["problem"].is_string() && status == 3, "{lines:?}");
}

#[test]
fn retention_says_what_would_leave_and_why_the_rest_stays() {
    let (folder, made) = (Folder::new(), Log::with_commands(5000));
    made.write(&folder.0, made.tail.position);
    let path = folder.file("");
    let leaves = |args: &[&str]| {
        let (lines, status) = json(&[&["retention", &path], args].concat());
        assert_eq!((lines.len(), status), (made.starts.len(), 0));
        let leaving = lines.iter().filter(|line| line["leaves"] == true).count();
        (leaving, lines[0]["why"].as_str().unwrap().to_owned())
    };
    let snapshots = "too few good snapshots lie above it".to_owned();
    assert_eq!(leaves(&["--size", "1"]), (0, snapshots));
    // Two snapshots, the older one in the fourth segment.
    snapshot(&folder, made.before(made.starts[3].sequence.0 + 100));
    snapshot(&folder, made.before(made.starts[4].sequence.0 + 100));
    assert_eq!(leaves(&["--size", "1"]), (3, "not needed any more".to_owned()));
    let two = (2 * log_files::SEGMENT).to_string();
    let member = format!("1={two}");
    assert_eq!(leaves(&["--size", "1", "--member", &member]).0, 2);
    assert_eq!(leaves(&["--size", "1", "--member", &member, "--member-size", "1"]).0, 3);
    assert_eq!(leaves(&["--size", "1GiB"]), (0, "within the limits".to_owned()));
    // Those whose next one began before half past the first second of the day before.
    let (day, at) = ("1 day", "2026-11-23T09:00:01.5Z");
    let old = made.starts[1..].iter().filter(|next| next.sequence.0 + 1 < 1500).count();
    assert!((1..3).contains(&old), "{old}");
    assert_eq!(leaves(&["--age", day, "--at", at]).0, old);
    let text = out(&log(&["retention", &path, "--size", "1"]));
    let bytes = 3 * (log_files::SEGMENT + 4096);
    assert!(text.ends_with(&format!("3 segments of {bytes} bytes would leave\n")), "{text}");
    assert_eq!(code(&log(&["retention", &path])), 2, "no limit");
}

fn snapshot(folder: &Folder, before: quorate::frame::Predecessor) {
    let disk = HostDisk::open(&folder.0).unwrap();
    let stamp = Stamp {
        group: GROUP,
        generation: GENERATION,
        before,
        time: Timestamp(log_files::NINE),
        state_hash: 0xabcd,
        service: "echo".to_owned(),
        service_version: 1,
        state_bytes: 0,
        blocks_crc: 0,
    };
    let mut pace = |_| Ok(());
    let mut writer = SnapshotWriter::create(&disk, before, &mut pace).unwrap();
    writer.write_all(&vec![7; 100_000]).unwrap();
    writer.finish(stamp).unwrap();
}

fn lines_file(folder: &Folder) -> String {
    let entry = fs::read_dir(folder.0.join("snapshots")).unwrap().next().unwrap().unwrap();
    format!("snapshots/{}", entry.file_name().to_str().unwrap())
}

/// Two logs of 10 GiB (with holes): what is read of them is counted, by the kernel.
#[test]
fn diff_of_two_equal_logs_of_10_gib_reads_their_header_pages() {
    let folder = Folder::new();
    for name in ["one", "other"] {
        fs::create_dir(folder.0.join(name)).unwrap();
        log_files::write_sparse(&folder.0.join(name), 16 << 20, 640, 3);
    }
    // What a child read is counted to its parent once it has ended.
    let output = shell(&folder.0, "quorate-log diff one other && cat /proc/$$/io");
    let text = out(&output);
    assert!(text.starts_with("the same up to position 10737418240, entry 1920\n"), "{text}");
    let Some(read) = text.lines().find_map(|line| line.strip_prefix("rchar: ")) else {
        eprintln!("SKIPPED the count: this kernel keeps none");
        return;
    };
    let read: u64 = read.parse().unwrap();
    assert!(read < 16 << 20, "{read} bytes of 20 GiB");
}

/// Whatever is done to the files: one core and several say the same, byte for byte.
#[test]
fn what_is_found_does_not_depend_on_the_number_of_cores() {
    let folder = Folder::new();
    let made = Log::with_commands(6000);
    assert!(made.starts.len() > 6);
    let path = folder.file("");
    let name = |index: usize| format!("{:016x}.qlog", made.starts[index].position.0);
    let rot = |index: usize, at: usize| folder.change(&name(index), |file| file[at] ^= 1);
    let cases: [&dyn Fn(); 9] = [
        &|| {},
        &|| rot(2, 9000),
        // The first frame of a segment, and the padding at the end of one.
        &|| rot(3, 4096 + 33),
        &|| rot(3, log_files::offset(made.starts[4].position) + 65536 - 20),
        // A header page that is no good, and one that lies.
        &|| rot(4, 20),
        &|| {
            let mut lies = made.header(5);
            lies.before.chain.0 ^= 1;
            folder.change(&name(5), |file| lies.encode_into(&mut file[..4096]));
        },
        &|| fs::remove_file(folder.0.join(name(3))).unwrap(),
        &|| folder.change(&name(2), |file| file.truncate(20_000)),
        &|| folder.change(&name(2), |file| file[60_000..].fill(0)),
    ];
    for (number, case) in cases.iter().enumerate() {
        made.write(&folder.0, made.tail.position);
        case();
        for verb in
            [&["verify"][..], &["stats"], &["grep", "command 5[0-9]*$"], &["grep", "-v", "0$"]]
        {
            let run = |jobs| {
                let output =
                    log(&[&[verb[0], &path], &verb[1..], &["--json", "--jobs", jobs]].concat());
                (out(&output), err(&output), code(&output))
            };
            let one = run("1");
            assert!(one.2 == 0 || number > 0, "{one:?}");
            for jobs in ["2", "3", "16"] {
                let several = run(jobs);
                assert!(one == several, "case {number}, {verb:?} on {jobs}: {one:?} {several:?}");
            }
        }
    }
}
