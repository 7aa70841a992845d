//! Repairing a segment file: its own good bytes, and a peer's where they are not, into a new file that takes its place.
//!
//! Nothing is believed but the chain, on both sides: frames follow from what stands before the file (the one before it, or
//! its header page), and what comes out at its end is what the next file says stands before it, or the seal. Bytes of a peer
//! that do not fit are its fault, and another one is asked.
//!
//! What comes after a file whose next one begins damaged, too, is not known: then both are repaired as one, up to what is known
//! behind them.
//!
//! Order: the damaged file is copied to `quarantine/` and synced, with its name; the new one is written under another name
//! and synced; it is renamed over the old one; the directory is synced. A crash before the rename leaves the old file, and a
//! name that the next start removes; after it, the new one. Nobody writes to a file that may be repaired: the log, and all
//! that may still be cut of it, lies above.

#[cfg(test)]
mod tests;

use core::fmt;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

use super::files::LogFiles;
use super::memory::{Disk, DurableFile, segment_name};
use super::reader::{LogBytes, Walker, follow_chain};
use super::seal::Seal;
use super::segment_file::{file_bytes, file_offset, write_zeroes};
use super::segment_header::{Content, SEAL_OFFSETS, SegmentHeader};
use crate::frame::{Kind, Predecessor, check_frame, span};
use crate::limits::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, LANE_PIECE_BYTES, SEAL_BYTES, SEGMENT_HEADER_BYTES,
};
use crate::types::{CutEpoch, Generation, GroupId, NodeId, Position};

/// Ending of a file that is about to take another's place; recovery removes what is left of them.
const NEW_SUFFIX: &str = ".new";
/// Bytes written and copied at a time.
const PIECE_BYTES: usize = 256 * 1024;
/// Files that adjoin, and are repaired as one, at most: their bytes are held in memory until all of them are proven.
const ADJOINING_MAX: u64 = 4;
/// A sector: what a medium gives or refuses as a whole, bytes.
const SECTOR_BYTES: usize = 512;
/// Bytes of a file judged in one step, about.
pub(super) const STEP_BYTES: u64 = 4 * 1024 * 1024;

/// What a repaired file must end with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FarSide {
    /// What the next file says stands before it.
    NextFile,
    /// What was certain, in this file, while nobody writes to it: behind it everything stays as it is.
    Seal(Predecessor),
}

/// What the repair wants, or has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RepairStep {
    /// Some of the file was judged: go on.
    Going,
    /// Bytes of a peer are needed from here to there.
    Needs(Position, Position),
    /// What this peer gave does not fit; all of it is dropped.
    Refused(NodeId),
    /// Everything fits together: the file may be replaced.
    Whole,
}

/// Why a file cannot be repaired.
#[derive(Debug)]
#[non_exhaustive]
pub enum RepairError {
    /// What stands before the file is not known: the one before it is damaged, and is repaired first.
    NearSide,
    /// What must come out is not known: the one behind it is damaged at its start.
    FarSide,
    /// Everything in the file follows, and what comes out is not what the next one says.
    Contradiction,
    /// The host failed.
    Host(io::Error),
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mended {
    /// Base of its segment.
    pub base: Position,
    /// Where the damaged one is now; none: it was not there.
    pub kept_at: Option<String>,
    /// Bytes that came from peers.
    pub peer_bytes: u64,
}

/// The repair of one segment file.
#[derive(Debug)]
pub struct Repair {
    group: GroupId,
    segment_bytes: u64,
    base: Position,
    far: FarSide,
    /// Files from `base` on that are repaired as one, and up to where any may be.
    files: u64,
    reach: Position,
    /// End of what is certain, while nobody writes.
    certain: Option<Predecessor>,
    /// What stands before the file.
    start: Predecessor,
    generation: Generation,
    /// Proven up to here.
    at: Predecessor,
    patches: BTreeMap<Position, Patch>,
}

/// One of the files.
#[derive(Clone, Copy, Debug)]
struct Part {
    base: Position,
    /// End of what is proven of it.
    end: Position,
    /// What stands before it, and the generation there.
    start: Predecessor,
    generation: Generation,
}

#[derive(Debug)]
struct Patch {
    from: NodeId,
    bytes: Vec<u8>,
}

impl Repair {
    /// Begins to repair the segment at `base`.
    ///
    /// # Errors
    /// [`RepairError`].
    pub fn new<D: Disk>(
        disk: &D,
        group: GroupId,
        segment_bytes: u64,
        base: Position,
        far: FarSide,
    ) -> Result<Self, RepairError> {
        let (start, generation) = before(disk, group, segment_bytes, base)?;
        Ok(Self {
            group,
            segment_bytes,
            base,
            far,
            files: 1,
            reach: Position(0),
            certain: None,
            start,
            generation,
            at: start,
            patches: BTreeMap::new(),
        })
    }

