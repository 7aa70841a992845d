//! The sending side of a stream, to one receiver or many: what is sent next, again, or only said.
//!
//! It knows positions only. The caller reports how far the bytes reach and what the receivers say, and sends what
//! [`Sender::poll`] gives it, cut into datagrams as the network likes. What `poll` gives out counts as sent.
//!
//! Three things go out, in this order: repairs that were asked for; fresh bytes, as far as the window of those receivers
//! reaches that set the pace; and, after silence, the tail, so that a lost last datagram is noticed within round trips.

use super::datagram::NakRange;
use super::flow::{Pace, Peer, Report, paced};
use super::round_trip::RoundTrip;
use crate::limits::{NODES_MAX, REPAIRS_MAX, WINDOW_BYTES_DEFAULT};
use crate::types::{Nanos, Position, Received};
use std::collections::VecDeque;

/// Doublings of the silence between repeated tails, at most (the heartbeat bounds it before).
const REPEATS_MAX: u32 = 32;

/// What a sender is built with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SenderSettings {
    /// Number of receivers, at most [`NODES_MAX`]; they are named by their index.
    pub receivers: usize,
    /// Who sets the pace.
    pub pace: Pace,
    /// Room every receiver has at the start, in bytes.
    pub window_bytes: u64,
    /// Largest piece given out at once, in bytes: what one duty cycle sends before it looks at its input again.
    pub burst_bytes: u64,
    /// Silence after which the tail is said while something is not acknowledged, at most, in nanoseconds.
    pub heartbeat_ns: u64,
    /// The same while everything is acknowledged; `u64::MAX`: never.
    pub idle_heartbeat_ns: u64,
    /// Round trip believed until the first one is measured, in nanoseconds.
    pub round_trip_ns: u64,
    /// One datagram reaches every receiver: a repair for one is sent to all.
    pub multicast: bool,
    /// Repairs kept waiting, and as many remembered as sent.
    pub repairs_max: usize,
}

impl Default for SenderSettings {
    fn default() -> Self {
        Self {
            receivers: 1,
            pace: Pace::All,
            window_bytes: WINDOW_BYTES_DEFAULT,
            burst_bytes: 256 * 1024,
            heartbeat_ns: 10 * Nanos::MILLISECOND,
            idle_heartbeat_ns: 10 * Nanos::MILLISECOND,
            round_trip_ns: 200 * Nanos::MICROSECOND,
            multicast: false,
            repairs_max: REPAIRS_MAX,
        }
    }
}

/// What to send.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transmit {
    /// Bytes not sent before, to everybody.
    Fresh {
        /// First byte.
        from: Position,
        /// First byte behind it.
        to: Position,
    },
    /// Bytes asked for.
    Repair {
        /// Who asked; `None`: to everybody.
        to_receiver: Option<usize>,
        /// First byte.
        from: Position,
        /// First byte behind it.
        to: Position,
    },
    /// Only how far it reaches, to everybody.
    Heartbeat {
        /// End of what was sent.
        tail: Position,
    },
}

/// What became of a NAK.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct NakOutcome {
    /// Ranges that will be repaired.
    pub queued: u32,
    /// Ranges whose repair is on its way already.
    pub suppressed: u32,
    /// Ranges for which there is no room now; they will be asked for again.
    pub dropped: u32,
    /// Some range begins below the lowest position held: answer with [`Sender::lowest`].
    pub gone: bool,
}

/// What happened so far.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct SenderCounters {
    /// Repairs given out.
    pub repairs: u64,
    /// Bytes of them.
    pub repair_bytes: u64,
    /// NAK ranges answered by nothing, because their repair was on its way.
    pub suppressed: u64,
    /// NAK ranges for which there was no room.
    pub dropped: u64,
    /// Heartbeats and repeated tails given out.
    pub heartbeats: u64,
}

/// A range somebody asked for; once sent, when.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Repair {
    receiver: Option<usize>,
    from: Position,
    to: Position,
    sent: Nanos,
}

impl Repair {
    fn covers(&self, receiver: Option<usize>, from: Position, to: Position) -> bool {
        self.receiver == receiver && self.from <= from && to <= self.to
    }
}

