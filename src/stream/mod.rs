//! The reliable byte-range machine: what was sent, what is missing, who needs it again. No I/O; the caller moves bytes.
//!
//! [`Sender`] and [`Receiver`] know positions only. The same pair carries leader → followers (the log itself), client →
//! leader (commands) and leader → client (replies); on the last two the bytes lie in a [`lane`] buffer instead of the journal.

pub mod datagram;
mod deadlines;
pub mod endpoint;
pub mod flow;
mod gaps;
mod index;
pub mod lane;
pub mod lanes;
pub mod local;
pub mod message;
pub mod nak;
pub mod network;
pub mod pool;
pub mod prng;
pub mod receiver;
pub mod redirect;
pub mod round_trip;
pub mod routes;
pub mod sender;

pub use endpoint::{EndSettings, LaneEnd, LaneError};
pub use flow::{Pace, Report};
pub use lane::LaneRefusal;
pub use lanes::{LaneIndex, LanesSettings, NodeLanes};
pub use nak::Medium;
pub use receiver::{DataOutcome, Receiver, ReceiverOutput, ReceiverSettings};
pub use sender::{NakOutcome, Sender, SenderSettings, Transmit};
