//! The catch-up lane between simulated nodes: requests and answers that are late, lost, or come when nobody wants them any
//! more. A source reads them from its disk.

use std::sync::Arc;

use super::machine::GROUP;
use super::nemesis::Phase;
use super::wire::Endpoint;
use super::world::{Event, World};
use crate::control::election::Input;
use crate::control::event::Event::CaughtUp;
use crate::control::lane::{
    LaneAnswer, LaneInput, LaneOutput, LaneRequest, MatchAnswer, RangeRequest, Source,
};
use crate::journal::files::{LogFiles, gone_below};
use crate::link::ControlToCore;
use crate::replica::Doing;
use crate::types::{Nanos, NodeId};

/// A take-over whose first bytes do not come that soon is not disturbed, ns.
const PULL_SOON_NS: u64 = 500 * Nanos::MILLISECOND;

/// What one control thread says to another on the lane.
#[derive(Clone, Debug)]
pub(super) enum LaneLetter {
    Request(LaneRequest),
    Answer(LaneAnswer),
    /// The connection to the one that it comes from broke.
    Broken,
}

impl World {
    /// Something of the lane arrives: it waits until the control thread looks.
    pub(super) fn lane_arrives(&mut self, from: usize, to: usize, letter: LaneLetter) {
        const WAITING_MAX: usize = 64;
        let machine = &mut self.machines[to];
        if machine.process.is_none() || machine.lane_letters.len() >= WAITING_MAX {
            return;
        }
        machine.lane_letters.push_back((from, letter));
        self.wake_soon(to, super::machine::Part::Control);
    }

    /// Gives the lane of a node what has come for it; who asks for bytes is answered from the disk.
    pub(super) fn read_lane(&mut self, node: usize) {
        let letters = core::mem::take(&mut self.machines[node].lane_letters);
        for (from, letter) in letters {
            let peer = NodeId(from as u16);
            match letter {
                LaneLetter::Request(LaneRequest::Match(question)) => {
                    self.tell_lane(node, LaneInput::Asked { asker: peer, question });
                }
                LaneLetter::Request(LaneRequest::Range(range)) => {
                    let answer = self.serve(node, &range);
                    self.send_lane(node, peer, &LaneLetter::Answer(answer));
                }
                LaneLetter::Request(LaneRequest::Snapshot(request)) => {
                    let answer = self.serve_snapshot(node, &request);
                    self.send_lane(node, peer, &LaneLetter::Answer(answer));
                }
                LaneLetter::Answer(LaneAnswer::Part { number, piece })
                    if !self.process(node).repairs.has_asked(number) =>
                {
                    self.take_snapshot(node, number, &piece);
                }
                LaneLetter::Answer(answer) => {
                    self.tell_lane(node, LaneInput::Answered { from: peer, answer });
                }
                LaneLetter::Broken => self.tell_lane(node, LaneInput::Broken(peer)),
            }
        }
        self.tell_lane(node, LaneInput::Tick);
    }

    pub(super) fn tell_lane(&mut self, node: usize, input: LaneInput) {
        let local = self.machines[node].clock.local(self.now);
        let process = self.process(node);
        process.repairs.lane(local, &input);
        process.lane.handle(local, input);
    }

