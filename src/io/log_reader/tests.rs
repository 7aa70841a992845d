//! A reader beside a node that writes, over its files after it died, and over copies of them.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Mutex;

use zerocopy::IntoBytes;

use super::*;
use crate::frame::payload::TermStart;
use crate::frame::{FrameError, Kind};
use crate::io::hot_tier::{HostHotTier, HotTierSettings};
use crate::io::mapping::MappedMemory;
use crate::io::shared_page::MappedWords;
use crate::io::test_directory::TestDirectory;
use crate::journal::HotTier;
use crate::journal::hot::{HeaderPage, HotLog, HotSettings};
use crate::journal::reader::Cause;
use crate::limits::SEGMENT_BYTES_MIN;
use crate::link::SharedPage;
use crate::types::{Chain, CutEpoch, Generation, Term};

const SEGMENT: u64 = SEGMENT_BYTES_MIN;
const GROUP: GroupId = GroupId(31);
const GENERATION: Generation = Generation { counter: 1, random: 2 };
const UNCOMMITTED: ReadOptions = ReadOptions { uncommitted: true, tiers: Tiers::Both };

/// A node's files, written by its own code.
struct Node {
    data: TestDirectory,
    tier: HostHotTier,
    words: MappedWords,
    log: HotLog<MappedMemory>,
    sealed: u64,
}

impl Node {
    fn start(name: &str) -> Self {
        let data = TestDirectory::new(name);
        let (tier, _) = HostHotTier::open(&HotTierSettings {
            data_directory: data.path().into(),
            directory: Some(data.path().join("tier")),
            segment_bytes: SEGMENT,
            segments_min: 1,
        })
        .unwrap();
        let words = MappedWords::create(tier.directory()).unwrap();
        let settings = HotSettings {
            segment_bytes: SEGMENT,
            window_bytes: SEGMENT / 4,
            group: GROUP,
            generation: GENERATION,
            header: HeaderPage::standard(),
            terms: Vec::new(),
        };
        let log = HotLog::new(settings, Predecessor::genesis(GROUP));
        let mut node = Self { data, tier, words, log, sealed: 0 };
        node.add_segment();
        let start = TermStart {
            generation: GENERATION.to_u64().into(),
            base: 0.into(),
            service_version: 1.into(),
            leader: 0.into(),
            reserved: 0.into(),
        };
        node.append(Kind::TermStart, start.as_bytes());
        node
    }

    fn add_segment(&mut self) {
        let base = self.log.end_of_room();
        self.tier.create(base).unwrap();
        self.tier.populate(base, 0, SEGMENT + SEGMENT_HEADER_BYTES as u64).unwrap();
        let (memory, _view) = self.tier.open(base).unwrap();
        self.log.add_segment(base, memory).unwrap();
    }

    fn append(&mut self, kind: Kind, payload: &[u8]) {
        if !self.log.room_for(payload.len()) {
            self.add_segment();
        }
        let time = Timestamp(1000 * self.log.tail().sequence.next().0);
        self.log.append(kind, Term(1), time, &[payload]).unwrap();
    }

    fn command(&mut self, length: usize) {
        let payload = vec![self.log.tail().sequence.0 as u8; length];
        self.append(Kind::Command, &payload);
    }

    fn share(&self, commit: Position) {
        let words = self.words.words();
        words.verified.store(self.log.tail().position.0, Ordering::Release);
        words.commit.store(commit.0, Ordering::Release);
    }

    /// Writes the durable files as far as the log goes.
    fn sync(&mut self, known_commit: Position) {
        let tail = self.log.tail();
        let mut base = self.log.hot_base();
        while base <= tail.position {
            let Some(before) = self.log.predecessor_at(base) else { break };
            let header = SegmentHeader {
                content: Content::Segment,
                group: GROUP,
                generation: GENERATION,
                segment_bytes: SEGMENT,
                before,
                cut_epoch: CutEpoch(0),
            };
            let mut file = header.encode().to_vec();
            self.sealed += 1;
            let seal = Seal {
                number: self.sealed,
                epoch: CutEpoch(0),
                certain: tail,
                claimed: tail,
                known_commit: Commit(known_commit),
            };
            file[seal.offset()..][..512].copy_from_slice(&seal.encode(GROUP));
            let end = base.plus(SEGMENT).min(tail.position);
            let mut at = base;
            while at < end {
                let chunk = self.log.chunk(at, end, usize::MAX).unwrap();
                file.extend_from_slice(chunk.bytes);
                at = chunk.next;
            }
            file.resize(SEGMENT_HEADER_BYTES + SEGMENT as usize, 0);
            fs::write(self.data.path().join(segment_name(base)), file).unwrap();
            base = base.plus(SEGMENT);
        }
    }

