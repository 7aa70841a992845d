//! The sync thread's machine: writes what is verified into the durable files, seals it, syncs it, and says so.
//!
//! One batch is: header pages of segments entered for the first time, the frames' bytes, and the seal (`super::seal`) in the
//! file where the batch ends; then one sync per file touched, older file first; then the durable position. A report carries
//! the cut epoch, so that one that crosses a cut on its way makes nothing durable.
//!
//! What the core must do for this to be right: before it sends [`CoreToSync::Cut`] it stores the new `cut_epoch` and then the
//! lowered `verified`, both with release ordering, and it leaves every byte above the cut alone until
//! [`SyncToCore::CutDone`]. The keeper sends [`SegmentOpened`](crate::link::SegmentOpened) before the core's `SegmentReady`.
//!
//! A failed write or sync is final: nothing is written any more, the core is told, and recovery writes everything above the
//! last certain position into a new file.

#[cfg(test)]
mod tests;

use core::sync::atomic::Ordering;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use zerocopy::FromBytes;

use super::cut::{self, CutFailure};
use super::memory::{Disk, DurableFile, SegmentView, segment_name};
use super::node_state::NodeStateStore;
use super::seal::Seal;
use super::segment_file::{file_offset, seal_base, write_header, write_seal};
use super::segment_header::{Content, SegmentHeader};
use super::terms::{TermStartAt, TermTable};
use crate::frame::payload::TermStart;
use crate::frame::{FrameHeader, Kind, Predecessor};
use crate::limits::FRAME_HEADER_BYTES;
use crate::link::{CoreToSync, Shared, SyncLink, SyncToCore};
use crate::mutants::{Mutant, Mutants};
use crate::types::{Commit, CutEpoch, Durable, Generation, GroupId, Leadership, Nanos, Position};

/// How the sync thread works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SyncerSettings {
    /// Whose log.
    pub group: GroupId,
    /// Payload bytes of a segment.
    pub segment_bytes: u64,
    /// How long bytes are gathered before they are synced. 0 where somebody waits for the disk: the sync that is under way
    /// does the gathering then.
    pub group_delay_ns: u64,
    /// A batch ends at the frame with which it reaches this many bytes.
    pub batch_bytes_max: u64,
    /// Silence after which an extra sync makes the last batch certain.
    pub settle_delay_ns: u64,
    /// How long to wait when the disk is too full to save the bytes of a cut.
    pub full_retry_ns: u64,
    /// Rules taken out, to prove that this is noticed.
    pub mutants: Mutants,
}

impl SyncerSettings {
    /// Defaults for a node whose acknowledgements wait for the disk.
    #[must_use]
    pub const fn new(group: GroupId, segment_bytes: u64) -> Self {
        Self {
            group,
            segment_bytes,
            group_delay_ns: 0,
            batch_bytes_max: 4 * 1024 * 1024,
            settle_delay_ns: 20 * Nanos::MILLISECOND,
            full_retry_ns: 200 * Nanos::MILLISECOND,
            mutants: Mutants::NONE,
        }
    }
}

/// Where the sync thread takes over: what recovery left behind, all of it durable and certain.
#[derive(Clone, Debug)]
pub struct SyncerStart {
    /// End of the durable log.
    pub durable: Predecessor,
    /// Lowest position of the log.
    pub log_start: Position,
    /// Number of the newest seal.
    pub seal_number: u64,
    /// Cuts so far.
    pub epoch: CutEpoch,
    /// Generation of the first frame, where `terms` does not say.
    pub generation: Generation,
    /// Starts of terms.
    pub terms: Vec<TermStartAt>,
}

/// A failure that ended the sync thread's work.
#[derive(Debug)]
pub struct SyncFailure {
    /// What was being done, and to which file.
    pub action: String,
    /// What the host said.
    pub error: io::Error,
}

/// The sync thread's machine. It owns the descriptors of the durable files.
pub struct Syncer<D: Disk, V> {
    disk: D,
    node_state: Arc<NodeStateStore<D::File>>,
    link: SyncLink<V>,
    shared: Shared,
    settings: SyncerSettings,
    views: VecDeque<(Position, V)>,
    files: VecDeque<(Position, D::File)>,
    log_start: Position,
    /// End of what the last returned sync covers.
    durable: Predecessor,
    /// What the newest seal on the disk calls certain.
    certain: Position,
    seal_number: u64,
    epoch: CutEpoch,
    generation: Generation,
    terms: TermTable,
    gathering_since: Option<Nanos>,
    settle_at: Option<Nanos>,
    cut: Option<PendingCut>,
    outbox: Outbox,
    failure: Option<SyncFailure>,
}

