//! The services that come with the programs, as one type: which one runs is a setting, not a generic parameter of the node.

use core::fmt;
use core::str::FromStr;
use std::io::{self, Read, Write};

use super::book::{Book, BookLimits, describe, text};
use super::describe::{Description, Value};
use super::line::LineError;
use super::{CloseReason, Context, Echo, Rejection, Reply, Role, Sequencer, Service, book};

/// Which built-in service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ServiceKind {
    /// [`Book`].
    Book,
    /// [`Echo`].
    Echo,
    /// [`Sequencer`].
    Sequencer,
}

/// A name that is none of theirs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownService {
    /// As found.
    pub name: String,
}

impl fmt::Display for UnknownService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no service is called {:?}: book, echo or sequencer", self.name)
    }
}

impl core::error::Error for UnknownService {}

impl FromStr for ServiceKind {
    type Err = UnknownService;

    fn from_str(name: &str) -> Result<Self, UnknownService> {
        let kind = Self::ALL.into_iter().find(|kind| kind.name() == name);
        kind.ok_or_else(|| UnknownService { name: name.to_owned() })
    }
}

impl fmt::Display for ServiceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ServiceKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Book, Self::Echo, Self::Sequencer];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Book => "book",
            Self::Echo => "echo",
            Self::Sequencer => "sequencer",
        }
    }
    /// Reads a line of text as a command and appends its bytes to `target`; `false` when the line is none. To `echo` and
    /// `sequencer` every line is a command, without its line end; `book`'s are in [`book::text`].
    ///
    /// # Errors
    /// Where the line is wrong, and what would be right.
    pub fn encode(self, number: u64, line: &[u8], target: &mut Vec<u8>) -> Result<bool, LineError> {
        match self {
            Self::Book => text::encode_command(number, line, target),
            Self::Echo | Self::Sequencer => {
                target.extend_from_slice(without_end(line));
                Ok(true)
            }
        }
    }
    /// Reads a line of text as a question and appends its bytes to `target`.
    ///
    /// # Errors
    /// Where the line is wrong, and what would be right.
    pub fn encode_query(
        self,
        number: u64,
        line: &[u8],
        target: &mut Vec<u8>,
    ) -> Result<(), LineError> {
        match self {
            Self::Book => text::encode_query(number, line, target),
            Self::Echo | Self::Sequencer => {
                target.extend_from_slice(without_end(line));
                Ok(())
            }
        }
    }
    /// A command in words.
    #[must_use]
    pub fn describe_command(self, bytes: &[u8]) -> Description {
        match self {
            Self::Book => describe::describe_command(bytes),
            Self::Echo | Self::Sequencer => Description::of_bytes(bytes),
        }
    }
    /// The reply to a command that was applied, or to a question, in words.
    #[must_use]
    pub fn describe_reply(self, bytes: &[u8]) -> Description {
        match self {
            Self::Book => describe::describe_reply(bytes),
            Self::Echo => Description::of_bytes(bytes),
            Self::Sequencer => match <[u8; 8]>::try_from(bytes) {
                Ok(sequence) => {
                    let sequence = u64::from_le_bytes(sequence);
                    let fields = vec![("sequence", Value::Number(sequence))];
                    Description { text: sequence.to_string(), fields }
                }
                Err(_) => Description::of_bytes(bytes),
            },
        }
    }
    /// A rejection in words.
    #[must_use]
    pub fn describe_rejection(self, rejection: Rejection) -> String {
        let own = match self {
            Self::Book => book::command::rejection_text(rejection),
            Self::Echo | Self::Sequencer => None,
        };
        let known = own.or(rejection.engine_text());
        known.map_or_else(|| format!("rejection {}", rejection.0), str::to_owned)
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A built-in service.
#[derive(Clone, Debug)]
pub enum BuiltIn {
    /// The order book.
    Book(Box<Book>),
    /// The echo.
    Echo(Echo),
    /// The sequencer.
    Sequencer(Sequencer),
}

impl BuiltIn {
    /// A service of this kind, in its first state.
    #[must_use]
    pub fn new(kind: ServiceKind, book: BookLimits) -> Self {
        match kind {
            ServiceKind::Book => Self::Book(Box::new(Book::new(book))),
            ServiceKind::Echo => Self::Echo(Echo::new()),
            ServiceKind::Sequencer => Self::Sequencer(Sequencer::new()),
        }
    }
    /// Which one it is.
    #[must_use]
    pub const fn kind(&self) -> ServiceKind {
        match self {
            Self::Book(_) => ServiceKind::Book,
            Self::Echo(_) => ServiceKind::Echo,
            Self::Sequencer(_) => ServiceKind::Sequencer,
        }
    }
}

macro_rules! each {
    ($self:expr, $service:ident => $call:expr) => {
        match $self {
            Self::Book($service) => $call,
            Self::Echo($service) => $call,
            Self::Sequencer($service) => $call,
        }
    };
}

impl Service for BuiltIn {
    fn name(&self) -> &'static str {
        each!(self, service => service.name())
    }
    fn version(&self) -> u32 {
        each!(self, service => service.version())
    }
    fn begin(&mut self) {
        each!(self, service => service.begin());
    }
    fn keep(&mut self) {
        each!(self, service => service.keep());
    }
    fn roll_back(&mut self) {
        each!(self, service => service.roll_back());
    }
    fn apply(
        &mut self,
        context: &Context<'_>,
        command: &[u8],
        reply: &mut Reply<'_>,
    ) -> Result<(), Rejection> {
        each!(self, service => service.apply(context, command, reply))
    }
    fn query(&self, request: &[u8], reply: &mut Reply<'_>) -> Result<(), Rejection> {
        each!(self, service => service.query(request, reply))
    }
    fn session_opened(&mut self, context: &Context<'_>) {
        each!(self, service => service.session_opened(context));
    }
    fn session_closed(&mut self, context: &Context<'_>, why: CloseReason) {
        each!(self, service => service.session_closed(context, why));
    }
    fn timer(&mut self, context: &Context<'_>, id: u64) -> Result<(), Rejection> {
        each!(self, service => service.timer(context, id))
    }
    fn role_changed(&mut self, role: Role) {
        each!(self, service => service.role_changed(role));
    }
    fn snapshot(&self, writer: &mut dyn Write) -> io::Result<()> {
        each!(self, service => service.snapshot(writer))
    }
    fn restore(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        each!(self, service => service.restore(reader))
    }
    fn state_hash(&self) -> u64 {
        each!(self, service => service.state_hash())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused_by_name() {
        for kind in ServiceKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            let book = BookLimits {
                orders_max: 16,
                levels_max: 16,
                changes_max: 16,
                session_orders_max: 16,
            };
            let service = BuiltIn::new(kind, book);
            assert_eq!((service.kind(), service.name()), (kind, kind.name()));
        }
        let error = "boook".parse::<ServiceKind>().expect_err("no such service");
        assert_eq!(error.to_string(), "no service is called \"boook\": book, echo or sequencer");
    }

    #[test]
    fn lines_and_replies_of_the_opaque_services_are_what_they_are() {
        let mut bytes = Vec::new();
        assert_eq!(ServiceKind::Echo.encode(1, b"hello\r\n", &mut bytes), Ok(true));
        assert_eq!(ServiceKind::Echo.describe_command(&bytes).text, "hello");
        let reply = ServiceKind::Sequencer.describe_reply(&7u64.to_le_bytes());
        assert_eq!((reply.text.as_str(), reply.to_json().as_str()), ("7", r#"{"sequence": 7}"#));
    }

    #[test]
    fn rejections_have_words() {
        let words = |kind: ServiceKind, code| kind.describe_rejection(Rejection(code));
        assert_eq!(words(ServiceKind::Book, 12), "the order would cross the book");
        assert_eq!(words(ServiceKind::Echo, 12), "rejection 12");
        let space = words(ServiceKind::Sequencer, Rejection::REPLY_SPACE.0);
        assert_eq!(space, "the group has no room to keep the reply");
    }
}