    fn reader(&self, options: ReadOptions) -> LogReader {
        LogReader::open(self.data.path(), options).unwrap()
    }
}

fn sequences(reader: &mut LogReader) -> (Vec<u64>, Option<Trouble>) {
    let mut seen = Vec::new();
    loop {
        match reader.next_frame() {
            Ok(Some(found)) if found.header.kind() == Some(Kind::Padding) => {}
            Ok(Some(found)) => seen.push(found.header.sequence().0),
            Ok(None) => return (seen, None),
            Err(trouble) => return (seen, Some(trouble)),
        }
    }
}

#[test]
fn a_live_log_is_read_up_to_its_commit_position_and_beyond_only_when_asked() {
    let mut node = Node::start("live");
    for _ in 0..9 {
        node.command(100);
    }
    let commit = node.log.seek_sequence(Sequence(6)).unwrap();
    node.share(commit);
    let mut reader = node.reader(ReadOptions::default());
    assert_eq!((reader.group(), reader.limit()), (GROUP, commit));
    let (seen, trouble) = sequences(&mut reader);
    assert!(seen.iter().copied().eq(1..=5) && trouble.is_none());
    let (all, trouble) = sequences(&mut node.reader(UNCOMMITTED));
    assert!(all.iter().copied().eq(1..=10) && trouble.unwrap().may_be_end());
    node.share(node.log.tail().position);
    assert!(sequences(&mut reader).0.iter().copied().eq(6..=10));
    // A commit position that this node has no bytes for yet.
    node.words.words().commit.store(1 << 20, Ordering::Release);
    assert!(sequences(&mut reader).1.is_none());
}

#[test]
fn following_goes_through_new_and_retired_segments_and_a_restart() {
    let mut node = Node::start("follow");
    let mut reader = node.reader(ReadOptions::default());
    let mut seen = Vec::new();
    for _ in 0..200 {
        for _ in 0..5 {
            node.command(700);
        }
        let tail = node.log.tail().position;
        node.share(tail);
        if node.log.segments() > 3 {
            node.sync(tail);
            let (base, memory) = node.log.retire(tail).unwrap();
            drop(memory);
            node.tier.remove(base).unwrap();
        }
        if seen.len() % 7 == 0 {
            reader.refresh().unwrap();
        }
        let (more, trouble) = sequences(&mut reader);
        assert!(trouble.is_none(), "{trouble:?}");
        seen.extend(more);
    }
    assert!(seen.iter().copied().eq(1..=1001));
    let mut late = node.reader(ReadOptions::default());
    assert!(sequences(&mut late).0.iter().copied().eq(1..=1001));
    // The node starts again and does not know a commit position yet; then it does.
    node.words = MappedWords::create(node.tier.directory()).unwrap();
    assert!(sequences(&mut reader).0.is_empty());
    node.command(10);
    node.share(node.log.tail().position);
    assert_eq!(sequences(&mut reader).0, [1002]);
}

