//! What users write: a deterministic state machine that the group runs in identical copies.
//!
//! [`echo`] and [`sequencer`] are the small built-in services, [`book`] is the reference;
//! [`conformance`](crate::conformance::service) checks a service of one's own.

// `side` and `size` are the words of the trade.
#[allow(clippy::similar_names)]
pub mod book;
pub mod built_in;
pub mod describe;
pub mod echo;
pub mod effects;
#[allow(clippy::similar_names)]
pub mod generator;
pub mod hash;
pub mod image;
pub mod index;
pub mod line;
#[allow(clippy::similar_names)]
pub mod lobster;
pub mod outbox;
pub mod sequencer;
pub mod timers;

pub use book::Book;
pub use built_in::{BuiltIn, ServiceKind};
pub use echo::Echo;
pub use effects::{Context, Effects};
pub use sequencer::Sequencer;

/// A deterministic state machine. Runs on the core thread of every node, after commit, in log order.
///
/// Nothing in it may depend on anything but its own state and what it is given: no clock, no randomness, no addresses, no
/// iteration order of hashed collections. After [`Service::restore`] or construction it should not allocate.
pub trait Service: Send {
    /// Its name in tools: what decodes its commands.
    fn name(&self) -> &'static str;
    /// Version of its rules. All nodes apply one entry with the same version.
    fn version(&self) -> u32 {
        1
    }
    /// Starts a unit that takes effect as a whole: one command, or all commands of a batch.
    fn begin(&mut self);
    /// The unit since [`Service::begin`] stands.
    fn keep(&mut self);
    /// Undoes everything since [`Service::begin`], without a trace.
    fn roll_back(&mut self);
    /// Applies one command; writes its reply.
    ///
    /// # Errors
    /// A rejection: the engine rolls the unit back and tells the client.
    fn apply(
        &mut self,
        context: &Context<'_>,
        command: &[u8],
        reply: &mut Reply<'_>,
    ) -> Result<(), Rejection>;
    /// Answers a question without changing anything.
    ///
    /// # Errors
    /// A rejection.
    fn query(&self, request: &[u8], reply: &mut Reply<'_>) -> Result<(), Rejection>;
    /// A client's session was opened.
    fn session_opened(&mut self, _context: &Context<'_>) {}
    /// A client's session was closed: cancel what should not outlive it. It is one step of the core, during which this
    /// node does nothing else: bound what one session can own.
    fn session_closed(&mut self, _context: &Context<'_>, _why: CloseReason) {}
    /// A timer fires that [`Context::schedule`] scheduled: on every node, at one place in the log, once, in a unit of its own.
    ///
    /// # Errors
    /// A rejection: the engine rolls the unit back, and the timer fires again a little later
    /// ([`TIMER_RETRY_NS`](timers::TIMER_RETRY_NS)). Nobody else is told.
    fn timer(&mut self, _context: &Context<'_>, _id: u64) -> Result<(), Rejection> {
        Ok(())
    }
    /// This node now leads, or no longer does. Local: must not change replicated state.
    fn role_changed(&mut self, _role: Role) {}
    /// Writes the whole state, so that [`Service::restore`] brings it back.
    ///
    /// # Errors
    /// The writer's.
    fn snapshot(&self, writer: &mut dyn std::io::Write) -> std::io::Result<()>;
    /// Replaces the state by one that [`Service::snapshot`] wrote.
    ///
    /// # Errors
    /// The reader's, or `InvalidData` for what is not such a state.
    fn restore(&mut self, reader: &mut dyn std::io::Read) -> std::io::Result<()>;
    /// A fingerprint of the state, equal on all nodes at one sequence. Called every few hundred entries: keep it running.
    fn state_hash(&self) -> u64;
}

/// What a node is in the current term.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Appends.
    Leader,
    /// Copies.
    Follower,
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum CloseReason {
    /// The client asked.
    Asked = 1,
    /// It fell silent.
    Silent = 2,
    /// An operator.
    Operator = 3,
    /// It broke the protocol.
    Protocol = 4,
}

impl CloseReason {
    /// The reason with this number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Asked,
            2 => Self::Silent,
            3 => Self::Operator,
            4 => Self::Protocol,
            _ => return None,
        })
    }
}

