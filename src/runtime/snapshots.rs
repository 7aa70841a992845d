//! The replay worker's thread, and what the control thread says of it.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::{Value, json};

use super::environment::Storage;
use super::events::EventSink;
use super::retention::RetentionWork;
use super::scrub::ScrubWorker;
use super::threads::Common;
use crate::io::clock::HostClock;
use crate::journal::scrub::trouble_in;
use crate::journal::snapshot::Stamp;
use crate::replica::snapshotter::{SnapshotEvent, Snapshotter};
use crate::service::Service;
use crate::types::{Nanos, Position};

/// How often the worker looks whether there is something to do, and whether the node ends, at the latest.
const LOOK: Duration = Duration::from_millis(50);
/// While a file is repaired: bytes of another node may be here any moment.
const REPAIR_LOOK: Duration = Duration::from_millis(1);
/// Events of the worker that wait for control, at most.
const EVENTS_MAX: usize = 16;

/// Number of the newest request.
type Asked = Arc<AtomicU64>;

/// The worker's thread.
pub(super) struct SnapshotThread<E: Storage, S> {
    machine: Snapshotter<E::Disk, S>,
    retention: RetentionWork<E::Disk>,
    scrub: ScrubWorker<E::Disk>,
    ended: Arc<AtomicBool>,
    bytes_per_second: u64,
    asked: Asked,
    events: Sender<SnapshotEvent>,
}

/// Where control hears of it, and asks it.
pub(super) struct SnapshotDesk {
    asked: Asked,
    events: Receiver<SnapshotEvent>,
    newest: Option<Stamp>,
    answered: u64,
    failure: Option<String>,
}

impl<E: Storage, S: Service + Clone> SnapshotThread<E, S> {
    /// The thread of a worker, not started yet, and control's side of it. The state of the node began with `newest`.
    pub(super) fn new(
        machine: Snapshotter<E::Disk, S>,
        (retention, scrub): (RetentionWork<E::Disk>, ScrubWorker<E::Disk>),
        newest: Option<Stamp>,
        common: &Common,
        bytes_per_second: u64,
    ) -> (Self, SnapshotDesk) {
        let ended = Arc::clone(&common.ended);
        let asked = Asked::default();
        let (send, events) = bounded(EVENTS_MAX);
        let desk =
            SnapshotDesk { asked: Arc::clone(&asked), events, newest, answered: 0, failure: None };
        (Self { machine, retention, scrub, ended, bytes_per_second, asked, events: send }, desk)
    }

    /// Runs until the node ends.
    pub(super) fn run(mut self) {
        let (ended, clock) = (Arc::clone(&self.ended), HostClock);
        let mut pace = Pace { bytes_per_second: self.bytes_per_second, ended: &ended };
        let mut slow = Pace { bytes_per_second: self.scrub.bytes_per_second(), ended: &ended };
        while !ended.load(Ordering::Acquire) {
            self.machine.ask(self.asked.load(Ordering::Acquire));
            let mut done = self.machine.step(clock.now(), &mut |bytes| pace.take(bytes as u64));
            while let Some(event) = self.machine.poll_event() {
                if let SnapshotEvent::Failed { error, .. } = &event
                    && let Some(position) = trouble_in(error)
                {
                    self.scrub.suspect(position);
                }
                // Control takes them every 50 ms; there are a few an hour.
                let _ = self.events.try_send(event);
            }
            if done == 0 {
                done = self.let_go(clock.now(), &mut pace);
            }
            let waited = if done > 0 { pace.take(done) } else { self.scrub_some(clock, &mut slow) };
            if waited.is_err() {
                break;
            }
        }
    }
}

impl<E: Storage, S: Service + Clone> SnapshotThread<E, S> {
    /// Between two snapshots: what may leave the log leaves.
    fn let_go(&mut self, now: Nanos, pace: &mut Pace<'_>) -> u64 {
        let (done, moved) = self.retention.step(now, &mut |bytes| pace.take(bytes as u64));
        if moved {
            // What cannot be looked at now is looked at when the next one is taken.
            let _ = self.machine.look_again();
        }
        done
    }

