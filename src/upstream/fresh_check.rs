//! Whether an instance with checks has been found good since there was reason to doubt it.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

use tokio::sync::Notify;

/// Why an instance may not be as good as its last check found it; the later ones are the stronger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum UnprovenReason {
    /// It was there before us, and no check has ended yet.
    Unknown = 1,
    /// It was away, or could not be connected to.
    Away = 2,
    /// Nobody listened at its address: what it kept in memory is gone.
    Gone = 3,
}

impl UnprovenReason {
    /// What is wrong, as long as no check has ended since; for people.
    pub(super) fn as_reason(self) -> &'static str {
        match self {
            UnprovenReason::Unknown => "no check has ended yet",
            UnprovenReason::Away => "it was away, and no check has ended since",
            UnprovenReason::Gone => "nobody listened at its address, and no check has ended since",
        }
    }
}

const NONE: u8 = 0;

/// Written by the health manager and by those who doubt.
#[derive(Debug, Default)]
pub(super) struct FreshCheck {
    /// Whether there are checks at all, without which nobody doubts.
    checked: AtomicBool,
    doubt: AtomicU8,
    doubted: Notify,
}

impl FreshCheck {
    /// Whether there are checks from now on; an instance that had none is in doubt until the first.
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

    /// False when there are no checks.
    pub(super) fn doubt(&self, why: UnprovenReason) -> bool {
        let is_checked = self.checked.load(Relaxed);
        if is_checked {
            self.doubt.fetch_max(why as u8, Relaxed);
            self.doubted.notify_one();
        }
        is_checked
    }

    /// True when there was doubt.
    pub(super) fn prove(&self) -> bool {
        self.doubt.swap(NONE, Relaxed) != NONE
    }

    pub(super) fn doubts(&self) -> Option<UnprovenReason> {
        match self.doubt.load(Relaxed) {
            NONE => None,
            1 => Some(UnprovenReason::Unknown),
            2 => Some(UnprovenReason::Away),
            _ => Some(UnprovenReason::Gone),
        }
    }

    /// Completes when there is new doubt, for one who waits. Cancel-safe.
    pub(super) async fn doubted(&self) {
        self.doubted.notified().await;
    }
}
