//! Who leads, and who says so: decisions without I/O.
//!
//! A control machine takes `handle(now, Input)` and is then drained with `poll()` until that returns `None`; it never reads
//! a clock, sends, writes or sleeps. [`election::Election`] is the one of a node.

pub mod constants;
pub mod disk;
pub mod election;
pub mod event;
pub mod hashes;
pub mod holdings;
pub mod lane;
pub mod membership;
pub mod message;
pub mod rejoin;
pub mod repair;
