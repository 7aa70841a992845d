//! One connection: bytes in and out of a stream that never blocks, cut into frames, with a limit on everything.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};

use super::counts::Refused;
use super::net::LaneStream;
use super::pace::Pace;
use crate::control::lane::wire::{
    LANE_BODY_BYTES_MAX, LANE_HEADER_BYTES, LANE_REQUEST_BYTES_MAX, LaneEnd, LaneError,
    LaneMessage, LaneNodes, decode, encode,
};
use crate::control::lane::{RangeRequest, SnapshotRequest};
use crate::types::{Nanos, NodeId};

/// A node that dialled says something within this, ns.
const FIRST_WORD_NS: u64 = 3 * Nanos::SECOND;
/// A connection on which nobody asks anything ends after this, ns.
const IDLE_NS: u64 = 30 * Nanos::SECOND;
/// A connection is made, and its bytes go out, with no longer pause than this, ns.
const WRITE_NS: u64 = 2 * Nanos::SECOND;
/// What was asked is answered, if with nothing, within this, ns.
const ANSWER_NS: u64 = 3 * Nanos::SECOND;
/// Bytes that wait to go out before no more are read from files.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Ranges that wait to be read, at most: nobody asks for more at once.
const RANGES_MAX: usize = 16;
/// Reads of one turn, at most: the others have their turn too.
const READS_MAX: usize = 8;

/// Bytes that the other side wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    /// Of the log.
    Range(RangeRequest),
    /// Of a snapshot.
    Snapshot(SnapshotRequest),
}

/// Why a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// The other side left, or the host says so.
    Gone,
    /// This side does not listen any longer.
    Refused(Refused),
}

impl From<io::Error> for Ending {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// The connection.
pub(super) struct Connection {
    stream: Box<dyn LaneStream>,
    end: LaneEnd,
    node: Option<NodeId>,
    input: Vec<u8>,
    /// Bytes of it that came.
    filled: usize,
    output: Vec<u8>,
    /// Bytes of it that went out.
    sent: usize,
    ranges: VecDeque<Wanted>,
    /// The stream may have more for this side.
    more: bool,
    heard: Nanos,
    /// When bytes last went out, or there were none to go.
    moved: Nanos,
    /// What was asked since this and is not answered.
    asked: Option<Nanos>,
    /// The next bytes to be read from files wait for the pace.
    paced: bool,
}

impl Connection {
    /// One that another node dialled.
    pub(super) fn accepted(now: Nanos, stream: Box<dyn LaneStream>) -> Self {
        Self::new(now, stream, LaneEnd::Source, None)
    }

    /// One that this node dials.
    pub(super) fn dialled(now: Nanos, stream: Box<dyn LaneStream>, to: NodeId) -> Self {
        Self::new(now, stream, LaneEnd::Asker, Some(to))
    }

    fn new(now: Nanos, stream: Box<dyn LaneStream>, end: LaneEnd, node: Option<NodeId>) -> Self {
        // Room for the longest frame that may come this way: more is never kept.
        let body = match end {
            LaneEnd::Source => LANE_REQUEST_BYTES_MAX * RANGES_MAX,
            LaneEnd::Asker => LANE_BODY_BYTES_MAX,
        };
        Self {
            stream,
            end,
            node,
            input: vec![0; LANE_HEADER_BYTES + body],
            filled: 0,
            output: Vec::new(),
            sent: 0,
            ranges: VecDeque::new(),
            more: true,
            heard: now,
            moved: now,
            asked: None,
            paced: false,
        }
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.stream.as_fd().as_raw_fd()
    }
    /// Which end of it this node is.
    pub(super) fn end(&self) -> LaneEnd {
        self.end
    }
    /// The node at the other end, once it has said so.
    pub(super) fn node(&self) -> Option<NodeId> {
        self.node
    }
    pub(super) fn is_of(&mut self, node: NodeId) {
        self.node = Some(node);
    }

