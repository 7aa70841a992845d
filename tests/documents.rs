//! What docs/PROTOCOL.md says, held against the program: every offset, size, number and name.

#![allow(clippy::unwrap_used, clippy::items_after_statements, clippy::format_collect)] // a test that cannot go on has failed

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use zerocopy::IntoBytes;

use quorate::control::constants::{Constant, Form};
use quorate::control::lane::wire::{
    CatchUpHeader, LaneBytesBody, LaneGoneBody, LaneMatchBody, LaneMatchedBody, LanePartBody,
    LanePurpose, LaneRangeBody, LaneSnapshotBody,
};
use quorate::control::message::ControlDatagram;
use quorate::frame::{
    FrameHeader, Kind, Predecessor, crc,
    payload::{CommandPrefix, GroupSetting, Member, SessionClose, SessionOpen, TermStart},
};
use quorate::io::shared_page::{MappedWords, SHARED_WORDS_FILE};
use quorate::journal::backup::{FileSum, Manifest};
use quorate::journal::memory_disk::MemoryDisk;
use quorate::journal::node_state::{
    BootId, CleanMark, NODE_STATE_NAME, NodeState, NodeStateStore, Truncation,
};
use quorate::journal::seal::Seal;
use quorate::journal::segment_header::{Content, SegmentHeader};
use quorate::journal::snapshot::Stamp;
use quorate::link::{SharedPage, SharedWords};
use quorate::stream::datagram::{
    DatagramHeader, DatagramKind, HelloBody, LaneHeader, MatchAnswer, MatchRequest, NakRange,
    RefuseBody, StatusBody, WelcomeBody,
};
use quorate::stream::local::{
    CommitAnswer, CommitQuestion, LocalAnswerBody, LocalOutcome, LocalQueryBody,
};
use quorate::stream::message::{AnswerHeader, AnswerKind, RequestHeader, RequestKind};
use quorate::types::{
    Chain, Commit, CutEpoch, Durable, Generation, GroupId, Incarnation, Leadership, NodeId,
    Position, Sequence, Term, Timestamp,
};

/// A row of a table: where, how long, which field.
type Row = (usize, usize, String);

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/PROTOCOL.md");
    fs::read_to_string(path).unwrap()
}

/// The cells of each table, by the heading in front of it.
fn tables(page: &str) -> BTreeMap<String, Vec<Vec<String>>> {
    let mut tables = BTreeMap::<_, Vec<_>>::new();
    let mut heading = String::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            title.trim_matches('`').clone_into(&mut heading);
        } else if let Some(row) = line.strip_prefix("| ") {
            let row = row.trim_end_matches(" |").split(" | ");
            let cells = row.map(|cell| cell.trim().trim_matches('`').to_owned()).collect();
            tables.entry(heading.clone()).or_default().push(cells);
        }
    }
    // The first row is the table's heading.
    for rows in tables.values_mut() {
        rows.remove(0);
    }
    tables
}

fn layout(page: &str, name: &str) -> Vec<Row> {
    let rows = tables(page).remove(name).unwrap_or_else(|| panic!("{name} is not on the page"));
    let row = |cells: Vec<String>| {
        (cells[0].parse().unwrap(), cells[1].parse().unwrap(), cells[2].clone())
    };
    rows.into_iter().map(row).collect()
}

/// Fields of a type, as the compiler lays them out.
macro_rules! fields {
    ($type:ident: $($field:ident)*) => {{
        let mut offsets = vec![$((std::mem::offset_of!($type, $field), stringify!($field))),*];
        offsets.push((size_of::<$type>(), ""));
        let rows = offsets.windows(2).map(|w| (w[0].0, w[1].0 - w[0].0, w[0].1.to_owned()));
        (stringify!($type), rows.collect::<Vec<Row>>())
    }};
}