#[derive(Clone, Copy)]
struct PendingCut {
    at: Predecessor,
    end: Position,
    epoch: CutEpoch,
    retry_at: Nanos,
}

/// Reports that the core's mailbox had no room for. Latest value each; the order below is the order of sending.
#[derive(Default)]
struct Outbox {
    durable: Option<SyncToCore>,
    cut_done: Option<SyncToCore>,
    failed: Option<SyncToCore>,
}

/// Frames that are about to be made durable.
struct Batch {
    /// Per segment: its base, and the bytes to write. A padding frame's zero body is in the file already.
    pieces: Vec<(Position, Position, Position)>,
    /// Header pages of segments entered.
    entered: Vec<SegmentHeader>,
    end: Predecessor,
}

impl<D: Disk, V: SegmentView> Syncer<D, V> {
    /// Takes over from recovery, with its views of the hot segments in ascending order.
    #[must_use]
    pub fn new(
        disk: D,
        node_state: Arc<NodeStateStore<D::File>>,
        link: SyncLink<V>,
        shared: Shared,
        settings: SyncerSettings,
        start: SyncerStart,
        views: impl IntoIterator<Item = (Position, V)>,
    ) -> Self {
        assert!(settings.segment_bytes.is_power_of_two() && settings.batch_bytes_max > 0);
        shared.words().durable.store(start.durable.position.0, Ordering::Release);
        let mut syncer = Self {
            disk,
            node_state,
            link,
            shared,
            settings,
            views: VecDeque::new(),
            files: VecDeque::new(),
            log_start: start.log_start,
            durable: start.durable,
            certain: start.durable.position,
            seal_number: start.seal_number,
            epoch: start.epoch,
            generation: start.generation,
            terms: TermTable::new(start.terms),
            gathering_since: None,
            settle_at: None,
            cut: None,
            outbox: Outbox::default(),
            failure: None,
        };
        views.into_iter().for_each(|(base, view)| syncer.add_view(base, view));
        syncer.release();
        syncer
    }

    /// One turn: at most one batch, one cut, or one settling sync. Returns how much it did; 0 means: nothing until
    /// [`Syncer::deadline`] or until the core or the keeper does something.
    pub fn step(&mut self, now: Nanos) -> usize {
        let mut work = self.outbox.send(&self.link);
        if self.failure.is_some() {
            return work;
        }
        // Before the keeper's mailbox: a segment that these bytes lie in was announced before they were written.
        let verified = self.verified();
        while let Ok(opened) = self.link.from_keeper.try_recv() {
            self.add_view(opened.base, opened.view);
            work += 1;
        }
        if self.cut.is_none()
            && self.outbox.cut_done.is_none()
            && let Ok(CoreToSync::Cut { at, end, epoch }) = self.link.from_core.try_recv()
        {
            self.cut = Some(PendingCut { at, end, epoch, retry_at: now });
        }
        let done = if self.cut.is_some() { self.cut(now) } else { self.sync(now, verified) };
        match done {
            Ok(done) => work += done,
            Err(failure) => {
                self.shared.words().sync_failed.store(1, Ordering::Release);
                self.outbox.failed = Some(SyncToCore::Failed);
                self.failure = Some(failure);
                work += 1;
            }
        }
        work + self.outbox.send(&self.link)
    }

    /// When [`Syncer::step`] has something to do even if nobody calls.
    #[must_use]
    pub fn deadline(&self) -> Option<Nanos> {
        if self.failure.is_some() {
            return None;
        }
        let gathered = self.gathering_since.map(|since| since.plus(self.settings.group_delay_ns));
        let retry = self.cut.as_ref().map(|cut| cut.retry_at);
        [gathered, retry, self.settle_at].into_iter().flatten().min()
    }

    /// End of the log if all of it is durable and certain: what a clean mark may say after the core has stopped.
    #[must_use]
    pub fn settled(&self) -> Option<Predecessor> {
        let verified = self.verified()?;
        (self.failure.is_none()
            && self.cut.is_none()
            && verified <= self.durable.position
            && self.certain == self.durable.position)
            .then_some(self.durable)
    }

