//! Whether an instance with checks has been found good since there was reason to doubt it.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};

use tokio::sync::Notify;

/// Why an instance may not be as good as its last check found it; the later ones are the stronger ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Doubt {
    /// It was there before us, and no check has ended yet.
    Unknown = 1,
    /// It was away, or could not be connected to.
    Away = 2,
    /// Nobody listened at its address: what it kept in memory is gone.
    Gone = 3,
}

impl Doubt {
    /// What is wrong, as long as no check has ended since; for people.
    pub(super) fn as_reason(self) -> &'static str {
        match self {
            Doubt::Unknown => "no check has ended yet",
            Doubt::Away => "it was away, and no check has ended since",
            Doubt::Gone => "nobody listened at its address, and no check has ended since",
        }
    }
}

const NONE: u8 = 0;

/// Written by the warden and by those who doubt.
#[derive(Debug, Default)]
pub(super) struct Proof {
    /// Whether there are checks at all, without which nobody doubts.
    checked: AtomicBool,
    doubt: AtomicU8,
    doubted: Notify,
}

impl Proof {
    /// Whether there are checks from now on; an instance that had none is in doubt until the first.
    pub(super) fn set_checked(&self, checked: bool, at_first: Doubt) {
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
    pub(super) fn doubt(&self, why: Doubt) -> bool {
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

    pub(super) fn doubts(&self) -> Option<Doubt> {
        match self.doubt.load(Relaxed) {
            NONE => None,
            1 => Some(Doubt::Unknown),
            2 => Some(Doubt::Away),
            _ => Some(Doubt::Gone),
        }
    }

    /// Completes when there is new doubt, for one who waits. Cancel-safe.
    pub(super) async fn doubted(&self) {
        self.doubted.notified().await;
    }
}