    /// When it has something to do even if nothing happens.
    pub(super) fn deadline(&self, now: Nanos, pace: &Pace) -> Nanos {
        let never = Nanos(u64::MAX);
        let next = if self.more { now } else { never };
        let paced = if self.paced { pace.next_at(now) } else { never };
        next.min(paced).min(self.ends_at())
    }

    fn ends_at(&self) -> Nanos {
        let never = Nanos(u64::MAX);
        let write = if self.output.is_empty() { never } else { self.moved.plus(WRITE_NS) };
        let answer = self.asked.map_or(never, |asked| asked.max(self.heard).plus(ANSWER_NS));
        let silent = if self.node.is_none() { FIRST_WORD_NS } else { IDLE_NS };
        write.min(answer).min(self.heard.max(self.moved).plus(silent))
    }

    /// What has come, frame by frame.
    pub(super) fn take(
        &mut self,
        now: Nanos,
        nodes: &LaneNodes,
    ) -> Result<Vec<(NodeId, LaneMessage)>, Ending> {
        if now >= self.ends_at() {
            return Err(Ending::Refused(Refused::TimedOut));
        }
        let mut messages = Vec::new();
        self.more = true;
        for _ in 0..READS_MAX {
            match self.stream.read(&mut self.input[self.filled..]) {
                Ok(0) => return Err(Ending::Gone),
                Ok(count) => {
                    self.filled += count;
                    self.heard = now;
                    self.cut(nodes, &mut messages)?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A connection that is still being made has nothing to read either.
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) =>
                {
                    self.more = false;
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(messages)
    }

    /// Cuts whole frames from what came, and keeps the rest.
    fn cut(
        &mut self,
        nodes: &LaneNodes,
        messages: &mut Vec<(NodeId, LaneMessage)>,
    ) -> Result<(), Ending> {
        let mut start = 0;
        while let Some(frame) = decode(&self.input[start..self.filled], self.end, nodes)
            .map_err(|error: LaneError| Ending::Refused(error.into()))?
        {
            start += frame.bytes;
            self.asked = None;
            messages.push((frame.from, frame.message));
        }
        self.input.copy_within(start..self.filled, 0);
        self.filled -= start;
        Ok(())
    }

    /// A range that the other side wants.
    pub(super) fn queue(&mut self, range: Wanted) -> Result<(), Ending> {
        if self.ranges.len() == RANGES_MAX {
            return Err(Ending::Refused(Refused::TooMany));
        }
        self.ranges.push_back(range);
        Ok(())
    }

    /// The next range to be read, if there is room for its bytes, and for whom.
    pub(super) fn next_range(&mut self) -> Option<(NodeId, Wanted)> {
        self.paced = false;
        let room = self.output.len() - self.sent < OUTPUT_BYTES_MAX;
        let node = self.node.filter(|_| room)?;
        Some((node, self.ranges.pop_front()?))
    }

    /// It is not its time yet.
    pub(super) fn put_off(&mut self, range: Wanted) {
        self.ranges.push_front(range);
        self.paced = true;
    }

    /// Asks the other side.
    pub(super) fn ask(&mut self, now: Nanos, message: &LaneMessage, to: NodeId, nodes: &LaneNodes) {
        self.asked.get_or_insert(now);
        self.answer(now, message, to, nodes);
    }

    /// Puts a frame into the queue.
    pub(super) fn answer(
        &mut self,
        now: Nanos,
        message: &LaneMessage,
        to: NodeId,
        nodes: &LaneNodes,
    ) {
        if self.output.is_empty() {
            self.moved = now;
        }
        encode(&mut self.output, message, to, nodes);
    }

    /// Sends what waits, as far as the other side takes it.
    pub(super) fn flush(&mut self, now: Nanos) -> Result<(), Ending> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(count) => {
                    self.sent += count;
                    self.moved = now;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) =>
                {
                    self.output.drain(..self.sent);
                    self.sent = 0;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(())
    }
}
