//! Reads the files, follows the chain, and finds where and why it stops.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::seals::Known;
use super::{RecoveryError, RecoverySettings, Stop, io_error};
use crate::frame::{FrameError, FrameHeader, Kind, Predecessor, check_frame, span};
use crate::journal::memory::{
    Disk, DurableFile, HotTier, SegmentMemory, parse_segment_name, segment_name,
};
use crate::journal::node_state::{NODE_STATE_NAME, NodeState};
use crate::journal::recovery_table::{Decision, Finding, Zone, decide};
use crate::journal::seal::Seal;
use crate::journal::segment_file::file_offset;
use crate::journal::segment_header::{HeaderError, SegmentHeader};
use crate::journal::snapshot::{SnapshotReader, snapshots};
use crate::journal::syncer::note_term;
use crate::journal::terms::TermTable;
use crate::limits::{FRAME_ALIGNMENT, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::types::{Commit, CutEpoch, Generation, Leadership, Position};

/// Bytes read at a time: more than the largest frame.
pub(super) const READ_BYTES: usize = 2 * 1024 * 1024;
const _: () = assert!(READ_BYTES >= FRAME_BYTES_MAX);
/// Ending of a file that recovery was about to put in the place of another.
pub(super) const NEW_SUFFIX: &str = ".new";

/// A segment file as found.
pub(super) struct Found {
    pub(super) length: u64,
    /// `None`: the page cannot be read or is torn or blank.
    pub(super) header: Option<SegmentHeader>,
    /// The page was never written.
    pub(super) blank: bool,
    pub(super) seal: Option<Seal>,
    /// Both its seals are damaged.
    pub(super) seals_lost: bool,
}

/// What is known about the end of the log before looking at it.
#[derive(Clone, Copy)]
pub(super) struct Marks {
    pub(super) certain: Predecessor,
    pub(super) claimed: Predecessor,
    pub(super) commit: Commit,
    pub(super) seal_number: u64,
    pub(super) epoch: CutEpoch,
    /// A cut is recorded and not finished: the log ends here.
    pub(super) limit: Option<Predecessor>,
}

/// Everything the examination found out.
pub(super) struct Scan<M, V> {
    /// The lowest position that must be there.
    pub(super) log_start: Position,
    pub(super) files: BTreeMap<Position, Found>,
    /// Left by an earlier recovery that was cut short.
    pub(super) leftovers: Vec<String>,
    pub(super) marks: Marks,
    pub(super) first_generation: Generation,
    pub(super) terms: TermTable,
    /// What stands before each segment that the log has entered, and the generation there.
    pub(super) bases: BTreeMap<Position, (Predecessor, Generation)>,
    /// End of the good frames on the disk, and why they end.
    pub(super) durable_end: Predecessor,
    pub(super) durable_stop: Stop,
    /// End of the log, and why it ends.
    pub(super) tail: Predecessor,
    pub(super) stop: Stop,
    pub(super) zone: Zone,
    pub(super) decision: Decision,
    /// End of the last byte on the disk that is not zero, if it is above the tail.
    pub(super) beyond: Option<Position>,
    /// Files above the log that do not adjoin what is kept, and were written to.
    pub(super) strays: Vec<Position>,
    /// The file whose seals would say what this stop is worth, if both are damaged.
    pub(super) lost_seals: Option<Position>,
    pub(super) hot: BTreeMap<Position, (M, V)>,
    pub(super) hot_whole: bool,
}

impl<M, V> Scan<M, V> {
    /// Generation of the last frame.
    pub(super) fn generation(&self) -> Generation {
        self.terms.last().map_or(self.first_generation, |last| last.leadership.generation)
    }
}

/// Reads everything, changes nothing.
pub(super) fn examine<D: Disk, H: HotTier>(
    disk: &D,
    hot: &mut H,
    settings: &RecoverySettings,
    previous: Option<&NodeState>,
    same_tier: bool,
) -> Result<Scan<H::Memory, H::View>, RecoveryError> {
    let (files, leftovers) = find_files(disk, settings)?;
    let log_start = log_start(disk, settings, &files)?;
    let mut start = Predecessor::genesis(settings.group);
    let mut first_generation = Generation::default();
    let mut terms = TermTable::new([]);
    if let Some(header) = files.get(&log_start).and_then(|found| found.header.as_ref()) {
        first_generation = header.generation;
        if log_start > Position(0) {
            start = header.before;
            // The last frame that has left was of it: where two logs part may be just there.
            let leadership = Leadership { generation: header.generation, term: start.term };
            terms.push(leadership, Position(log_start.0 - FRAME_ALIGNMENT as u64));
        }
    }
    let marks = marks(&files, previous, start);
    let mut walk = Walk {
        segment_bytes: settings.segment_bytes,
        files: &files,
        marks: &marks,
        generation: first_generation,
        terms,
        bases: BTreeMap::new(),
        at: start,
    };
    let mut reader = Reader::new(disk, settings.segment_bytes);
    let mut durable_stop = walk.durable(&mut reader);
    let durable_end = walk.at;
    if matches!(durable_stop.finding, Finding::End | Finding::Missing) {
        let beyond = last_byte(disk, settings, &files, durable_end.position)?.is_some()
            || !strays(disk, settings, &files, durable_end.position)?.is_empty();
        durable_stop = name_nothing(durable_stop, beyond, &files, durable_end.position, settings);
    }
    let mut stop = durable_stop;
    let mut opened = BTreeMap::new();
    let mut hot_whole = same_tier;
    if same_tier && stop.finding != Finding::CutRecorded && stop.finding != Finding::NotTheSealedLog
    {
        let hot_stop = walk.hot(hot, &mut opened)?;
        hot_whole = matches!(hot_stop.finding, Finding::HotEnd | Finding::CutRecorded);
        if walk.at != durable_end || hot_stop.finding == Finding::HotBadFrame {
            stop = hot_stop;
        }
    }
    let Walk { terms, bases, at: tail, .. } = walk;
    let beyond = last_byte(disk, settings, &files, tail.position)?;
    let strays = strays(disk, settings, &files, tail.position)?;
    let zone = zone(&marks, tail.position);
    let known = Known { settings, files: &files, marks: &marks, previous };
    let lost_seals = known.lost_seals(stop, decide(stop.finding, zone), tail.position);
    let finding = if lost_seals.is_some() { Finding::SealsLost } else { stop.finding };
    let scan = Scan {
        log_start,
        leftovers,
        first_generation,
        terms,
        bases,
        durable_end,
        durable_stop,
        tail,
        stop,
        zone,
        decision: decide(finding, zone),
        beyond,
        strays,
        lost_seals,
        hot: opened,
        hot_whole,
        marks,
        files,
    };
    has_start(&scan)?;
    Ok(scan)
}

/// Where the log begins: at its birth, or, where segments have left, with the oldest file that is there, if a snapshot covers
/// all before it.
fn log_start<D: Disk>(
    disk: &D,
    settings: &RecoverySettings,
    files: &BTreeMap<Position, Found>,
) -> Result<Position, RecoveryError> {
    let written = files.iter().find(|(_, found)| !found.blank);
    let Some((&lowest, found)) = written.filter(|(base, _)| **base > settings.log_start) else {
        return Ok(settings.log_start);
    };
    let stamps = snapshots(disk).map_err(io_error("listing", "the snapshots"))?;
    let covers = |position: Position| {
        position >= lowest && SnapshotReader::open(disk, settings.group, position).is_ok()
    };
    let covered = found.header.is_some() && stamps.into_iter().any(covers);
    Ok(if covered { lowest } else { settings.log_start })
}

/// Of a log whose beginning is in neither tier, with files of it further on, nothing is left that could be answered for.
fn has_start<M, V>(scan: &Scan<M, V>) -> Result<(), RecoveryError> {
    let written = scan.files.iter().find(|(_, found)| found.header.is_some());
    match written {
        Some((&lowest, _))
            if scan.decision != Decision::Damage
                && scan.tail.position == scan.log_start
                && lowest > scan.log_start =>
        {
            Err(RecoveryError::NoStart { name: segment_name(lowest), lowest })
        }
        _ => Ok(()),
    }
}

fn zone(marks: &Marks, position: Position) -> Zone {
    if position < marks.certain.position {
        Zone::BelowCertain
    } else if position < marks.claimed.position {
        Zone::Claimed
    } else {
        Zone::AboveClaimed
    }
}

/// What "nothing here" is called, now that it is known whether there is anything behind it.
fn name_nothing(
    stop: Stop,
    beyond: bool,
    files: &BTreeMap<Position, Found>,
    position: Position,
    settings: &RecoverySettings,
) -> Stop {
    let base = position.segment_base(settings.segment_bytes);
    let finding = match (stop.finding, beyond) {
        (Finding::End, true) => Finding::Hole,
        // A file that ends early, or is not there, with nothing behind it: at its base that is just the end of the log.
        (Finding::Missing, false) if position == base && !files.contains_key(&base) => Finding::End,
        (finding, _) => finding,
    };
    Stop { finding, ..stop }
}

fn find_files<D: Disk>(
    disk: &D,
    settings: &RecoverySettings,
) -> Result<(BTreeMap<Position, Found>, Vec<String>), RecoveryError> {
    let mut files = BTreeMap::new();
    let mut leftovers = Vec::new();
    for name in disk.list().map_err(io_error("listing", "the data directory"))? {
        if let Some(base) = parse_segment_name(&name) {
            files.insert(base, look(disk, settings, &name, base)?);
        } else if name.strip_suffix(NEW_SUFFIX).and_then(parse_segment_name).is_some() {
            leftovers.push(name);
        } else if !is_known(&name, settings) {
            return Err(RecoveryError::ForeignFile { name });
        }
    }
    Ok((files, leftovers))
}

fn is_known(name: &str, settings: &RecoverySettings) -> bool {
    name == NODE_STATE_NAME
        || name == "lock"
        || name.starts_with("quarantine/")
        || settings.known_names.iter().any(|known| {
            name == known || (known.ends_with('/') && name.starts_with(known.as_str()))
        })
}

fn look<D: Disk>(
    disk: &D,
    settings: &RecoverySettings,
    name: &str,
    base: Position,
) -> Result<Found, RecoveryError> {
    let file = disk.open(name).map_err(io_error("opening", name))?;
    let length = file.length().map_err(io_error("measuring", name))?;
    let mut page = [0; SEGMENT_HEADER_BYTES];
    // A file shorter than the page reads as if zeroes followed.
    if file.read_at(&mut page, 0).is_err() {
        return Ok(Found { length, header: None, blank: false, seal: None, seals_lost: false });
    }
    let header = SegmentHeader::decode_segment(&page, settings.group, settings.segment_bytes, base);
    let blank = header == Err(HeaderError::Blank);
    let header = match header {
        Ok(header) => Some(header),
        Err(error) if error.may_be_torn() => None,
        Err(error) => return Err(RecoveryError::Header { name: name.to_owned(), error }),
    };
    let seal = Seal::newest(&page, settings.group);
    let seals_lost = Seal::both_lost(&page, settings.group);
    Ok(Found { length, header, blank, seal, seals_lost })
}

/// The newest seal, lowered by a recorded cut that is not finished, raised by a clean mark.
fn marks(
    files: &BTreeMap<Position, Found>,
    previous: Option<&NodeState>,
    start: Predecessor,
) -> Marks {
    let seal = files.values().filter_map(|found| found.seal).max_by_key(Seal::order);
    let mut marks = Marks {
        certain: seal.map_or(start, |seal| seal.certain),
        claimed: seal.map_or(start, |seal| seal.claimed),
        commit: seal.map_or(Commit(start.position), |seal| seal.known_commit),
        seal_number: seal.map_or(0, |seal| seal.number),
        epoch: seal.map_or(CutEpoch(0), |seal| seal.epoch),
        limit: None,
    };
    if let Some(mark) = previous.and_then(|state| state.clean_mark) {
        if mark.tail.position >= marks.certain.position {
            marks.certain = mark.tail;
        }
        if mark.tail.position >= marks.claimed.position {
            marks.claimed = mark.tail;
        }
        marks.commit = marks.commit.max(mark.commit);
    }
    if let Some(cut) = previous.and_then(|state| state.truncation)
        && cut.epoch > marks.epoch
    {
        // The record is written when everything below the cut is durable, and voids what older seals say.
        marks.certain = cut.at;
        marks.claimed = cut.at;
        marks.commit = marks.commit.min(Commit(cut.at.position));
        marks.epoch = cut.epoch;
        marks.limit = Some(cut.at);
    }
    marks
}

/// Follows the chain.
struct Walk<'a> {
    segment_bytes: u64,
    files: &'a BTreeMap<Position, Found>,
    marks: &'a Marks,
    generation: Generation,
    terms: TermTable,
    bases: BTreeMap<Position, (Predecessor, Generation)>,
    at: Predecessor,
}

