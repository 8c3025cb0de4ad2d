//! Single flight: one store look-up whose result several requests wait for.

use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use tokio::sync::Notify;

use super::super::StoreError;
use super::{Known, Timestamp};

/// The result of a look-up.
pub(crate) type Found = Result<Known, StoreError>;

/// A look-up in flight.
#[derive(Debug, Default)]
pub(crate) struct InFlightLookup {
    /// `None` inside: the owner was dropped without a result.
    found: OnceLock<Option<Found>>,
    landed: Notify,
    /// A [`Timestamp`]: the start of the last store read.
    departed: AtomicU64,
    /// An invalidation arrived since then, so the read may return the old value.
    invalidated: AtomicBool,
}

impl InFlightLookup {
    /// Waits for the result. Returns `None` if the owner was dropped without one. All waiting callers are
    /// woken at once. Cancel safe.
    pub(crate) async fn outcome(&self) -> Option<Found> {
        loop {
            // Registered before `found` is checked, so that no wake-up in between is lost.
            let mut landed = pin!(self.landed.notified());
            landed.as_mut().enable();
            if let Some(found) = self.found.get() {
                return found.clone();
            }
            landed.await;
        }
    }

    /// Records the start of a store read at `now` and clears the invalidation flag: changes made before are
    /// part of the read.
    pub(super) fn depart(&self, now: Timestamp) {
        self.departed.store(now.as_micros(), SeqCst);
        self.invalidated.store(false, SeqCst);
    }

    /// Returns whether a new request may join: no invalidation has arrived since the store read began, and
    /// the read began at `oldest` or later.
    pub(super) fn takes_more(&self, oldest: Timestamp) -> bool {
        !self.invalidated.load(SeqCst) && self.departed.load(SeqCst) >= oldest.as_micros()
    }

    pub(super) fn land(&self, found: Option<Found>) {
        // Only the first result is kept.
        let _ = self.found.set(found);
        self.landed.notify_waiters();
    }

    pub(super) fn invalidate(&self) {
        self.invalidated.store(true, SeqCst);
    }

    /// Returns whether an invalidation arrived since the store read began or since the last call, and clears
    /// the flag.
    pub(super) fn take_invalidation(&self) -> bool {
        self.invalidated.swap(false, SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_look_up_takes_more_until_a_change_arrives_or_it_is_too_old() {
        let (flight, second) = (InFlightLookup::default(), Duration::from_secs(1));
        let (now, later) = (Timestamp::START.after(second), Timestamp::START.after(2 * second));
        flight.depart(now);
        assert!(flight.takes_more(now.before(second)) && flight.takes_more(now));
        assert!(!flight.takes_more(later));
        flight.invalidate();
        assert!(!flight.takes_more(now));
        flight.depart(later);
        assert!(flight.takes_more(later));
    }
}
