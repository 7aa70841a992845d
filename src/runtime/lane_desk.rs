//! The catch-up lane as the control thread has it: the machine, and the thread that carries it.

use serde_json::{Value, json};

use super::carrier::{CarrierLink, CarrierOrder};
use super::events::EventSink;
use super::scrub::RepairDesk;
use crate::control::lane::{Lane, LaneInput, Progress};
use crate::link::CoreToControl;
use crate::types::{Nanos, NodeId};

/// The machine, and who carries for it. None: this node's transport carries nothing.
pub(super) struct LaneDesk {
    pub(super) machine: Lane,
    pub(super) carrier: Option<CarrierLink>,
    /// What of this node's files is had back from others.
    pub(super) repairs: RepairDesk,
}

impl LaneDesk {
    /// What of the core's facts is for the lane.
    pub(super) fn on_core(&mut self, now: Nanos, fact: &CoreToControl) {
        match *fact {
            CoreToControl::Lane(fact) => self.machine.handle(now, LaneInput::Core(fact)),
            CoreToControl::Fenced { leadership, .. } => {
                self.machine.handle(now, LaneInput::Fenced(leadership));
            }
            _ => {}
        }
    }

    /// What came from other nodes.
    pub(super) fn take_news(&mut self, now: Nanos) {
        while let Some(news) = self.carrier.as_ref().and_then(|link| link.news.try_recv().ok()) {
            self.repairs.on_lane(now, &news);
            self.machine.handle(now, news);
        }
        self.machine.handle(now, LaneInput::Tick);
    }

    /// Has damaged files repaired.
    pub(super) fn repair(&mut self, now: Nanos, events: &mut EventSink) {
        if let Some(position) = self.carrier.as_ref().and_then(|link| link.counts.take_unreadable())
        {
            self.repairs.suspect(position);
        }
        for (to, order) in self.repairs.turn(now, events) {
            if self.carrier.is_none() {
                self.repairs.on_lane(now, &LaneInput::Broken(to));
            }
            self.order(now, to, order);
        }
    }

    /// Has something carried to `to`. What the carrier has no room for is asked again, as what is lost on the way.
    pub(super) fn order(&mut self, now: Nanos, to: NodeId, order: CarrierOrder) {
        match &self.carrier {
            Some(link) => {
                let _ = link.orders.try_send(order);
                // The only error is a full eventfd counter: then it is awake already.
                let _ = link.waker.wake();
            }
            None => self.machine.handle(now, LaneInput::Broken(to)),
        }
    }

    /// Has it look up what of a snapshot is here, or throw it away.
    pub(super) fn snapshot(&mut self, order: CarrierOrder) {
        if let Some(link) = &self.carrier {
            let _ = link.orders.try_send(order); // else it is given up, and begun again
            // The only error is a full eventfd counter: then it is awake already.
            let _ = link.waker.wake();
        }
    }

    /// For `quorate status`.
    pub(super) fn json(&self, now: Nanos) -> Value {
        let mut all = json!({ "behind": self.machine.is_behind(), "taking": null });
        if let Some(progress) = self.machine.progress(now) {
            let Progress { from, leader_sync, snapshot, position, goal, bytes_per_second } =
                progress;
            let what = match (leader_sync, snapshot) {
                (true, _) => "leader-sync",
                (false, Some(_)) => "snapshot",
                (false, None) => "catch-up",
            };
            all["taking"] = json!({
                "from": from.0, "for": what, "snapshot": snapshot.map(|at| at.0),
                "position": position.0, "goal": goal.0, "bytes_per_second": bytes_per_second,
            });
        }
        if let Some(link) = &self.carrier
            && let (Some(all), Value::Object(counts)) = (all.as_object_mut(), link.counts.json())
        {
            all.extend(counts);
        }
        all
    }
}
