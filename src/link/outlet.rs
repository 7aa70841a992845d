//! The way of a service's events from the core to whoever takes them outside: a mailbox of whole events, and back one number,
//! through which all were taken.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::limits::{EVENT_BYTES_MAX, MAILBOX_DEPTH};

/// An event of the service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceEvent {
    number: u64,
    length: u16,
    bytes: [u8; EVENT_BYTES_MAX],
}

impl ServiceEvent {
    /// Of this number; longer than [`EVENT_BYTES_MAX`] none is.
    fn new(number: u64, event: &[u8]) -> Self {
        let length = event.len().min(EVENT_BYTES_MAX);
        let mut bytes = [0; EVENT_BYTES_MAX];
        bytes[..length].copy_from_slice(&event[..length]);
        Self { number, length: length as u16, bytes }
    }
    /// Its number, the same on every node: from 1, without gaps. Who has seen it already drops the event.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }
    /// What the service said.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// The core's end.
#[derive(Clone, Debug)]
pub struct Outlet {
    to: Sender<ServiceEvent>,
    taken: Arc<AtomicU64>,
}

/// The end of whoever takes the events. A node hands them out while it leads.
#[derive(Clone, Debug)]
pub struct Inlet {
    from: Receiver<ServiceEvent>,
    taken: Arc<AtomicU64>,
}

/// Both ends.
#[must_use]
pub fn outlet() -> (Outlet, Inlet) {
    let (to, from) = bounded(MAILBOX_DEPTH);
    let taken = Arc::<AtomicU64>::default();
    (Outlet { to, taken: Arc::clone(&taken) }, Inlet { from, taken })
}

impl Outlet {
    /// Hands an event out; whether there was room.
    pub(crate) fn hand_out(&self, number: u64, event: &[u8]) -> bool {
        self.to.try_send(ServiceEvent::new(number, event)).is_ok()
    }
    /// Everything through this number was taken.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Inlet {
    /// The next event, if there is one.
    #[must_use]
    pub fn try_next(&self) -> Option<ServiceEvent> {
        self.from.try_recv().ok()
    }
    /// The next event, waited for as long as this.
    #[must_use]
    pub fn next(&self, timeout: Duration) -> Option<ServiceEvent> {
        self.from.recv_timeout(timeout).ok()
    }
    /// Everything through `number` has been dealt with: soon the group forgets it, and no later leader hands it out again.
    pub fn taken_through(&self, number: u64) {
        self.taken.fetch_max(number, Ordering::Relaxed);
    }
}
