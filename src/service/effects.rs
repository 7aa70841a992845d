//! What a service is given with an entry, and what it can ask of the engine in return: timers, and events.

use core::cell::RefCell;
use std::io::{self, Read, Write};

use super::Rejection;
use super::outbox::Outbox;
use super::timers::Timers;
use crate::types::{ClientSequence, Sequence, SessionId, Timestamp};

/// Timers and events of a service: replicated state that the engine keeps for it.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// What is pending.
    pub timers: Timers,
    /// What waits for delivery.
    pub outbox: Outbox,
}

impl Effects {
    /// A unit begins.
    pub fn begin(&mut self) {
        self.timers.begin();
        self.outbox.begin();
    }
    /// The unit stands.
    pub fn keep(&mut self) {
        self.timers.keep();
    }
    /// The unit leaves no trace.
    pub fn roll_back(&mut self) {
        self.timers.roll_back();
        self.outbox.roll_back();
    }
    /// Writes `timers | outbox`.
    ///
    /// # Errors
    /// The writer's.
    pub fn snapshot(&self, writer: &mut dyn Write) -> io::Result<()> {
        self.timers.snapshot(writer)?;
        self.outbox.snapshot(writer)
    }
    /// Replaces all of it by what [`Effects::snapshot`] wrote.
    ///
    /// # Errors
    /// The reader's, or `InvalidData`.
    pub fn restore(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        self.timers.restore(reader)?;
        self.outbox.restore(reader)
    }
}

/// The circumstances of a command.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Its place in the log: also an id that nobody else has, but for the other commands of the same batch.
    pub sequence: Sequence,
    /// Cluster time.
    pub time: Timestamp,
    /// Who sent it; 0 when a timer fires.
    pub session: SessionId,
    /// The client's number for it; 0 when a timer fires.
    pub client_sequence: ClientSequence,
    effects: Option<&'a RefCell<Effects>>,
}

impl<'a> Context<'a> {
    /// Of a service that is called by itself, without an engine: there is room for no timer and no event.
    #[must_use]
    pub fn alone(
        sequence: Sequence,
        time: Timestamp,
        session: SessionId,
        client_sequence: ClientSequence,
    ) -> Self {
        Self { sequence, time, session, client_sequence, effects: None }
    }
    /// With timers and events.
    #[must_use]
    pub fn with(self, effects: &'a RefCell<Effects>) -> Self {
        Self { effects: Some(effects), ..self }
    }
    /// Has [`Service::timer`](super::Service::timer) called with `id` at cluster time `due` or soon after; a timer of this id
    /// that is pending moves there. One that is due already fires as soon as it can. Outlives the leader, and the process.
    ///
    /// # Errors
    /// [`Rejection::TIMERS_FULL`], [`Rejection::UNIT_TIMERS_FULL`].
    pub fn schedule(&self, id: u64, due: Timestamp) -> Result<(), Rejection> {
        let effects = self.effects.ok_or(Rejection::TIMERS_FULL)?;
        effects.borrow_mut().timers.schedule(id, due)
    }
    /// Cancels the timer of this id: it will not fire. Whether it was pending.
    ///
    /// # Errors
    /// [`Rejection::UNIT_TIMERS_FULL`].
    pub fn cancel(&self, id: u64) -> Result<bool, Rejection> {
        self.effects.map_or(Ok(false), |effects| effects.borrow_mut().timers.cancel(id))
    }
    /// When the timer of this id is due, if it is pending.
    #[must_use]
    pub fn scheduled(&self, id: u64) -> Option<Timestamp> {
        self.effects?.borrow().timers.pending(id).map(|timer| timer.due)
    }
    /// Tells the outside: at least once, in the order of the numbers that this returns, from whoever leads.
    ///
    /// # Errors
    /// [`Rejection::EVENTS_FULL`] when as many wait as may, [`Rejection::EVENT_TOO_LONG`].
    pub fn emit(&self, event: &[u8]) -> Result<u64, Rejection> {
        let effects = self.effects.ok_or(Rejection::EVENTS_FULL)?;
        effects.borrow_mut().outbox.emit(event)
    }
}
