//! The host: mapping, files, sockets, clock, CPUs. The only module with system calls.

mod batch;
pub mod clock;
pub mod cpu;
pub mod faults;
pub mod interface;
pub mod multicast;
pub mod network_error;
pub mod network_settings;
mod option;
pub mod port;
mod ring;
pub mod udp;
pub mod wake;