#[test]
fn offsets_and_sizes_are_the_compilers() {
    let page = page();
    let real = [
        fields!(FrameHeader: length crc term kind flags version sequence timestamp),
        fields!(TermStart: generation base service_version leader reserved),
        fields!(SessionOpen: nonce timeout),
        fields!(SessionClose: session reason reserved),
        fields!(CommandPrefix: session client_sequence received_through),
        fields!(Member: node flags priority name_length address_length),
        fields!(GroupSetting: key reserved value),
        fields!(DatagramHeader: magic version kind flags key_id node group generation term
                incarnation position commit stamp counter),
        fields!(NakRange: from to),
        fields!(StatusBody: received verified durable promised window_end echo held flags reserved),
        fields!(MatchRequest: request end generation term chain),
        fields!(MatchAnswer: request position generation term chain agreed reserved),
        fields!(LaneHeader: session epoch),
        fields!(HelloBody: nonce session epoch timeout),
        fields!(WelcomeBody: nonce session epoch last_client_sequence command_bytes_max
                in_flight_max),
        fields!(RefuseBody: nonce reason reserved),
        fields!(LocalQueryBody: nonce number within at_least wait),
        fields!(LocalAnswerBody: nonce number outcome reserved code length term reserved_term
                applied sequence lag heard),
        fields!(CommitQuestion: number),
        fields!(CommitAnswer: number commit),
        fields!(RequestHeader: length kind flags reserved client_sequence received_through),
        fields!(AnswerHeader: length outcome flags code client_sequence sequence),
        fields!(ControlDatagram: magic version kind node flags group generation term last_term first
                second instance round constants),
        fields!(CatchUpHeader: magic version kind length group generation from to checksum number),
        fields!(LaneMatchBody: generation end term chain purpose),
        fields!(LaneRangeBody: from to purpose),
        fields!(LanePurpose: generation term kind reserved),
        fields!(LaneMatchedBody: position generation end term chain reply reserved),
        fields!(LaneBytesBody: from end committed),
        fields!(LaneGoneBody: first),
        fields!(LaneSnapshotBody: at_most from),
        fields!(LanePartBody: position total from),
    ];
    for (name, rows) in real {
        assert_eq!(layout(&page, name), rows, "{name}");
    }
}

#[test]
fn kinds_have_the_numbers_of_the_page() {
    let tables = tables(&page());
    let told = |heading: &str| -> Vec<(u8, String)> {
        tables[heading].iter().map(|row| (row[0].parse().unwrap(), row[1].clone())).collect()
    };
    fn real<T: std::fmt::Debug>(from_u8: impl Fn(u8) -> Option<T>) -> Vec<(u8, String)> {
        (0..=u8::MAX).filter_map(|n| Some((n, format!("{:?}", from_u8(n)?)))).collect()
    }
    let names: Vec<_> =
        Kind::ALL.iter().map(|&kind| (kind as u8, kind.name().to_owned())).collect();
    assert_eq!(told("Kinds of entries"), names);
    assert_eq!(told("Kinds of datagrams"), real(DatagramKind::from_u8));
    assert_eq!(told("Kinds of requests"), real(RequestKind::from_u8));
    assert_eq!(told("Outcomes"), real(AnswerKind::from_u8));
    assert_eq!(told("Outcomes of local queries"), real(LocalOutcome::from_u8));
}

#[test]
fn the_constants_of_a_group_travel_where_the_page_says() {
    let start = std::mem::offset_of!(ControlDatagram, constants);
    let real = Constant::ALL.iter().enumerate().map(|(place, constant)| {
        let form = match constant.form() {
            Form::Number => "",
            Form::Rung => "0 memory, 1 disk",
            Form::Digest => "digest",
        };
        ((start + 8 * place).to_string(), constant.key().to_owned(), form)
    });
    let told = &tables(&page())["Constants of a group"];
    assert_eq!(told.len(), Constant::ALL.len());
    for (row, (offset, key, form)) in told.iter().zip(real) {
        assert_eq!((&row[0], &row[1]), (&offset, &key));
        assert!(row[2].starts_with(form), "{row:?}");
    }
}

