//! Connect results of an instance: backoff, refusals and restarts.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::Instance;
use crate::backoff::Backoff;
use crate::clock::unix_seconds;
use crate::upstream::fresh_check::UnprovenReason;

/// Pause after a failed connect. It doubles with each failure from the first value to the last.
const CONNECT_BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));

impl Instance {
    /// Whether connects are suspended at `now` because of a recent failure.
    pub fn is_backing_off(&self, now: Instant) -> bool {
        let retry_at = self.retry_at.load(Relaxed);
        retry_at != 0 && self.millis(now) < retry_at
    }

    /// Records a successful connect. Ends the backoff.
    pub fn connected(&self) {
        if self.connect_failures.load(Relaxed) != 0 {
            self.connect_failures.store(0, Relaxed);
            self.retry_at.store(0, Relaxed);
        }
        if self.refused.load(Relaxed) && self.refused.swap(false, Relaxed) {
            self.restarted.store(unix_seconds(), Relaxed);
        }
    }

    /// Records that a connect was refused: no process listens at the address, so state that the instance kept
    /// in memory is lost.
    pub fn connect_refused(&self) {
        self.refused.store(true, Relaxed);
    }

    /// Whether the last connect was refused.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.load(Relaxed)
    }

    /// When the instance first accepted a connection again after a refused connect (Unix seconds); 0 = never.
    pub fn restarted(&self) -> u64 {
        self.restarted.load(Relaxed)
    }

    /// Whether the last connect failed.
    pub fn is_unreachable(&self) -> bool {
        self.connect_failures.load(Relaxed) != 0
    }

    /// Records a failed connect. New requests avoid the instance for a pause that grows with each failure.
    /// Failures during a pause do not count, so many simultaneous failures count once. Returns true if the
    /// balancer must be refreshed.
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