    /// Files that adjoin may be repaired with it, if they must: those that end below `reach`, and, while nobody writes, the one
    /// in which what is `certain` ends.
    #[must_use]
    pub fn reaching(self, reach: Position, certain: Option<Predecessor>) -> Self {
        Self { reach, certain, ..self }
    }

    /// Which segment.
    #[must_use]
    pub const fn base(&self) -> Position {
        self.base
    }

    /// Takes a peer's bytes, which stand at `position`.
    pub fn patch(&mut self, from: NodeId, position: Position, bytes: &[u8]) {
        let end = self.end();
        let inside = (self.base..end).contains(&position) && !bytes.is_empty();
        if inside && self.covered(position) == position {
            let most = end.since(position).min(bytes.len() as u64) as usize;
            self.patches.insert(position, Patch { from, bytes: bytes[..most].to_vec() });
        }
    }

    fn end(&self) -> Position {
        match self.far {
            FarSide::NextFile => self.base.plus(self.files * self.segment_bytes),
            FarSide::Seal(certain) => certain.position,
        }
    }

    /// Judges some more of the file.
    ///
    /// # Errors
    /// [`RepairError`].
    pub fn step<D: Disk>(&mut self, disk: &D) -> Result<RepairStep, RepairError> {
        let end = self.end();
        let enough = self.at.position.plus(STEP_BYTES);
        let (at, trouble) = {
            let mut walker = Walker::new(self.bytes(disk), self.segment_bytes, self.at);
            let mut trouble = false;
            while !trouble && walker.before().position < end.min(enough) {
                trouble = !matches!(walker.next_frame(end), Ok(Some(_)));
            }
            (walker.before(), trouble)
        };
        self.at = at;
        if trouble {
            return Ok(self.wanting(disk));
        }
        if at.position < end {
            return Ok(RepairStep::Going);
        }
        self.compare(disk)
    }

    /// A frame at `at` does not follow: whose fault is it, or what is missing?
    fn wanting<D: Disk>(&mut self, disk: &D) -> RepairStep {
        let at = self.at.position;
        let covered = self.covered(at);
        let whole = covered >= self.end() || {
            let mut header = [0; FRAME_HEADER_BYTES];
            let there = covered.since(at) >= FRAME_HEADER_BYTES as u64
                && self.bytes(disk).read(at, &mut header).is_ok();
            there && covered.since(at) >= judged_bytes(&header)
        };
        let giver = self.giver(at).filter(|_| whole && covered > at);
        if let Some(node) = giver {
            return self.refuse(node);
        }
        let to = covered.plus(LANE_PIECE_BYTES).min(self.end());
        RepairStep::Needs(covered, to)
    }

    fn refuse(&mut self, node: NodeId) -> RepairStep {
        self.patches.retain(|_, patch| patch.from != node);
        self.at = self.start;
        RepairStep::Refused(node)
    }

    /// Who gave the byte at `position`.
    fn giver(&self, position: Position) -> Option<NodeId> {
        let (start, patch) = self.patches.range(..=position).next_back()?;
        (start.plus(patch.bytes.len() as u64) > position).then_some(patch.from)
    }

    /// End of the peers' bytes that begin at or below `position` and go on without a gap.
    fn covered(&self, position: Position) -> Position {
        let mut end = position;
        while let Some((start, patch)) = self.patches.range(..=end).next_back() {
            let patch_end = start.plus(patch.bytes.len() as u64);
            if patch_end <= end {
                break;
            }
            end = patch_end;
        }
        end
    }

    /// The file is proven from its start: does what comes out fit what stands behind it?
    fn compare<D: Disk>(&mut self, disk: &D) -> Result<RepairStep, RepairError> {
        let fits = match self.far {
            FarSide::Seal(certain) => certain == self.at,
            FarSide::NextFile => match self.fits_next(disk) {
                Err(RepairError::FarSide) if self.widen() => return Ok(RepairStep::Going),
                fits => fits?,
            },
        };
        if fits {
            return Ok(RepairStep::Whole);
        }
        let giver = self.patches.values().next_back().map(|patch| patch.from);
        giver.map_or(Err(RepairError::Contradiction), |node| Ok(self.refuse(node)))
    }