#[test]
fn a_copy_is_read_up_to_the_commit_position_in_its_seals() {
    let mut node = Node::start("copied");
    for _ in 0..200 {
        node.command(700);
    }
    let tail = node.log.tail().position;
    node.share(tail);
    let commit = node.log.seek_sequence(Sequence(151)).unwrap();
    node.sync(commit);
    let copy = TestDirectory::new("copy-of-log");
    for entry in fs::read_dir(node.data.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    let mut reader = LogReader::open(copy.path(), ReadOptions::default()).unwrap();
    assert!(reader.tier().is_none() && reader.shared().is_none());
    assert_eq!(reader.commit(), Some(Commit(commit)));
    assert!(sequences(&mut reader).0.iter().copied().eq(1..=150));
    let mut reader = LogReader::open(copy.path(), UNCOMMITTED).unwrap();
    let (all, trouble) = sequences(&mut reader);
    assert!(all.iter().copied().eq(1..=201) && trouble.unwrap().position == tail);
    assert_eq!(reader.before(), node.log.tail());

    let second = copy.path().join(segment_name(Position(SEGMENT)));
    let mut reader = LogReader::open(&second, ReadOptions::default()).unwrap();
    let (part, _) = sequences(&mut reader);
    assert!(part[0] > 1 && part.iter().copied().eq(part[0]..=part[part.len() - 1]));
    assert_eq!(reader.before().position, Position(2 * SEGMENT));
    let renamed = copy.path().join("anything.bin");
    fs::rename(second, &renamed).unwrap();
    LogReader::open(&renamed, ReadOptions::default()).unwrap();
    let mut gap = LogReader::open(copy.path(), ReadOptions::default()).unwrap();
    let trouble = sequences(&mut gap).1.unwrap();
    assert_eq!(trouble.position, Position(SEGMENT));
}

#[test]
fn the_durable_tier_alone_is_read_up_to_what_is_durable() {
    let mut node = Node::start("durable-only");
    for _ in 0..20 {
        node.command(700);
    }
    node.sync(node.log.tail().position);
    node.words.words().durable.store(node.log.tail().position.0, Ordering::Release);
    for _ in 0..20 {
        node.command(700);
    }
    node.share(node.log.tail().position);
    let durable = ReadOptions { tiers: Tiers::Durable, ..ReadOptions::default() };
    let mut reader = node.reader(durable);
    assert!(sequences(&mut reader).0.iter().copied().eq(1..=21));
    assert!(reader.segments().iter().all(|segment| segment.tier == Tier::Durable));
    assert!(sequences(&mut node.reader(ReadOptions::default())).0.iter().copied().eq(1..=41));
}

#[test]
fn seeks_over_many_segments() {
    let mut node = Node::start("seek");
    for _ in 0..300 {
        node.command(900);
    }
    node.share(node.log.tail().position);
    let mut reader = node.reader(ReadOptions::default());
    assert!(reader.segments().len() > 3);
    for sequence in [1, 2, 60, 139, 140, 141, 299, 301] {
        let position = node.log.seek_sequence(Sequence(sequence)).unwrap();
        assert!(reader.seek_sequence(Sequence(sequence)).unwrap());
        assert_eq!(reader.next_frame().unwrap().unwrap().position, position);
        assert!(reader.seek_time(Timestamp(1000 * sequence - 500)).unwrap());
        let found = reader.next_frame().unwrap().unwrap();
        // Padding in front of an entry has its time.
        assert!(found.position == position || found.header.kind() == Some(Kind::Padding));
        assert!(reader.seek_position(position).unwrap());
        assert_eq!(reader.before().position, position);
    }
    assert!(!reader.seek_sequence(Sequence(302)).unwrap());
    assert!(!reader.seek_time(Timestamp(302_000)).unwrap());
    assert!(reader.seek_sequence(Sequence(0)).unwrap());
    assert_eq!(reader.before().position, Position(0));
}

#[test]
fn what_is_no_log_is_named() {
    let empty = TestDirectory::new("empty");
    let open = |path: &Path| LogReader::open(path, ReadOptions::default()).unwrap_err();
    assert!(matches!(open(empty.path()), OpenError::NoSegments { .. }));
    assert!(matches!(open(&empty.path().join("none")), OpenError::Host { .. }));
    let file = empty.path().join("notes");
    fs::write(&file, "x".repeat(5000)).unwrap();
    let error = open(&file);
    assert!(matches!(error, OpenError::Header { error: HeaderError::Foreign { .. }, .. }));
    fs::write(empty.path().join(segment_name(Position(0))), "short").unwrap();
    assert!(matches!(open(empty.path()), OpenError::NoSegments { .. }));
    let mut node = Node::start("two-groups");
    node.sync(Position(0));
    let other = SegmentHeader {
        content: Content::Segment,
        group: GroupId(5),
        generation: GENERATION,
        segment_bytes: SEGMENT,
        before: Predecessor { position: Position(SEGMENT), ..Predecessor::genesis(GroupId(5)) },
        cut_epoch: CutEpoch(0),
    };
    let path = node.data.path().join(segment_name(Position(SEGMENT)));
    fs::write(&path, other.encode()).unwrap();
    assert!(matches!(open(node.data.path()), OpenError::Groups { found: GroupId(5), .. }));
}

#[test]
fn damage_is_told_with_its_position_and_rule() {
    let mut node = Node::start("damage");
    for _ in 0..20 {
        node.command(700);
    }
    let tail = node.log.tail().position;
    node.sync(tail);
    let at = node.log.seek_sequence(Sequence(9)).unwrap();
    let path = node.data.path().join(segment_name(Position(0)));
    let mut bytes = fs::read(&path).unwrap();
    bytes[SEGMENT_HEADER_BYTES + at.0 as usize + 100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let durable = ReadOptions { tiers: Tiers::Durable, uncommitted: true };
    let (seen, trouble) = sequences(&mut node.reader(durable));
    let trouble = trouble.unwrap();
    assert!(seen.iter().copied().eq(1..=8));
    assert_eq!(trouble.position, at);
    assert!(matches!(trouble.cause, Cause::Frame(FrameError::Chain { .. })));
}

/// The core appends, commits some of it, cuts the rest away and writes other bytes there; a reader in the meantime sees
/// every committed entry as it was committed, and nothing else.
#[test]
fn d14_an_outside_reader_never_sees_an_uncommitted_byte() {
    let mut node = Node::start("d14");
    let path = node.data.path().to_path_buf();
    let decided = Mutex::new(vec![Chain(0)]);
    let done = AtomicBool::new(false);
    let asked = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut reader = LogReader::open(&path, ReadOptions::default()).unwrap();
            let mut seen = 0;
            loop {
                let last = done.load(Ordering::Acquire);
                let mut more = 0;
                asked.fetch_add(1, Ordering::AcqRel);
                while let Some(found) = reader.next_frame().unwrap() {
                    let (chain, sequence) = (found.header.chain(), found.header.sequence());
                    let end = found.position.plus(found.header.span());
                    let padding = found.header.kind() == Some(Kind::Padding);
                    let shared = reader.shared().unwrap();
                    assert!(end <= shared.readable(), "above the commit position");
                    if !padding {
                        assert_eq!(sequence.0, seen + more + 1);
                        assert_eq!(decided.lock().unwrap()[sequence.0 as usize], chain);
                        more += 1;
                    }
                }
                seen += more;
                if last && more == 0 {
                    return seen;
                }
            }
        });
        let mut random = 1_u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let mut committed = Position(0);
        for round in 0..400 {
            for _ in 0..=draw(20) {
                let payload = vec![draw(256) as u8; draw(900) as usize];
                node.append(Kind::Command, &payload);
            }
            let tail = node.log.tail();
            let target = tail.sequence.0 - draw(8).min(tail.sequence.0 - 1);
            let mut at = committed;
            for (position, header, _) in node.log.frames(committed, tail.position) {
                if header.sequence().0 > target {
                    break;
                }
                if header.kind() != Some(Kind::Padding) {
                    decided.lock().unwrap().push(header.chain());
                }
                at = position.plus(header.span());
            }
            committed = committed.max(at);
            node.share(committed);
            // The reader gets to the commit position, and asks for more, while there are bytes above it.
            let enough = asked.load(Ordering::Acquire) + 3;
            while asked.load(Ordering::Acquire) < enough && !reading.is_finished() {
                std::thread::yield_now();
            }
            if round % 3 == 0 {
                let at = node.log.predecessor_at(committed).unwrap();
                node.words.words().verified.store(committed.0, Ordering::Release);
                node.log.cut(at).unwrap();
            }
        }
        node.share(committed);
        done.store(true, Ordering::Release);
        let seen = reading.join().unwrap();
        assert_eq!(seen as usize, decided.lock().unwrap().len() - 1);
        assert!(committed > Position(3 * SEGMENT));
    });
    let mut rest = node.reader(UNCOMMITTED);
    assert!(sequences(&mut rest).1.unwrap().may_be_end());
    assert_eq!(rest.before(), node.log.tail());
}

