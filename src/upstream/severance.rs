//! The end of what still runs on an instance that is no longer wanted.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Whether an instance's streams are to end. Waiting for it costs something once for each stream that pauses;
/// asking is cheap.
#[derive(Debug, Default)]
pub(super) struct Severance {
    flag: AtomicBool,
    token: CancellationToken,
}

impl Severance {
    pub(super) fn order(&self) {
        self.flag.store(true, Relaxed);
        self.token.cancel();
    }

    pub(super) fn is_ordered(&self) -> bool {
        self.flag.load(Relaxed)
    }

    pub(super) fn ordered(&self) -> WaitForCancellationFutureOwned {
        self.token.clone().cancelled_owned()
    }
}
