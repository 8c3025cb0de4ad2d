//! One look-up that several requests wait for.

use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tokio::sync::Notify;

use super::super::StoreError;
use super::Known;

/// What a look-up came to.
pub(crate) type Found = Result<Known, StoreError>;

/// A look-up under way.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    found: OnceLock<Found>,
    landed: Notify,
    /// A change arrived since the store was last asked: its answer may be from before.
    invalidated: AtomicBool,
}

impl Flight {
    /// Waits for the outcome. All who wait get it at once; may be dropped at any time.
    pub(crate) async fn outcome(&self) -> Found {
        loop {
            let mut landed = pin!(self.landed.notified());
            landed.as_mut().enable();
            if let Some(found) = self.found.get() {
                return found.clone();
            }
            landed.await;
        }
    }

    pub(super) fn land(&self, found: Found) {
        // Only the first outcome counts.
        let _ = self.found.set(found);
        self.landed.notify_waiters();
    }

    pub(super) fn invalidate(&self) {
        self.invalidated.store(true, SeqCst);
    }

    /// Whether a change arrived since the last call.
    pub(super) fn take_invalidation(&self) -> bool {
        self.invalidated.swap(false, SeqCst)
    }
}
