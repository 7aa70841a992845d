//! The replicated session table: each command takes effect once, each reply is kept until the client has it.
//!
//! [`Sessions`] is the table; [`State`] joins it to a service and applies committed entries: the whole of what a node's
//! state is. Both are deterministic and have all of their memory from the start. The rules:
//!
//! * A command is applied if its client sequence is one more than the last one applied.
//! * At or below the last, the answer is the stored reply: the service does not see the command again.
//! * Further on, something is missing: the command is refused and nothing is consumed. It can be sent again.
//! * A reply is kept until a later command of the client says that it has it. A client that leaves more than
//!   `in_flight_max` replies unconfirmed loses the oldest; [`Verdict::Forgotten`] says so if it asks.
//! * When a reply does not fit in the space for replies, the command is rolled back and its answer is the rejection
//!   [`REPLY_SPACE`](crate::service::Rejection::REPLY_SPACE), which takes no space. The space is a group constant and is
//!   counted in chunks, so every node comes to the same answer.
//! * The reply to a batch holds the replies to its commands as the batch holds the commands: each behind its length, a
//!   little-endian `u32` ([`batch_items`](crate::frame::payload::batch_items) splits both). A batch that is rejected has the
//!   code of the command that was, and no reply.

mod replies;
mod snapshot;
mod state;
mod table;
#[cfg(test)]
mod tests;

pub use replies::{Answer, Chunks, StoredReply};
pub use state::{Applied, Outcome, State, StateLimits};
pub use table::{SessionInfo, SessionLimits, Sessions, SessionsFull, Verdict};
