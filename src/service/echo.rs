//! The service that answers each command with the command: for measuring, and for testing everything around it.

use std::io::{self, Read, Write};

use super::hash::Fingerprint;
use super::image::{read_start, read_words, write_start, write_words};
use super::{Context, Rejection, Reply, Service};

const MAGIC: [u8; 4] = *b"QECH";
const VERSION: u32 = 1;

/// Echoes. Its state is how many commands and bytes it has seen, and a running hash of them in their order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Echo {
    seen: Seen,
    before: Seen,
}

/// What was seen so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// Commands.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Hash of them, in their order.
    pub hash: u64,
}

impl Echo {
    /// One that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// What it has seen.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen
    }
}

impl Service for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }
    fn begin(&mut self) {
        self.before = self.seen;
    }
    fn keep(&mut self) {
        self.before = self.seen;
    }
    fn roll_back(&mut self) {
        self.seen = self.before;
    }
    fn apply(
        &mut self,
        _context: &Context<'_>,
        command: &[u8],
        reply: &mut Reply<'_>,
    ) -> Result<(), Rejection> {
        reply.write(command)?;
        self.seen.count += 1;
        self.seen.bytes += command.len() as u64;
        self.seen.hash = Fingerprint::new(self.seen.hash).bytes(command).finish();
        Ok(())
    }
    /// Answers any question with count, bytes and hash (three `u64`).
    fn query(&self, _request: &[u8], reply: &mut Reply<'_>) -> Result<(), Rejection> {
        let Seen { count, bytes, hash } = self.seen;
        [count, bytes, hash].iter().try_for_each(|word| reply.write(&word.to_le_bytes()))
    }
    fn snapshot(&self, writer: &mut dyn Write) -> io::Result<()> {
        write_start(writer, MAGIC, VERSION)?;
        write_words(writer, &[self.seen.count, self.seen.bytes, self.seen.hash])
    }
    fn restore(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        read_start(reader, MAGIC, VERSION)?;
        let [count, bytes, hash] = read_words(reader)?;
        self.seen = Seen { count, bytes, hash };
        self.before = self.seen;
        Ok(())
    }
    fn state_hash(&self) -> u64 {
        let Seen { count, bytes, hash } = self.seen;
        Fingerprint::new(0xEC40).word(count).word(bytes).word(hash).finish()
    }
}
