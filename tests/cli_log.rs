//! `quorate-log` as a process, on small logs made here: what it prints, what it says about damage, how it ends.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod log_files;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use zerocopy::IntoBytes;

use quorate::frame::Kind;
use quorate::frame::payload::{GroupSetting, Member};
use quorate::io::shared_page::MappedWords;
use quorate::journal::memory_disk::MemoryDisk;
use quorate::journal::node_state::{CleanMark, NODE_STATE_NAME, NodeState, NodeStateStore};
use quorate::journal::segment_header::{Content, SegmentHeader};
use quorate::link::SharedPage;
use quorate::types::{Commit, Durable, NodeId, Position};

use log_files::{FIRST_COMMAND, Folder, GROUP, Log, SEGMENT, offset};

const FIRST: &str = "0000000000000000.qlog";
const SECOND: &str = "0000000000010000.qlog";

fn log(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate-log")).args(args).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// Runs a verb with `--json` and reads its lines.
fn json(args: &[&str]) -> (Vec<Value>, i32) {
    let output = log(&[args, &["--json"]].concat());
    let lines = out(&output);
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap());
    (lines.collect(), code(&output))
}

fn sequences(args: &[&str]) -> Vec<u64> {
    let (lines, _) = json(args);
    lines.iter().filter_map(|line| line["sequence"].as_u64()).collect()
}

/// A log with one entry of each kind that is written.
fn every_kind() -> Log {
    let mut log = Log::new();
    log.start_term(1);
    let name = b"node-0";
    let address = b"127.0.0.1:7000";
    let member = Member {
        node: 0.into(),
        flags: 1,
        priority: 1,
        name_length: (name.len() as u16).into(),
        address_length: (address.len() as u16).into(),
    };
    log.append(Kind::Membership, &[member.as_bytes(), name, address].concat());
    let setting = GroupSetting { key: 1.into(), reserved: 0.into(), value: 1.into() };
    log.append(Kind::GroupSetting, setting.as_bytes());
    log.open_session("desk 7");
    log.command(4, 1, b"buy");
    log.command(4, 2, &[0, 1, 254, 255]);
    let batch = [&[1, 0, 0, 0, b'x', 0, 0, 0, 0][..]].concat();
    log.append(Kind::CommandBatch, &[Log::prefix(4, 3).as_bytes(), &batch].concat());
    log.append(Kind::Timer, b"");
    log.close_session(4);
    log
}