    /// What comes after the file is not known, for the next one is damaged where it begins: both are repaired as one. Returns
    /// whether that one may be touched.
    fn widen(&mut self) -> bool {
        let next_end = self.end().plus(self.segment_bytes);
        let may = self.files < ADJOINING_MAX && next_end < self.reach;
        if may {
            self.files += 1;
            if let Some(certain) = self.certain.filter(|certain| certain.position <= next_end) {
                self.far = FarSide::Seal(certain);
            }
        }
        may
    }

    fn fits_next<D: Disk>(&self, disk: &D) -> Result<bool, RepairError> {
        let next = self.at.position;
        if let Some(header) = header(disk, self.group, self.segment_bytes, next)? {
            return Ok(header.before == self.at);
        }
        // Its page is damaged, too: its first frame says the same.
        let files = LogFiles::new(disk, self.segment_bytes);
        let mut bytes = vec![0; FRAME_BYTES_MAX.min(self.segment_bytes as usize)];
        let read = files.read(next, &mut bytes).map_err(RepairError::Host)?;
        let word = bytes.first_chunk().map_or(0, |&word| u32::from_le_bytes(word));
        match check_frame(self.at, self.segment_bytes, word, &bytes[..read]) {
            Ok(_) => Ok(true),
            Err(_) => Err(RepairError::FarSide),
        }
    }

    fn bytes<'a, D: Disk>(&'a self, disk: &'a D) -> Patched<'a, D> {
        Patched { files: LogFiles::new(disk, self.segment_bytes), patches: &self.patches }
    }

    /// Puts the repaired file into the place of the damaged one, which is kept aside; then those that were repaired with it, in
    /// their order.
    ///
    /// # Errors
    /// The host's; each damaged file is where it was, or the repaired one is.
    pub fn swap<D: Disk>(&self, disk: &D) -> io::Result<Vec<Mended>> {
        let (mut start, mut generation) = (self.start, self.generation);
        let mut mended = Vec::new();
        for number in 0..self.files {
            let base = self.base.plus(number * self.segment_bytes);
            let end = self.end().min(base.plus(self.segment_bytes));
            let part = Part { base, end, start, generation };
            let done;
            (done, start, generation) = self.swap_one(disk, part)?;
            mended.push(done);
        }
        Ok(mended)
    }