impl Walk<'_> {
    /// Over the files, until they stop.
    fn durable<D: Disk>(&mut self, reader: &mut Reader<'_, D>) -> Stop {
        loop {
            if let Some(stop) = self.limit() {
                return stop;
            }
            let position = self.at.position;
            let base = position.segment_base(self.segment_bytes);
            if position == base
                && let Some(header) = self.files.get(&base).and_then(|found| found.header)
                && header.before != self.at
            {
                return Stop::new(Finding::OtherHistory);
            }
            match reader.frame(self.at) {
                Ok((header, payload)) => {
                    if let Some(stop) = self.accept(&header, payload) {
                        return stop;
                    }
                }
                Err(stop) => return stop,
            }
        }
    }

    /// On through the hot tier, until it stops.
    fn hot<H: HotTier>(
        &mut self,
        hot: &mut H,
        opened: &mut BTreeMap<Position, (H::Memory, H::View)>,
    ) -> Result<Stop, RecoveryError> {
        let listed = hot.list().map_err(io_error("listing", "the hot tier"))?;
        loop {
            if let Some(stop) = self.limit() {
                return Ok(stop);
            }
            let base = self.at.position.segment_base(self.segment_bytes);
            let (memory, _) = match opened.entry(base) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    // A file of another size is no segment of this log.
                    let found = listed.contains(&base).then(|| hot.open(base).ok()).flatten();
                    let Some(found) = found else { return Ok(Stop::new(Finding::HotMissing)) };
                    place.insert(found)
                }
            };
            let offset = self.at.position.since(base);
            let word = memory.published(offset);
            let left = self.segment_bytes - offset;
            let header = memory.bytes(offset, FRAME_HEADER_BYTES);
            let length = needed(word, header[12], left);
            let bytes = memory.bytes(offset, length);
            match check_frame(self.at, self.segment_bytes, word, bytes) {
                Ok(header) => {
                    let payload = &bytes[FRAME_HEADER_BYTES..];
                    if let Some(stop) = self.accept(&header, payload) {
                        return Ok(stop);
                    }
                }
                Err(FrameError::Unpublished) => return Ok(Stop::new(Finding::HotEnd)),
                Err(error) => {
                    return Ok(Stop { finding: Finding::HotBadFrame, frame: Some(error) });
                }
            }
        }
    }

    fn limit(&self) -> Option<Stop> {
        let limit = self.marks.limit?;
        (self.at == limit).then(|| Stop::new(Finding::CutRecorded))
    }

    /// Takes the frame into the log, unless it contradicts what is certain.
    fn accept(&mut self, header: &FrameHeader, payload: &[u8]) -> Option<Stop> {
        let (before, after) = (self.at, self.at.after(header));
        let certain = self.marks.certain;
        let passes = before.position < certain.position && certain.position <= after.position;
        if passes && after != certain {
            return Some(Stop::new(Finding::NotTheSealedLog));
        }
        let generation = self.terms.last().map_or(self.generation, |l| l.leadership.generation);
        if before.position == before.position.segment_base(self.segment_bytes) {
            self.bases.insert(before.position, (before, generation));
        }
        note_term(&mut self.terms, self.generation, before, header, |length| &payload[..length]);
        self.at = after;
        None
    }
}