    /// Gathers for this long from now on (see [`SyncerSettings::group_delay_ns`]).
    pub fn set_group_delay_ns(&mut self, group_delay_ns: u64) {
        self.settings.group_delay_ns = group_delay_ns;
    }

    /// Settles after this much silence from now on; 0 to stop in order.
    pub fn set_settle_delay_ns(&mut self, settle_delay_ns: u64) {
        self.settings.settle_delay_ns = settle_delay_ns;
        if let Some(settle_at) = &mut self.settle_at {
            *settle_at = Nanos(0);
        }
    }

    /// Whether the core or the keeper has left something to do.
    #[must_use]
    pub fn has_mail(&self) -> bool {
        !self.link.from_core.is_empty() || !self.link.from_keeper.is_empty()
    }

    /// End of what is durable.
    #[must_use]
    pub fn durable(&self) -> Durable {
        Durable(self.durable.position)
    }

    /// Why it stopped, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<&SyncFailure> {
        self.failure.as_ref()
    }

    /// A cut waits because the disk is too full to save what it takes away.
    #[must_use]
    pub fn cut_waits_for_space(&self) -> bool {
        self.cut.is_some()
    }

    /// End of the verified log, if the core's words speak of the same epoch as this machine.
    fn verified(&self) -> Option<Position> {
        let words = self.shared.words();
        let before = words.cut_epoch.load(Ordering::Acquire);
        let verified = words.verified.load(Ordering::Acquire);
        let after = words.cut_epoch.load(Ordering::Acquire);
        let own = u64::from(self.epoch.0);
        (before == own && after == own).then_some(Position(verified))
    }

    fn add_view(&mut self, base: Position, view: V) {
        if let Some(known) = self.views.iter_mut().find(|(known, _)| *known == base) {
            known.1 = view;
            return;
        }
        if let Some((last, _)) = self.views.back() {
            assert_eq!(base, last.plus(self.settings.segment_bytes), "segments are contiguous");
        }
        self.views.push_back((base, view));
    }

    fn sync(&mut self, now: Nanos, verified: Option<Position>) -> Result<usize, SyncFailure> {
        let end = verified.unwrap_or(Position(0)).min(self.room());
        if end <= self.durable.position {
            self.gathering_since = None;
            return self.settle(now);
        }
        let since = *self.gathering_since.get_or_insert(now);
        let gathered = end.since(self.durable.position) >= self.settings.batch_bytes_max;
        if !gathered && now < since.plus(self.settings.group_delay_ns) {
            return Ok(0);
        }
        self.make_durable(end)?;
        self.gathering_since = None;
        self.settle_at = Some(now.plus(self.settings.settle_delay_ns));
        Ok(1)
    }

    /// One batch, at most up to `end`.
    fn make_durable(&mut self, end: Position) -> Result<(), SyncFailure> {
        let batch = self.gather(end);
        let bytes = batch.end.position.since(self.durable.position);
        self.write(&batch)?;
        self.durable = batch.end;
        self.publish(bytes);
        self.release();
        Ok(())
    }

    /// Walks the frames up to `end`, or until there are enough bytes.
    fn gather(&mut self, end: Position) -> Batch {
        let segment_bytes = self.settings.segment_bytes;
        let mut batch = Batch { pieces: Vec::new(), entered: Vec::new(), end: self.durable };
        while batch.end.position < end
            && batch.end.position.since(self.durable.position) < self.settings.batch_bytes_max
        {
            let before = batch.end;
            let base = before.position.segment_base(segment_bytes);
            let view = view_of(&self.views, base).expect("a view of every byte above durable");
            let offset = before.position.since(base);
            let bytes = view.bytes(offset, FRAME_HEADER_BYTES);
            let header = FrameHeader::read_from_bytes(bytes).expect("a header's bytes");
            let next = before.after(&header);
            assert!(
                next.position > before.position
                    && next.position <= end
                    && next.position <= base.plus(segment_bytes)
                    && next.term >= before.term,
                "verified bytes are frames: {before:?} is followed by {header:?}"
            );
            if before.position == base {
                batch.entered.push(self.header(before));
                batch.pieces.push((base, before.position, before.position));
            } else if batch.pieces.is_empty() {
                batch.pieces.push((base, before.position, before.position));
            }
            let padding = header.kind == Kind::Padding as u8;
            let written = if padding {
                before.position.plus(FRAME_HEADER_BYTES as u64)
            } else {
                next.position
            };
            batch.pieces.last_mut().expect("pushed above").2 = written;
            note_term(&mut self.terms, self.generation, before, &header, |length| {
                view.bytes(offset + FRAME_HEADER_BYTES as u64, length)
            });
            batch.end = next;
        }
        batch
    }

    fn header(&self, before: Predecessor) -> SegmentHeader {
        SegmentHeader {
            content: Content::Segment,
            group: self.settings.group,
            generation: self.terms.last().map_or(self.generation, |l| l.leadership.generation),
            segment_bytes: self.settings.segment_bytes,
            before,
            cut_epoch: self.epoch,
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), SyncFailure> {
        let mut entered = batch.entered.iter();
        for &(base, from, to) in &batch.pieces {
            let view = view_of(&self.views, base).expect("gathered from it");
            let bytes = view.bytes(from.since(base), to.since(from) as usize);
            let file = open(&self.disk, &mut self.files, base)?;
            if from == base
                && let Some(header) = entered.next()
            {
                write_header(file, header).map_err(failed("writing the header of", base))?;
            }
            file.write_at(bytes, file_offset(base, from)).map_err(failed("writing", base))?;
        }
        let seal = self.next_seal(self.durable, batch.end);
        self.write_seal(&seal)?;
        let first = batch.pieces.first().map_or(batch.end.position, |&(base, ..)| base);
        for (base, file) in self.files.iter_mut().filter(|(base, _)| *base >= first) {
            file.sync().map_err(failed("syncing", *base))?;
        }
        self.certain = seal.certain.position;
        Ok(())
    }

    /// With nothing to write: makes the last batch certain once it has been quiet long enough.
    fn settle(&mut self, now: Nanos) -> Result<usize, SyncFailure> {
        if self.settle_at.is_none_or(|at| now < at) {
            return Ok(0);
        }
        self.settle_at = None;
        let seal = self.next_seal(self.durable, self.durable);
        let base = self.write_seal(&seal)?;
        let file = open(&self.disk, &mut self.files, base)?;
        file.sync().map_err(failed("syncing", base))?;
        self.certain = self.durable.position;
        self.shared.words().syncs.fetch_add(1, Ordering::Relaxed);
        Ok(1)
    }

    fn next_seal(&mut self, certain: Predecessor, claimed: Predecessor) -> Seal {
        let commit = Position(self.shared.words().commit.load(Ordering::Acquire));
        self.seal_number += 1;
        Seal {
            number: self.seal_number,
            epoch: self.epoch,
            certain,
            claimed,
            known_commit: Commit(commit.min(claimed.position)),
        }
    }

    fn write_seal(&mut self, seal: &Seal) -> Result<Position, SyncFailure> {
        let base = seal_base(seal.claimed.position, self.log_start, self.settings.segment_bytes);
        let file = open(&self.disk, &mut self.files, base)?;
        write_seal(file, seal, self.settings.group).map_err(failed("sealing", base))?;
        Ok(base)
    }

    fn publish(&mut self, bytes: u64) {
        let words = self.shared.words();
        words.durable.store(self.durable.position.0, Ordering::Release);
        words.syncs.fetch_add(1, Ordering::Relaxed);
        words.synced_bytes.fetch_add(bytes, Ordering::Relaxed);
        let durable = Durable(self.durable.position);
        self.outbox.durable = Some(SyncToCore::Durable { epoch: self.epoch, durable });
    }

    /// Lets go of files that lie wholly below what is durable, but for the one that takes the next seal, and of views that
    /// lie below what the core holds, too: it may cut the log back and write there again.
    fn release(&mut self) {
        let segment_bytes = self.settings.segment_bytes;
        let durable = self.durable.position;
        let hot_base = Position(self.shared.words().hot_base.load(Ordering::Acquire));
        let unused = durable.min(hot_base);
        while self.views.front().is_some_and(|(base, _)| base.plus(segment_bytes) <= unused) {
            self.views.pop_front();
        }
        let kept = seal_base(durable, self.log_start, segment_bytes);
        while self.files.front().is_some_and(|(base, _)| *base < kept) {
            self.files.pop_front();
        }
    }

    fn cut(&mut self, now: Nanos) -> Result<usize, SyncFailure> {
        let Some(pending) = self.cut.take_if(|cut| now >= cut.retry_at) else { return Ok(0) };
        let (at, end, epoch) = (pending.at, pending.end, pending.epoch);
        // What stays is made durable first, so that the record of the cut speaks of bytes that are on the disk.
        while self.durable.position < at.position {
            if !self.holds(at.position) {
                return Ok(self.postpone(&pending, now));
            }
            self.make_durable(at.position)?;
        }
        self.terms.cut(at.position);
        let request = cut::Cut {
            at,
            end,
            epoch,
            durable: self.durable.position,
            log_start: self.log_start,
            seal_number: self.seal_number + 1,
            group: self.settings.group,
            segment_bytes: self.settings.segment_bytes,
            generation: self.header(at).generation,
            commit: Commit(Position(self.shared.words().commit.load(Ordering::Acquire))),
            saves: !self.settings.mutants.has(Mutant::CutUnsaved),
        };
        // The cut opens and closes descriptors of its own; there must never be two.
        self.files.clear();
        match cut::execute(&self.disk, &self.node_state, &self.views, &request) {
            Ok(()) => {}
            Err(CutFailure::Wait) => return Ok(self.postpone(&pending, now)),
            Err(CutFailure::Final(failure)) => return Err(failure),
        }
        self.durable = at;
        self.certain = at.position;
        self.seal_number += 1;
        self.epoch = epoch;
        self.gathering_since = None;
        self.settle_at = None;
        self.shared.words().durable.store(self.durable.position.0, Ordering::Release);
        // This replaces a report of the epoch before that may still be waiting: it is worthless now.
        let durable = Durable(at.position);
        self.outbox.durable = Some(SyncToCore::Durable { epoch, durable });
        self.outbox.cut_done = Some(SyncToCore::CutDone { epoch });
        Ok(1)
    }

    fn postpone(&mut self, pending: &PendingCut, now: Nanos) -> usize {
        let retry_at = now.plus(self.settings.full_retry_ns);
        self.cut = Some(PendingCut { retry_at, ..*pending });
        0
    }

    /// Views of everything from what is durable up to `end`.
    fn holds(&self, end: Position) -> bool {
        end <= self.room()
    }

    /// End of what this machine has views of.
    fn room(&self) -> Position {
        let last = self.views.back();
        last.map_or(self.durable.position, |(base, _)| base.plus(self.settings.segment_bytes))
    }
}

