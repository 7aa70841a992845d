//! Who wakes whom.

use std::sync::Arc;

/// Wakes a thread that may sleep. Cheap when it does not; callers limit how often they do it.
pub trait Wake: Send + Sync + core::fmt::Debug {
    /// Wakes it.
    fn wake(&self);
}

/// Wakes nobody: for threads that never sleep, and tests.
#[derive(Clone, Copy, Debug)]
pub struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

/// Whom a core wakes.
#[derive(Clone, Debug)]
pub struct CoreWakers {
    /// Control: there is a fact for it.
    pub control: Arc<dyn Wake>,
    /// Sync: there are bytes for it.
    pub sync: Arc<dyn Wake>,
}
