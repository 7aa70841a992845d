//! What a leader does for the service besides its commands: has due timers fire through the log, hands its events out, and
//! records how far they were taken.

use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

use super::core::{Core, Deadlines, Now, Work};
use crate::frame::Kind;
use crate::frame::payload::{EventCursor, TimerFired};
use crate::journal::SegmentMemory;
use crate::link::Outlet;
use crate::mutants::Mutant;
use crate::service::Service;
use crate::service::timers::{DUE_MAX, Timer};
use crate::stream::network::Network;
use crate::types::{Nanos, Position, Timestamp};

/// The cursor is recorded at most this often, ns.
const CURSOR_INTERVAL_NS: u64 = Nanos::MILLISECOND;
/// While events are out, a leader that has nothing else to do looks this often whether they were taken, ns.
const CURSOR_LOOK_NS: u64 = 10 * Nanos::MILLISECOND;
/// Without room in the log a timer is tried again after this, ns.
const NO_ROOM_NS: u64 = Nanos::MILLISECOND;
/// Events handed out in one duty cycle, at most.
const EVENTS_OUT_MAX: usize = 32;

/// A leader's side of timers and events. All but the outlet begins anew with each term.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    outlet: Option<Outlet>,
    /// Number of the last event handed out.
    handed: u64,
    /// End of the last timer entry, of the last cursor entry: until it is applied, no other is appended.
    timers_end: Position,
    cursor_end: Position,
    cursor_at: Nanos,
    /// When something is to be done here.
    pub(super) due: Deadlines,
}

impl<N: Network, M: SegmentMemory, S: Service> Core<N, M, S> {
    /// Events of the service go here; without an outlet they wait for another leader.
    pub fn set_outlet(&mut self, outlet: Option<Outlet>) {
        self.outgoing.outlet = outlet;
    }

    /// The term is open: timers and events go on where the log says that they are.
    pub(super) fn open_outgoing(&mut self) {
        let handed = self.state.effects().outbox.cursor();
        let outlet = self.outgoing.outlet.take();
        self.outgoing = Outgoing { outlet, handed, ..Outgoing::default() };
    }

    /// One duty cycle of a leader. Returns how much was done.
    pub(super) fn serve_outgoing(&mut self, now: Now) -> usize {
        let Work::Leader(leading) = &self.work else { return 0 };
        self.outgoing.due = Deadlines::default();
        if !leading.opened || leading.over || leading.handing.is_some() {
            return 0;
        }
        self.fire_timers(now) + self.hand_out_events() + self.record_cursor(now)
    }

    /// Appends what is due by cluster time, first things first. What is appended and not applied yet is still pending in the
    /// state: nothing more is appended before that.
    fn fire_timers(&mut self, now: Now) -> usize {
        if self.applied.0 < self.outgoing.timers_end {
            return 0;
        }
        let time = self.cluster_time(now);
        let Some(first) = self.state.effects().timers.first() else { return 0 };
        let forgotten =
            self.planted(Mutant::ForgetTimers) && first.due <= self.state.term_started();
        let early = self.planted(Mutant::FireEarly);
        if forgotten || (first.due > time && !early) {
            let wait = first.due.0.saturating_sub(time.0).max(NO_ROOM_NS * u64::from(forgotten));
            self.outgoing.due.sharp = Some(now.at.plus(wait));
            return 0;
        }
        let through = if early { Timestamp(u64::MAX) } else { time };
        let mut due = [Timer::default(); DUE_MAX];
        let count = self.state.effects().timers.due(through, &mut due);
        for (index, timer) in due[..count].iter().enumerate() {
            let fired = TimerFired { id: U64::new(timer.id), schedule: U64::new(timer.schedule) };
            if !self.append_entry(now, Kind::Timer, &[fired.as_bytes()]) {
                self.outgoing.due.sharp = Some(now.at.plus(NO_ROOM_NS));
                return index;
            }
            self.outgoing.timers_end = self.log.tail().position;
        }
        count
    }

    fn hand_out_events(&mut self) -> usize {
        let Some(outlet) = &self.outgoing.outlet else { return 0 };
        let effects = self.state.effects();
        let outbox = &effects.outbox;
        // What was taken from an earlier leadership of this node may be behind the cursor by now.
        let mut handed = self.outgoing.handed.max(outbox.cursor());
        let mut count = 0;
        while count < EVENTS_OUT_MAX
            && let Some(event) = outbox.event(handed + 1)
            && outlet.hand_out(handed + 1, event)
        {
            handed += 1;
            count += 1;
        }
        self.outgoing.handed = handed;
        count
    }

    fn record_cursor(&mut self, now: Now) -> usize {
        let Some(outlet) = &self.outgoing.outlet else { return 0 };
        let (cursor, last) = {
            let effects = self.state.effects();
            (effects.outbox.cursor(), effects.outbox.last())
        };
        if cursor == last {
            return 0;
        }
        // What waits in the mailbox of a leader that died was not taken: only the taker says how far.
        let mut through = outlet.taken().min(last);
        if self.planted(Mutant::CursorAhead) {
            through = last;
        }
        let recorded = self.applied.0 >= self.outgoing.cursor_end;
        let look_at = self.outgoing.cursor_at.max(now.at.plus(CURSOR_LOOK_NS));
        self.outgoing.due.soft = Some(look_at);
        if through <= cursor || !recorded || now.at < self.outgoing.cursor_at {
            return 0;
        }
        let entry = EventCursor { through: U64::new(through) };
        if !self.append_entry(now, Kind::EventCursor, &[entry.as_bytes()]) {
            return 0;
        }
        self.outgoing.cursor_end = self.log.tail().position;
        self.outgoing.cursor_at = now.at.plus(CURSOR_INTERVAL_NS);
        1
    }
}
