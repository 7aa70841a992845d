//! The service of simulated groups: a list of the commands that took effect, in their order.
//!
//! Its answers say all that a checker wants to know: a command's place in that order, and for a query how many there are.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::io::{self, Read, Write};
use std::sync::Arc;

use crate::service::hash::Fingerprint;
use crate::service::image::{read_start, read_words, write_start, write_words};
use crate::service::{Context, Rejection, Reply, Service};

const MAGIC: [u8; 4] = *b"QSIM";
const VERSION: u32 = 1;
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
    /// What its hash is made to go wrong by; 0: nothing.
    twist: Arc<AtomicU64>,
}

impl Ledger {
    /// An empty one, which goes wrong by what `twist` says.
    pub(super) fn new(twist: Arc<AtomicU64>) -> Self {
        Self { twist, ..Self::default() }
    }

    /// The commands that took effect.
    pub(super) fn entries(&self) -> &[u64] {
        &self.entries
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
    }
    fn keep(&mut self) {
        self.begin();
    }
    fn roll_back(&mut self) {
        let (length, hash) = self.before;
        self.entries.truncate(length);
        self.hash = hash;
    }
    fn apply(
        &mut self,
        _context: &Context,
        command: &[u8],
        reply: &mut Reply<'_>,
    ) -> Result<(), Rejection> {
        let number = Self::number(command).ok_or(REFUSED)?;
        reply.write(&(self.entries.len() as u64).to_le_bytes())?;
        self.entries.push(number);
        self.hash = Fingerprint::new(self.hash).word(number).finish();
        if Self::refuses(number) { Err(REFUSED) } else { Ok(()) }
    }
    fn query(&self, _request: &[u8], reply: &mut Reply<'_>) -> Result<(), Rejection> {
        reply.write(&(self.entries.len() as u64).to_le_bytes())
    }
    fn snapshot(&self, writer: &mut dyn Write) -> io::Result<()> {
        write_start(writer, MAGIC, VERSION)?;
        write_words(writer, &[self.entries.len() as u64, self.hash])?;
        write_words(writer, &self.entries)
    }
    fn restore(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        read_start(reader, MAGIC, VERSION)?;
        let [count, hash] = read_words(reader)?;
        let mut entries = Vec::new();
        for _ in 0..count {
            let [number] = read_words(reader)?;
            entries.push(number);
        }
        let twist = Arc::clone(&self.twist);
        *self = Self { before: (entries.len(), hash), entries, hash, twist };
        Ok(())
    }
    fn state_hash(&self) -> u64 {
        Fingerprint::new(self.hash ^ self.twist.load(Relaxed))
            .word(self.entries.len() as u64)
            .finish()
    }
}
