//! What is known of the exchange on a connection where its bytes pass.
//!
//! hyper says that a connection has ended, but not whether a part of an answer had come before. What had not begun to be
//! answered on a connection that was used before may have crossed with the instance's decision to close it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is held as long as the instance is, or may be, at work on a request; dropping the last clone lets go of it.
pub type SlotShare = Arc<dyn fmt::Debug + Send + Sync>;

/// What a connection knows in common with its socket, which hyper has.
#[derive(Debug, Default)]
pub(super) struct SlotHold {
    heard: AtomicBool,
    claim: Mutex<Option<SlotShare>>,
}

impl SlotHold {
    /// A request is about to be sent, which `claim` is held for.
    pub(super) fn begin(&self, claim: Option<SlotShare>) {
        self.heard.store(false, Relaxed);
        if claim.is_some() {
            *self.held() = claim;
        }
    }

    /// A byte has come.
    pub(super) fn hear(&self) {
        self.heard.store(true, Relaxed);
    }

    /// Whether a byte has come since.
    pub(super) fn has_heard(&self) -> bool {
        self.heard.load(Relaxed)
    }

    /// What is still held when the connection ends, or when the answer has.
    pub(super) fn take_claim(&self) -> Option<SlotShare> {
        self.held().take()
    }

    fn held(&self) -> MutexGuard<'_, Option<SlotShare>> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