    fn swap_one<D: Disk>(
        &self,
        disk: &D,
        part: Part,
    ) -> io::Result<(Mended, Predecessor, Generation)> {
        let base = part.base;
        let name = segment_name(base);
        let page = read_page(disk, &name)?;
        let kept_at =
            page.is_some().then(|| keep_aside(disk, &name, self.segment_bytes)).transpose()?;
        let new = format!("{name}{NEW_SUFFIX}");
        let mut file = match disk.create(&new) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                disk.remove(&new)?;
                disk.create(&new)?
            }
            other => other?,
        };
        let written = self.fill(disk, &mut file, part, &page.unwrap_or([0; SEGMENT_HEADER_BYTES]));
        drop(file);
        let (end, generation) = match written {
            Ok(written) => written,
            Err(error) => {
                // Half a file is worth nothing, and its space may be what is missing.
                let _ = disk.remove(&new);
                return Err(error);
            }
        };
        disk.rename(&new, &name)?;
        disk.sync_directory()?;
        let peer_bytes = self.peer_bytes(part);
        Ok((Mended { base, kept_at, peer_bytes }, end, generation))
    }

    fn peer_bytes(&self, part: Part) -> u64 {
        let inside = |(start, patch): (&Position, &Patch)| {
            let end = start.plus(patch.bytes.len() as u64).min(part.end);
            end.0.saturating_sub(start.max(&part.base).0)
        };
        self.patches.iter().map(inside).sum()
    }

    /// Writes one file; what stands before the next one, and the generation there.
    fn fill<D: Disk>(
        &self,
        disk: &D,
        file: &mut D::File,
        part: Part,
        old_page: &[u8; SEGMENT_HEADER_BYTES],
    ) -> io::Result<(Predecessor, Generation)> {
        let Part { base, end, start, mut generation } = part;
        file.write_at(&self.page(part, old_page), 0)?;
        let mut walker = Walker::new(self.bytes(disk), self.segment_bytes, start);
        let mut piece = Vec::with_capacity(2 * PIECE_BYTES);
        let mut written = base;
        while walker.before().position < end {
            // What is written is what is judged once more.
            let broken = |_| io::Error::from(ErrorKind::InvalidData);
            let found = walker.next_frame(end).map_err(broken)?;
            let found = found.ok_or(ErrorKind::InvalidData)?;
            generation = found.leadership(generation).map_or(generation, |of| of.generation);
            piece.extend_from_slice(zerocopy::IntoBytes::as_bytes(&found.header));
            piece.extend_from_slice(found.payload);
            piece.resize(walker.before().position.since(written) as usize, 0);
            if piece.len() >= PIECE_BYTES {
                file.write_at(&piece, file_offset(base, written))?;
                written = written.plus(piece.len() as u64);
                piece.clear();
            }
        }
        file.write_at(&piece, file_offset(base, written))?;
        self.fill_behind(disk, file, base, end)?;
        file.sync()?;
        Ok((walker.before(), generation))
    }

    /// Everything behind what is proven, as it is: recovery judges it.
    fn fill_behind<D: Disk>(
        &self,
        disk: &D,
        file: &mut D::File,
        base: Position,
        from: Position,
    ) -> io::Result<()> {
        let (end, files) = (base.plus(self.segment_bytes), LogFiles::new(disk, self.segment_bytes));
        let mut at = from;
        let mut buffer = vec![0; PIECE_BYTES];
        while at < end {
            let want = (end.since(at) as usize).min(PIECE_BYTES);
            let read = files.read(at, &mut buffer[..want]).unwrap_or(0);
            file.write_at(&buffer[..read], file_offset(base, at))?;
            at = at.plus(read as u64);
            if read == 0 {
                break;
            }
        }
        write_zeroes(file, file_offset(base, at), file_bytes(self.segment_bytes))
    }

    /// The header page: its fields from what is proven, and those of the seals that are good.
    fn page(&self, part: Part, old: &[u8; SEGMENT_HEADER_BYTES]) -> [u8; SEGMENT_HEADER_BYTES] {
        let known = SegmentHeader::decode_segment(old, self.group, self.segment_bytes, part.base);
        let header = known.ok().filter(|header| header.before == part.start);
        let header = header.unwrap_or(SegmentHeader {
            content: Content::Segment,
            group: self.group,
            generation: part.generation,
            segment_bytes: self.segment_bytes,
            before: part.start,
            cut_epoch: CutEpoch(0),
        });
        let mut page = header.encode();
        for offset in SEAL_OFFSETS {
            let place = offset..offset + SEAL_BYTES;
            if Seal::decode(&old[place.clone()], self.group).is_some() {
                page[place.clone()].copy_from_slice(&old[place]);
            }
        }
        page
    }
}

/// Bytes that are needed to judge the frame with this header: all of it, or the header alone.
fn judged_bytes(header: &[u8; FRAME_HEADER_BYTES]) -> u64 {
    let word = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let plausible = (FRAME_HEADER_BYTES..=FRAME_BYTES_MAX).contains(&(word as usize));
    if plausible && header[12] != Kind::Padding as u8 {
        span(word)
    } else {
        FRAME_HEADER_BYTES as u64
    }
}

/// What stands before the segment at `base`, and the generation there: as the file before it ends; if that is not there any
/// more, or the first, as its own header page says.
fn before<D: Disk>(
    disk: &D,
    group: GroupId,
    segment_bytes: u64,
    base: Position,
) -> Result<(Predecessor, Generation), RepairError> {
    let own = header(disk, group, segment_bytes, base)?;
    if base == Position(0) {
        let generation = own.map(|own| own.generation).unwrap_or_default();
        return Ok((Predecessor::genesis(group), generation));
    }
    let earlier = Position(base.0 - segment_bytes);
    if let Some(first) = header(disk, group, segment_bytes, earlier)? {
        let files = LogFiles::new(disk, segment_bytes);
        let end = follow_chain(&files, segment_bytes, first.before, first.generation, base);
        if end.tail.position == base {
            let generation = end.terms.last().map_or(first.generation, |t| t.leadership.generation);
            return Ok((end.tail, generation));
        }
    }
    own.map(|own| (own.before, own.generation)).ok_or(RepairError::NearSide)
}

