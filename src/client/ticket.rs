//! What proves that a session is one's own, and where it stands: enough for another client to go on with it.

use core::fmt;
use core::str::FromStr;

use crate::types::{ClientSequence, SessionId};

/// Lanes of one life of a session, at most: the next life begins so much later.
const LANES_PER_LIFE: u64 = 1 << 32;

/// Of one session. As text it is one word: `session-nonce-epoch-next`, each in hexadecimal digits.
///
/// Whoever has it can act in the name of the session, so it is to be kept from other people. Two clients that use it at once take
/// the lane from each other: the later one keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionTicket {
    /// The session.
    pub(super) session: SessionId,
    /// What it was opened with, which nobody else knows.
    pub(super) nonce: u64,
    /// The last lane that the client asked for.
    pub(super) epoch: u64,
    /// The first command without an answer, or else the next one.
    pub(super) next: ClientSequence,
}

impl SessionTicket {
    /// The session.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }
    /// The number of the command that is to be sent first: the first one without an answer, or else the next one.
    #[must_use]
    pub fn next(&self) -> ClientSequence {
        self.next
    }
    /// As the next client has it: its lanes are newer than all those of the one before.
    pub(super) fn next_life(self) -> Self {
        Self { epoch: Self::later(self.epoch), ..self }
    }
    /// A lane of another life.
    pub(super) fn later(epoch: u64) -> u64 {
        epoch.saturating_add(LANES_PER_LIFE)
    }
}

impl fmt::Debug for SessionTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The nonce is nobody's business.
        let (session, next) = (self.session, self.next);
        f.debug_struct("SessionTicket")
            .field("session", &session)
            .field("next", &next)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for SessionTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { session, nonce, epoch, next } = self;
        write!(f, "{:x}-{nonce:x}-{epoch:x}-{:x}", session.0, next.0)
    }
}

impl FromStr for SessionTicket {
    type Err = BadTicket;
    fn from_str(text: &str) -> Result<Self, BadTicket> {
        let mut words = text.split('-').map(|word| u64::from_str_radix(word, 16));
        let mut word = || words.next().and_then(Result::ok).ok_or(BadTicket);
        let (session, nonce, epoch, next) = (word()?, word()?, word()?, word()?);
        if words.next().is_some() || session == 0 || nonce == 0 || next == 0 {
            return Err(BadTicket);
        }
        Ok(Self { session: SessionId(session), nonce, epoch, next: ClientSequence(next) })
    }
}

/// A text that is no ticket of a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BadTicket;

impl fmt::Display for BadTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this is no ticket of a session")
    }
}

impl core::error::Error for BadTicket {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_comes_back_from_its_text_and_shows_its_secret_nowhere_else() {
        let (session, next) = (SessionId(3), ClientSequence(5));
        let ticket = SessionTicket { session, nonce: u64::MAX, epoch: 0xAB, next };
        assert_eq!(ticket.to_string(), "3-ffffffffffffffff-ab-5");
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
        assert!(!format!("{ticket:?}").contains("1844674407370955"), "{ticket:?}");
        for text in ["", "3-1-1", "3-1-1-1-1", "0-1-1-1", "3-0-1-1", "3-1-1-0", "3-x-1-1", "3--1-1"]
        {
            assert_eq!(text.parse::<SessionTicket>(), Err(BadTicket), "{text}");
        }
    }

    #[test]
    fn the_lanes_of_the_next_life_are_newer() {
        let ticket: SessionTicket = "1-1-5-1".parse().expect("one");
        assert!(ticket.next_life().epoch > ticket.epoch + 1_000_000);
        assert_eq!(SessionTicket::later(u64::MAX), u64::MAX);
    }
}
