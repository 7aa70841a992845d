//! Quorate: a replicated state machine engine for low-latency, trading-style deployments.
//!
//! A group of nodes keeps one ordered log. Commands of clients get one place in it, are copied to the other nodes by UDP
//! multicast or unicast with NAK repair, and take effect on every node once a quorum holds them.
//!
//! The shortest way in is a group of one node inside the program, [`Engine`]; the guide (`docs/GUIDE.md`) goes on from there.
//!
#![cfg_attr(feature = "io", doc = "```")]
#![cfg_attr(not(feature = "io"), doc = "```ignore")]
//! use quorate::Engine;
//! use quorate::service::Sequencer;
//! use std::time::Duration;
//!
//! let path = std::env::temp_dir().join(format!("quorate-lib-{}", std::process::id()));
//! let engine = Engine::open(&path, Sequencer::new())?;
//! let first = engine.execute(b"first", Duration::from_secs(10))?;
//! let second = engine.execute(b"second", Duration::from_secs(10))?;
//! assert!(first.sequence < second.sequence);
//! # drop(engine);
//! # std::fs::remove_dir_all(&path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Map
//!
//! | module | what |
//! |---|---|
//! | [`limits`], [`types`], [`error`] | bounds, quantities, exit codes |
//! | [`frame`] | the one layout of a log entry |
//! | [`journal`] | segments, writer, reader, recovery, durability |
//! | [`stream`] | the reliable byte-range machine |
//! | [`session`] | exactly-once table and replies |
//! | [`service`] | what users write, and the built-in services |
//! | [`link`] | messages between the threads of a node |
//! | [`replica`] | leader and follower of one term |
//! | [`control`] | who leads; no I/O |
//! | [`client`] | the client library |
//! | [`conformance`] | suites for implementations of one's own |
//! | `io`, `runtime` | the host and the threads (feature `io`) |
//!
//! Everything but `io` and `runtime` is free of I/O, clocks, threads and randomness: `cargo build --no-default-features`
//! builds exactly that.

#[cfg(not(target_pointer_width = "64"))]
compile_error!("quorate runs on 64-bit hosts: positions are 64-bit and segments are mapped");

pub mod client;
pub mod conformance;
pub mod control;
pub mod error;
pub mod frame;
#[cfg(feature = "io")]
pub mod io;
pub mod journal;
pub mod limits;
pub mod link;
pub mod replica;
#[cfg(feature = "io")]
pub mod runtime;
pub mod service;
pub mod session;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod stream;
pub mod types;

#[cfg(feature = "io")]
pub use runtime::Engine;
