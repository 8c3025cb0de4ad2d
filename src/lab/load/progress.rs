//! Progress of a running load.

use std::time::{Duration, Instant};

/// The current progress.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// The start of the load; all times of the result count from it. `None`: not started yet.
    pub began: Option<Instant>,
    /// Since the start.
    pub elapsed: Duration,
    /// Warm-up and counted time together.
    pub total: Duration,
    /// Completed actions, including those of the warm-up.
    pub done: u64,
    pub failed: u64,
    pub lost: u64,
    /// Actions per second in the last complete slice.
    pub rate: f64,
    /// Milliseconds, in the last complete slice; 0 without actions.
    pub p99: f64,
}