#[test]
fn dump_shows_every_kind_of_entry() {
    let (folder, made) = (Folder::new(), every_kind());
    made.write(&folder.0, made.tail.position);
    let output = log(&["dump", &folder.file("")]);
    let expected = "    POSITION   SEQUENCE  TERM TIME                           KIND            BYTES  DETAIL
           0          1     1 2026-11-22T09:00:00.001000000Z term-start         56  leader=0 generation=1.c0ffee00 base=0 service_version=1
          64          2     1 2026-11-22T09:00:00.002000000Z membership         60  members=[{\"node\":0,\"name\":\"node-0\",\"address\":\"127.0.0.1:7000\",\"voter\":true,\"priority\":1}]
         128          3     1 2026-11-22T09:00:00.003000000Z group-setting      48  key=durability leader=disk follower=memory
         192          4     1 2026-11-22T09:00:00.004000000Z session-open       54  session=4 name=desk 7 timeout_ns=10000000000 nonce=000000000000abcd
         256          5     1 2026-11-22T09:00:00.005000000Z command            59  session=4 client_sequence=1 received_through=0 command=\"buy\"
         320          6     1 2026-11-22T09:00:00.006000000Z command            60  session=4 client_sequence=2 received_through=1 command=0001feff
         384          7     1 2026-11-22T09:00:00.007000000Z command-batch      65  session=4 client_sequence=3 received_through=2 commands=[\"\\\"x\\\"\",\"\"]
         480          8     1 2026-11-22T09:00:00.008000000Z timer              32  payload=
         512          9     1 2026-11-22T09:00:00.009000000Z session-close      48  session=4 reason=asked
";
    assert_eq!(out(&output), expected);
    assert_eq!(code(&output), 0);
    let (lines, _) = json(&["dump", &folder.file("")]);
    assert_eq!(lines.len(), 9);
    assert_eq!(lines[3]["kind"], "session-open");
    assert_eq!(lines[3]["time"], "2026-11-22T09:00:00.004000000Z");
    assert_eq!(lines[4]["position"], 256);
    assert_eq!(lines[4]["command"], "\"buy\"");
    assert_eq!(lines[8]["chain"], format!("{:08x}", made.tail.chain.0));
}

#[test]
fn entries_are_selected_by_every_coordinate() {
    let folder = Folder::new();
    let mut made = Log::with_commands(3000);
    made.start_term(4);
    made.open_session("other");
    let other = made.tail.sequence.0;
    for number in 1..=10 {
        made.command(other, number, b"x");
    }
    made.write(&folder.0, made.tail.position);
    let path = folder.file("");
    let pick = |args: &[&str]| sequences(&[&["dump", &path], args].concat());
    assert_eq!(pick(&["--sequence", "100..103"]), [100, 101, 102]);
    assert_eq!(pick(&["--sequence", "2900.."]).len() as u64, made.tail.sequence.0 - 2899);
    assert_eq!(pick(&["-n", "2"]), [1, 2]);
    assert_eq!(pick(&["--sequence", "7..", "-n", "1"]), [7]);
    let at = made.position_of(1500).0;
    assert_eq!(pick(&["--position", &(at + 5).to_string()]), [1500]);
    assert_eq!(pick(&["--position", &format!("{at:#x}..{}", at + 97)]), [1500, 1501]);
    assert_eq!(pick(&["--term", "4", "--kind", "term-start,session-open"]), [3003, 3004]);
    assert_eq!(pick(&["--session", &other.to_string()]).len(), 11);
    assert_eq!(
        pick(&["--since", "2026-11-22T09:00:02.999Z", "--until", "2026-11-22 09:00:03.001"]),
        [2999, 3000]
    );
    let padding = json(&["dump", &path, "--kind", "padding"]).0;
    assert_eq!(padding.len(), made.starts.len() - 1);
    for wrong in [&["--kind", "nothing"][..], &["--sequence", "5..2"], &["--since", "soon"]] {
        assert_eq!(code(&log(&[&["dump", &path], wrong].concat())), 2, "{wrong:?}");
    }
}

#[test]
fn reading_stops_at_the_commit_position_and_says_so() {
    let (folder, made) = (Folder::new(), Log::with_commands(20));
    made.write(&folder.0, made.position_of(11));
    let path = folder.file("");
    assert_eq!(sequences(&["dump", &path]).last(), Some(&10));
    let said = err(&log(&["dump", &path]));
    assert_eq!(
        said,
        format!(
            "quorate-log: read up to the commit position, {} (sequence 10); --uncommitted reads on\n",
            made.position_of(11)
        )
    );
    assert_eq!(sequences(&["dump", "--uncommitted", &path]).last(), Some(&22));
    assert_eq!(sequences(&["dump", &folder.file(FIRST)]).last(), Some(&22), "a single file: all");
}

#[test]
fn an_orderly_stop_tells_how_far_the_log_is_committed() {
    let (folder, made) = (Folder::new(), Log::with_commands(20));
    made.write(&folder.0, made.position_of(11));
    let disk = MemoryDisk::new();
    let store = NodeStateStore::open(&disk, GROUP, NodeId(2)).unwrap();
    store.record_start(&disk, &NodeState::blank(GROUP, NodeId(2))).unwrap();
    let mark = CleanMark { tail: made.tail, commit: Commit(made.position_of(21)) };
    store.update(|state| state.stop(mark, Durable(made.tail.position))).unwrap();
    let path = folder.file("");
    assert_eq!(sequences(&["dump", &path]).last(), Some(&10), "what the seal says");
    fs::write(folder.0.join(NODE_STATE_NAME), disk.bytes(NODE_STATE_NAME).unwrap()).unwrap();
    assert_eq!(sequences(&["dump", &path]).last(), Some(&20), "what the clean mark says");
    let (info, status) = json(&["info", &path]);
    assert_eq!((&info[0]["node"], &info[0]["provisional"]), (&2.into(), &true.into()));
    assert_eq!((&info[0]["clean_mark"], status), (&made.tail.position.0.into(), 0));
    folder.change(NODE_STATE_NAME, |state| state[50] ^= 1);
    assert_eq!(json(&["info", &path]).1, 0, "the second copy is whole");
    folder.change(NODE_STATE_NAME, |state| state[4096 + 50] ^= 1);
    let (info, status) = json(&["info", &path]);
    assert_eq!(status, 3);
    assert!(info[0]["node_state"].is_string(), "{}", info[0]);
}

#[test]
fn d14_beside_a_live_node_only_what_it_shares_as_committed_is_shown() {
    let (folder, made) = (Folder::new(), Log::with_commands(20));
    made.write(&folder.0, made.tail.position);
    let tier = folder.0.join("tier");
    fs::create_dir(&tier).unwrap();
    fs::copy(folder.0.join(FIRST), tier.join(FIRST)).unwrap();
    let words = MappedWords::create(&tier).unwrap();
    let data = folder.0.canonicalize().unwrap();
    fs::write(
        folder.0.join("hot.path"),
        format!("{}\n{}\n", data.join("tier").display(), data.display()),
    )
    .unwrap();
    words.words().verified.store(made.tail.position.0, Ordering::Release);
    words.words().commit.store(made.position_of(8).0, Ordering::Release);
    let path = folder.file("");
    assert_eq!(sequences(&["dump", &path]), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(sequences(&["tail", "-n", "2", &path]), [6, 7]);
    let (info, _) = json(&["info", &path]);
    assert_eq!(info[0]["running"], true);
    assert_eq!(info[0]["committed"], made.position_of(8).0);
    assert_eq!((&info[0]["hot_files"], &info[0]["end_sequence"]), (&1.into(), &7.into()));
    let (verified, status) = json(&["verify", &path]);
    assert_eq!(status, 0);
    assert_eq!(verified.len(), 2, "durable files, then both tiers");
    assert!(verified.iter().all(|pass| pass["stopped_at"] == "the commit position"));
    words.words().commit.store(made.tail.position.0, Ordering::Release);
    assert_eq!(sequences(&["dump", &path]).last(), Some(&22));
}

#[test]
fn a_torn_tail_is_named_with_file_offset_position_and_rule() {
    let (folder, mut made) = (Folder::new(), Log::with_commands(10));
    let end = made.tail;
    made.command(2, 11, b"never promised");
    made.write_sealed(&folder.0, end, end, end.position);
    // The header of the last frame is there, the payload is not.
    let at = offset(end.position);
    folder.change(FIRST, |file| file[at + 32..].fill(0));
    let path = folder.file("");
    let dump = log(&["dump", "--uncommitted", &path]);
    let last = out(&dump).lines().last().unwrap().to_owned();
    assert!(
        last.starts_with(&format!(
            "! torn at {} ({} at byte {at}): checksum 0x",
            end.position,
            folder.file(FIRST)
        )),
        "{last}"
    );
    assert!(last.ends_with("; nothing behind it can be decoded"), "{last}");
    assert_eq!(code(&dump), 0, "nothing that was promised is gone");
    let verify = log(&["verify", &path]);
    assert_eq!(code(&verify), 1);
    assert!(out(&verify).ends_with("stopped at what cannot be decoded\n"), "{}", out(&verify));
    assert_eq!(sequences(&["dump", &path]).len(), 12, "up to the commit position nothing is wrong");

    // Claimed, and not certain: a sync may have returned.
    made.write_sealed(&folder.0, end, made.tail, end.position);
    folder.change(FIRST, |file| file[at..].fill(0));
    let (lines, status) = json(&["verify", &path]);
    assert_eq!((&lines[0]["problem"], status), (&"doubtful".into(), 1));
    assert_eq!(lines[0]["rule"], "nothing published here (length 0)");
}

#[test]
fn damage_in_the_middle_costs_one_entry_and_the_rest_is_decoded() {
    let (folder, made) = (Folder::new(), Log::with_commands(3000));
    made.write(&folder.0, made.tail.position);
    let path = folder.file("");
    assert_eq!(code(&log(&["verify", &path])), 0);
    let (from, to) = (made.position_of(100), made.position_of(101));
    folder.change(FIRST, |file| file[offset(from) + 60] ^= 1);
    let (lines, status) = json(&["dump", &path]);
    assert_eq!(status, 3);
    let problems: Vec<_> = lines.iter().filter(|line| line["problem"].is_string()).collect();
    assert_eq!(problems.len(), 1);
    let problem = problems[0];
    assert_eq!(problem["problem"], "damaged");
    assert_eq!(problem["file"], folder.file(FIRST));
    assert_eq!(problem["offset"], offset(from));
    assert_eq!((problem["from"].as_u64(), problem["to"].as_u64()), (Some(from.0), Some(to.0)));
    assert!(problem["rule"].as_str().unwrap().starts_with("checksum 0x"), "{problem}");
    let seen: Vec<_> = lines.iter().filter_map(|line| line["sequence"].as_u64()).collect();
    let expected: Vec<_> = (1..=3002).filter(|&sequence| sequence != 100).collect();
    assert_eq!(seen, expected);
    // In its place among the entries, for people.
    let text = out(&log(&["dump", &path, "--sequence", "99..102"]));
    let firsts: Vec<_> = text.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(firsts, ["SEQUENCE", "99", "damaged", "101"]);
    let verify = log(&["verify", &path]);
    assert_eq!(code(&verify), 3);
    assert!(out(&verify).contains("damage: 3001 entries"), "{}", out(&verify));
}

#[test]
fn garbage_in_the_body_of_padding_is_a_finding_and_costs_nothing() {
    let (folder, mut made) = (Folder::new(), Log::with_commands(0));
    (1..=400).for_each(|number| made.command(2, number, &[b'x'; 190]));
    made.write(&folder.0, made.tail.position);
    let path = folder.file("");
    assert_eq!(code(&log(&["verify", &path])), 0);
    let body = (32..SEGMENT as usize).rfind(|&at| made.bytes[at] != 0).unwrap() + 1;
    let body = body.next_multiple_of(32);
    assert!(SEGMENT as usize - body >= 32, "padding of several blocks");
    folder.change(FIRST, |file| {
        file[4096 + body + 5] = 7;
        file[4096 + body + 20] = 1;
    });
    let (lines, status) = json(&["verify", &path]);
    assert_eq!(status, 1, "{lines:?}");
    let [stray, summary] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&stray["problem"], &stray["from"]), (&"stray".into(), &(body + 5).into()));
    assert_eq!(stray["offset"], 4096 + body + 5);
    assert_eq!((&stray["to"], &stray["file"]), (&(body + 21).into(), &folder.file(FIRST).into()));
    assert_eq!((&summary["verdict"], &summary["entries"]), (&"findings".into(), &402.into()));
    let text = out(&log(&["verify", &path]));
    assert!(text.contains("the body of padding is not zero; 16 bytes, of no entry"));
    // No other verb minds: every entry is whole.
    assert_eq!(code(&log(&["dump", &path])), 0);
    assert_eq!(sequences(&["dump", &path]).len(), 402);
}

#[test]
fn a_header_that_is_damaged_costs_what_it_hides() {
    let (folder, made) = (Folder::new(), Log::with_commands(50));
    made.write(&folder.0, made.tail.position);
    // All of one frame but its last bytes.
    let from = offset(made.position_of(20));
    folder.change(FIRST, |file| file[from..from + 80].fill(0xEE));
    let (lines, status) = json(&["dump", &folder.file("")]);
    assert_eq!(status, 3);
    let seen: Vec<_> = lines.iter().filter_map(|line| line["sequence"].as_u64()).collect();
    // The frame behind it has nothing to chain to: it only proves the one after it.
    let expected: Vec<_> = (1..=52).filter(|sequence| !(20..=21).contains(sequence)).collect();
    assert_eq!(seen, expected);
    let problem = lines.iter().find(|line| line["problem"].is_string()).unwrap();
    assert_eq!(problem["rule"], "impossible length 4008636142");
    assert_eq!(problem["to"], made.position_of(22).0);
}

#[test]
fn a_missing_segment_is_named_and_the_ones_behind_it_are_decoded() {
    let (folder, made) = (Folder::new(), Log::with_commands(3000));
    assert!(made.starts.len() > 2);
    made.write(&folder.0, made.tail.position);
    fs::remove_file(folder.0.join(SECOND)).unwrap();
    let (lines, status) = json(&["dump", &folder.file("")]);
    assert_eq!(status, 3);
    let problem = lines.iter().find(|line| line["problem"].is_string()).unwrap();
    assert_eq!(problem["problem"], "missing");
    assert_eq!(problem["rule"], format!("segment file {SECOND} is missing"));
    assert_eq!((&problem["from"], &problem["to"]), (&SEGMENT.into(), &(2 * SEGMENT).into()));
    let seen: Vec<_> = lines.iter().filter_map(|line| line["sequence"].as_u64()).collect();
    let gap = made.starts[1].sequence.0 + 1..=made.starts[2].sequence.0;
    assert_eq!(seen, (1..=3002).filter(|s| !gap.contains(s)).collect::<Vec<_>>());

    // The last one: it was promised.
    made.write(&folder.0, made.tail.position);
    let sealed = fs::read(folder.0.join(format!("{:016x}.qlog", 2 * SEGMENT))).unwrap();
    let seal = sealed[1024..1536].to_vec();
    fs::remove_file(folder.0.join(format!("{:016x}.qlog", 2 * SEGMENT))).unwrap();
    folder.change(SECOND, |file| file[1024..1536].copy_from_slice(&seal));
    let (lines, status) = json(&["verify", &folder.file("")]);
    assert_eq!((&lines[0]["problem"], status), (&"missing".into(), 3));
    assert_eq!(lines[0]["from"], 2 * SEGMENT);
}

#[test]
fn header_pages_and_seals_that_lie_are_found_by_verify() {
    let (folder, made) = (Folder::new(), Log::with_commands(1500));
    made.write(&folder.0, made.tail.position);
    let mut header: SegmentHeader = made.header(1);
    header.before.sequence.0 += 1;
    folder.change(SECOND, |file| header.encode_into(&mut file[..4096]));
    let output = log(&["verify", &folder.file("")]);
    assert_eq!(code(&output), 3);
    let text = out(&output);
    assert!(
        text.contains(&format!("({} at byte 0): header page says sequence", folder.file(SECOND))),
        "{text}"
    );

    made.write_sealed(&folder.0, made.before(9), made.tail, made.tail.position);
    assert_eq!(code(&log(&["verify", &folder.file("")])), 0);
    let mut wrong = made.before(9);
    wrong.chain.0 ^= 1;
    made.write_sealed(&folder.0, wrong, made.tail, made.tail.position);
    let text = out(&log(&["verify", &folder.file("")]));
    assert!(text.contains("seal (certain) says sequence 8, term 1, checksum"), "{text}");

    made.write(&folder.0, made.tail.position);
    folder.change(SECOND, |file| file[20] ^= 1);
    let (lines, status) = json(&["ls", &folder.file("")]);
    assert_eq!(status, 3);
    assert!(lines[1]["header"].as_str().unwrap().contains("checksum"), "{}", lines[1]);
    let output = log(&["verify", &folder.file("")]);
    assert!(out(&output).contains("header page: "), "{}", out(&output));
    assert_eq!(code(&output), 3);
}

#[test]
fn saved_bytes_and_single_segments_are_logs_too() {
    let (folder, made) = (Folder::new(), Log::with_commands(1500));
    made.write(&folder.0, made.tail.position);
    let first = made.starts[1].sequence.0 + 1;
    assert_eq!(sequences(&["dump", &folder.file(SECOND), "-n", "1"]), [first]);
    fs::create_dir(folder.0.join("quarantine")).unwrap();
    let header =
        SegmentHeader { content: Content::Quarantine, before: made.before(1400), ..made.header(1) };
    let saved = [&header.encode()[..], &made.bytes[made.position_of(1400).0 as usize..]].concat();
    fs::write(folder.0.join("quarantine/cut"), saved).unwrap();
    let path = folder.file("quarantine/cut");
    assert_eq!(sequences(&["dump", &path]), (1400..=1502).collect::<Vec<_>>());
    assert_eq!(code(&log(&["verify", &path])), 0);
    let (info, _) = json(&["info", &path]);
    assert_eq!(
        (&info[0]["what"], &info[0]["first_sequence"]),
        (&"saved bytes".into(), &1400.into())
    );
    assert_eq!(json(&["info", &folder.file("")]).0[0]["saved_files"], 1);
    let text = out(&log(&["ls", &folder.file("")]));
    let saved = text.lines().last().unwrap();
    assert!(saved.starts_with("cut ") && saved.contains(" saved "), "{text}");
}

#[test]
fn ls_info_and_stats_print_what_is_there() {
    let (folder, made) = (Folder::new(), Log::with_commands(1200));
    made.write(&folder.0, made.tail.position);
    let path = folder.file("");
    let sequence = made.starts[1].sequence.0 + 1;
    let end = made.tail.position;
    let expected = format!(
        "FILE                   TIER      BASE  BYTES  SEQUENCE  TERM  GENERATION  CERTAIN  CLAIMED\n\
         {FIRST}  durable      0  69632         1     0  1.c0ffee00        -        -\n\
         {SECOND}  durable  65536  69632  {sequence:>8}     1  1.c0ffee00   {end}   {end}\n"
    );
    assert_eq!(out(&log(&["ls", &path])), expected);
    let info = out(&log(&["info", &path]));
    for (key, value) in [
        ("group", "00a70000000000b3"),
        ("what", "directory"),
        ("durable_files", "2"),
        ("end_sequence", "1202"),
        ("end_generation", "1.c0ffee00"),
        ("hot_directory", "-"),
        ("sealed_certain", &end.to_string()),
    ] {
        let line = info.lines().find(|line| line.split_whitespace().next() == Some(key)).unwrap();
        assert_eq!(line.split_whitespace().nth(1), Some(value), "{info}");
    }
    let (stats, _) = json(&["stats", &path]);
    assert_eq!(stats[0]["entries"], 1202);
    assert_eq!(stats[0]["bytes"], end.0);
    assert_eq!(stats[0]["kinds"]["command"]["frames"], 1200);
    assert_eq!(stats[0]["kinds"]["padding"]["frames"], made.starts.len() - 1);
    assert_eq!(stats[0]["busiest_sessions"][0]["commands"], 1200);
    assert_eq!(stats[0]["command_bytes"]["p50"], 11);
    assert_eq!(stats[0]["command_bytes"]["max"], 12);
    assert_eq!(stats[0]["seconds"], 1.201);
    let text = out(&log(&["stats", &path, "--kind", "command", "--sequence", "..13"]));
    assert!(text.contains("command      10"), "{text}");
    assert!(text.contains("rate      1000.0 entries/s over 0.009 s"), "{text}");
    assert_eq!(FIRST_COMMAND, 3);
}

#[test]
fn tail_shows_the_last_entries_and_follows() {
    let (folder, mut made) = (Folder::new(), Log::with_commands(2500));
    made.write(&folder.0, made.tail.position);
    let path = folder.file("");
    assert_eq!(sequences(&["tail", &path]), (2493..=2502).collect::<Vec<_>>());
    let first_of_last = made.starts.last().unwrap().sequence.0 + 1;
    let many = (2502 - first_of_last + 100).to_string();
    assert_eq!(sequences(&["tail", "-n", &many, &path]).len().to_string(), many, "two segments");
    assert_eq!(sequences(&["tail", "-n", "2", "--kind", "session-open,term-start", &path]), [1, 2]);

    let mut child = Command::new(env!("CARGO_BIN_EXE_quorate-log"))
        .args(["tail", "-f", "-n", "1", "--json", &path])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (sender, receiver) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        for line in lines {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let _ = sender.send(line["sequence"].as_u64().unwrap());
        }
    });
    let next = || receiver.recv_timeout(Duration::from_secs(20));
    let first = next();
    // Through the end of a segment.
    for number in 2501..=4000 {
        made.command(2, number, b"later");
    }
    made.write(&folder.0, made.position_of(4001));
    let followed: Vec<_> = (2503..=4000).map(|_| next()).collect();
    made.write(&folder.0, made.tail.position);
    let last = (next(), next());
    child.kill().unwrap();
    child.wait().unwrap();
    reading.join().unwrap();
    assert_eq!(first, Ok(2502));
    assert_eq!(followed, (2503..=4000).map(Ok).collect::<Vec<_>>());
    assert_eq!(last, (Ok(4001), Ok(4002)));
}

