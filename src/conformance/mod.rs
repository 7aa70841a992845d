//! Whether an implementation of one's own keeps what the engine relies on: suites for one's own tests.
//!
//! | suite | of |
//! |---|---|
//! | [`service`] | a [`Service`](crate::service::Service) |
//! | [`network`] | a [`Network`](crate::stream::network::Network) |
//! | [`disk`] | a [`Disk`](crate::journal::Disk) |
//! | [`hot_tier`] | a [`HotTier`](crate::journal::HotTier) |
//! | `transport`, `storage` | the halves of an environment, all that they are made of included (feature `io`) |
//! | `control` | a network of control threads (feature `io`) |
//!
//! Each is a function `check` that returns the first rule that is broken, or what was tried, so that a test can see that it
//! was something. The project's own implementations are held to the same suites.

#[cfg(feature = "io")]
pub mod control;
pub mod disk;
pub mod hot_tier;
pub mod network;
pub mod service;
#[cfg(feature = "io")]
pub mod storage;
#[cfg(feature = "io")]
pub mod transport;
