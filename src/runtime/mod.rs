//! The threads of a node, its configuration, and what wires them together.

pub mod config;
pub mod idle;
pub mod terminal;