/// Whatever is done to the files: no panic, what is decoded is what was written, and what is not is in a range that is named.
#[test]
fn any_damage_leaves_every_entry_decoded_or_in_a_named_range() {
    let made = Log::with_commands(2000);
    let mut draw = 0x9E37_79B9_u64;
    let mut random = |below: u64| {
        draw ^= draw << 13;
        draw ^= draw >> 7;
        draw ^= draw << 17;
        draw % below
    };
    for round in 0..15 {
        let folder = Folder::new();
        made.write(&folder.0, made.tail.position);
        for _ in 0..=random(3) {
            let number = random(made.starts.len() as u64);
            let file = format!("{:016x}.qlog", number * SEGMENT);
            // Nobody remembers what the last file held, once it is gone.
            let last = number + 1 == made.starts.len() as u64;
            if !folder.0.join(&file).exists() {
                continue;
            }
            let (at, length) = (random(SEGMENT + 4000) as usize, 1 + random(400) as usize);
            match random(6) {
                0 if !last => fs::remove_file(folder.0.join(&file)).unwrap(),
                1 if !last => folder.change(&file, |bytes| bytes.truncate(at)),
                _ => folder.change(&file, |bytes| {
                    for byte in bytes.iter_mut().skip(at).take(length) {
                        *byte = random(256) as u8;
                    }
                }),
            }
        }
        let output = log(&["dump", "--uncommitted", "--json", &folder.file("")]);
        let status = code(&output);
        if !out(&output).is_empty() {
            let mut seen = BTreeMap::new();
            let mut named = Vec::new();
            for line in out(&output).lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                match line["sequence"].as_u64() {
                    Some(sequence) => drop(seen.insert(sequence, line["chain"].clone())),
                    None => named.push((line["from"].as_u64().unwrap(), line["to"].as_u64())),
                }
            }
            let first = *seen.keys().next().unwrap_or(&1);
            for sequence in first..=2002 {
                let at = made.position_of(sequence).0;
                let within =
                    named.iter().any(|&(from, to)| from <= at && to.is_none_or(|to| at < to));
                let crc = made.bytes[at as usize + 4..][..4].try_into().unwrap();
                let chain_of = u32::from_le_bytes(crc);
                match seen.get(&sequence) {
                    Some(chain) => assert_eq!(*chain, format!("{chain_of:08x}"), "round {round}"),
                    None => {
                        assert!(
                            within,
                            "round {round}: {sequence} at {at} is in none of {named:?}"
                        );
                    }
                }
            }
        }
        assert!([0, 2, 3].contains(&status), "round {round}: {status}: {}", err(&output));
        let verify = log(&["verify", &folder.file("")]);
        assert!((0..=3).contains(&code(&verify)), "round {round}: {}", err(&verify));
    }
}