/// Bytes that `check_frame` needs of a frame with this publish word and kind.
fn needed(word: u32, kind: u8, left: u64) -> usize {
    let span = span(word);
    let whole = kind != Kind::Padding as u8
        && span <= left
        && (FRAME_HEADER_BYTES..=FRAME_BYTES_MAX).contains(&(word as usize));
    if whole { span as usize } else { FRAME_HEADER_BYTES }
}

/// Reads frames out of the durable files, by explicit reads: a media error is a finding here, not a signal.
pub(super) struct Reader<'a, D: Disk> {
    disk: &'a D,
    segment_bytes: u64,
    file: Option<(Position, D::File)>,
    buffer: Vec<u8>,
    /// Where in the log the buffer's bytes stand.
    start: Position,
    filled: usize,
}

impl<'a, D: Disk> Reader<'a, D> {
    pub(super) fn new(disk: &'a D, segment_bytes: u64) -> Self {
        let buffer = vec![0; READ_BYTES];
        Self { disk, segment_bytes, file: None, buffer, start: Position(0), filled: 0 }
    }

    /// The frame that follows `before`: its header and payload.
    pub(super) fn frame(&mut self, before: Predecessor) -> Result<(FrameHeader, &[u8]), Stop> {
        let segment_bytes = self.segment_bytes;
        let position = before.position;
        let left = position.segment_base(segment_bytes).plus(segment_bytes).since(position);
        let head = self.bytes(position, FRAME_HEADER_BYTES)?;
        let (Some(&word), Some(&kind)) = (head.first_chunk::<4>(), head.get(12)) else {
            return Err(Stop::new(Finding::Missing));
        };
        let word = u32::from_le_bytes(word);
        let bytes = self.bytes(position, needed(word, kind, left))?;
        match check_frame(before, segment_bytes, word, bytes) {
            Ok(header) => {
                let payload = if header.kind == Kind::Padding as u8 {
                    &[]
                } else {
                    &bytes[FRAME_HEADER_BYTES..header.length() as usize]
                };
                Ok((header, payload))
            }
            Err(FrameError::Unpublished) => Err(Stop::new(Finding::End)),
            Err(error @ FrameError::Short { .. }) => {
                Err(Stop { finding: Finding::Missing, frame: Some(error) })
            }
            Err(error) => Err(Stop { finding: Finding::BadFrame, frame: Some(error) }),
        }
    }

