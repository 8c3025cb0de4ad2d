//! Whether an instance can be connected to.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::Instance;
use crate::backoff::Backoff;
use crate::clock::unix_seconds;
use crate::upstream::fresh_check::UnprovenReason;

/// Pause after a failed connect: doubles from the first to the last.
const CONNECT_BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));

impl Instance {
    /// Whether connecting failed so recently that it is not tried again yet.
    pub fn is_backing_off(&self, now: Instant) -> bool {
        let retry_at = self.retry_at.load(Relaxed);
        retry_at != 0 && self.millis(now) < retry_at
    }

    /// A connection was made: the instance is there.
    pub fn connected(&self) {
        if self.connect_failures.load(Relaxed) != 0 {
            self.connect_failures.store(0, Relaxed);
            self.retry_at.store(0, Relaxed);
        }
        if self.refused.load(Relaxed) && self.refused.swap(false, Relaxed) {
            self.restarted.store(unix_seconds(), Relaxed);
        }
    }

    /// Nobody listens at its address: whatever it kept in memory is gone.
    pub fn connect_refused(&self) {
        self.refused.store(true, Relaxed);
    }

    /// Whether nobody listened at its address when it was last tried.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.load(Relaxed)
    }

    /// When it was first met again after nobody had listened at its address (Unix seconds); 0: that was never seen.
    pub fn restarted(&self) -> u64 {
        self.restarted.load(Relaxed)
    }

    /// Whether the last attempt to connect to it failed.
    pub fn is_unreachable(&self) -> bool {
        self.connect_failures.load(Relaxed) != 0
    }

    /// A connection could not be made: new requests leave the instance alone for a while, longer each time.
    /// Of many that fail together, one counts. True when the balancer must be told.
    pub fn connect_failed(&self, now: Instant, is_refused: bool) -> bool {
        if self.is_backing_off(now) {
            return false;
        }
        let why = if is_refused { UnprovenReason::Gone } else { UnprovenReason::Away };
        let is_news = self.doubts().is_none_or(|doubt| doubt < why);
        if is_news {
            self.doubt(why);
        }
        let failures = self.connect_failures.fetch_add(1, Relaxed);
        let pause = u64::try_from(CONNECT_BACKOFF.delay(failures).as_millis()).unwrap_or(u64::MAX);
        self.retry_at.store(self.millis(now).saturating_add(pause.max(1)), Relaxed);
        is_news && self.doubts().is_some()
    }
}
