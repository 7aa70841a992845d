//! Checks of what the engine relies on, for services of one's own: give [`check`] a way to make the service and commands
//! that reach its corners, rejected ones too.
//!
//! ```
//! use quorate::conformance::service;
//! use quorate::service::Echo;
//! let commands: Vec<Vec<u8>> = (0..40).map(|n| vec![n; usize::from(n)]).collect();
//! let passed = service::check(Echo::new, &commands).expect("the echo conforms");
//! assert_eq!(passed.commands, 40);
//! ```

use core::cell::RefCell;
use core::fmt;

use crate::service::timers::{DUE_MAX, TIMER_RETRY_NS, Timer};
use crate::service::{CloseReason, Context, Effects, Rejection, Reply, Service};
use crate::types::{ClientSequence, Sequence, SessionId, Timestamp};

/// Sessions that the commands are spread over.
const SESSIONS: u64 = 3;
/// Commands of a batch that is rolled back.
const BATCH: usize = 7;
/// Bytes for a reply.
const REPLY_BYTES: usize = 1 << 20;

/// What was checked: so that a caller can see that its commands did something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Passed {
    /// Commands.
    pub commands: usize,
    /// Of these, applied.
    pub applied: usize,
    /// Of these, rejected.
    pub rejected: usize,
    /// Batches that were rolled back.
    pub batches: usize,
    /// Bytes of the last snapshot.
    pub snapshot_bytes: usize,
}

/// What a service broke.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// Two instances that were given the same differ: in their answer, or in their state hash afterwards.
    Differs {
        /// Index of the command; as many as there are: the closing of the sessions.
        command: usize,
    },
    /// A command that was rolled back left a trace in the state hash or in the snapshot, or answered otherwise when it was
    /// given again.
    Trace {
        /// Index of the command.
        command: usize,
    },
    /// A batch that was rolled back left a trace.
    BatchTrace {
        /// Index of its first command.
        first: usize,
        /// How many commands it had.
        count: usize,
    },
    /// The snapshot changed, and the state hash did not.
    BlindHash {
        /// Index of the command.
        command: usize,
    },
    /// A question changed the state, or two instances in the same state answered differently.
    Query {
        /// Index of the command that was used as a question.
        command: usize,
    },
    /// A snapshot could not be written, or not be read back.
    Snapshot {
        /// Commands before it.
        commands: usize,
        /// The error.
        error: String,
    },
    /// What was restored from a snapshot has another state hash, writes another snapshot, or goes on differently.
    Restored {
        /// Commands before it was found.
        command: usize,
    },
    /// A snapshot that was cut short was taken for a whole one.
    CutSnapshot {
        /// Bytes of it that were left.
        length: usize,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs { command } => {
                write!(f, "two instances differ after command {command}: it is not deterministic")
            }
            Self::Trace { command } => write!(f, "rolling back command {command} leaves a trace"),
            Self::BatchTrace { first, count } => {
                write!(f, "rolling back a batch of {count} from command {first} leaves a trace")
            }
            Self::BlindHash { command } => {
                write!(f, "command {command} changes the snapshot, but not the state hash")
            }
            Self::Query { command } => {
                write!(
                    f,
                    "command {command} as a question changes the state, or its answers differ"
                )
            }
            Self::Snapshot { commands, error } => {
                write!(f, "no snapshot after {commands} commands: {error}")
            }
            Self::Restored { command } => {
                write!(f, "restored from a snapshot, it differs after command {command}")
            }
            Self::CutSnapshot { length } => {
                write!(f, "a snapshot cut to {length} bytes is taken for a whole one")
            }
        }
    }
}

impl core::error::Error for Failure {}

/// Checks that a service is deterministic, that rolling back leaves no trace, also inside a batch, that its hash sees what
/// its snapshot holds, and that a snapshot brings all of it back.
///
/// Equal states must write equal snapshots: sort what has no order. The service needs no more than the [`Service`] trait;
/// `factory` makes it in its first state.
///
/// # Errors
/// The first [`Failure`].
pub fn check<S: Service>(factory: impl Fn() -> S, commands: &[Vec<u8>]) -> Result<Passed, Failure> {
    let (mut subject, mut twin) = (Subject::new(factory()), Subject::new(factory()));
    let mut passed = Passed { commands: commands.len(), ..Passed::default() };
    let middle = commands.len() / 2;
    let mut restored = None;
    for (index, command) in commands.iter().enumerate() {
        if index == middle {
            restored = Some(check_snapshot(&factory, &subject, index, &mut passed)?);
        }
        if index % 4 == 0 {
            check_batch(&mut subject, index, &commands[index..], &mut passed)?;
        }
        let result = check_command(&mut subject, &mut twin, index, command)?;
        match result {
            Ok(_) => passed.applied += 1,
            Err(_) => passed.rejected += 1,
        }
        if let Some(copy) = &mut restored
            && (copy.give(index, command) != result || copy.hash() != subject.hash())
        {
            return Err(Failure::Restored { command: index });
        }
    }
    let end = commands.len();
    let mut copy = check_snapshot(&factory, &subject, end, &mut passed)?;
    for session in 1..=SESSIONS {
        for one in [&mut subject, &mut twin, &mut copy] {
            one.close(session, end);
        }
        if subject.hash() != twin.hash() {
            return Err(Failure::Differs { command: end });
        }
        if subject.hash() != copy.hash() {
            return Err(Failure::Restored { command: end });
        }
    }
    Ok(passed)
}