/// A log of `segments` segments of `segment_bytes`, of which each holds `entries` commands and then padding: files with holes.
struct Sparse {
    folder: TestDirectory,
    /// What stands before each entry.
    before: Vec<Predecessor>,
}

impl Sparse {
    fn new(name: &str, segment_bytes: u64, segments: u64, entries: u64) -> Self {
        let folder = TestDirectory::new(name);
        let mut at = Predecessor::genesis(GROUP);
        at.term = Term(1);
        let mut before = Vec::new();
        for number in 0..segments {
            let header = SegmentHeader {
                content: Content::Segment,
                group: GROUP,
                generation: GENERATION,
                segment_bytes,
                before: at,
                cut_epoch: CutEpoch(0),
            };
            let file_bytes = SEGMENT_HEADER_BYTES as u64 + segment_bytes;
            let (base, mut file) = (at.position, header.encode().to_vec());
            for _ in 0..entries {
                before.push(at);
                at = frame(&mut file, at, Kind::Command, 182, &[7; 150]);
            }
            let left = file_bytes - file.len() as u64;
            at = frame(&mut file, at, Kind::Padding, left as u32, &[]);
            if number + 1 == segments {
                let certain = at;
                let known_commit = Commit(at.position);
                let epoch = CutEpoch(0);
                let seal = Seal { number: 1, epoch, certain, claimed: certain, known_commit };
                file[seal.offset()..][..512].copy_from_slice(&seal.encode(GROUP));
            }
            let path = folder.path().join(segment_name(base));
            fs::write(&path, &file).unwrap();
            File::options().write(true).open(&path).unwrap().set_len(file_bytes).unwrap();
        }
        Self { folder, before }
    }
}

