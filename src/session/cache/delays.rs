//! Delay between a write to the store and the invalidation for it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::telemetry::histogram::Histogram;

/// Histogram of the delays of a process. A mutex is enough: it is written once per heartbeat, a few times per
/// second.
#[derive(Debug, Default)]
pub(crate) struct Delays(Mutex<Histogram>);

impl Delays {
    pub(crate) fn observe(&self, delay: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).observe(delay);
    }

    pub(super) fn all(&self) -> Histogram {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