    /// The bytes from `at` on: at least `want`, if the file has them and they lie in one segment.
    pub(super) fn bytes(&mut self, at: Position, want: usize) -> Result<&[u8], Stop> {
        let held = at >= self.start && at.plus(want as u64) <= self.start.plus(self.filled as u64);
        if !held {
            self.fill(at, want)?;
        }
        let from = at.since(self.start) as usize;
        Ok(&self.buffer[from..self.filled])
    }

    fn fill(&mut self, at: Position, want: usize) -> Result<(), Stop> {
        let base = at.segment_base(self.segment_bytes);
        self.filled = 0;
        self.start = at;
        if self.file.as_ref().is_none_or(|(known, _)| *known != base) {
            let opened = self.disk.open(&segment_name(base));
            self.file = Some((base, opened.map_err(|_| Stop::new(Finding::Missing))?));
        }
        let Some((_, file)) = &self.file else { return Err(Stop::new(Finding::Missing)) };
        let left = base.plus(self.segment_bytes).since(at) as usize;
        // A bad sector further on must not hide the good frames before it: if much cannot be read, little may.
        for length in [READ_BYTES.min(left), want.min(left)] {
            if let Ok(read) = file.read_at(&mut self.buffer[..length], file_offset(base, at)) {
                self.filled = read;
                return Ok(());
            }
        }
        Err(Stop::new(Finding::Unreadable))
    }
}