/// The sending side.
#[derive(Clone, Debug)]
pub struct Sender {
    settings: SenderSettings,
    /// Lowest position the caller still has.
    lowest: Position,
    /// End of what was given out.
    next: Position,
    /// End of what there is.
    tail: Position,
    /// End of what the pace allows.
    limit: Position,
    peers: Box<[Peer]>,
    repairs: VecDeque<Repair>,
    /// Repairs sent, oldest first.
    sent: VecDeque<Repair>,
    last_sent: Nanos,
    heartbeat_due: Nanos,
    counters: SenderCounters,
}

impl Sender {
    /// A sender of everything from `start` on.
    #[must_use]
    pub fn new(settings: SenderSettings, start: Position) -> Self {
        assert!(settings.receivers <= NODES_MAX && settings.repairs_max > 0);
        assert!(settings.burst_bytes > 0 && settings.heartbeat_ns > 0);
        let peer = Peer::new(start, settings.window_bytes, settings.round_trip_ns);
        let mut sender = Self {
            settings,
            lowest: start,
            next: start,
            tail: start,
            limit: start,
            peers: vec![peer; settings.receivers].into_boxed_slice(),
            repairs: VecDeque::with_capacity(settings.repairs_max),
            sent: VecDeque::with_capacity(settings.repairs_max),
            last_sent: Nanos(0),
            heartbeat_due: Nanos(0),
            counters: SenderCounters::default(),
        };
        sender.move_limit();
        sender
    }
    /// Starts over at `start` with the same receivers, as on entering a leadership; what lies in `lowest..start` counts as
    /// sent and is repaired when asked for. Round trips stay; who counts for the pace stays; echoes are forgotten.
    pub fn restart(&mut self, lowest: Position, start: Position) {
        assert!(lowest <= start, "what is held ends at the start");
        for peer in &mut self.peers {
            peer.begin_again(start, self.settings.window_bytes);
        }
        (self.lowest, self.next, self.tail) = (lowest, start, start);
        self.repairs.clear();
        self.sent.clear();
        self.last_sent = Nanos(0);
        self.heartbeat_due = Nanos(0);
        self.move_limit();
    }

    /// There are bytes up to `tail`.
    pub fn set_tail(&mut self, tail: Position) {
        assert!(tail >= self.tail, "a stream never shrinks");
        self.tail = tail;
        if self.next >= self.limit {
            // The window is closed: whoever opens it may have said so in a status that was lost.
            self.schedule_heartbeat();
        }
    }
    /// The caller has nothing below `lowest` any more.
    pub fn set_lowest(&mut self, lowest: Position) {
        assert!(lowest <= self.tail, "what was not sent is not let go");
        self.lowest = self.lowest.max(lowest);
        // Nobody will place what is gone: those who need it get it by another lane.
        self.next = self.next.max(self.lowest);
    }
    /// A receiver has everything below `position`, which it got another way: it is not sent for it any more.
    pub fn skip_to(&mut self, position: Position) {
        assert!(position <= self.tail, "nobody has more than there is");
        self.next = self.next.max(position);
    }
    /// Who sets the pace from now on.
    pub fn set_pace(&mut self, pace: Pace) {
        self.settings.pace = pace;
        self.move_limit();
    }
    /// Whether this receiver counts for the pace.
    pub fn set_paces(&mut self, receiver: usize, paces: bool) {
        self.peers[receiver].paces = paces;
        self.move_limit();
    }
    /// This receiver starts over at `start` (it re-joined): what it said before no longer holds.
    pub fn reset_receiver(&mut self, receiver: usize, start: Position) {
        self.peers[receiver].begin_again(start, self.settings.window_bytes);
        self.move_limit();
        self.schedule_heartbeat();
    }

    /// A receiver reports. False, and nothing changes, if it claims what was never sent.
    pub fn on_status(&mut self, now: Nanos, receiver: usize, report: &Report) -> bool {
        if report.received.position() > self.next {
            return false;
        }
        let Some(peer) = self.peers.get_mut(receiver) else { return false };
        if peer.report(now, report) {
            self.move_limit();
        }
        self.schedule_heartbeat();
        true
    }

