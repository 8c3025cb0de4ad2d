//! How long it takes until a change is heard of.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::telemetry::histogram::Histogram;

/// The delays of a process; written a few times per second.
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