    /// There is nothing else to do: the durable files are read again, or repaired.
    fn scrub_some(&mut self, clock: HostClock, pace: &mut Pace<'_>) -> io::Result<()> {
        let done = self.scrub.turn(clock.now());
        while let Some(position) = self.scrub.bad_snapshot() {
            self.machine.lose(position);
        }
        if self.scrub.brought() {
            // What cannot be looked at now is looked at when the next one is taken.
            let _ = self.machine.brought();
        }
        if self.scrub.is_repairing() {
            if done == 0 {
                std::thread::park_timeout(REPAIR_LOOK);
            }
            return Ok(());
        }
        if done == 0 {
            std::thread::park_timeout(LOOK);
        }
        pace.take(done)
    }
}

/// Keeps to a rate by waiting for each piece.
struct Pace<'a> {
    bytes_per_second: u64,
    ended: &'a AtomicBool,
}

impl Pace<'_> {
    /// Waits as long as `bytes` take. An error says that the node ends.
    fn take(&mut self, bytes: u64) -> io::Result<()> {
        let wait_ns =
            u128::from(bytes) * u128::from(Nanos::SECOND) / u128::from(self.bytes_per_second);
        let mut left = Duration::from_nanos(wait_ns as u64);
        loop {
            if self.ended.load(Ordering::Acquire) {
                return Err(ErrorKind::Interrupted.into());
            }
            if left.is_zero() {
                return Ok(());
            }
            let nap = left.min(LOOK);
            std::thread::sleep(nap);
            left -= nap;
        }
    }
}

impl SnapshotDesk {
    /// Asks for a snapshot: the number of the request, for [`SnapshotDesk::json`].
    pub(super) fn ask(&self) -> Value {
        json!({"request": self.asked.fetch_add(1, Ordering::AcqRel) + 1})
    }

    /// Tells the operator what the worker reports.
    pub(super) fn tell(&mut self, events: &mut EventSink) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                SnapshotEvent::Taken { stamp, answers } => {
                    events.line(1130, &format!("snapshot {}", describe(&stamp)));
                    (self.newest, self.answered) = (Some(stamp), answers);
                    self.failure = None;
                }
                SnapshotEvent::Current { answers, .. } => {
                    (self.answered, self.failure) = (answers, None);
                }
                SnapshotEvent::Damaged { position, error, kept_at } => {
                    events.line(1131, &damaged(position, &error, kept_at.as_deref()));
                }
                SnapshotEvent::Failed { error, answers } => {
                    events.line(1132, &format!("no snapshot was taken: {error}"));
                    (self.answered, self.failure) = (answers, Some(error.to_string()));
                }
            }
        }
    }

    /// What `quorate status` shows.
    pub(super) fn json(&self) -> Value {
        let newest = self.newest.as_ref().map(|stamp| {
            json!({
                "position": stamp.before.position.0, "sequence": stamp.before.sequence.0,
                "state_hash": format!("{:016x}", stamp.state_hash), "bytes": stamp.state_bytes,
            })
        });
        json!({"newest": newest, "answered": self.answered, "failure": self.failure})
    }
}

/// A snapshot in a line.
pub(super) fn describe(stamp: &Stamp) -> String {
    format!(
        "at entry {}, position {}: {} bytes, state hash {:016x}",
        stamp.before.sequence, stamp.before.position, stamp.state_bytes, stamp.state_hash
    )
}

/// What is said of one that cannot be used.
pub(super) fn damaged(
    position: Position,
    error: &dyn std::error::Error,
    kept_at: Option<&str>,
) -> String {
    let kept = kept_at.map_or_else(String::new, |name| format!("; it is kept in {name}"));
    format!("the snapshot at {position} cannot be used: {error}{kept}")
}
