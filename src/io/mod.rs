//! The host: mapping, files, sockets, clock, CPUs. The only module with system calls.

pub mod process;
