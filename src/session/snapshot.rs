//! The table in a snapshot. Numbers are little-endian; sessions stand in the order of their ids, so equal tables have
//! equal snapshots.
//!
//! ```text
//! "QSES" | version u32 | sessions_max u64 | in_flight_max u64 | reply_bytes_total u64 | session_reply_bytes u64 | count u64
//! per session:    id | nonce | timeout | last | forgotten_through | active                        (u64 each)
//! per kept reply: sequence u64 | answer u32 | length u32 | bytes     (client sequences forgotten_through + 1 ..= last)
//! state hash u64
//! ```

use std::io::{self, Read, Write};

use super::replies::Answer;
use super::table::{SessionInfo, Sessions};
use crate::limits::REPLY_BYTES_MAX;
use crate::service::image::{
    ImageError, read_limit, read_start, read_words, require, write_start, write_words,
};
use crate::types::{ClientSequence, Sequence, SessionId, Timestamp};

const MAGIC: [u8; 4] = *b"QSES";
const VERSION: u32 = 1;

impl Sessions {
    /// Writes the replicated part.
    ///
    /// # Errors
    /// The writer's.
    pub fn snapshot(&self, writer: &mut dyn Write) -> io::Result<()> {
        write_start(writer, MAGIC, VERSION)?;
        for (_, limit) in self.limit_fields() {
            write_words(writer, &[limit])?;
        }
        write_words(writer, &[self.count() as u64])?;
        for info in self.iter() {
            let SessionInfo { id, nonce, timeout, last, forgotten_through, active } = info;
            write_words(writer, &[id.0, nonce, timeout, last.0, forgotten_through.0, active.0])?;
            for command in forgotten_through.0 + 1..=last.0 {
                let reply =
                    self.reply(id, ClientSequence(command)).expect("replies above are kept");
                write_words(
                    writer,
                    &[
                        reply.sequence.0,
                        u64::from(reply.answer.to_u32()) | (reply.length as u64) << 32,
                    ],
                )?;
                reply.chunks.into_iter().try_for_each(|chunk| writer.write_all(chunk))?;
            }
        }
        write_words(writer, &[self.state_hash()])
    }
    /// Replaces the table by one that [`Sessions::snapshot`] wrote. After an error the table is empty.
    ///
    /// # Errors
    /// The reader's, or `InvalidData` with an [`ImageError`].
    pub fn restore(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        self.clear();
        self.read(reader).inspect_err(|_| self.clear())
    }

    fn read(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        read_start(reader, MAGIC, VERSION)?;
        for (name, limit) in self.limit_fields() {
            read_limit(reader, name, limit)?;
        }
        let [count] = read_words(reader)?;
        require(count <= self.limits().sessions_max as u64, "session count", count)?;
        let mut before = 0;
        let mut bytes = Vec::new();
        for _ in 0..count {
            before = self.read_session(reader, before, &mut bytes)?;
        }
        let [found] = read_words(reader)?;
        let computed = self.state_hash();
        if found == computed { Ok(()) } else { Err(ImageError::Hash { found, computed }.into()) }
    }
    /// Reads one session, whose id lies above `before`; returns its id.
    fn read_session(
        &mut self,
        reader: &mut dyn Read,
        before: u64,
        bytes: &mut Vec<u8>,
    ) -> io::Result<u64> {
        let [id, nonce, timeout, last, forgotten_through, active] = read_words(reader)?;
        require(id > before, "session id", id)?;
        require(self.find_nonce(nonce).is_none(), "session nonce", nonce)?;
        require(last < u64::MAX, "last client sequence", last)?;
        let kept = last.checked_sub(forgotten_through);
        let kept_fits = kept.is_some_and(|kept| kept <= self.limits().in_flight_max as u64);
        require(kept_fits, "forgotten client sequence", forgotten_through)?;
        let session = SessionId(id);
        let forgotten_through = ClientSequence(forgotten_through);
        let info = SessionInfo {
            id: session,
            nonce,
            timeout,
            last: forgotten_through,
            forgotten_through,
            active: Timestamp(active),
        };
        self.insert(info).map_err(|_| ImageError::Field { name: "session count", found: id })?;
        for command in forgotten_through.0 + 1..=last {
            let [sequence, word] = read_words(reader)?;
            let (answer, length) = (word as u32, (word >> 32) as usize);
            let answer = Answer::from_u32(answer)
                .ok_or(ImageError::Field { name: "answer", found: u64::from(answer) })?;
            let fits = length <= REPLY_BYTES_MAX && self.fits(session, length);
            require(fits, "reply length", length as u64)?;
            bytes.resize(length, 0);
            reader.read_exact(bytes)?;
            let command = ClientSequence(command);
            self.record(session, command, answer, Sequence(sequence), info.active, bytes);
        }
        Ok(id)
    }
    fn limit_fields(&self) -> [(&'static str, u64); 4] {
        let limits = self.limits();
        [
            ("sessions_max", limits.sessions_max as u64),
            ("in_flight_max", limits.in_flight_max as u64),
            ("reply_bytes_total", limits.reply_bytes_total as u64),
            ("session_reply_bytes", limits.session_reply_bytes as u64),
        ]
    }
}
