//! Leader and follower of one term, over journal and stream: sequencing, acknowledgements, commit, apply, replies.
//!
//! [`Core`] is what the core thread runs: `step(now)` does a bounded amount of each kind of work and returns how much. A
//! term and a role are *given* to it by control; it obeys and reports facts back. It does no I/O of its own: datagrams
//! come and go through [`crate::stream::network::Network`], memory through [`crate::journal::SegmentMemory`], everything
//! else through the mailboxes of [`crate::link`].

mod apply;
#[cfg(test)]
mod client_tests;
mod clients;
mod core;
mod counters;
mod cut;
mod early;
mod effects;
pub mod entering;
mod follower;
mod forward;
#[cfg(test)]
mod forward_tests;
pub mod ladder;
mod leader;
mod local;
#[cfg(test)]
mod local_tests;
pub mod matching;
#[cfg(test)]
mod matching_tests;
mod observe;
mod pull;
#[cfg(test)]
mod pull_tests;
pub mod quorum;
mod replay;
pub mod retainer;
#[cfg(test)]
mod role_tests;
mod settings;
pub mod snapshotter;
pub mod take_over;
#[cfg(test)]
pub(crate) mod tests;
mod text;

pub use self::core::{Core, Deadlines, Now, Start};
pub use self::observe::{Doing, Observation};
pub use self::replay::{Place, ReplayLog, Replayed};
pub use self::settings::{CoreSettings, Peer};