/// A service, and the room for its replies.
struct Subject<S> {
    service: S,
    /// Its timers and events, as the engine keeps them; whatever it emits is taken at once.
    effects: RefCell<Effects>,
    buffer: Box<[u8]>,
}

type Answer = Result<Vec<u8>, Rejection>;

impl<S: Service> Subject<S> {
    fn new(service: S) -> Self {
        let buffer = vec![0; REPLY_BYTES].into_boxed_slice();
        let mut subject = Self { service, effects: RefCell::default(), buffer };
        for id in 1..=SESSIONS {
            let context = context(0, id).with(&subject.effects);
            subject.service.session_opened(&context);
        }
        subject
    }
    fn hash(&self) -> u64 {
        self.service.state_hash()
    }
    fn snapshot(&self, commands: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let written = self.service.snapshot(&mut bytes);
        written.map_err(|error| Failure::Snapshot { commands, error: error.to_string() })?;
        Ok(bytes)
    }
    fn apply(&mut self, index: usize, command: &[u8]) -> Answer {
        let mut reply = Reply::new(&mut self.buffer);
        let context = context(index, index as u64 % SESSIONS + 1).with(&self.effects);
        self.service.apply(&context, command, &mut reply)?;
        Ok(reply.written().to_vec())
    }
    fn query(&mut self, request: &[u8]) -> Answer {
        let mut reply = Reply::new(&mut self.buffer);
        self.service.query(request, &mut reply)?;
        Ok(reply.written().to_vec())
    }
    /// Gives it a command as the engine would.
    fn give(&mut self, index: usize, command: &[u8]) -> Answer {
        self.begin();
        let result = self.apply(index, command);
        self.end(result.is_ok());
        self.fire(index);
        result
    }
    fn begin(&mut self) {
        self.service.begin();
        self.effects.get_mut().begin();
    }
    fn end(&mut self, stands: bool) {
        let effects = self.effects.get_mut();
        if stands {
            self.service.keep();
            effects.keep();
            effects.outbox.delivered(u64::MAX);
        } else {
            self.service.roll_back();
            effects.roll_back();
        }
    }
    /// Fires what is due after a command.
    fn fire(&mut self, index: usize) {
        let mut due = [Timer::default(); DUE_MAX];
        let now = context(index, 0);
        let count = self.effects.get_mut().timers.due(now.time, &mut due);
        for timer in &due[..count] {
            // One that an earlier of them cancelled or moved is not pending any more.
            if self.effects.get_mut().timers.pending(timer.id) != Some(*timer) {
                continue;
            }
            self.begin();
            let known = self.effects.get_mut().timers.cancel(timer.id);
            debug_assert_eq!(known, Ok(true));
            let fired = self.service.timer(&now.with(&self.effects), timer.id);
            self.end(fired.is_ok());
            if fired.is_err() {
                let again = Timestamp(now.time.0 + TIMER_RETRY_NS);
                let moved = self.effects.get_mut().timers.schedule(timer.id, again);
                debug_assert_eq!(moved, Ok(()));
            }
        }
    }
    fn close(&mut self, session: u64, index: usize) {
        let context = context(index, session).with(&self.effects);
        self.service.session_closed(&context, CloseReason::Silent);
    }
}

fn check_command<S: Service>(
    subject: &mut Subject<S>,
    twin: &mut Subject<S>,
    index: usize,
    command: &[u8],
) -> Result<Answer, Failure> {
    let before = (subject.hash(), subject.snapshot(index)?);
    let asked = subject.query(command);
    if asked != twin.query(command) || subject.hash() != before.0 {
        return Err(Failure::Query { command: index });
    }
    subject.begin();
    let first = subject.apply(index, command);
    subject.end(false);
    if (subject.hash(), subject.snapshot(index)?) != before {
        return Err(Failure::Trace { command: index });
    }
    let result = subject.give(index, command);
    let after = (subject.hash(), subject.snapshot(index)?);
    if result != first || (result.is_err() && after != before) {
        return Err(Failure::Trace { command: index });
    }
    if after.0 == before.0 && after.1 != before.1 {
        return Err(Failure::BlindHash { command: index });
    }
    if twin.give(index, command) != result || twin.hash() != after.0 {
        return Err(Failure::Differs { command: index });
    }
    Ok(result)
}

