//! A service with somebody looking over its shoulder: what it does is its own, what is seen of it is the watcher's.

use std::io::{self, Read, Write};

use quorate::service::{CloseReason, Context, Rejection, Reply, Service};

/// Looks on.
pub(crate) trait Watch: Send {
    /// A command is about to be applied.
    fn command(&mut self, context: &Context<'_>, command: &[u8]);
    /// Turned into the service's state hash: 0 leaves it as it is.
    fn twist(&self) -> u64 {
        0
    }
}

/// The service and its watcher.
#[derive(Clone)]
pub(crate) struct Watched<S, W> {
    pub(crate) service: S,
    pub(crate) watch: W,
}

impl<S: Service, W: Watch> Service for Watched<S, W> {
    fn name(&self) -> &'static str {
        self.service.name()
    }
    fn begin(&mut self) {
        self.service.begin();
    }
    fn keep(&mut self) {
        self.service.keep();
    }
    fn roll_back(&mut self) {
        self.service.roll_back();
    }
    fn apply(
        &mut self,
        context: &Context<'_>,
        command: &[u8],
        reply: &mut Reply<'_>,
    ) -> Result<(), Rejection> {
        self.watch.command(context, command);
        self.service.apply(context, command, reply)
    }
    fn query(&self, request: &[u8], reply: &mut Reply<'_>) -> Result<(), Rejection> {
        self.service.query(request, reply)
    }
    fn session_opened(&mut self, context: &Context<'_>) {
        self.service.session_opened(context);
    }
    fn session_closed(&mut self, context: &Context<'_>, why: CloseReason) {
        self.service.session_closed(context, why);
    }
    fn timer(&mut self, context: &Context<'_>, id: u64) -> Result<(), Rejection> {
        self.service.timer(context, id)
    }
    fn snapshot(&self, writer: &mut dyn Write) -> io::Result<()> {
        self.service.snapshot(writer)
    }
    fn restore(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        self.service.restore(reader)
    }
    fn state_hash(&self) -> u64 {
        self.service.state_hash() ^ self.watch.twist()
    }
}
