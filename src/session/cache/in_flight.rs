//! One look-up that several requests wait for.

use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use tokio::sync::Notify;

use super::super::StoreError;
use super::{Known, Timestamp};

/// What a look-up came to.
pub(crate) type Found = Result<Known, StoreError>;

/// A look-up under way.
#[derive(Debug, Default)]
pub(crate) struct InFlightLookup {
    /// `None`: whoever asked has gone.
    found: OnceLock<Option<Found>>,
    landed: Notify,
    /// A [`Timestamp`]: when the store was last asked.
    departed: AtomicU64,
    /// A change arrived since then: the answer may be from before.
    invalidated: AtomicBool,
}

impl InFlightLookup {
    /// Waits for the outcome; `None` when the look-up was given up before it had one. All who wait get it at once;
    /// may be dropped at any time.
    pub(crate) async fn outcome(&self) -> Option<Found> {
        loop {
            let mut landed = pin!(self.landed.notified());
            landed.as_mut().enable();
            if let Some(found) = self.found.get() {
                return found.clone();
            }
            landed.await;
        }
    }

    /// Notes that the store is asked now; whatever changed before is in its answer.
    pub(super) fn depart(&self, now: Timestamp) {
        self.departed.store(now.as_micros(), SeqCst);
        self.invalidated.store(false, SeqCst);
    }

    /// Whether the answer will be good enough for a request that comes now: no change is known since the store
    /// was asked, which was `oldest` or later.
    pub(super) fn takes_more(&self, oldest: Timestamp) -> bool {
        !self.invalidated.load(SeqCst) && self.departed.load(SeqCst) >= oldest.as_micros()
    }

    pub(super) fn land(&self, found: Option<Found>) {
        // Only the first outcome counts.
        let _ = self.found.set(found);
        self.landed.notify_waiters();
    }

    pub(super) fn invalidate(&self) {
        self.invalidated.store(true, SeqCst);
    }

    /// Whether a change arrived since the store was asked, or since the last call.
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
