//! A node without its network, for tests: core's log, sync and keeper over a disk and a hot tier in memory, that can be
//! crashed anywhere. It remembers what it was told is durable, and checks after every start that it is still there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use zerocopy::IntoBytes;

use super::hot::{HotLog, HotSettings};
use super::keeper::{Keeper, KeeperSettings};
use super::memory::SegmentMemory;
use super::memory_disk::{MemoryDisk, MemoryFile};
use super::node_state::{BootId, NodeStateStore};
use super::recovery::{Boot, RecoveryError, RecoveryReport, RecoverySettings, recover};
use super::segment_header::HEADER_PAGE;
use super::syncer::{Syncer, SyncerSettings};
use super::{HeapHotTier, HeapMemory, HeapView};
use crate::frame::payload::TermStart;
use crate::frame::{Kind, Predecessor};
use crate::limits::SEGMENT_BYTES_MIN;
use crate::link::{
    ControlLink, CoreLink, CoreToSync, SegmentRetired, SharedWords, SyncToCore, link,
};
use crate::types::{
    CutEpoch, Generation, GroupId, Incarnation, Leadership, Nanos, NodeId, Position, Term,
    Timestamp,
};

pub(crate) const SEGMENT: u64 = SEGMENT_BYTES_MIN;
pub(crate) const GROUP: GroupId = GroupId(0xFEED);
pub(crate) const GENERATION: Generation = Generation { counter: 1, random: 0xABCD };

/// The machine: what outlives the process, and what the tests remember.
pub(crate) struct Rig {
    pub(crate) disk: MemoryDisk,
    pub(crate) tier: HeapHotTier,
    pub(crate) boot: u8,
    pub(crate) node: Option<Node>,
    pub(crate) settings: RecoverySettings,
    pub(crate) syncer: SyncerSettings,
    pub(crate) now: Nanos,
    /// End of every frame that was ever appended to the log as it is, by position.
    pub(crate) ends: BTreeMap<Position, Predecessor>,
    /// The highest durable position that the core was told of, in the newest epoch.
    pub(crate) reported: Position,
}

