//! The service of simulated groups: a list of the commands that took effect, in their order.
//!
//! Its answers say all that a checker wants to know: a command's place in that order, and for a query how many there are and
//! which is the last.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

use crate::service::hash::Fingerprint;
use crate::service::image::{read_start, read_words, write_start, write_words};
use crate::service::{Context, Rejection, Reply, Service};
use crate::types::{Nanos, Timestamp};

const MAGIC: [u8; 4] = *b"QSIM";
const VERSION: u32 = 2;
/// Commands whose number divides by this are refused, after they have made a mess.
const REFUSED_EVERY: u64 = 13;
/// What they are refused with.
pub(super) const REFUSED: Rejection = Rejection(13);

/// The list.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    entries: Vec<u64>,
    hash: u64,
    before: (usize, u64),
    /// Timers that it waits for, and when each is due.
    pending: BTreeMap<u64, Timestamp>,
    pending_before: BTreeMap<u64, Timestamp>,
    /// Firings, and the first that must not have been.
    fired: u64,
    wrong: Option<(u64, Timestamp)>,
    /// It uses timers and events.
    effects: bool,
    /// What its hash is made to go wrong by; 0: nothing.
    twist: Arc<AtomicU64>,
}

impl Ledger {
    /// An empty one, which goes wrong by what `twist` says.
    pub(super) fn new(twist: Arc<AtomicU64>, effects: bool) -> Self {
        Self { effects, twist, ..Self::default() }
    }

    /// The commands that took effect.
    pub(super) fn entries(&self) -> &[u64] {
        &self.entries
    }

    /// A timer that fired though it was not pending or not due, and at what time.
    pub(super) fn wrong(&self) -> Option<(u64, Timestamp)> {
        self.wrong
    }

    /// Timers that fired.
    pub(super) fn fired(&self) -> u64 {
        self.fired
    }

    /// By its number a command schedules a timer, moves or cancels the last one, or tells the outside its place.
    fn use_effects(&mut self, context: &Context<'_>, number: u64) -> Result<(), Rejection> {
        let after = Nanos::MILLISECOND * (1 + number * 7 % 300);
        let due = Timestamp(context.time.0 + after);
        let last = self.pending.last_key_value().map(|(id, _)| *id);
        match (number % 4, last) {
            (0, _) => {
                context.schedule(number, due)?;
                self.pending.insert(number, due);
            }
            (1, Some(id)) => {
                context.schedule(id, due)?;
                self.pending.insert(id, due);
            }
            (2, Some(id)) => {
                context.cancel(id)?;
                self.pending.remove(&id);
            }
            _ => {
                context.emit(&number.to_le_bytes())?;
            }
        }
        Ok(())
    }

    /// Whether the command with this number is one that the service refuses.
    pub(super) fn refuses(number: u64) -> bool {
        (number & 0xFFFF_FFFF).is_multiple_of(REFUSED_EVERY)
    }

    /// The number of a command, in its first bytes.
    pub(super) fn number(command: &[u8]) -> Option<u64> {
        command.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }
}

impl Service for Ledger {
    fn name(&self) -> &'static str {
        "ledger"
    }
    fn begin(&mut self) {
        self.before = (self.entries.len(), self.hash);
        self.pending_before.clone_from(&self.pending);
    }
    fn keep(&mut self) {
        self.begin();
    }
    fn roll_back(&mut self) {
        let (length, hash) = self.before;
        self.entries.truncate(length);
        self.hash = hash;
        self.pending.clone_from(&self.pending_before);
    }
    fn apply(
        &mut self,
        context: &Context<'_>,
        command: &[u8],
        reply: &mut Reply<'_>,
    ) -> Result<(), Rejection> {
        let number = Self::number(command).ok_or(REFUSED)?;
        reply.write(&(self.entries.len() as u64).to_le_bytes())?;
        self.entries.push(number);
        self.hash = Fingerprint::new(self.hash).word(number).finish();
        if self.effects {
            self.use_effects(context, number)?;
        }
        if Self::refuses(number) { Err(REFUSED) } else { Ok(()) }
    }
    /// What fires must be pending and due; the outside is told.
    fn timer(&mut self, context: &Context<'_>, id: u64) -> Result<(), Rejection> {
        context.emit(&id.to_le_bytes())?;
        match self.pending.remove(&id) {
            Some(due) if due <= context.time => {}
            _ => self.wrong = self.wrong.or(Some((id, context.time))),
        }
        self.fired += 1;
        self.hash = Fingerprint::new(self.hash).word(id).word(context.time.0).finish();
        Ok(())
    }
    fn query(&self, _request: &[u8], reply: &mut Reply<'_>) -> Result<(), Rejection> {
        reply.write(&(self.entries.len() as u64).to_le_bytes())?;
        reply.write(&self.entries.last().copied().unwrap_or(0).to_le_bytes())
    }
    fn snapshot(&self, writer: &mut dyn Write) -> io::Result<()> {
        write_start(writer, MAGIC, VERSION)?;
        write_words(writer, &[self.entries.len() as u64, self.hash])?;
        write_words(writer, &self.entries)?;
        write_words(writer, &[self.fired, self.pending.len() as u64])?;
        self.pending.iter().try_for_each(|(id, due)| write_words(writer, &[*id, due.0]))
    }
    fn restore(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        read_start(reader, MAGIC, VERSION)?;
        let [count, hash] = read_words(reader)?;
        let mut entries = Vec::new();
        for _ in 0..count {
            let [number] = read_words(reader)?;
            entries.push(number);
        }
        let [fired, pending_count] = read_words(reader)?;
        let mut pending = BTreeMap::new();
        for _ in 0..pending_count {
            let [id, due] = read_words(reader)?;
            pending.insert(id, Timestamp(due));
        }
        let (twist, effects) = (Arc::clone(&self.twist), self.effects);
        *self = Self { entries, hash, pending, fired, ..Self::new(twist, effects) };
        self.begin();
        Ok(())
    }
    fn state_hash(&self) -> u64 {
        Fingerprint::new(self.hash ^ self.twist.load(Relaxed))
            .word(self.entries.len() as u64)
            .finish()
    }
}