fn check_batch<S: Service>(
    subject: &mut Subject<S>,
    first: usize,
    commands: &[Vec<u8>],
    passed: &mut Passed,
) -> Result<(), Failure> {
    let before = (subject.hash(), subject.snapshot(first)?);
    let batch = &commands[..commands.len().min(BATCH)];
    subject.begin();
    // A rejected command ends a batch: the engine gives it no more.
    let _ = batch.iter().try_for_each(|command| subject.apply(first, command).map(|_| ()));
    subject.end(false);
    passed.batches += 1;
    if (subject.hash(), subject.snapshot(first)?) == before {
        Ok(())
    } else {
        Err(Failure::BatchTrace { first, count: batch.len() })
    }
}

/// A new instance, restored from a snapshot of `subject`.
fn check_snapshot<S: Service>(
    factory: &impl Fn() -> S,
    subject: &Subject<S>,
    commands: usize,
    passed: &mut Passed,
) -> Result<Subject<S>, Failure> {
    let bytes = subject.snapshot(commands)?;
    passed.snapshot_bytes = bytes.len();
    for eighth in 0..8 {
        let length = bytes.len() * eighth / 8;
        if length < bytes.len() && factory().restore(&mut &bytes[..length]).is_ok() {
            return Err(Failure::CutSnapshot { length });
        }
    }
    let mut copy = Subject::new(factory());
    copy.effects.clone_from(&subject.effects);
    let read = copy.service.restore(&mut &bytes[..]);
    read.map_err(|error| Failure::Snapshot { commands, error: error.to_string() })?;
    if copy.hash() != subject.hash() || copy.snapshot(commands)? != bytes {
        return Err(Failure::Restored { command: commands });
    }
    Ok(copy)
}

fn context(index: usize, session: u64) -> Context<'static> {
    Context::alone(
        Sequence(index as u64 + 1),
        Timestamp(index as u64 * 1000),
        SessionId(session),
        ClientSequence(index as u64 + 1),
    )
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};

    use super::*;

    /// A sum of the commands' lengths that breaks one rule.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Fault {
        None,
        Address,
        Undo,
        UndoInBatch,
        Hash,
        Snapshot,
        Cut,
    }

    struct Faulty {
        fault: Fault,
        sum: u64,
        before: u64,
        steps: u64,
        salt: u64,
    }

    impl Service for Faulty {
        fn name(&self) -> &'static str {
            "faulty"
        }
        fn begin(&mut self) {
            (self.before, self.steps) = (self.sum, 0);
        }
        fn keep(&mut self) {}
        fn roll_back(&mut self) {
            let keeps =
                self.fault == Fault::Undo || (self.fault == Fault::UndoInBatch && self.steps > 1);
            if !keeps {
                self.sum = self.before;
            }
        }
        fn apply(
            &mut self,
            _: &Context<'_>,
            command: &[u8],
            _: &mut Reply<'_>,
        ) -> Result<(), Rejection> {
            self.sum += command.len() as u64 + self.salt;
            self.steps += 1;
            if command.len() == 5 { Err(Rejection(5)) } else { Ok(()) }
        }
        fn query(&self, _: &[u8], _: &mut Reply<'_>) -> Result<(), Rejection> {
            Err(Rejection(1))
        }
        fn snapshot(&self, writer: &mut dyn Write) -> io::Result<()> {
            writer.write_all(&self.sum.to_le_bytes())
        }
        fn restore(&mut self, reader: &mut dyn Read) -> io::Result<()> {
            let mut bytes = [0; 8];
            match reader.read_exact(&mut bytes) {
                Err(_) if self.fault == Fault::Cut => {}
                result => result?,
            }
            self.sum = if self.fault == Fault::Snapshot { 0 } else { u64::from_le_bytes(bytes) };
            Ok(())
        }
        fn state_hash(&self) -> u64 {
            if self.fault == Fault::Hash { 0 } else { self.sum }
        }
    }

    fn judge(fault: Fault) -> Result<Passed, Failure> {
        let made = core::cell::Cell::new(0);
        let factory = || {
            made.set(made.get() + 1);
            let salt = if fault == Fault::Address { made.get() } else { 0 };
            Faulty { fault, sum: 0, before: 0, steps: 0, salt }
        };
        let commands: Vec<Vec<u8>> = (1..20).map(|n| vec![0; n]).collect();
        check(factory, &commands)
    }

    #[test]
    fn each_rule_that_is_broken_is_named() {
        let passed = judge(Fault::None).expect("nothing is broken");
        assert_eq!((passed.applied, passed.rejected, passed.batches), (18, 1, 5));
        let named = [
            (Fault::Address, Failure::Differs { command: 0 }),
            (Fault::Undo, Failure::BatchTrace { first: 0, count: 7 }),
            (Fault::UndoInBatch, Failure::BatchTrace { first: 0, count: 7 }),
            (Fault::Hash, Failure::BlindHash { command: 0 }),
            (Fault::Snapshot, Failure::Restored { command: 9 }),
            (Fault::Cut, Failure::CutSnapshot { length: 0 }),
        ];
        for (fault, failure) in named {
            assert_eq!(judge(fault), Err(failure));
        }
    }
}
