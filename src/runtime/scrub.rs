//! Who reads the durable files in the background, on the replay worker's thread, and control's side of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::{Value, json};

use super::carrier::CarrierOrder;
use super::config::Settings;
use super::events::EventSink;
use super::node::{mender, repairs_machine};
use crate::control::lane::{LaneInput, LaneRequest};
use crate::control::repair::{RepairOutput, Repairs};
use crate::journal::Disk;
use crate::journal::mender::Mender;
use crate::journal::scrub::{Flaw, Round, ScrubEvent, Wrong};
use crate::link::{RepairOrder, RepairReport, Shared, Wake};
use crate::types::{Nanos, NodeId, Position};

/// Orders and reports on their way, at most: there is one question at a time.
const MAILBOX_DEPTH: usize = 64;
/// Flaws shown in `quorate status`, at most.
const FLAWS_SHOWN: usize = 16;

/// What the worker says.
#[derive(Debug)]
enum News {
    Report(RepairReport),
    Event(ScrubEvent),
}

/// How far the scrub is, for `quorate status`.
#[derive(Clone, Default, Debug)]
struct Progress {
    position: Option<Position>,
    round: Option<Round>,
    last: Option<Round>,
    flaws: Vec<String>,
    flawed_files: usize,
}

/// The worker.
pub(super) struct ScrubWorker<D: Disk> {
    mender: Mender<D>,
    bytes_per_second: u64,
    orders: Receiver<RepairOrder>,
    news: Sender<News>,
    waiting: VecDeque<News>,
    progress: Arc<Mutex<Progress>>,
    control: Arc<dyn Wake>,
    /// Snapshots that cannot be used, for who takes them.
    bad_snapshots: Vec<Position>,
    /// A snapshot of another node has come.
    brought: bool,
}

/// Control's side: the machine that decides, and what it is told.
pub(super) struct RepairDesk {
    machine: Repairs,
    orders: Sender<RepairOrder>,
    news: Receiver<News>,
    progress: Arc<Mutex<Progress>>,
    rounds: u64,
    found: u64,
}

/// The worker over the data directory, and control's side. `control` is woken by news.
pub(super) fn scrubbing<D: Disk + Clone>(
    settings: &Settings,
    disk: D,
    shared: &Shared,
    control: &Arc<dyn Wake>,
) -> (ScrubWorker<D>, RepairDesk) {
    let (mender, control) = (mender(settings, disk, Arc::clone(shared)), Arc::clone(control));
    let (to_worker, orders) = bounded(MAILBOX_DEPTH);
    let (news, to_control) = bounded(MAILBOX_DEPTH);
    let progress = Arc::<Mutex<Progress>>::default();
    let control_side = RepairDesk {
        machine: repairs_machine(settings),
        orders: to_worker,
        news: to_control,
        progress: Arc::clone(&progress),
        rounds: 0,
        found: 0,
    };
    let (waiting, bad_snapshots) = (VecDeque::new(), Vec::new());
    let worker = ScrubWorker {
        mender,
        bytes_per_second: settings.scrub.bytes_per_second,
        orders,
        news,
        waiting,
        progress,
        control,
        bad_snapshots,
        brought: false,
    };
    (worker, control_side)
}

impl<D: Disk + Clone> ScrubWorker<D> {
    /// Does a bounded amount; returns the bytes it read, 0: nothing is to be done.
    pub(super) fn turn(&mut self, now: Nanos) -> u64 {
        while let Ok(order) = self.orders.try_recv() {
            self.mender.obey(order);
        }
        self.brought |= self.mender.take_brought();
        let done = self.mender.step(now);
        while let Some(report) = self.mender.poll_report() {
            self.waiting.push_back(News::Report(report));
        }
        while let Some(event) = self.mender.poll_event() {
            if let ScrubEvent::Flaw(Flaw { base, what: Wrong::Snapshot(_), file, .. }) = &event {
                self.bad_snapshots.push(*base);
                self.mender.scrub().forget(file); // it is kept aside next
            }
            self.waiting.push_back(News::Event(event));
        }
        if done > 0 {
            self.share();
        }
        self.tell();
        done
    }

