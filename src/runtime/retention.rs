//! What leaves the log of a node: the replay worker's thread lets it go, the control thread knows who lacks what and tells.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::{Value, json};

use super::events::EventSink;
use super::snapshots::damaged;
use crate::control::holdings::Holdings;
use crate::control::message::Envelope;
use crate::io::archive::ArchiveFolder;
use crate::journal::Disk;
use crate::journal::retention::Pin;
use crate::replica::retainer::{Archive, Paced, Retainer, RetentionEvent, RetentionView};
use crate::types::{Durable, Nanos, NodeId, Timestamp};

/// Events that wait for control, at most.
const EVENTS_MAX: usize = 16;

/// What both threads see.
#[derive(Debug)]
struct Seen {
    holdings: Holdings,
    view: RetentionView,
}

type Both = Arc<Mutex<Seen>>;

fn lock(both: &Both) -> MutexGuard<'_, Seen> {
    both.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The worker's side.
pub(super) struct RetentionWork<D> {
    machine: Retainer<D>,
    both: Both,
    events: Sender<RetentionEvent>,
}

/// Control's side.
pub(super) struct RetentionDesk {
    both: Both,
    events: Receiver<RetentionEvent>,
}

/// Both sides, in a group of these nodes.
pub(super) fn retention<D: Disk>(
    machine: Retainer<D>,
    own: NodeId,
    nodes: impl IntoIterator<Item = NodeId>,
) -> (RetentionWork<D>, RetentionDesk) {
    let (holdings, view) = (Holdings::new(own, nodes), RetentionView::default());
    let both = Arc::new(Mutex::new(Seen { holdings, view }));
    let (send, events) = bounded(EVENTS_MAX);
    let desk = RetentionDesk { both: Arc::clone(&both), events };
    (RetentionWork { machine, both, events: send }, desk)
}

/// Copies segments into a folder before they leave.
pub(super) fn archive<D: Disk>(folder: ArchiveFolder) -> Archive<D> {
    Box::new(move |disk: &D, name: &str, pace: Paced<'_>| {
        folder.keep(name, &disk.open(name)?, pace)
    })
}

impl<D: Disk> RetentionWork<D> {
    /// Does what is to be done now; returns how much it was, and whether snapshots were moved away.
    pub(super) fn step(
        &mut self,
        now: Nanos,
        pace: &mut dyn FnMut(usize) -> io::Result<()>,
    ) -> (u64, bool) {
        let members: Vec<_> = lock(&self.both).holdings.iter().collect();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = Timestamp(u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX));
        let done = self.machine.step(now, time, &members, pace);
        lock(&self.both).view.clone_from(self.machine.view());
        let mut moved = false;
        while let Some(event) = self.machine.poll_event() {
            moved |= matches!(event, RetentionEvent::Damaged { .. });
            // Control takes them every 50 ms; there are a few an hour.
            let _ = self.events.try_send(event);
        }
        (done, moved)
    }
}

impl RetentionDesk {
    /// What is sent to another node, with what is on this one's disk.
    pub(super) fn fill_in(envelope: Envelope, durable: Durable) -> Envelope {
        Holdings::fill_in(envelope, durable)
    }

    /// What came from another node.
    pub(super) fn hear(&self, envelope: &Envelope) {
        lock(&self.both).holdings.hear(envelope);
    }

    /// Tells the operator what the worker reports.
    pub(super) fn tell(&self, events: &mut EventSink) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                RetentionEvent::Left { segments, first } => {
                    let text = format!("{segments} segments have left; the log begins at {first}");
                    events.line(1150, &text);
                }
                RetentionEvent::NotArchived { base, error } => {
                    let text =
                        format!("the segment at {base} could not be archived and stays: {error}");
                    events.line(1151, &text);
                }
                RetentionEvent::NotRemoved { error } => {
                    events.line(1152, &format!("segments that may leave stay: {error}"));
                }
                RetentionEvent::Damaged { position, error, kept_at } => {
                    events.line(1131, &damaged(position, &error, kept_at.as_deref()));
                }
            }
        }
    }

    /// What `quorate status` shows.
    pub(super) fn json(&self) -> Value {
        let seen = lock(&self.both);
        let RetentionView { first, snapshots, pin, failure } = &seen.view;
        let snapshots: Vec<_> = snapshots.iter().map(|position| position.0).collect();
        let (pin, member) = match pin {
            None => (Value::Null, None),
            Some(Pin::Limits) => ("limits".into(), None),
            Some(Pin::Snapshots) => ("snapshots".into(), None),
            Some(Pin::Member(node)) => ("member".into(), Some(node.0)),
        };
        let members: Vec<_> = seen
            .holdings
            .iter()
            .map(|(node, held)| json!({"node": node.0, "durable": held.map(|held| held.0)}))
            .collect();
        json!({
            "first": first.0, "snapshots": snapshots, "pinned_by": pin, "member": member,
            "failure": failure, "members": members,
        })
    }
}
