//! How far each receiver is, and how far the pace it sets lets the sender go.

use super::datagram::StatusBody;
use super::round_trip::RoundTrip;
use crate::limits::NODES_MAX;
use crate::types::{Nanos, Position, Received};

/// Who sets the pace of a sender.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Pace {
    /// The slowest: nobody is left behind.
    All,
    /// The so-many-th fastest: the others may fall behind and are then left to another lane. 0: nobody.
    Fastest(usize),
}

/// What a receiver says of itself in a status.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Report {
    /// End of its contiguous bytes.
    pub received: Received,
    /// First position it has no room for; 0: it does not say.
    pub window_end: Position,
    /// Newest send stamp of ours that it saw; 0: it does not say.
    pub echo: Nanos,
    /// How long it held that stamp, in nanoseconds.
    pub held_ns: u64,
}

impl Report {
    /// Only an end of contiguous bytes, as every datagram of a lane carries it.
    #[must_use]
    pub fn received(received: Received) -> Self {
        Self { received, window_end: Position(0), echo: Nanos(0), held_ns: 0 }
    }
}

impl From<&StatusBody> for Report {
    fn from(body: &StatusBody) -> Self {
        Self {
            received: Received(Position(body.received.get())),
            window_end: Position(body.window_end.get()),
            echo: Nanos(body.echo.get()),
            held_ns: body.held.get(),
        }
    }
}

/// What the sender knows of one receiver.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Peer {
    /// End of its contiguous bytes: assumed at first, then the best heard.
    pub(crate) received: Position,
    /// First position it has no room for: assumed at first, then the best heard.
    pub(crate) window_end: Position,
    /// It has reported: nothing is assumed any more.
    reported: bool,
    /// Newest of our send stamps that it echoed.
    pub(crate) echo: Option<Nanos>,
    /// Round trip to it.
    pub(crate) round_trip: RoundTrip,
    /// Tails repeated since it last made progress.
    pub(crate) repeats: u32,
    /// Whether it counts for the pace.
    pub(crate) paces: bool,
}

impl Peer {
    pub(crate) fn new(start: Position, window_bytes: u64, round_trip_ns: u64) -> Self {
        Self {
            received: start,
            window_end: start.plus(window_bytes),
            reported: false,
            echo: None,
            round_trip: RoundTrip::new(round_trip_ns),
            repeats: 0,
            paces: true,
        }
    }
    /// It starts over at `start`: what it said before no longer holds. The way to it is the same.
    pub(crate) fn begin_again(&mut self, start: Position, window_bytes: u64) {
        let fresh = Self::new(start, window_bytes, 0);
        *self = Self { round_trip: self.round_trip, paces: self.paces, ..fresh };
    }
    /// Takes a report in that is no lie about the future; true if it made progress or got more room.
    pub(crate) fn report(&mut self, now: Nanos, report: &Report) -> bool {
        if report.echo.0 > 0 && report.echo <= now {
            let round_trip_ns = now.since(report.echo).saturating_sub(report.held_ns);
            // A status that was overtaken, or a repeated one, says nothing new about the way.
            if self.echo.is_none_or(|newest| report.echo > newest) {
                self.echo = Some(report.echo);
                self.round_trip.sample(round_trip_ns);
            }
        }
        let before = (self.received, self.window_end);
        if !self.reported {
            // It may have begun below the start: what was assumed of it does not hold against its own word.
            self.reported = true;
            self.received = report.received.position();
            if report.window_end > Position(0) {
                self.window_end = report.window_end;
            }
        }
        self.received = self.received.max(report.received.position());
        self.window_end = self.window_end.max(report.window_end);
        let progress = before != (self.received, self.window_end);
        if progress {
            self.repeats = 0;
        }
        progress
    }
}

/// The position that the `pace` of these peers allows, of those that `position` gives: `None` if nobody sets the pace.
pub(crate) fn paced(
    peers: &[Peer],
    pace: Pace,
    position: impl Fn(&Peer) -> Position,
) -> Option<Position> {
    let mut positions = [Position(0); NODES_MAX];
    let mut count = 0;
    for peer in peers.iter().filter(|peer| peer.paces) {
        positions[count] = position(peer);
        count += 1;
    }
    let needed = match pace {
        Pace::All => count,
        Pace::Fastest(needed) => needed.min(count),
    };
    let positions = &mut positions[..count];
    positions.sort_unstable_by(|a, b| b.cmp(a));
    needed.checked_sub(1).map(|index| positions[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(received: &[u64]) -> Vec<Peer> {
        let peer = |&at: &u64| Peer { received: Position(at), ..Peer::new(Position(0), 10, 1_000) };
        received.iter().map(peer).collect()
    }

    #[test]
    fn the_pace_is_that_of_the_slowest_or_of_the_quorum() {
        let peers = peers(&[5, 40, 20, 30]);
        let at = |pace| paced(&peers, pace, |peer| peer.received);
        assert_eq!(at(Pace::All), Some(Position(5)));
        assert_eq!(at(Pace::Fastest(2)), Some(Position(30)));
        assert_eq!(at(Pace::Fastest(9)), Some(Position(5)));
        assert_eq!(at(Pace::Fastest(0)), None);
    }

    #[test]
    fn who_does_not_count_does_not_slow() {
        let mut peers = peers(&[5, 40, 20]);
        peers[0].paces = false;
        assert_eq!(paced(&peers, Pace::All, |peer| peer.received), Some(Position(20)));
        assert_eq!(paced(&[], Pace::All, |peer| peer.received), None);
    }

    #[test]
    fn the_first_report_replaces_what_was_assumed() {
        let mut peer = Peer::new(Position(1_000), 10, 1_000);
        let report = |at| Report {
            window_end: Position(at + 500),
            ..Report::received(Received(Position(at)))
        };
        assert!(peer.report(Nanos(1), &report(300)));
        assert_eq!((peer.received, peer.window_end), (Position(300), Position(800)));
        assert!(!peer.report(Nanos(2), &report(200)));
        assert_eq!((peer.received, peer.window_end), (Position(300), Position(800)));
        let mut peer = Peer::new(Position(1_000), 10, 1_000);
        peer.report(Nanos(1), &Report::received(Received(Position(1_000))));
        assert_eq!(peer.window_end, Position(1_010), "it does not say");
    }

    #[test]
    fn a_late_status_changes_neither_position_nor_round_trip() {
        let mut peer = Peer::new(Position(0), 10, 1_000);
        let report = |received, echo| Report {
            received: Received(Position(received)),
            window_end: Position(received + 10),
            echo: Nanos(echo),
            held_ns: 500,
        };
        assert!(peer.report(Nanos(100_000), &report(7, 50_000)));
        assert_eq!(peer.round_trip.smoothed_ns(), 49_500);
        assert!(!peer.report(Nanos(900_000), &report(3, 10_000)));
        assert_eq!((peer.received, peer.echo), (Position(7), Some(Nanos(50_000))));
        assert_eq!(peer.round_trip.smoothed_ns(), 49_500);
        assert!(!peer.report(Nanos(1_000), &report(3, 900_000)), "an echo from the future is none");
        assert_eq!(peer.echo, Some(Nanos(50_000)));
    }
}
