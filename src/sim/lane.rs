//! The catch-up lane between simulated nodes: requests and answers that are late, lost, or come when nobody wants them any
//! more. A source reads them from its disk.

use core::sync::atomic::Ordering::Acquire;

use super::machine::SEGMENT_BYTES;
use super::wire::Endpoint;
use super::world::{Event, World};
use crate::control::election::Input;
use crate::control::lane::{LaneAnswer, LaneInput, LaneOutput, LaneRequest};
use crate::journal::files::LogFiles;
use crate::link::ControlToCore;
use crate::types::{NodeId, Position};

/// What one control thread says to another on the lane.
#[derive(Clone, Debug)]
pub(super) enum LaneLetter {
    Request(LaneRequest),
    Answer(LaneAnswer),
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

    /// Gives the lane of a node what has come for it.
    pub(super) fn read_lane(&mut self, node: usize) {
        let letters = core::mem::take(&mut self.machines[node].lane_letters);
        for (from, letter) in letters {
            let from = NodeId(from as u16);
            self.tell_lane(
                node,
                match letter {
                    LaneLetter::Request(request) => LaneInput::Asked { asker: from, request },
                    LaneLetter::Answer(answer) => LaneInput::Answered { from, answer },
                },
            );
        }
        self.tell_lane(node, LaneInput::Tick);
    }

    pub(super) fn tell_lane(&mut self, node: usize, input: LaneInput) {
        let local = self.machines[node].clock.local(self.now);
        self.process(node).lane.handle(local, input);
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
                }
                LaneOutput::Ask(to, request) => {
                    self.send_lane(node, to, &LaneLetter::Request(request));
                }
                LaneOutput::Answer(to, answer) => {
                    self.send_lane(node, to, &LaneLetter::Answer(answer));
                }
                LaneOutput::Read { asker, number, from, to } => {
                    let bytes = self.durable_bytes(node, from, to);
                    let answer = LaneAnswer::Bytes { number, from, bytes: bytes.into() };
                    self.send_lane(node, asker, &LaneLetter::Answer(answer));
                }
                LaneOutput::Ended(whole) => {
                    self.trace.line(self.now, || format!("node {node}: took all over: {whole}"));
                    self.coverage.hit(if whole { "leader-sync" } else { "pull-failed" }, 1);
                    let local = self.machines[node].clock.local(self.now);
                    self.process(node).control.handle(local, Input::Pulled(whole));
                }
            }
        }
        true
    }

    fn durable_bytes(&mut self, node: usize, from: Position, to: Position) -> Vec<u8> {
        let durable = Position(self.process(node).shared.words().durable.load(Acquire));
        let files = LogFiles::new(&self.machines[node].disk, SEGMENT_BYTES);
        // A disk that cannot be read answers nobody: the asker asks again, or gives up.
        files.piece(from, to.min(durable)).unwrap_or_default()
    }

    fn send_lane(&mut self, from: usize, to: NodeId, letter: &LaneLetter) {
        let to = usize::from(to.0);
        let ends = (Endpoint::Node(from), Endpoint::Node(to));
        let fates = self.paths.fates(&mut self.random, &self.plan, ends, true);
        for fate in fates.into_iter().flatten() {
            let letter = letter.clone();
            self.schedule(self.now.plus(fate.after_ns), Event::Lane { from, to, letter });
        }
    }
}
