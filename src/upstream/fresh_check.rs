//! Whether an instance needs a successful health check before it gets new requests.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

use tokio::sync::Notify;

/// Why the last health check may no longer hold. Later variants are stronger and replace earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum UnprovenReason {
    /// The instance existed before this process started, and no health check has finished yet.
    Unknown = 1,
    /// The instance was away or could not be connected to.
    Away = 2,
    /// A connect was refused: no process listened at the address, so state in the instance's memory is lost.
    Gone = 3,
}

impl UnprovenReason {
    /// The reason as text for people. It holds as long as no health check has finished since.
    pub(super) fn as_reason(self) -> &'static str {
        match self {
            UnprovenReason::Unknown => "no check has ended yet",
            UnprovenReason::Away => "it was away, and no check has ended since",
            UnprovenReason::Gone => "nobody listened at its address, and no check has ended since",
        }
    }
}

const NONE: u8 = 0;

/// Set by connect failures and operator changes, cleared by the health manager.
#[derive(Debug, Default)]
pub(super) struct FreshCheck {
    /// Whether health checks are configured. Without them no check is ever required.
    checked: AtomicBool,
    doubt: AtomicU8,
    doubted: Notify,
}

impl FreshCheck {
    /// Sets whether health checks are configured. If they were not before, one must succeed first, for the
    /// reason `at_first`.
    pub(super) fn set_checked(&self, checked: bool, at_first: UnprovenReason) {
        let before = self.checked.swap(checked, Relaxed);
        match (before, checked) {
            (false, true) => {
                self.doubt(at_first);
            }
            (true, false) => self.doubt.store(NONE, Relaxed),
            _ => {}
        }
    }

    /// Requires a successful health check. Returns false if none is configured.
    pub(super) fn doubt(&self, why: UnprovenReason) -> bool {
        let is_checked = self.checked.load(Relaxed);
        if is_checked {
            self.doubt.fetch_max(why as u8, Relaxed);
            self.doubted.notify_one();
        }
        is_checked
    }

    /// Records a successful health check. Returns true if one was required.
    pub(super) fn prove(&self) -> bool {
        self.doubt.swap(NONE, Relaxed) != NONE
    }

    /// Why a successful health check is required; `None` if it is not.
    pub(super) fn doubts(&self) -> Option<UnprovenReason> {
        match self.doubt.load(Relaxed) {
            NONE => None,
            1 => Some(UnprovenReason::Unknown),
            2 => Some(UnprovenReason::Away),
            _ => Some(UnprovenReason::Gone),
        }
    }

    /// Completes when a health check is newly required. Only one waiter is woken. Cancel-safe.
    pub(super) async fn doubted(&self) {
        self.doubted.notified().await;
    }
}