/// Looks up each field of `bytes` where the page says it is.
fn assert_fields(name: &str, bytes: &[u8], expected: &[(&str, &[u8])]) {
    let rows = layout(&page(), name);
    let mut end = 0;
    for (offset, size, field) in rows {
        assert_eq!(offset, end, "{name}.{field} follows the field before it");
        end = offset + size;
        let found = &bytes[offset..end];
        match expected.iter().find(|(name, _)| *name == field) {
            Some((_, value)) => assert_eq!(found, *value, "{name}.{field}"),
            None => assert!(
                field.starts_with("reserved") && found.iter().all(|&byte| byte == 0),
                "{name}.{field} is reserved and zero"
            ),
        }
    }
    assert_eq!(end, bytes.len(), "{name}: all bytes are accounted for");
}

fn before(position: u64) -> Predecessor {
    Predecessor {
        position: Position(position),
        sequence: Sequence(0x1122_3344_5566_7788),
        term: Term(0x99AA_BBCC),
        chain: Chain(0xDDEE_FF01),
    }
}

/// A predecessor as the page says it lies in files.
fn mark(at: Predecessor) -> Vec<u8> {
    let (term, chain) = (at.term.0.to_le_bytes(), at.chain.0.to_le_bytes());
    let numbers = [at.position.0.to_le_bytes(), at.sequence.0.to_le_bytes()];
    [numbers.as_flattened(), &term, &chain].concat()
}

#[test]
fn a_segment_header_lies_where_the_page_says() {
    let header = SegmentHeader {
        content: Content::Quarantine,
        group: GroupId(0x0102_0304_0506_0708),
        generation: Generation { counter: 0x1112_1314, random: 0x2122_2324 },
        segment_bytes: 1 << 20,
        before: before(0x3132_3334_3536_3720),
        cut_epoch: CutEpoch(0x4142_4344),
    };
    let page = header.encode();
    let checksum = crc::crc32c(0, &page[..124]).to_le_bytes();
    let expected: &[(&str, &[u8])] = &[
        ("magic", b"QUORLOG\n"),
        ("version", &1_u16.to_le_bytes()),
        ("content", &2_u16.to_le_bytes()),
        ("header_bytes", &4096_u32.to_le_bytes()),
        ("group", &header.group.0.to_le_bytes()),
        ("generation", &header.generation.to_u64().to_le_bytes()),
        ("base", &header.before.position.0.to_le_bytes()),
        ("segment_bytes", &header.segment_bytes.to_le_bytes()),
        ("sequence", &header.before.sequence.0.to_le_bytes()),
        ("term", &header.before.term.0.to_le_bytes()),
        ("chain", &header.before.chain.0.to_le_bytes()),
        ("cut_epoch", &header.cut_epoch.0.to_le_bytes()),
        ("crc", &checksum),
    ];
    assert_fields("SegmentHeader", &page[..128], expected);
    assert!(page[128..].iter().all(|&byte| byte == 0));
}

#[test]
fn a_backups_manifest_has_the_lines_of_the_page() {
    let file = FileSum { name: "0000000000000000.qlog".to_owned(), bytes: 69_632, crc: 0xABC };
    let manifest = Manifest {
        group: GroupId(0x0102),
        segment_bytes: 1 << 16,
        node: NodeId(3),
        taken: Timestamp(4),
        first: Position(0),
        end: before(320),
        generation: Generation { counter: 1, random: 2 },
        files: vec![file],
    };
    let text = manifest.encode();
    let lines: Vec<_> = text.lines().collect();
    let told = &tables(&page())["BackupManifest"];
    let names: Vec<_> = told.iter().map(|row| row[0].as_str()).collect();
    let written: Vec<_> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(written[1..written.len() - 1], names);
    assert_eq!(lines[0], "quorate backup 1");
    assert_eq!(lines[1], "group 0000000000000102");
    assert_eq!(lines[11], "file 0000000000000000.qlog 69632 00000abc");
    let covered = text.rfind("crc").unwrap();
    assert_eq!(
        &text[covered..],
        format!("crc {:08x}\n", crc::crc32c(0, &text.as_bytes()[..covered]))
    );
    assert_eq!(Manifest::decode(text.as_bytes()).unwrap(), manifest);
}