/// Appends a frame to a file; of padding the header alone.
fn frame(
    file: &mut Vec<u8>,
    before: Predecessor,
    kind: Kind,
    length: u32,
    payload: &[u8],
) -> Predecessor {
    let padding = kind == Kind::Padding;
    let sequence = if padding { before.sequence } else { before.sequence.next() };
    let time = Timestamp(1000 * sequence.0);
    let mut header = FrameHeader::new(length, kind, before.term, sequence, time);
    let chain = crate::frame::crc::chain(before.chain, &header, before.position, payload);
    header.crc.set(chain.0);
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(payload);
    file.resize(file.len().next_multiple_of(32), 0);
    before.after(&header)
}

/// Looks for some entries in every way; returns the most that was read for one of them.
fn most_read(sparse: &Sparse, wanted: impl Iterator<Item = usize>) -> Reads {
    let mut most = Reads::default();
    for number in wanted {
        let before = sparse.before[number];
        let sequence = before.sequence.next();
        for target in [
            Target::Sequence(sequence),
            Target::Position(before.position.plus(1)),
            Target::Time(Timestamp(1000 * sequence.0 - 1)),
        ] {
            let options = ReadOptions::default();
            let mut reader = LogReader::open_for(sparse.folder.path(), options, target).unwrap();
            assert!(reader.go_to(target).unwrap(), "{target:?}");
            let mut found = reader.next_frame().unwrap().unwrap();
            if found.header.kind() == Some(Kind::Padding) {
                found = reader.next_frame().unwrap().unwrap();
            }
            assert_eq!((found.position, found.header.sequence()), (before.position, sequence));
            let reads = reader.reads();
            most = Reads { calls: most.calls.max(reads.calls), bytes: most.bytes.max(reads.bytes) };
        }
    }
    most
}

#[test]
fn one_entry_of_a_log_of_100_gib_is_found_with_a_handful_of_pages() {
    let sparse = Sparse::new("sparse", 16 << 20, 6400, 3);
    assert_eq!(sparse.before.len(), 3 * 6400);
    let most = most_read(&sparse, [0, 1, 2, 3, 7000, 12_345, 19_197, 19_199].into_iter());
    // 13 header pages to the segment and 7 at the ends, as many frames for a time, and one piece of what is read at once.
    assert!(most.calls <= 64 && most.bytes <= 1 << 20, "{most:?}");
    let absent = Target::Sequence(Sequence(19_201));
    let options = ReadOptions::default();
    let mut reader = LogReader::open_for(sparse.folder.path(), options, absent).unwrap();
    assert!(!reader.go_to(absent).unwrap());
}

#[test]
fn within_a_full_segment_an_entry_is_found_without_reading_what_is_before() {
    let full = Sparse::new("full", 16 << 20, 2, 80_000);
    let most =
        most_read(&full, [0, 1, 39_999, 40_000, 79_999, 80_000, 100_001, 159_999].into_iter());
    assert!(most.calls <= 64 && most.bytes <= 1 << 20, "{most:?}");
}

#[test]
fn where_a_header_page_on_the_way_is_damaged_all_of_them_are_read() {
    let sparse = Sparse::new("sparse-damaged", 1 << 20, 64, 2);
    let path = sparse.folder.path().join(segment_name(Position(32 << 20)));
    let mut page = fs::read(&path).unwrap();
    page[20] ^= 1;
    fs::write(&path, page).unwrap();
    most_read(&sparse, [0, 30, 63, 66, 100, 127].into_iter());
}