    /// A receiver asks for ranges. What was never sent is not sent for it.
    pub fn on_nak(&mut self, now: Nanos, receiver: usize, ranges: &[NakRange]) -> NakOutcome {
        let mut outcome = NakOutcome::default();
        let Some(peer) = self.peers.get(receiver) else { return outcome };
        let round_trip_ns = peer.round_trip.smoothed_ns();
        // A question sent before the last repair arrived is answered by that repair. On multicast the others ask within
        // a round trip of the first one; the first one itself asks again only after more than that.
        let answered_ns =
            if self.settings.multicast { round_trip_ns / 8 * 7 } else { round_trip_ns / 2 };
        let to_receiver = (!self.settings.multicast).then_some(receiver);
        for range in ranges {
            let (from, to) = (Position(range.from.get()), Position(range.to.get()));
            outcome.gone |= from < self.lowest && from < to;
            let (from, to) = (from.max(self.lowest), to.min(self.next));
            if from >= to {
                continue;
            }
            if self.is_on_its_way(now, answered_ns, to_receiver, from, to) {
                outcome.suppressed += 1;
            } else if self.repairs.len() == self.settings.repairs_max {
                outcome.dropped += 1;
            } else {
                outcome.queued += 1;
                self.repairs.push_back(Repair { receiver: to_receiver, from, to, sent: Nanos(0) });
            }
        }
        self.counters.suppressed += u64::from(outcome.suppressed);
        self.counters.dropped += u64::from(outcome.dropped);
        outcome
    }

    /// What to send now; call until `None`.
    pub fn poll(&mut self, now: Nanos) -> Option<Transmit> {
        if let Some(repair) = self.next_repair(now) {
            return Some(repair);
        }
        let end = self.tail.min(self.limit);
        if self.next < end {
            let from = self.next;
            let to = end.min(from.plus(self.settings.burst_bytes));
            self.next = to;
            self.spoke(now);
            return Some(Transmit::Fresh { from, to });
        }
        if now >= self.heartbeat_due {
            for peer in self.peers.iter_mut().filter(|peer| peer.received < self.tail) {
                peer.repeats = (peer.repeats + 1).min(REPEATS_MAX);
            }
            self.counters.heartbeats += 1;
            self.spoke(now);
            return Some(Transmit::Heartbeat { tail: self.next });
        }
        None
    }
    /// When [`Sender::poll`] has something to give out, if nothing happens before; 0: now.
    #[must_use]
    pub fn deadline(&self) -> Nanos {
        let due = !self.repairs.is_empty() || self.next < self.tail.min(self.limit);
        if due { Nanos(0) } else { self.heartbeat_due }
    }
    /// Makes the next [`Sender::poll`] say the tail even if nothing is due: something else in the header changed.
    pub fn speak_now(&mut self) {
        self.heartbeat_due = Nanos(0);
    }

    /// The tail is known at the other side by other means: silence counts from now.
    pub fn spoke(&mut self, now: Nanos) {
        self.last_sent = now;
        self.schedule_heartbeat();
    }

    /// End of what was given out.
    #[must_use]
    pub fn next(&self) -> Position {
        self.next
    }
    /// End of what there is.
    #[must_use]
    pub fn tail(&self) -> Position {
        self.tail
    }
    /// Lowest position the caller still has.
    #[must_use]
    pub fn lowest(&self) -> Position {
        self.lowest
    }
    /// First position that the pace does not allow yet.
    #[must_use]
    pub fn limit(&self) -> Position {
        self.limit
    }
    /// Everything below has been received by those who set the pace.
    #[must_use]
    pub fn acknowledged(&self) -> Position {
        paced(&self.peers, self.settings.pace, |peer| peer.received).unwrap_or(self.next)
    }
    /// How far this receiver is.
    #[must_use]
    pub fn received(&self, receiver: usize) -> Received {
        Received(self.peers[receiver].received)
    }
    /// First position this receiver has no room for.
    #[must_use]
    pub fn window_end(&self, receiver: usize) -> Position {
        self.peers[receiver].window_end
    }
    /// The newest of our send stamps that this receiver echoed: it heard us then, and we heard it since.
    #[must_use]
    pub fn last_echo(&self, receiver: usize) -> Option<Nanos> {
        self.peers[receiver].echo
    }
    /// Round trip to this receiver.
    #[must_use]
    pub fn round_trip(&self, receiver: usize) -> &RoundTrip {
        &self.peers[receiver].round_trip
    }
    /// Whether this receiver has fallen behind the window: what is sent now is beyond what it can place.
    #[must_use]
    pub fn lagging(&self, receiver: usize) -> bool {
        self.next.since(self.peers[receiver].received.min(self.next)) > self.settings.window_bytes
    }
    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> &SenderCounters {
        &self.counters
    }