/// A command that is refused by the service. The code is the service's own; codes from [`Rejection::ENGINE`] up are the engine's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rejection(pub u16);

impl Rejection {
    /// Codes from here up belong to the engine.
    pub const ENGINE: u16 = 0xFF00;
    /// A batch whose lengths do not add up.
    pub const MALFORMED_BATCH: Self = Self(0xFF01);
    /// The reply does not fit.
    pub const REPLY_TOO_LONG: Self = Self(0xFF02);
    /// The group has no room to keep the reply.
    pub const REPLY_SPACE: Self = Self(0xFF03);

    /// As many timers are pending as may be.
    pub const TIMERS_FULL: Self = Self(0xFF04);
    /// The unit changes more timers than can be undone.
    pub const UNIT_TIMERS_FULL: Self = Self(0xFF05);
    /// As many events wait for delivery as may: nobody takes them.
    pub const EVENTS_FULL: Self = Self(0xFF06);
    /// The event is too long.
    pub const EVENT_TOO_LONG: Self = Self(0xFF07);

    /// What a code of the engine means, in words.
    #[must_use]
    pub const fn engine_text(self) -> Option<&'static str> {
        match self {
            Self::MALFORMED_BATCH => Some("the lengths in the batch do not add up"),
            Self::REPLY_TOO_LONG => Some("the reply does not fit"),
            Self::REPLY_SPACE => Some("the group has no room to keep the reply"),
            Self::TIMERS_FULL => Some("as many timers are pending as may be"),
            Self::UNIT_TIMERS_FULL => Some("changes more timers at once than can be undone"),
            Self::EVENTS_FULL => Some("as many events wait for delivery as may"),
            Self::EVENT_TOO_LONG => Some("the event is too long"),
            _ => None,
        }
    }
}

/// Where a service writes its reply: a buffer of fixed size, filled from the front.
#[derive(Debug)]
pub struct Reply<'a> {
    buffer: &'a mut [u8],
    length: usize,
}

impl<'a> Reply<'a> {
    /// An empty reply over `buffer`.
    #[must_use]
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, length: 0 }
    }
    /// Takes the next `length` bytes, to be written in place.
    ///
    /// # Errors
    /// [`Rejection::REPLY_TOO_LONG`] when they do not fit.
    pub fn claim(&mut self, length: usize) -> Result<&mut [u8], Rejection> {
        let end = self.length.checked_add(length).filter(|&end| end <= self.buffer.len());
        let end = end.ok_or(Rejection::REPLY_TOO_LONG)?;
        let start = core::mem::replace(&mut self.length, end);
        Ok(&mut self.buffer[start..end])
    }
    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`Rejection::REPLY_TOO_LONG`] when they do not fit.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Rejection> {
        self.claim(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }
    /// Has `write` write a reply of its own behind what is here, its length in front of it (`u32`, little-endian).
    ///
    /// # Errors
    /// That of `write`, or [`Rejection::REPLY_TOO_LONG`] when not even the length fits.
    pub fn nested(
        &mut self,
        write: impl FnOnce(&mut Reply<'_>) -> Result<(), Rejection>,
    ) -> Result<(), Rejection> {
        let start = self.length;
        let front = self.claim(size_of::<u32>())?.len();
        let mut inner = Reply::new(&mut self.buffer[start + front..]);
        write(&mut inner)?;
        let length = inner.length;
        let word = u32::try_from(length).map_err(|_| Rejection::REPLY_TOO_LONG)?;
        self.buffer[start..start + front].copy_from_slice(&word.to_le_bytes());
        self.length += length;
        Ok(())
    }
    /// What was written.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
    /// Forgets what was written behind the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}