#[test]
fn a_snapshots_stamp_lies_where_the_page_says() {
    let stamp = Stamp {
        group: GroupId(0x0102_0304_0506_0708),
        generation: Generation { counter: 0x1112_1314, random: 0x2122_2324 },
        before: before(0x3132_3334_3536_3720),
        time: Timestamp(0x4142_4344_4546_4748),
        state_hash: 0x5152_5354_5556_5758,
        service: "auction".to_owned(),
        service_version: 0x6162_6364,
        state_bytes: 0x7172_7374_7576_7778,
        blocks_crc: 0x8182_8384,
    };
    let page = stamp.encode();
    let checksum = crc::crc32c(0, &page[..124]).to_le_bytes();
    let mut service = [0; 32];
    service[..7].copy_from_slice(b"auction");
    let expected: &[(&str, &[u8])] = &[
        ("magic", b"QUORSNP\n"),
        ("version", &1_u32.to_le_bytes()),
        ("blocks_crc", &stamp.blocks_crc.to_le_bytes()),
        ("group", &stamp.group.0.to_le_bytes()),
        ("generation", &stamp.generation.to_u64().to_le_bytes()),
        ("position", &stamp.before.position.0.to_le_bytes()),
        ("sequence", &stamp.before.sequence.0.to_le_bytes()),
        ("term", &stamp.before.term.0.to_le_bytes()),
        ("chain", &stamp.before.chain.0.to_le_bytes()),
        ("time", &stamp.time.0.to_le_bytes()),
        ("state_hash", &stamp.state_hash.to_le_bytes()),
        ("state_bytes", &stamp.state_bytes.to_le_bytes()),
        ("service", &service),
        ("service_version", &stamp.service_version.to_le_bytes()),
        ("crc", &checksum),
    ];
    assert_fields("SnapshotStamp", &page[..128], expected);
    assert!(page.len() == 4096 && page[128..].iter().all(|&byte| byte == 0));
    assert_eq!(Stamp::decode(&page).unwrap(), stamp);
}

#[test]
fn a_seal_lies_where_the_page_says() {
    let group = GroupId(0x0102_0304_0506_0708);
    let seal = Seal {
        number: 0x1112_1314_1516_1718,
        epoch: CutEpoch(0x2122_2324),
        certain: before(0x1000),
        claimed: before(0x2000),
        known_commit: Commit(Position(0x1800)),
    };
    let sector = seal.encode(group);
    let checksum = crc::crc32c(0, &sector[..508]).to_le_bytes();
    let expected: &[(&str, &[u8])] = &[
        ("magic", b"QUORSEAL"),
        ("number", &seal.number.to_le_bytes()),
        ("group", &group.0.to_le_bytes()),
        ("epoch", &seal.epoch.0.to_le_bytes()),
        ("certain", &mark(seal.certain)),
        ("claimed", &mark(seal.claimed)),
        ("known_commit", &0x1800_u64.to_le_bytes()),
        ("crc", &checksum),
    ];
    assert_fields("Seal", &sector, expected);
    assert_eq!(seal.offset(), 1024, "even numbers");
    assert_eq!(Seal { number: 7, ..seal }.offset(), 1536, "odd numbers");
}