    fn next_repair(&mut self, now: Nanos) -> Option<Transmit> {
        let repair = self.repairs.front_mut()?;
        let (receiver, from) = (repair.receiver, repair.from.max(self.lowest));
        let to = repair.to.min(from.plus(self.settings.burst_bytes));
        if from >= to {
            // The caller let it go in the meantime.
            self.repairs.pop_front();
            return self.next_repair(now);
        }
        if to == repair.to {
            self.repairs.pop_front();
        } else {
            repair.from = to;
        }
        if self.sent.len() == self.settings.repairs_max {
            self.sent.pop_front();
        }
        self.sent.push_back(Repair { receiver, from, to, sent: now });
        self.counters.repairs += 1;
        self.counters.repair_bytes += to.since(from);
        Some(Transmit::Repair { to_receiver: receiver, from, to })
    }

    /// Whether this range waits to be sent, or was sent to this receiver less than `answered_ns` ago.
    fn is_on_its_way(
        &self,
        now: Nanos,
        answered_ns: u64,
        receiver: Option<usize>,
        from: Position,
        to: Position,
    ) -> bool {
        self.repairs.iter().any(|repair| repair.covers(receiver, from, to))
            || (self.sent.iter().rev())
                .take_while(|repair| now.since(repair.sent) < answered_ns)
                .any(|repair| repair.covers(receiver, from, to))
    }

    /// The tail is said again after silence: a round trip and a half of the receiver that lacks something, doubled each
    /// time that changed nothing, up to the heartbeat; or the idle heartbeat if nobody lacks anything.
    fn schedule_heartbeat(&mut self) {
        let mut silence = self.settings.idle_heartbeat_ns;
        for peer in self.peers.iter().filter(|peer| peer.received < self.tail) {
            let repeat = peer.round_trip.repeat_ns();
            let doubled = repeat.saturating_mul(1 << peer.repeats.min(REPEATS_MAX));
            silence = silence.min(doubled.min(self.settings.heartbeat_ns));
        }
        self.heartbeat_due = self.last_sent.plus(silence);
    }

