//! Consistency checks: samples cached sessions and compares them with the store.
//!
//! No difference is expected, because every change is either pushed as an invalidation or ends the
//! generation. A difference is a defect of vestibule or of the store, or a change that the store does not
//! report, such as one made by a Redis module.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Timestamp;

/// Minimum time between two checks of one session. Only a session in use is checked.
pub(crate) const PERIOD: Duration = Duration::from_secs(10);
/// Minimum time between two checks of the process: at most 20 extra store reads per second.
const PACE: Duration = Duration::from_millis(50);

/// Rate limit and counters of the checks of a process.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// A [`Timestamp`]: the next check may start from here on.
    next: AtomicU64,
    made: AtomicU64,
    mismatches: AtomicU64,
}

impl Checks {
    /// Claims a check. Returns true at most once per [`PACE`] among all callers.
    pub(crate) fn claim(&self, now: Timestamp) -> bool {
        let next = self.next.load(Relaxed);
        let is_free = now.as_micros() >= next;
        is_free && self.next.compare_exchange(next, now.after(PACE).as_micros(), Relaxed, Relaxed).is_ok()
    }

    pub(crate) fn count(&self, is_mismatch: bool) {
        self.made.fetch_add(1, Relaxed);
        self.mismatches.fetch_add(is_mismatch.into(), Relaxed);
    }

    /// Returns the number of checks, and of those that found a difference.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.made.load(Relaxed), self.mismatches.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_keep_their_pace_and_are_counted() {
        let checks = Checks::default();
        let at = |millis| Timestamp::START.after(Duration::from_millis(millis));
        let claimed: Vec<bool> = [100, 101, 149, 150, 151].map(|millis| checks.claim(at(millis))).into();
        assert_eq!(claimed, [true, false, false, true, false]);
        checks.count(false);
        checks.count(true);
        assert_eq!(checks.counts(), (2, 1));
    }
}
