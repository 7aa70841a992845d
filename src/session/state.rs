//! The whole state of a node: sessions, service, cluster time, and how far the log was applied.
//!
//! [`State::apply_frame`] is all that ever changes it. The core, the replay of a log after a crash and the tools that verify
//! logs use this one type, so "the same log gives the same state" is true by construction.

use core::cell::{Ref, RefCell};
use std::io::{self, Read, Write};

use zerocopy::FromBytes;

use super::replies::Answer;
use super::table::{SessionLimits, Sessions, Verdict};
use crate::frame::payload::{
    CommandPrefix, EventCursor, GroupSetting, SETTING_DURABILITY, SessionClose, SessionOpen,
    TimerFired, batch_items,
};
use crate::frame::{FrameHeader, Kind};
use crate::limits::REPLY_BYTES_MAX;
use crate::mutants::{Mutant, Mutants};
use crate::service::hash::Fingerprint;
use crate::service::image::{
    ImageError, read_limit, read_start, read_words, require, write_start, write_words,
};
use crate::service::timers::TIMER_RETRY_NS;
use crate::service::{CloseReason, Context, Effects, Rejection, Reply, Role, Service};
use crate::types::{ClientSequence, Sequence, SessionId, Timestamp};

const MAGIC: [u8; 4] = *b"QSTA";
const VERSION: u32 = 2;

/// Bounds of the state. Constants of the group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateLimits {
    /// Of the session table.
    pub sessions: SessionLimits,
    /// Largest reply of the service, in bytes; at most [`REPLY_BYTES_MAX`].
    pub reply_bytes_max: usize,
}

impl Default for StateLimits {
    fn default() -> Self {
        Self { sessions: SessionLimits::default(), reply_bytes_max: REPLY_BYTES_MAX }
    }
}

/// What applying one frame did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Applied {
    /// The entry.
    pub sequence: Sequence,
    /// Cluster time after it.
    pub time: Timestamp,
    /// What the leader answers, and to whom.
    pub outcome: Outcome,
}

/// What there is to tell a client after an entry was applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Nothing.
    None,
    /// A session is open. It may have been before: a repeated request finds the session of its nonce.
    SessionOpened {
        /// Its id.
        id: SessionId,
        /// The client's nonce.
        nonce: u64,
    },
    /// No session was opened: as many are open as may be.
    SessionsFull {
        /// The client's nonce.
        nonce: u64,
    },
    /// A session is closed.
    SessionClosed {
        /// Its id.
        id: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// A command was answered; [`Sessions::reply`] has the reply.
    Replied {
        /// Whose.
        session: SessionId,
        /// Which.
        client_sequence: ClientSequence,
        /// What became of it.
        answer: Answer,
    },
    /// A command that was answered before: the service did not see it again. [`Sessions::reply`] has the reply.
    Repeated {
        /// Whose.
        session: SessionId,
        /// Which.
        client_sequence: ClientSequence,
        /// What became of it then.
        answer: Answer,
    },
    /// A command was refused and nothing was consumed.
    Refused {
        /// Whose.
        session: SessionId,
        /// Which.
        client_sequence: ClientSequence,
        /// Why: never [`Verdict::Apply`] or [`Verdict::Stored`].
        why: Verdict,
    },
    /// A timer of the service took effect.
    TimerFired,
    /// The entry's payload is too short for its kind: no node can make anything of it.
    Malformed,
}

/// Sessions, service, cluster time, and how far the log was applied.
#[derive(Clone, Debug)]
pub struct State<S> {
    sessions: Sessions,
    service: S,
    /// Borrowed by the service for the time of a call, and by nobody else.
    effects: RefCell<Effects>,
    sequence: Sequence,
    time: Timestamp,
    term_started: Timestamp,
    durability: Option<u64>,
    scratch: Box<[u8]>,
    mutants: Mutants,
}