/// The header page of a segment file, if it is good.
fn header<D: Disk>(
    disk: &D,
    group: GroupId,
    segment_bytes: u64,
    base: Position,
) -> Result<Option<SegmentHeader>, RepairError> {
    let page = read_page(disk, &segment_name(base)).map_err(RepairError::Host)?;
    Ok(page.and_then(|page| SegmentHeader::decode_segment(&page, group, segment_bytes, base).ok()))
}

/// The page as it reads: zeroes where the medium gives nothing. None: there is no file.
fn read_page<D: Disk>(disk: &D, name: &str) -> io::Result<Option<[u8; SEGMENT_HEADER_BYTES]>> {
    let file = match disk.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut page = [0; SEGMENT_HEADER_BYTES];
    for (number, sector) in page.chunks_mut(SECTOR_BYTES).enumerate() {
        if file.read_at(sector, (number * SECTOR_BYTES) as u64).is_err() {
            sector.fill(0);
        }
    }
    Ok(Some(page))
}

/// Copies a file as it reads to `quarantine/`, durably; what cannot be read is zero there.
fn keep_aside<D: Disk>(disk: &D, name: &str, segment_bytes: u64) -> io::Result<String> {
    let names = disk.list()?;
    let mut kept = format!("quarantine/damaged-{name}");
    let mut number = 1;
    while names.contains(&kept) {
        kept = format!("quarantine/damaged-{number}-{name}");
        number += 1;
    }
    let copied = copy(disk, name, &kept, segment_bytes);
    if copied.is_err() {
        let _ = disk.remove(&kept);
    }
    copied?;
    disk.sync_directory()?;
    Ok(kept)
}

fn copy<D: Disk>(disk: &D, name: &str, kept: &str, segment_bytes: u64) -> io::Result<()> {
    let file = disk.open(name)?;
    let length = file.length()?.min(file_bytes(segment_bytes));
    let mut copy = disk.create(kept)?;
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < length {
        let want = ((length - at) as usize).min(PIECE_BYTES);
        let piece = &mut buffer[..want];
        if file.read_at(piece, at).is_err() {
            for (number, sector) in piece.chunks_mut(SECTOR_BYTES).enumerate() {
                if file.read_at(sector, at + (number * SECTOR_BYTES) as u64).is_err() {
                    sector.fill(0);
                }
            }
        }
        copy.write_at(&buffer[..want], at)?;
        at += want as u64;
    }
    copy.sync()
}

/// The file's bytes with those of peers over them.
struct Patched<'a, D: Disk> {
    files: LogFiles<'a, D>,
    patches: &'a BTreeMap<Position, Patch>,
}

impl<D: Disk> LogBytes for Patched<'_, D> {
    fn read(&self, position: Position, bytes: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < bytes.len() {
            let at = position.plus(filled as u64);
            let patch = self.patches.range(..=at).next_back();
            let inside = patch.filter(|(start, patch)| start.plus(patch.bytes.len() as u64) > at);
            let read = if let Some((start, patch)) = inside {
                let here = &patch.bytes[at.since(*start) as usize..];
                let most = here.len().min(bytes.len() - filled);
                bytes[filled..filled + most].copy_from_slice(&here[..most]);
                most
            } else {
                let next = self.patches.range(at..).next().map_or(u64::MAX, |(start, _)| start.0);
                let most = (next - at.0).min((bytes.len() - filled) as u64) as usize;
                self.read_file(at, &mut bytes[filled..filled + most])
            };
            if read == 0 {
                break;
            }
            filled += read;
        }
        Ok(filled)
    }
}

impl<D: Disk> Patched<'_, D> {
    /// What the file gives: a sector that it does not give ends that.
    fn read_file(&self, position: Position, bytes: &mut [u8]) -> usize {
        if let Ok(read) = self.files.read(position, bytes) {
            return read;
        }
        let mut filled = 0;
        for sector in bytes.chunks_mut(SECTOR_BYTES) {
            match self.files.read(position.plus(filled as u64), sector) {
                Ok(read) if read > 0 => filled += read,
                _ => break,
            }
        }
        filled
    }
}

impl fmt::Display for RepairError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NearSide => {
                write!(f, "what stands before it is not known: the file before it is damaged, too")
            }
            Self::FarSide => {
                write!(
                    f,
                    "what comes after it is not known: the next file begins damaged, too, and cannot be repaired with it"
                )
            }
            Self::Contradiction => write!(f, "all of it follows, and the next file says otherwise"),
            Self::Host(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for RepairError {}
