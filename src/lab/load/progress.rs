//! How a load goes while it runs.

use std::time::{Duration, Instant};

/// What is known of a load that runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// When the load began: the moment that all moments of the result count from. `None`: not yet.
    pub began: Option<Instant>,
    /// Since it began.
    pub elapsed: Duration,
    /// Warming up and counted time together.
    pub total: Duration,
    /// Actions since the beginning, those of the warming up included.
    pub done: u64,
    pub failed: u64,
    pub lost: u64,
    /// Actions per second that ended of late.
    pub rate: f64,
    /// Milliseconds, of actions that ended of late; 0 without any.
    pub p99: f64,
}
