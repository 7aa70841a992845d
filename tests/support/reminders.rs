//! A service that reminds: for tests of timers and events.

use std::io::{self, Read, Write};

use quorate::service::hash::Fingerprint;
use quorate::service::image::{read_words, write_words};
use quorate::service::{Context, Rejection, Reply, Service};
use quorate::types::{Nanos, Timestamp};

/// What is neither of its commands.
pub(crate) const NOT_A_COMMAND: Rejection = Rejection(1);

/// Counts what has fired, and tells the outside of each.
#[derive(Clone, Default, Debug)]
pub(crate) struct Reminders {
    fired: u64,
    before: u64,
}

/// Remind of `id` after so many milliseconds.
pub(crate) fn remind(id: u64, after_ms: u64) -> Vec<u8> {
    [&b"r"[..], &id.to_le_bytes(), &after_ms.to_le_bytes()].concat()
}

/// Do not remind of `id`.
pub(crate) fn cancel(id: u64) -> Vec<u8> {
    [&b"c"[..], &id.to_le_bytes()].concat()
}

/// Tell the outside.
pub(crate) fn say(text: &str) -> Vec<u8> {
    [b"s", text.as_bytes()].concat()
}

fn word(bytes: &[u8]) -> Result<u64, Rejection> {
    bytes.try_into().map(u64::from_le_bytes).map_err(|_| NOT_A_COMMAND)
}

impl Service for Reminders {
    fn name(&self) -> &'static str {
        "reminders"
    }
    fn begin(&mut self) {
        self.before = self.fired;
    }
    fn keep(&mut self) {}
    fn roll_back(&mut self) {
        self.fired = self.before;
    }
    fn apply(
        &mut self,
        context: &Context<'_>,
        command: &[u8],
        reply: &mut Reply<'_>,
    ) -> Result<(), Rejection> {
        match command.split_first() {
            Some((b'r', bytes)) if bytes.len() == 16 => {
                let (id, after) = (word(&bytes[..8])?, word(&bytes[8..])?);
                let due = context.time.0.saturating_add(after.saturating_mul(Nanos::MILLISECOND));
                context.schedule(id, Timestamp(due))
            }
            Some((b'c', bytes)) => {
                let pending = context.cancel(word(bytes)?)?;
                reply.write(&[u8::from(pending)])
            }
            Some((b's', text)) => {
                let number = context.emit(text)?;
                reply.write(&number.to_le_bytes())
            }
            _ => Err(NOT_A_COMMAND),
        }
    }
    fn timer(&mut self, context: &Context<'_>, id: u64) -> Result<(), Rejection> {
        self.fired += 1;
        context.emit(format!("fired {id}").as_bytes())?;
        Ok(())
    }
    fn query(&self, _: &[u8], reply: &mut Reply<'_>) -> Result<(), Rejection> {
        reply.write(&self.fired.to_le_bytes())
    }
    fn snapshot(&self, writer: &mut dyn Write) -> io::Result<()> {
        write_words(writer, &[self.fired])
    }
    fn restore(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        [self.fired] = read_words(reader)?;
        self.before = self.fired;
        Ok(())
    }
    fn state_hash(&self) -> u64 {
        Fingerprint::new(1).word(self.fired).finish()
    }
}