#[test]
fn node_state_lies_where_the_page_says() {
    let (group, node) = (GroupId(0x0102_0304_0506_0708), NodeId(0x0A0B));
    let generation = Generation { counter: 0x1112_1314, random: 0x2122_2324 };
    let mut state = NodeState::blank(group, node);
    state.boot_id = BootId(*b"sixteen bytes id");
    state.hot_tier_id = 0x3132_3334_3536_3738;
    state.incarnation = Incarnation(0x4142_4344);
    state.found(Leadership { generation, term: Term(0x5152_5354) }).unwrap();
    state.vote(state.leadership, NodeId(6)).unwrap();
    state.won_founding = true;
    state.allow_memory().unwrap();
    state.truncate(Truncation { at: before(0x800), epoch: CutEpoch(1) }).unwrap();
    let disk = MemoryDisk::new();
    let store = NodeStateStore::open(&disk, group, node).unwrap();
    store.record_start(&disk, &state).unwrap();
    let clean = CleanMark { tail: before(0x1000), commit: Commit(Position(0x800)) };
    store.update(|state| state.stop(clean, Durable(Position(0x1000)))).unwrap();
    let bytes = disk.bytes(NODE_STATE_NAME).unwrap();
    assert_eq!(bytes.len(), 2 * 4096);
    let (first, second) = bytes.split_at(4096);
    assert_eq!(first, second);
    let checksum = crc::crc32c(0, &first[..4092]).to_le_bytes();
    let expected: &[(&str, &[u8])] = &[
        ("magic", b"QUORNODE"),
        ("version", &1_u16.to_le_bytes()),
        ("node", &node.0.to_le_bytes()),
        ("flags", &(2_u32 | 4 | 8 | 16 | 32).to_le_bytes()),
        ("number", &2_u64.to_le_bytes()),
        ("group", &group.0.to_le_bytes()),
        ("generation", &generation.to_u64().to_le_bytes()),
        ("term", &0x5152_5354_u32.to_le_bytes()),
        ("vote", &7_u32.to_le_bytes()),
        ("boot_id", b"sixteen bytes id"),
        ("hot_tier_id", &0x3132_3334_3536_3738_u64.to_le_bytes()),
        ("incarnation", &0x4142_4344_u32.to_le_bytes()),
        ("truncation_epoch", &1_u32.to_le_bytes()),
        ("clean_tail", &mark(before(0x1000))),
        ("clean_commit", &0x800_u64.to_le_bytes()),
        ("truncation", &mark(before(0x800))),
        ("crc", &checksum),
    ];
    assert_fields("NodeState", first, expected);
}

#[test]
fn the_shared_page_lies_where_the_page_says() {
    let tier = std::env::temp_dir().join(format!("quorate-page-{}", std::process::id()));
    fs::create_dir_all(&tier).unwrap();
    let words = MappedWords::create(&tier).unwrap();
    words.words().commit.store(0x0102_0304, Ordering::Release);
    let bytes = fs::read(tier.join(SHARED_WORDS_FILE)).unwrap();
    fs::remove_dir_all(&tier).unwrap();
    let padded = |text: &[u8], length: usize| [text, &vec![0; length - text.len()]].concat();
    let names: String = SharedWords::NAMES.iter().map(|name| format!("{name}\n")).collect();
    let values: Vec<u8> = words.words().values().flat_map(u64::to_le_bytes).collect();
    let expected: &[(&str, &[u8])] = &[
        ("magic", &padded(b"quorate shared words 1\n", 40)),
        ("process", &u64::from(std::process::id()).to_le_bytes()),
        ("count", &(SharedWords::NAMES.len() as u32).to_le_bytes()),
        ("names_crc", &crc::crc32c(0, names.as_bytes()).to_le_bytes()),
        ("words", &padded(&values, 1984)),
        ("names", &padded(names.as_bytes(), 2048)),
    ];
    assert_fields("SharedPage", &bytes, expected);
}

#[test]
fn the_chain_covers_what_the_page_says() {
    let mut header = FrameHeader::new(35, Kind::Command, Term(3), Sequence(4), Timestamp(5));
    let (before, position, payload) = (Chain(0x0BAD_CAFE), Position(96), b"abc");
    header.crc = 7.into();
    let bytes = header.as_bytes();
    let covered = [&bytes[..4], &bytes[8..32], &96_u64.to_le_bytes(), payload].concat();
    let by_the_page = crc::crc32c(before.0, &covered);
    assert_eq!(crc::chain(before, &header, position, payload), Chain(by_the_page));
    let genesis = Predecessor::genesis(GroupId(9));
    assert_eq!(genesis.chain, Chain(crc::crc32c(0, &9_u64.to_le_bytes())));
}

#[test]
fn a_page_that_is_wrong_is_noticed() {
    let page = page();
    let wrong = page.replacen("| 12 | 1 | `kind` |", "| 13 | 1 | `kind` |", 1);
    assert_ne!(page, wrong);
    let (name, rows) = fields!(FrameHeader: length crc term kind flags version sequence timestamp);
    assert_eq!(layout(&page, name), rows);
    assert_ne!(layout(&wrong, name), rows);
}
