//! State of the present exchange that a connection shares with its socket.
//!
//! hyper reports that a connection has ended, but not whether a part of a response was received before. That
//! is needed for retries: if no byte of the response arrived on a reused connection, the request may have
//! crossed with the instance's decision to close the connection.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Held while the instance processes, or may process, a request. Dropping the last clone releases it.
pub type SlotShare = Arc<dyn fmt::Debug + Send + Sync>;

/// Shared by a connection and its socket, which is owned by hyper.
#[derive(Debug, Default)]
pub(super) struct SlotHold {
    heard: AtomicBool,
    claim: Mutex<Option<SlotShare>>,
}

impl SlotHold {
    /// Starts an exchange. `claim` is held for it.
    pub(super) fn begin(&self, claim: Option<SlotShare>) {
        self.heard.store(false, Relaxed);
        if claim.is_some() {
            *self.held() = claim;
        }
    }

    /// Records that bytes were received.
    pub(super) fn hear(&self) {
        self.heard.store(true, Relaxed);
    }

    /// Whether bytes were received since the exchange began.
    pub(super) fn has_heard(&self) -> bool {
        self.heard.load(Relaxed)
    }

    /// Takes the claim, at the end of the response or of the connection.
    pub(super) fn take_claim(&self) -> Option<SlotShare> {
        self.held().take()
    }

    fn held(&self) -> MutexGuard<'_, Option<SlotShare>> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