/// End of the last byte at or above `from` that is not zero, in whichever of the files that adjoin. What cannot be read counts
/// as bytes.
fn last_byte<D: Disk>(
    disk: &D,
    settings: &RecoverySettings,
    files: &BTreeMap<Position, Found>,
    from: Position,
) -> Result<Option<Position>, RecoveryError> {
    let first = from.segment_base(settings.segment_bytes);
    for (&base, found) in files.range(first..adjoining_end(settings, files, first)).rev() {
        let payload = found.length.saturating_sub(SEGMENT_HEADER_BYTES as u64);
        let end = base.plus(payload.min(settings.segment_bytes));
        let start = base.max(from);
        if start < end
            && let Some(last) = last_byte_of(disk, base, start, end)?
        {
            return Ok(Some(last));
        }
    }
    Ok(None)
}

/// End of the run of files that begins with the one at `first`.
fn adjoining_end(
    settings: &RecoverySettings,
    files: &BTreeMap<Position, Found>,
    first: Position,
) -> Position {
    let mut end = first;
    while files.contains_key(&end) {
        end = end.plus(settings.segment_bytes);
    }
    // The one that would hold `first` may itself be missing, and the next one be there.
    end.max(first.plus(settings.segment_bytes))
}

fn strays<D: Disk>(
    disk: &D,
    settings: &RecoverySettings,
    files: &BTreeMap<Position, Found>,
    tail: Position,
) -> Result<Vec<Position>, RecoveryError> {
    let end = adjoining_end(settings, files, tail.segment_base(settings.segment_bytes));
    let mut strays = Vec::new();
    for (&base, found) in files.range(end..) {
        let bytes = found.length.saturating_sub(SEGMENT_HEADER_BYTES as u64);
        if !found.blank || last_byte_of(disk, base, base, base.plus(bytes))?.is_some() {
            strays.push(base);
        }
    }
    Ok(strays)
}

fn last_byte_of<D: Disk>(
    disk: &D,
    base: Position,
    start: Position,
    end: Position,
) -> Result<Option<Position>, RecoveryError> {
    let name = segment_name(base);
    let file = disk.open(&name).map_err(io_error("opening", &name))?;
    let mut buffer = vec![0; READ_BYTES.min(end.since(start) as usize)];
    let mut to = end;
    while to > start {
        let length = (to.since(start) as usize).min(buffer.len());
        let from = Position(to.0 - length as u64);
        let Ok(read) = file.read_at(&mut buffer[..length], file_offset(base, from)) else {
            return Ok(Some(to));
        };
        if let Some(last) = buffer[..read].iter().rposition(|&byte| byte != 0) {
            return Ok(Some(from.plus(last as u64 + 1)));
        }
        to = from;
    }
    Ok(None)
}