/// The process.
pub(crate) struct Node {
    pub(crate) log: HotLog<HeapMemory>,
    pub(crate) core: CoreLink<HeapMemory>,
    pub(crate) syncer: Syncer<MemoryDisk, HeapView>,
    pub(crate) keeper: Keeper<MemoryDisk, HeapHotTier>,
    pub(crate) shared: Arc<SharedWords>,
    pub(crate) state: Arc<NodeStateStore<MemoryFile>>,
    pub(crate) epoch: CutEpoch,
    pub(crate) cutting: Option<Predecessor>,
    pub(crate) failed: bool,
    pub(crate) report: RecoveryReport,
    pub(crate) stateless: bool,
    _control: ControlLink,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let mut settings = RecoverySettings::new(GROUP, NodeId(0), SEGMENT);
        settings.hot_bytes = SEGMENT;
        Self {
            disk: MemoryDisk::new(),
            tier: HeapHotTier::new(SEGMENT, 1),
            boot: 1,
            node: None,
            settings,
            syncer: SyncerSettings::new(GROUP, SEGMENT),
            now: Nanos(1),
            ends: BTreeMap::from([(Position(0), Predecessor::genesis(GROUP))]),
            reported: Position(0),
        }
    }

    /// A rig that is up, its group founded, and promises allowed from memory.
    pub(crate) fn started() -> Self {
        let mut rig = Self::new();
        rig.start().unwrap();
        let leadership = Leadership { generation: GENERATION, term: Term(1) };
        rig.node().state.update(|state| state.found(leadership)).unwrap();
        rig.append_term_start(1);
        rig
    }

    pub(crate) fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("the node runs")
    }

    /// Starts the process: recovery, then the machines. Checks that nothing reported durable is missing.
    pub(crate) fn start(&mut self) -> Result<(), RecoveryError> {
        assert!(self.node.is_none());
        let state =
            NodeStateStore::open(&self.disk, GROUP, NodeId(0)).map_err(RecoveryError::NodeState)?;
        let boot = Boot { boot_id: BootId([self.boot; 16]), first_incarnation: Incarnation(100) };
        let recovered = recover(&self.disk, &mut self.tier, &self.settings, &state, boot)?;
        let known = self.ends.get(&recovered.tail.position);
        assert_eq!(known, Some(&recovered.tail), "a prefix of what was written");
        assert!(recovered.tail.position >= self.reported, "{:?}", recovered.report);
        self.ends.split_off(&recovered.tail.position.plus(1));
        self.reported = recovered.tail.position;
        let state = Arc::new(state);
        let shared = Arc::new(SharedWords::default());
        let (core, control, sync_link, keeper_link) = link();
        let mut log = HotLog::new(
            HotSettings {
                segment_bytes: SEGMENT,
                window_bytes: SEGMENT / 4,
                group: GROUP,
                generation: recovered.last.generation,
                header: HEADER_PAGE,
                terms: recovered.terms,
            },
            recovered.tail,
        );
        let epoch = recovered.sync.epoch;
        shared.verified.store(recovered.tail.position.0, Ordering::Release);
        shared.commit.store(recovered.known_commit.position().0, Ordering::Release);
        shared.cut_epoch.store(u64::from(epoch.0), Ordering::Release);
        let lowest = recovered.segments[0].0;
        shared.hot_base.store(lowest.0, Ordering::Release);
        let mut views = Vec::new();
        for (base, memory, view) in recovered.segments {
            log.add_segment(base, memory).expect("recovered segments fit");
            views.push((base, view));
        }
        assert_eq!(log.tail(), recovered.tail);
        let syncer = Syncer::new(
            self.disk.clone(),
            Arc::clone(&state),
            sync_link,
            shared.clone(),
            self.syncer,
            recovered.sync,
            views,
        );
        let next = log.end_of_room();
        let keeper = Keeper::new(
            self.disk.clone(),
            self.tier.clone(),
            keeper_link,
            shared.clone(),
            KeeperSettings { segments_ahead: 1, ..KeeperSettings::new(SEGMENT) },
            lowest,
            next,
        );
        self.node = Some(Node {
            log,
            core,
            syncer,
            keeper,
            shared,
            state,
            epoch,
            cutting: None,
            failed: false,
            report: recovered.report,
            stateless: recovered.stateless,
            _control: control,
        });
        Ok(())
    }

    /// The process dies.
    pub(crate) fn crash_process(&mut self) {
        self.node = None;
        self.disk.crash_process();
    }

    /// The machine loses power: memory is gone, and the disk is what `seed` leaves of it.
    pub(crate) fn power_loss(&mut self, seed: u64) {
        self.node = None;
        self.disk.crash(seed);
        self.boot += 1;
        self.tier = HeapHotTier::new(SEGMENT, u64::from(self.boot));
    }

    pub(crate) fn append_term_start(&mut self, term: u32) {
        let base = self.node().log.tail().position;
        let payload = TermStart {
            generation: GENERATION.to_u64().into(),
            base: base.0.into(),
            service_version: 1.into(),
            leader: 0.into(),
            reserved: 0.into(),
        };
        self.append_kind(Kind::TermStart, term, payload.as_bytes());
    }

    pub(crate) fn append(&mut self, payload: &[u8]) {
        let term = self.node().log.tail().term.0;
        self.append_kind(Kind::Command, term, payload);
    }

    pub(crate) fn append_kind(&mut self, kind: Kind, term: u32, payload: &[u8]) {
        for _ in 0..1000 {
            if self.node().log.room_for(payload.len()) {
                break;
            }
            self.keep();
            if !self.node().log.room_for(payload.len()) {
                self.step_sync();
            }
        }
        let node = self.node();
        let before = node.log.tail();
        node.log.append(kind, Term(term), Timestamp(7), &[payload]).expect("a segment is ready");
        let tail = node.log.tail();
        // Padding may have come in front of it: its end is an end of the log, too.
        let base = tail.position.segment_base(SEGMENT);
        if before.position < base && base < tail.position {
            let padded = node.log.predecessor_at(base).expect("the new segment's start");
            self.ends.insert(base, padded);
        }
        self.ends.insert(tail.position, tail);
        self.node().shared.verified.store(tail.position.0, Ordering::Release);
    }

    /// Lets the keeper work until it has nothing to do, and hands its segments to the log.
    pub(crate) fn keep(&mut self) {
        let now = self.now;
        let node = self.node();
        for _ in 0..100 {
            let worked = node.keeper.step(now);
            while let Ok(ready) = node.core.from_keeper.try_recv() {
                node.log.add_segment(ready.base, ready.memory).expect("in order");
            }
            let reported = Position(node.shared.durable.load(Ordering::Acquire));
            // Not while a cut is under way: it may end below.
            if node.cutting.is_none()
                && let Some((base, memory)) = node.log.retire(reported)
            {
                node.shared.hot_base.store(node.log.hot_base().0, Ordering::Release);
                node.core.to_keeper.try_send(SegmentRetired { base, memory }).unwrap();
            } else if worked == 0 {
                break;
            }
        }
    }

    /// One step of sync, and the core takes its reports.
    pub(crate) fn step_sync(&mut self) -> usize {
        self.now = self.now.plus(Nanos::MILLISECOND);
        let now = self.now;
        let work = self.node().syncer.step(now);
        self.take_reports();
        work
    }

    pub(crate) fn take_reports(&mut self) {
        let reported = &mut self.reported;
        let node = self.node.as_mut().expect("the node runs");
        while let Ok(report) = node.core.from_sync.try_recv() {
            match report {
                SyncToCore::Durable { epoch, durable } if epoch == node.epoch => {
                    if node.cutting.is_none() {
                        assert!(durable.position() <= node.log.tail().position);
                        *reported = (*reported).max(durable.position());
                    }
                }
                SyncToCore::Durable { .. } => {}
                SyncToCore::CutDone { epoch } => {
                    assert_eq!(epoch, node.epoch);
                    let at = node.cutting.take().expect("a cut was asked for");
                    node.log.cut(at).expect("it stopped where it was");
                    self.ends.split_off(&at.position.plus(1));
                }
                SyncToCore::Failed => node.failed = true,
            }
        }
    }

    /// Asks for a cut, as the core does: words first, then the message.
    pub(crate) fn ask_cut(&mut self, at: Predecessor) {
        self.reported = self.reported.min(at.position);
        let node = self.node();
        node.epoch = CutEpoch(node.epoch.0 + 1);
        node.cutting = Some(at);
        let end = node.log.tail().position;
        node.shared.cut_epoch.store(u64::from(node.epoch.0), Ordering::Release);
        node.shared.verified.store(at.position.0, Ordering::Release);
        let epoch = node.epoch;
        node.core.to_sync.try_send(CoreToSync::Cut { at, end, epoch }).unwrap();
    }

    /// Steps sync until it has nothing to do, settling included.
    pub(crate) fn sync_all(&mut self) {
        self.node().syncer.set_settle_delay_ns(0);
        for _ in 0..10_000 {
            if self.step_sync() == 0 && self.step_sync() == 0 {
                return;
            }
        }
        panic!("sync never comes to rest");
    }

    /// Frames of all sizes until the log has passed `position`.
    pub(crate) fn fill_to(&mut self, position: u64) {
        let mut size = 1;
        while self.node().log.tail().position.0 < position {
            size = (size * 7 + 13) % 900;
            let payload = vec![size as u8 | 1; size];
            self.append(&payload);
        }
    }

    pub(crate) fn tail(&mut self) -> Predecessor {
        self.node().log.tail()
    }

    /// The bytes of the log in the durable files.
    pub(crate) fn payload(&self, base: u64) -> Vec<u8> {
        let name = super::segment_name(Position(base));
        self.disk.bytes(&name).expect("the file is there")[4096..].to_vec()
    }

    /// Bytes of the log in the hot segments.
    pub(crate) fn hot_payload(&mut self, base: u64) -> Vec<u8> {
        use super::memory::HotTier;
        let (memory, _) = self.tier.open(Position(base)).expect("the segment is there");
        memory.bytes(0, SEGMENT as usize).to_vec()
    }
}
