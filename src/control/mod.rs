//! Who leads, and who says so: decisions without I/O.
//!
//! A control machine takes `handle(now, Input)` and is then drained with `poll()` until that returns `None`; it never reads
//! a clock, sends, writes or sleeps. [`fixed::FixedLeader`] gives the lead to one node of the member list; elections take
//! its place behind the same inputs and outputs.

pub mod constants;
pub mod event;
pub mod fixed;
pub mod hashes;
pub mod message;