#[test]
fn what_is_no_log_is_said_in_one_line() {
    let folder = Folder::new();
    let line = |args: &[&str]| {
        let output = log(args);
        assert_eq!(out(&output), "");
        (err(&output), code(&output))
    };
    let path = folder.file("");
    assert_eq!(line(&["info", &path]), (format!("quorate-log: {path}: no log is here\n"), 2));
    let none = folder.file("none");
    let (said, status) = line(&["dump", &none]);
    assert!(said.starts_with(&format!("quorate-log: {none}: No such file")), "{said}");
    assert_eq!(status, 2);
    fs::write(folder.0.join("foreign"), "hello, this is not a log").unwrap();
    let (said, status) = line(&["verify", &folder.file("foreign")]);
    assert_eq!((said.lines().count(), status), (1, 3), "{said}");
    Log::with_commands(1).write(&folder.0, Position(0));
    folder.change(FIRST, |file| file[..8].copy_from_slice(b"FOREIGN!"));
    assert_eq!(line(&["stats", &folder.file(FIRST)]).1, 3);
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let (folder, made) = (Folder::new(), Log::with_commands(3000));
    made.write(&folder.0, made.tail.position);
    let script =
        format!("{} dump {} | head -n 1", env!("CARGO_BIN_EXE_quorate-log"), folder.file(""));
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(out(&output).ends_with("DETAIL\n"));
    assert_eq!(err(&output), "");
}