impl<S: Service> State<S> {
    /// The state before the first entry. Panics when a limit is out of its range: configurations are checked before.
    #[must_use]
    pub fn new(service: S, limits: StateLimits) -> Self {
        assert!(limits.reply_bytes_max <= REPLY_BYTES_MAX, "reply_bytes_max");
        Self {
            sessions: Sessions::new(limits.sessions),
            service,
            effects: RefCell::default(),
            sequence: Sequence(0),
            time: Timestamp(0),
            term_started: Timestamp(0),
            durability: None,
            scratch: vec![0; limits.reply_bytes_max].into_boxed_slice(),
            mutants: Mutants::NONE,
        }
    }
    /// The sessions.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }
    /// The sessions, for what is local about them: [`Sessions::touch`], [`Sessions::expired`], [`Sessions::name_again`].
    pub fn sessions_mut(&mut self) -> &mut Sessions {
        &mut self.sessions
    }
    /// The service.
    #[must_use]
    pub fn service(&self) -> &S {
        &self.service
    }
    /// The service, for tests that make it behave otherwise.
    #[cfg(test)]
    pub(super) fn service_mut(&mut self) -> &mut S {
        &mut self.service
    }
    /// Timers and events of the service.
    pub fn effects(&self) -> Ref<'_, Effects> {
        self.effects.borrow()
    }
    /// The last entry applied.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }
    /// Cluster time.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }
    /// Cluster time at which the current leadership began.
    #[must_use]
    pub fn term_started(&self) -> Timestamp {
        self.term_started
    }
    /// What the newest entry about durability says, as it stands there: see [`SETTING_DURABILITY`]. None: there was none yet.
    #[must_use]
    pub fn durability(&self) -> Option<u64> {
        self.durability
    }
    /// Tells the service what this node is now.
    pub fn role_changed(&mut self, role: Role) {
        self.service.role_changed(role);
    }
    /// Asks the service.
    ///
    /// # Errors
    /// The service's rejection.
    pub fn query(&self, request: &[u8], reply: &mut Reply<'_>) -> Result<(), Rejection> {
        self.service.query(request, reply)
    }
    /// Applies one committed entry: `kind` and `payload` are those of `header`. Entries come in order, each once, as
    /// [`check_frame`](crate::frame::check_frame) lets them pass; asserted.
    pub fn apply_frame(&mut self, kind: Kind, header: &FrameHeader, payload: &[u8]) -> Applied {
        if kind != Kind::Padding {
            let sequence = header.sequence();
            assert!(sequence == self.sequence.next(), "entries are applied in order, each once");
            self.sequence = sequence;
            let before =
                if self.mutants.has(Mutant::ClockGoesBack) { Timestamp(0) } else { self.time };
            self.time = before.max(header.timestamp());
        }
        let outcome = match kind {
            Kind::SessionOpen => self.open(payload),
            Kind::SessionClose => self.close(payload),
            Kind::Command | Kind::CommandBatch => self.command(kind, payload),
            Kind::TermStart => {
                self.term_started = self.time;
                Outcome::None
            }
            Kind::Timer => self.fire(payload),
            Kind::EventCursor => self.move_cursor(payload),
            Kind::Padding | Kind::SnapshotMark | Kind::Membership | Kind::Location => Outcome::None,
            Kind::GroupSetting => self.set(payload),
        };
        Applied { sequence: self.sequence, time: self.time, outcome }
    }
    /// Fingerprint of all of it: equal on all nodes at one sequence.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        Fingerprint::new(0x57A7)
            .word(self.sequence.0)
            .word(self.time.0)
            .word(self.term_started.0)
            .word(self.durability_word())
            .word(self.sessions.state_hash())
            .word(self.effects.borrow().timers.state_hash())
            .word(self.effects.borrow().outbox.state_hash())
            .word(self.service.state_hash())
            .finish()
    }
    /// Writes all of it: `"QSTA" | version u32 | reply_bytes_max u64 | sequence u64 | time u64 | term started u64 |
    /// durability u64 (as in its entry, plus one; 0: none yet) | service version u64 | sessions | timers | events | service |
    /// state hash u64`.
    ///
    /// # Errors
    /// The writer's.
    pub fn snapshot(&self, writer: &mut dyn Write) -> io::Result<()> {
        write_start(writer, MAGIC, VERSION)?;
        write_words(
            writer,
            &[
                self.scratch.len() as u64,
                self.sequence.0,
                self.time.0,
                self.term_started.0,
                self.durability_word(),
                u64::from(self.service.version()),
            ],
        )?;
        self.sessions.snapshot(writer)?;
        self.effects.borrow().snapshot(writer)?;
        self.service.snapshot(writer)?;
        write_words(writer, &[self.state_hash()])
    }
    /// Replaces all of it by what [`State::snapshot`] wrote. After an error the state is not to be used, but for another
    /// restore.
    ///
    /// # Errors
    /// The reader's, or `InvalidData` with an [`ImageError`].
    pub fn restore(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        read_start(reader, MAGIC, VERSION)?;
        read_limit(reader, "reply_bytes_max", self.scratch.len() as u64)?;
        let [sequence, time, term_started, durability, version] = read_words(reader)?;
        require(version == u64::from(self.service.version()), "service version", version)?;
        require(term_started <= time, "term start", term_started)?;
        (self.sequence, self.time) = (Sequence(sequence), Timestamp(time));
        self.term_started = Timestamp(term_started);
        self.durability = durability.checked_sub(1);
        self.sessions.restore(reader)?;
        self.effects.get_mut().restore(reader)?;
        self.service.restore(reader)?;
        let [found] = read_words(reader)?;
        let computed = self.state_hash();
        if found == computed { Ok(()) } else { Err(ImageError::Hash { found, computed }.into()) }
    }

    fn durability_word(&self) -> u64 {
        self.durability.map_or(0, |value| value.saturating_add(1))
    }

    fn set(&mut self, payload: &[u8]) -> Outcome {
        match GroupSetting::ref_from_prefix(payload) {
            Ok((setting, _)) if setting.key.get() == SETTING_DURABILITY => {
                self.durability = Some(setting.value.get());
                Outcome::None
            }
            Ok(_) => Outcome::None,
            Err(_) => Outcome::Malformed,
        }
    }

    fn open(&mut self, payload: &[u8]) -> Outcome {
        let Ok((open, _name)) = SessionOpen::ref_from_prefix(payload) else {
            return Outcome::Malformed;
        };
        let (nonce, timeout) = (open.nonce.get(), open.timeout.get());
        if let Some(id) = self.sessions.find_nonce(nonce) {
            self.sessions.active(id, self.time);
            return Outcome::SessionOpened { id, nonce };
        }
        let id = SessionId(self.sequence.0);
        if self.sessions.open(id, nonce, timeout, self.time).is_err() {
            return Outcome::SessionsFull { nonce };
        }
        let context = Context::alone(self.sequence, self.time, id, ClientSequence(0));
        self.service.session_opened(&context.with(&self.effects));
        Outcome::SessionOpened { id, nonce }
    }
    fn close(&mut self, payload: &[u8]) -> Outcome {
        let Ok((close, _)) = SessionClose::ref_from_prefix(payload) else {
            return Outcome::Malformed;
        };
        let Some(reason) = CloseReason::from_u8(close.reason) else { return Outcome::Malformed };
        let id = SessionId(close.session.get());
        let Some(info) = self.sessions.info(id) else { return Outcome::None };
        self.sessions.close(id);
        let context = Context::alone(self.sequence, self.time, id, info.last);
        self.service.session_closed(&context.with(&self.effects), reason);
        Outcome::SessionClosed { id, reason }
    }
    fn command(&mut self, kind: Kind, payload: &[u8]) -> Outcome {
        let Ok((prefix, bytes)) = CommandPrefix::ref_from_prefix(payload) else {
            return Outcome::Malformed;
        };
        let session = SessionId(prefix.session.get());
        let client_sequence = ClientSequence(prefix.client_sequence.get());
        let verdict = self.sessions.judge(session, client_sequence);
        if matches!(verdict, Verdict::Apply | Verdict::Stored) {
            // The client cannot have the reply to a command that it is sending.
            let received = prefix.received_through.get().min(client_sequence.0 - 1);
            self.sessions.received_through(session, ClientSequence(received));
        }
        match verdict {
            Verdict::Apply => {
                let answer = self.answer(kind, session, client_sequence, bytes);
                Outcome::Replied { session, client_sequence, answer }
            }
            Verdict::Stored => {
                self.sessions.active(session, self.time);
                self.apply_again(session, client_sequence, bytes);
                let reply = self.sessions.reply(session, client_sequence);
                let answer = reply.expect("judged as stored, and not yet received").answer;
                Outcome::Repeated { session, client_sequence, answer }
            }
            why => {
                self.sessions.active(session, self.time);
                Outcome::Refused { session, client_sequence, why }
            }
        }
    }
    /// Nothing, but in tests and in the simulator, where a planted bug lets a command take effect again.
    #[cfg_attr(not(any(test, feature = "sim")), allow(clippy::unused_self))]
    fn apply_again(&mut self, session: SessionId, number: ClientSequence, bytes: &[u8]) {
        if !self.mutants.has(Mutant::ApplyTwice) {
            return;
        }
        let context = Context::alone(self.sequence, self.time, session, number);
        self.service.begin();
        match self.service.apply(&context, bytes, &mut Reply::new(&mut self.scratch)) {
            Ok(()) => self.service.keep(),
            Err(_) => self.service.roll_back(),
        }
    }
    /// Takes a rule out, to prove that this is noticed.
    pub fn plant(&mut self, mutants: Mutants) {
        self.mutants = mutants;
    }
    /// Has the service apply the next command of a session as a whole or not at all, and records the answer.
    fn answer(
        &mut self,
        kind: Kind,
        session: SessionId,
        client_sequence: ClientSequence,
        bytes: &[u8],
    ) -> Answer {
        let context = Context::alone(self.sequence, self.time, session, client_sequence);
        let context = context.with(&self.effects);
        self.effects.borrow_mut().begin();
        let mut reply = Reply::new(&mut self.scratch);
        self.service.begin();
        let result = match kind {
            Kind::CommandBatch => apply_batch(&mut self.service, &context, bytes, &mut reply),
            _ => self.service.apply(&context, bytes, &mut reply),
        };
        let result = result.and_then(|()| {
            let fits = self.sessions.fits(session, reply.written().len());
            if fits { Ok(()) } else { Err(Rejection::REPLY_SPACE) }
        });
        let answer = match result {
            Ok(()) => {
                self.service.keep();
                self.effects.get_mut().keep();
                Answer::Applied
            }
            Err(rejection) => {
                self.service.roll_back();
                self.effects.get_mut().roll_back();
                reply.truncate(0);
                Answer::Rejected(rejection)
            }
        };
        let (sequence, time) = (self.sequence, self.time);
        self.sessions.record(session, client_sequence, answer, sequence, time, reply.written());
        answer
    }
    /// A timer fires, if it is the one that is pending, and due.
    fn fire(&mut self, payload: &[u8]) -> Outcome {
        let Ok((fired, _)) = TimerFired::ref_from_prefix(payload) else {
            return Outcome::Malformed;
        };
        let (id, schedule) = (fired.id.get(), fired.schedule.get());
        let effects = self.effects.get_mut();
        let holds = effects.timers.pending(id).is_some_and(|timer| {
            let early = self.mutants.has(Mutant::FireEarly);
            timer.schedule == schedule && (timer.due <= self.time || early)
        });
        if !holds && !self.mutants.has(Mutant::FireCancelled) {
            return Outcome::None;
        }
        effects.begin();
        if !self.mutants.has(Mutant::FireTwice) {
            effects.timers.cancel(id).expect("the first change of a unit has room");
        }
        let context = Context::alone(self.sequence, self.time, SessionId(0), ClientSequence(0));
        self.service.begin();
        let fired = self.service.timer(&context.with(&self.effects), id);
        let effects = self.effects.get_mut();
        if fired.is_ok() {
            self.service.keep();
            effects.keep();
            return Outcome::TimerFired;
        }
        self.service.roll_back();
        effects.roll_back();
        let again = Timestamp(self.time.0.saturating_add(TIMER_RETRY_NS));
        effects.timers.schedule(id, again).expect("it is pending, so it only moves");
        Outcome::None
    }
    fn move_cursor(&mut self, payload: &[u8]) -> Outcome {
        let Ok((cursor, _)) = EventCursor::ref_from_prefix(payload) else {
            return Outcome::Malformed;
        };
        self.effects.get_mut().outbox.delivered(cursor.through.get());
        Outcome::None
    }
}

/// Applies the commands of a batch. The reply is built as the batch is: each command's reply behind its length, `u32`.
fn apply_batch<S: Service>(
    service: &mut S,
    context: &Context<'_>,
    bytes: &[u8],
    reply: &mut Reply<'_>,
) -> Result<(), Rejection> {
    for command in batch_items(bytes) {
        let command = command.map_err(|_| Rejection::MALFORMED_BATCH)?;
        reply.nested(|inner| service.apply(context, command, inner))?;
    }
    Ok(())
}
