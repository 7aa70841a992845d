//! The reliable byte-range machine: what was sent, what is missing, who needs it again. No I/O; the caller moves bytes.
//!
//! [`Sender`] and [`Receiver`] know positions only. The same pair carries leader → followers (the log itself), client →
//! leader (commands) and leader → client (replies); on the last two the bytes lie in a [`lane`] buffer instead of the journal.

pub mod datagram;
pub mod network;
pub mod prng;
