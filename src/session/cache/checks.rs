//! Looking whether what is kept is what the store has, now and then.
//!
//! Nothing should be found: every change is reported, or ends the generation. What is found nevertheless is a defect,
//! of ours or of the store, or a change that the store does not report, as a module may make it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Timestamp;

/// A session that is in use is looked at this often at most.
pub(crate) const PERIOD: Duration = Duration::from_secs(10);
/// Between two looks of a process: at most 20 look-ups per second.
const PACE: Duration = Duration::from_millis(50);

/// The looks of a process.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// A [`Timestamp`]: when the next look is free.
    next: AtomicU64,
    made: AtomicU64,
    mismatches: AtomicU64,
}

impl Checks {
    /// Whether a look is free at `now`; says so once per pace.
    pub(crate) fn claim(&self, now: Timestamp) -> bool {
        let next = self.next.load(Relaxed);
        let is_free = now.as_micros() >= next;
        is_free && self.next.compare_exchange(next, now.after(PACE).as_micros(), Relaxed, Relaxed).is_ok()
    }

    pub(crate) fn count(&self, is_mismatch: bool) {
        self.made.fetch_add(1, Relaxed);
        self.mismatches.fetch_add(is_mismatch.into(), Relaxed);
    }

    /// Looks made, and those that found something else in the store.
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