    fn move_limit(&mut self) {
        let window_end = paced(&self.peers, self.settings.pace, |peer| peer.window_end);
        self.limit = window_end.unwrap_or(Position(u64::MAX)).max(self.next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Nanos = Nanos(1_000_000_000);

    fn sender(receivers: usize) -> Sender {
        let settings = SenderSettings {
            receivers,
            window_bytes: 1_000,
            burst_bytes: 400,
            repairs_max: 4,
            ..Default::default()
        };
        let mut sender = Sender::new(settings, Position(0));
        assert!(matches!(sender.poll(NOW), Some(Transmit::Heartbeat { tail: Position(0) })));
        sender
    }
    fn report(received: u64) -> Report {
        let window_end = Position(received + 1_000);
        Report { window_end, ..Report::received(Received(Position(received))) }
    }
    fn nak(ranges: &[(u64, u64)]) -> Vec<NakRange> {
        ranges.iter().map(|&(from, to)| NakRange { from: from.into(), to: to.into() }).collect()
    }
    fn drain(sender: &mut Sender, now: Nanos) -> Vec<Transmit> {
        core::iter::from_fn(|| sender.poll(now)).collect()
    }

    #[test]
    fn fresh_bytes_go_out_in_bursts_as_far_as_the_window_reaches() {
        let mut sender = sender(1);
        sender.set_tail(Position(1_500));
        let fresh = |from, to| Transmit::Fresh { from: Position(from), to: Position(to) };
        assert_eq!(sender.deadline(), Nanos(0));
        assert_eq!(drain(&mut sender, NOW), [fresh(0, 400), fresh(400, 800), fresh(800, 1_000)]);
        assert!(sender.deadline() > NOW);
        assert!(sender.on_status(NOW, 0, &report(700)));
        assert_eq!(drain(&mut sender, NOW), [fresh(1_000, 1_400), fresh(1_400, 1_500)]);
        assert_eq!(sender.acknowledged(), Position(700));
    }

    #[test]
    fn d13_a_status_about_bytes_never_sent_changes_nothing() {
        let mut sender = sender(2);
        sender.set_tail(Position(500));
        drain(&mut sender, NOW);
        assert!(!sender.on_status(NOW, 0, &report(501)));
        assert!(!sender.on_status(NOW, 9, &report(5)));
        assert_eq!(sender.received(0).position(), Position(0));
        assert_eq!(sender.on_nak(NOW, 9, &nak(&[(0, 10)])), NakOutcome::default());
    }

    #[test]
    fn a_repair_is_sent_to_the_one_who_asked_and_not_twice_within_half_a_round_trip() {
        let mut sender = sender(2);
        sender.set_tail(Position(900));
        drain(&mut sender, NOW);
        let outcome = sender.on_nak(NOW, 1, &nak(&[(100, 200), (900, 950), (300, 200)]));
        assert_eq!(outcome, NakOutcome { queued: 1, ..Default::default() });
        assert_eq!(sender.on_nak(NOW, 1, &nak(&[(120, 180)])).suppressed, 1, "it waits already");
        let repair = |receiver| Transmit::Repair {
            to_receiver: Some(receiver),
            from: Position(100),
            to: Position(200),
        };
        assert_eq!(drain(&mut sender, NOW), [repair(1)]);
        let half = sender.round_trip(1).smoothed_ns() / 2;
        assert_eq!(sender.on_nak(NOW.plus(half - 1), 1, &nak(&[(100, 200)])).suppressed, 1);
        assert_eq!(sender.on_nak(NOW.plus(half - 1), 0, &nak(&[(100, 200)])).queued, 1);
        assert_eq!(sender.on_nak(NOW.plus(half), 1, &nak(&[(100, 200)])).queued, 1);
        assert_eq!(drain(&mut sender, NOW.plus(half)), [repair(0), repair(1)]);
        assert_eq!(sender.counters().suppressed, 2);
    }

    #[test]
    fn what_is_gone_is_said_and_what_has_no_room_is_counted() {
        let mut sender = sender(1);
        sender.set_tail(Position(900));
        drain(&mut sender, NOW);
        sender.set_lowest(Position(300));
        let outcome = sender.on_nak(NOW, 0, &nak(&[(100, 200), (250, 350)]));
        assert_eq!(outcome, NakOutcome { queued: 1, gone: true, ..Default::default() });
        let many = nak(&[(400, 410), (420, 430), (440, 450), (460, 470), (480, 490)]);
        assert_eq!(sender.on_nak(NOW, 0, &many).dropped, 2);
        sender.set_lowest(Position(500));
        assert_eq!(drain(&mut sender, NOW), [], "let go in the meantime");
    }

    #[test]
    fn who_begins_below_the_start_gets_what_it_asks_for_and_the_others_nothing_twice() {
        let mut sender = sender(2);
        sender.restart(Position(2_000), Position(5_000));
        assert_eq!(drain(&mut sender, NOW), [Transmit::Heartbeat { tail: Position(5_000) }]);
        assert!(sender.on_status(NOW, 1, &report(4_700)));
        assert_eq!(sender.received(1).position(), Position(4_700));
        assert!(!sender.lagging(1));
        let outcome = sender.on_nak(NOW, 1, &nak(&[(1_900, 2_000), (4_700, 5_000)]));
        assert_eq!(outcome, NakOutcome { queued: 1, gone: true, ..Default::default() });
        let (from, to) = (Position(4_700), Position(5_000));
        let repair = Transmit::Repair { to_receiver: Some(1), from, to };
        assert_eq!(drain(&mut sender, NOW), [repair]);
        assert!(sender.on_status(NOW, 0, &report(3_000)));
        assert!(sender.lagging(0));
    }

    #[test]
    fn last_echo_is_the_newest_stamp_that_came_back() {
        let mut sender = sender(2);
        let status = |echo| Report { echo: Nanos(echo), ..report(0) };
        assert_eq!(sender.last_echo(0), None);
        sender.on_status(NOW, 0, &status(NOW.0 - 500_000));
        sender.on_status(NOW, 0, &status(NOW.0 - 900_000));
        assert_eq!(sender.last_echo(0), Some(Nanos(NOW.0 - 500_000)));
        assert_eq!(sender.last_echo(1), None);
        sender.restart(Position(10), Position(10));
        assert_eq!(sender.last_echo(0), None, "an echo of an older leadership is none");
        assert_eq!(sender.round_trip(0).smoothed_ns(), 500_000);
    }

    #[test]
    fn a_closed_window_is_asked_about_in_round_trips() {
        let mut sender = sender(1);
        sender.set_tail(Position(1_000));
        drain(&mut sender, NOW);
        sender.on_status(NOW, 0, &Report { window_end: Position(1_000), ..report(1_000) });
        let later = NOW.plus(5_000_000);
        sender.set_tail(Position(2_000));
        assert!(sender.deadline() <= NOW.plus(sender.round_trip(0).repeat_ns()));
        assert_eq!(drain(&mut sender, later), [Transmit::Heartbeat { tail: Position(1_000) }]);
    }
}
