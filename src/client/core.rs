//! The client as the program sees it.

use core::net::SocketAddr;

use super::outbox::Place;
use super::session::Session;
use super::settings::{ClientSettings, ClientSettingsError};
use super::ticket::SessionTicket;
use super::{Answer, ClientCounters, ClientState, CloseCause, Refusal, Request};
use crate::stream::message::RequestKind;
use crate::stream::network::Network;
use crate::types::{ClientSequence, Nanos, SessionId};

/// Batches of datagrams taken in one poll.
const BATCHES_MAX: usize = 8;

/// A client of a group.
#[derive(Debug)]
pub struct Client<N> {
    network: N,
    session: Session,
}

impl<N: Network> Client<N> {
    /// A client that begins to look for the leader at its first [`Client::poll`].
    ///
    /// # Errors
    /// The rule that the settings break.
    pub fn new(settings: ClientSettings, network: N) -> Result<Self, ClientSettingsError> {
        settings.check()?;
        Ok(Self { network, session: Session::new(settings) })
    }
    /// Where it is.
    #[must_use]
    pub fn state(&self) -> ClientState {
        self.session.state()
    }
    /// Its session, once it has one.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        (self.session.id.0 > 0).then_some(self.session.id)
    }
    /// What another client needs to go on with its session: what this one has no answer to when the ticket is taken, that one
    /// sends again. To be kept from other people. None before there is a session, and when it is known to have ended.
    #[must_use]
    pub fn ticket(&self) -> Option<SessionTicket> {
        self.session.ticket()
    }
    /// The node that it exchanges datagrams with, while it has a lane: the leader, or one that passes them on.
    #[must_use]
    pub fn node(&self) -> Option<SocketAddr> {
        self.session.is_open().then(|| self.session.end.peer())
    }
    /// Since when the nodes that it reaches say that there is no quorum, in the time that it is polled with.
    #[must_use]
    pub fn no_quorum_since(&self) -> Option<Nanos> {
        self.session.no_quorum
    }
    /// Since when the leader has turned this client away for want of room. What was sent before waits.
    #[must_use]
    pub fn no_space_since(&self) -> Option<Nanos> {
        self.session.no_space
    }
    /// Requests without an answer.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.session.outbox.unanswered()
    }
    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> &ClientCounters {
        &self.session.counters
    }
    /// The network, to look at.
    #[must_use]
    pub fn network(&self) -> &N {
        &self.network
    }

    /// Takes room for a command of `bytes` bytes, to be written in place and then given its number by [`Claim::commit`].
    ///
    /// # Errors
    /// [`Refusal`]: nothing was taken.
    pub fn try_claim(&mut self, bytes: usize) -> Result<Claim<'_>, Refusal> {
        self.session.claim(bytes, RequestKind::Command)
    }
    /// Sends a command.
    ///
    /// # Errors
    /// [`Refusal`]: nothing was sent.
    pub fn send(&mut self, command: &[u8]) -> Result<ClientSequence, Refusal> {
        let mut claim = self.try_claim(command.len())?;
        claim.copy_from_slice(command);
        Ok(claim.commit())
    }
    /// Sends several commands that take effect together or not at all, under one number.
    ///
    /// # Errors
    /// [`Refusal`]: nothing was sent.
    pub fn send_batch(&mut self, commands: &[&[u8]]) -> Result<ClientSequence, Refusal> {
        let bytes = commands.iter().map(|command| size_of::<u32>() + command.len()).sum();
        let mut claim = self.session.claim(bytes, RequestKind::Batch)?;
        let mut rest = &mut claim[..];
        for command in commands {
            // A command longer than u32 can say was refused above.
            let length = (command.len() as u32).to_le_bytes();
            for part in [&length[..], command] {
                let (now, behind) = rest.split_at_mut(part.len());
                now.copy_from_slice(part);
                rest = behind;
            }
        }
        Ok(claim.commit())
    }
    /// Asks a question that changes nothing. Its answer stands in no order with those to commands.
    ///
    /// # Errors
    /// [`Refusal`]: nothing was sent.
    pub fn query(&mut self, question: &[u8]) -> Result<Request, Refusal> {
        let mut claim = self.session.claim(question.len(), RequestKind::Query)?;
        claim.copy_from_slice(question);
        Ok(claim.put())
    }

    /// Receives, hands answers to `handler` (those to commands in the order of their numbers), and sends what is due.
    /// Returns how many datagrams it received and lanes it served: 0 means idle.
    pub fn poll(&mut self, now: Nanos, mut handler: impl FnMut(Answer<'_>)) -> usize {
        let mut work = 0;
        for _ in 0..BATCHES_MAX {
            let count = self.network.poll();
            for index in 0..count {
                let (from, bytes) = self.network.datagram(index);
                let ask = self.session.on_datagram(now, from, bytes);
                if let Some(ask) = ask {
                    self.session.say_hello(now, ask, &mut self.network);
                }
            }
            work += count;
            self.session.deliver(now, &mut handler);
            if count == 0 {
                break;
            }
        }
        work + self.session.tick(now, &mut self.network, &mut handler)
    }
    /// Sends what is due, without receiving.
    pub fn flush(&mut self, now: Nanos) {
        self.session.transmit(now, &mut self.network);
    }
    /// When [`Client::poll`] has something to do, if nothing arrives before. 0: now.
    #[must_use]
    pub fn deadline(&self) -> Nanos {
        self.session.deadline()
    }

    /// Takes no more requests; ends the session once everything is answered. Go on polling until
    /// [`ClientState::Closed`].
    pub fn close(&mut self, now: Nanos) {
        self.session.closing.get_or_insert(now);
    }
    /// Waits no longer: everything unanswered ends as [`Outcome::Unknown`](super::Outcome::Unknown), and the
    /// client is closed. The session itself
    /// ends by its time-out; until then [`Client::ticket`] lets another client ask what became of them.
    pub fn give_up(&mut self, mut handler: impl FnMut(Answer<'_>)) {
        self.session.end_with(CloseCause::GaveUp, &mut handler);
    }
}

/// Room for a request, to be written in place. Dropped without [`Claim::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct Claim<'a> {
    session: &'a mut Session,
    place: Place,
    kind: RequestKind,
}

impl<'a> Claim<'a> {
    pub(super) fn new(session: &'a mut Session, place: Place, kind: RequestKind) -> Self {
        Self { session, place, kind }
    }
    /// It is written: it gets its number, and goes out with the next [`Client::poll`] or [`Client::flush`].
    #[allow(clippy::must_use_candidate)] // the number is needed only by those who keep track
    pub fn commit(self) -> ClientSequence {
        match self.put() {
            Request::Command(sequence) => sequence,
            Request::Query(_) => unreachable!("queries are put, not committed"),
        }
    }
    fn put(self) -> Request {
        let Self { session, place, kind } = self;
        session.put(place, kind)
    }
}

impl core::ops::Deref for Claim<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.session.outbox.payload(self.place)
    }
}
impl core::ops::DerefMut for Claim<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.session.outbox.payload_mut(self.place)
    }
}
