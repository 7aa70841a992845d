//! The service that only orders: commands are opaque, and what they mean is the business of the processes that tail the
//! committed log.

use std::io::{self, Read, Write};

use super::hash::Fingerprint;
use super::image::{read_start, read_words, write_start, write_words};
use super::{Context, Rejection, Reply, Service};

const MAGIC: [u8; 4] = *b"QSEQ";
const VERSION: u32 = 1;

/// Orders. The reply to a command is its sequence, a little-endian `u64`. Its state is how many it has ordered, and which
/// was the last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sequencer {
    ordered: u64,
    last: u64,
    before: (u64, u64),
}

impl Sequencer {
    /// One that has ordered nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Commands ordered so far.
    #[must_use]
    pub fn ordered(&self) -> u64 {
        self.ordered
    }
}

impl Service for Sequencer {
    fn name(&self) -> &'static str {
        "sequencer"
    }
    fn begin(&mut self) {
        self.before = (self.ordered, self.last);
    }
    fn keep(&mut self) {
        self.before = (self.ordered, self.last);
    }
    fn roll_back(&mut self) {
        (self.ordered, self.last) = self.before;
    }
    fn apply(
        &mut self,
        context: &Context<'_>,
        _command: &[u8],
        reply: &mut Reply<'_>,
    ) -> Result<(), Rejection> {
        reply.write(&context.sequence.0.to_le_bytes())?;
        self.ordered += 1;
        self.last = context.sequence.0;
        Ok(())
    }
    /// Answers any question with how many it has ordered, and the last one's sequence (two `u64`).
    fn query(&self, _request: &[u8], reply: &mut Reply<'_>) -> Result<(), Rejection> {
        reply.write(&self.ordered.to_le_bytes())?;
        reply.write(&self.last.to_le_bytes())
    }
    fn snapshot(&self, writer: &mut dyn Write) -> io::Result<()> {
        write_start(writer, MAGIC, VERSION)?;
        write_words(writer, &[self.ordered, self.last])
    }
    fn restore(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        read_start(reader, MAGIC, VERSION)?;
        [self.ordered, self.last] = read_words(reader)?;
        self.before = (self.ordered, self.last);
        Ok(())
    }
    fn state_hash(&self) -> u64 {
        Fingerprint::new(0x5E90).word(self.ordered).word(self.last).finish()
    }
}
