//! The simulated world (feature `sim`): whole groups in which the shipped machines run, deterministically, through faults.
//!
//! [`run`] plays the world that a [`Plan`] describes. Time is virtual; every thread of every node is scheduled on its own,
//! with delays of its own, over the same mailboxes as on a host; the network loses, doubles, delays, changes and parts;
//! disks lose what was not synced; processes die and stand still; clocks are set. Checkers look after every step
//! ([`check::CHECKERS`]). When the faults end, the group must come back to work by itself. The same plan gives the same
//! run, event for event: [`Outcome::trace_hash`] says so.

mod acts;
pub mod check;
mod client;
mod clock;
mod coverage;
mod doors;
mod faults;
mod lane;
mod ledger;
mod machine;
mod mend;
mod naps;
mod nemesis;
mod paths;
mod plan;
mod reader;
mod replay;
mod retention;
#[cfg(test)]
mod scenarios;
mod steps;
mod stories;
mod strangers;
#[cfg(test)]
mod tests;
mod trace;
mod wire;
mod world;

pub use check::Violation;
pub use coverage::{Coverage, STATES};
pub use faults::Fault;
pub use plan::Plan;
pub use stories::Story;
pub use world::{Outcome, Pace, run};