impl Outbox {
    fn send<V>(&mut self, link: &SyncLink<V>) -> usize {
        let mut sent = 0;
        for report in [&mut self.cut_done, &mut self.durable, &mut self.failed] {
            let Some(message) = *report else { continue };
            // Full: next time. Nobody there any more: nobody needs to know.
            if link.to_core.is_full() {
                break;
            }
            let _ = link.to_core.try_send(message);
            *report = None;
            sent += 1;
        }
        sent
    }
}

fn view_of<V>(views: &VecDeque<(Position, V)>, base: Position) -> Option<&V> {
    views.iter().find(|(known, _)| *known == base).map(|(_, view)| view)
}

/// The one descriptor of a segment's durable file.
fn open<'a, D: Disk>(
    disk: &D,
    files: &'a mut VecDeque<(Position, D::File)>,
    base: Position,
) -> Result<&'a mut D::File, SyncFailure> {
    let at = files.partition_point(|(known, _)| *known < base);
    if files.get(at).is_none_or(|(known, _)| *known != base) {
        let file = disk.open(&segment_name(base)).map_err(failed("opening", base))?;
        files.insert(at, (base, file));
    }
    Ok(&mut files[at].1)
}

/// What a failure to do `action` to a segment file is called.
pub(super) fn failed(
    action: &'static str,
    base: Position,
) -> impl FnOnce(io::Error) -> SyncFailure {
    move |error| SyncFailure { action: format!("{action} {}", segment_name(base)), error }
}

/// Keeps a table of terms up with the frame that follows `before`.
pub(super) fn note_term<'a>(
    terms: &mut TermTable,
    generation: Generation,
    before: Predecessor,
    header: &FrameHeader,
    payload: impl FnOnce(usize) -> &'a [u8],
) {
    if header.kind == Kind::TermStart as u8 {
        let length = header.length() as usize - FRAME_HEADER_BYTES;
        let last = terms.last().map_or(generation, |last| last.leadership.generation);
        let generation = TermStart::read_from_prefix(payload(length))
            .map_or(last, |(start, _)| Generation::from_u64(start.generation.get()));
        terms.push(Leadership { generation, term: header.term() }, before.position);
    } else if header.kind == Kind::Padding as u8 && header.term() > before.term {
        terms.pad(before.position);
    }
}
