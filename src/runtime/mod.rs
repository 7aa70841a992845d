//! The threads of a node, its configuration, and what wires them together.

mod admin;
mod carrier;
pub mod config;
mod control_dropped;
mod control_thread;
mod disk_desk;
pub mod engine;
pub mod environment;
pub mod events;
mod host_client;
mod host_reader;
pub mod idle;
mod ladder_desk;
mod lane_desk;
pub mod node;
mod outlook;
mod renewal;
mod retention;
mod scrub;
mod snapshots;
pub mod terminal;
mod threads;
mod watch;

pub use admin::ask;
pub use control_thread::{Ended, SourceError};
pub use engine::{Engine, EngineBuilder, EngineError, EngineStatus, ExecuteError, Executed};
pub use environment::{Environment, Host};
pub use host_client::{ConnectError, ConnectOptions, HostClient};
pub use host_reader::{HostReader, Read, ReadError};
pub use node::{Node, NodeError, NodeOptions, state_limits};