    /// Does what the lane of a node wants; returns whether its process lives on.
    pub(super) fn obey_lane(&mut self, node: usize) -> bool {
        while let Some(output) = self.process(node).lane.poll() {
            match output {
                LaneOutput::ToCore(order) => {
                    if matches!(order, ControlToCore::TakeOver { .. }) {
                        self.checks.take_over(node);
                    }
                    self.trace.line(self.now, || format!("node {node}: core is told {order:?}"));
                    if self.process(node).control_link.to_core.try_send(order).is_err() {
                        return false;
                    }
                    self.wake_soon(node, super::machine::Part::Core);
                }
                LaneOutput::Chunk(chunk) => {
                    let (from, bytes) = (chunk.from, chunk.bytes.len());
                    self.trace.line(self.now, || format!("node {node}: {bytes} bytes at {from}"));
                    let _ = self.process(node).control_link.to_lane.try_send(chunk);
                    self.wake_soon(node, super::machine::Part::Core);
                    self.stall_pulling(node);
                }
                LaneOutput::Ask(to, request) => {
                    self.send_lane(node, to, &LaneLetter::Request(request));
                }
                LaneOutput::Answer(to, answer) => {
                    let answer = LaneAnswer::Match(self.filed(node, answer));
                    self.send_lane(node, to, &LaneLetter::Answer(answer));
                }
                LaneOutput::Ended(whole) => {
                    self.trace.line(self.now, || format!("node {node}: took all over: {whole}"));
                    self.coverage.hit(if whole { "leader-sync" } else { "pull-failed" }, 1);
                    let local = self.machines[node].clock.local(self.now);
                    self.process(node).control.handle(local, Input::Pulled(whole));
                }
                LaneOutput::Resume(number) => self.resume_snapshot(node, number),
                LaneOutput::Discard => self.discard_snapshot(node),
                LaneOutput::Install(position) => self.install_snapshot(node, position),
                LaneOutput::Event(event) => {
                    self.coverage.hit("caught-up", u64::from(matches!(event, CaughtUp { .. })));
                    self.trace.line(self.now, || format!("node {node}: {event:?}"));
                }
            }
        }
        true
    }

    /// The core of the next node that takes a log over before it stands will stand still, if it comes to that soon.
    pub(super) fn stall_next_pull(&mut self, lasts_ns: u64) {
        self.stalls_pulling = Some((self.now.plus(PULL_SOON_NS), lasts_ns));
    }

    /// It is given the first bytes.
    fn stall_pulling(&mut self, node: usize) {
        let without_role = self.process(node).core.observe().doing == Doing::Idle;
        let armed = self.stalls_pulling.filter(|_| without_role && self.phase == Phase::Chaos);
        if let Some((before, lasts_ns)) = armed {
            self.stalls_pulling = None;
            if self.now < before {
                let core = super::machine::Part::Core as usize;
                self.machines[node].paused_until[core] = self.now.plus(lasts_ns);
            }
        }
    }

    /// Bytes that a node may send to one that asks for them. A disk that cannot be read answers with none.
    fn serve(&mut self, node: usize, range: &RangeRequest) -> LaneAnswer {
        let source = Source::of(self.process(node).shared.words());
        let (to, end) = source.serves(range);
        let machine = &self.machines[node];
        let files = LogFiles::new(&machine.disk, machine.segment_bytes);
        let bytes: Arc<[u8]> = files.piece(range.from, to).unwrap_or_default().into();
        let (number, from) = (range.number, range.from);
        if bytes.is_empty()
            && to > from
            && let Ok(Some(first)) = gone_below(&machine.disk, from)
        {
            return LaneAnswer::Gone { number, first };
        }
        LaneAnswer::Bytes { number, from, end, committed: source.committed, bytes }
    }

    /// The answer, with what only the files hold.
    fn filed(&self, node: usize, answer: MatchAnswer) -> MatchAnswer {
        let machine = &self.machines[node];
        let files = LogFiles::new(&machine.disk, machine.segment_bytes);
        MatchAnswer { reply: files.filed(GROUP, answer.reply), ..answer }
    }

    /// What is lost breaks the connection: the asker learns of it after a while.
    pub(super) fn send_lane(&mut self, from: usize, to: NodeId, letter: &LaneLetter) {
        const BREAK_NS: u64 = 20 * Nanos::MILLISECOND;
        let to = usize::from(to.0);
        let ends = (Endpoint::Node(from), Endpoint::Node(to));
        let fates = self.paths.fates(&mut self.random, &self.plan, ends, true);
        let (asker, source) =
            if matches!(letter, LaneLetter::Request(_)) { (from, to) } else { (to, from) };
        if fates.iter().all(Option::is_none) && self.random.below(2) == 0 {
            let at = self.now.plus(self.random.below(BREAK_NS));
            let letter = LaneLetter::Broken;
            self.schedule(at, Event::Lane { from: source, to: asker, letter });
        }
        for fate in fates.into_iter().flatten() {
            let letter = letter.clone();
            self.schedule(self.now.plus(fate.after_ns), Event::Lane { from, to, letter });
        }
    }
}