    fn tell(&mut self) {
        let mut told = false;
        while let Some(news) = self.waiting.pop_front() {
            if let Err(back) = self.news.try_send(news) {
                self.waiting.push_front(back.into_inner());
                break;
            }
            told = true;
        }
        if told {
            self.control.wake();
        }
    }

    fn share(&mut self) {
        let scrub = self.mender.scrub();
        let (round, last) = scrub.rounds();
        let position = scrub.position();
        let flaws = scrub.flaws().take(FLAWS_SHOWN).map(ToString::to_string).collect();
        let flawed_files = scrub.flaws().count();
        let progress = Progress { position, round, last, flaws, flawed_files };
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    /// The log could not be read at this position, by somebody who had to.
    pub(super) fn suspect(&mut self, position: Position) {
        self.mender.scrub().suspect(position);
    }

    /// A snapshot that cannot be used, if one was found.
    pub(super) fn bad_snapshot(&mut self) -> Option<Position> {
        self.bad_snapshots.pop()
    }

    /// Whether a snapshot of another node has come into the folder since this was last asked.
    pub(super) fn brought(&mut self) -> bool {
        core::mem::take(&mut self.brought)
    }

    /// Bytes that may be read in a second.
    pub(super) const fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// Whether a peer's answer is waited for: then the next turn comes soon.
    pub(super) fn is_repairing(&self) -> bool {
        self.mender.is_repairing()
    }
}

impl RepairDesk {
    /// What came from other nodes may be for the machine.
    pub(super) fn on_lane(&mut self, now: Nanos, news: &LaneInput) {
        self.machine.lane(now, news);
    }

    /// The log could not be read there, for another node.
    pub(super) fn suspect(&self, position: Position) {
        drop(self.orders.try_send(RepairOrder::Suspect(position)));
    }

    /// Takes what the worker says, tells the operator of it, and does what the machine wants; returns what others are
    /// asked.
    pub(super) fn turn(
        &mut self,
        now: Nanos,
        events: &mut EventSink,
    ) -> Vec<(NodeId, CarrierOrder)> {
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Report(report) => self.machine.handle(now, report),
                News::Event(event) => self.tell(&event, events),
            }
        }
        self.machine.tick(now);
        let mut asked = Vec::new();
        while let Some(output) = self.machine.poll() {
            match output {
                // There is one question at a time: a full mailbox means that the worker is gone.
                RepairOutput::Order(order) => drop(self.orders.try_send(order)),
                RepairOutput::Ask(to, LaneRequest::Snapshot(request)) => {
                    asked.push((to, CarrierOrder::AskForRepair(to, request)));
                }
                RepairOutput::Ask(to, request) => asked.push((to, CarrierOrder::Ask(to, request))),
                RepairOutput::Event(event) => events.line(event.code(), &event.to_string()),
            }
        }
        asked
    }

    fn tell(&mut self, event: &ScrubEvent, events: &mut EventSink) {
        match event {
            ScrubEvent::Flaw(flaw) => {
                self.found += 1;
                events.line(1170, &format!("damage: {flaw}"));
            }
            ScrubEvent::Mended(base) => {
                events.line(1175, &format!("the segment at {base} reads well again"));
            }
            ScrubEvent::Round(_) => self.rounds += 1,
        }
    }

    /// For `quorate status`.
    pub(super) fn json(&self) -> Value {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let round = |round: Round| {
            json!({
                "bytes": round.bytes, "segments": round.segments, "snapshots": round.snapshots,
                "flaws": round.flaws, "took_ms": round.took_ns / Nanos::MILLISECOND,
            })
        };
        let (repaired, taken_bytes) = self.machine.counts();
        json!({
            "position": progress.position.map(|position| position.0),
            "round": progress.round.map(round), "last_round": progress.last.map(round),
            "rounds": self.rounds, "found": self.found,
            "flawed_files": progress.flawed_files, "flaws": progress.flaws,
            "repaired": repaired, "taken_bytes": taken_bytes,
        })
    }
}
