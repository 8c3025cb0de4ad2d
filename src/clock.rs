//! Timers that cost nothing per request, and the time that other machines know.

use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, Sleep, sleep_until};

/// Seconds since 1970; 0 when the system's clock is before that.
pub fn unix_seconds() -> u64 {
    unix_time().as_secs()
}

/// Time since 1970; zero when the system's clock is before that.
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Time since 1970 by the system's clock as it was when this was first called, and what has passed since: it makes no
/// jumps, and is only compared with itself.
pub fn steady_unix_time() -> Duration {
    static START: LazyLock<(Duration, std::time::Instant)> =
        LazyLock::new(|| (unix_time(), std::time::Instant::now()));
    START.0 + START.1.elapsed()
}

/// A timeout that is armed again and again: arming only notes the new deadline, and the one timer behind
/// it is moved when it fires early. A connection keeps one for its whole life.
#[derive(Debug)]
pub struct LazyTimer {
    sleep: Pin<Box<Sleep>>,
    deadline: Instant,
}

impl LazyTimer {
    /// A timer that expires `after` from `now`.
    pub fn new(now: Instant, after: Duration) -> Self {
        let deadline = now + after;
        LazyTimer { sleep: Box::pin(sleep_until(deadline)), deadline }
    }

    /// Moves the deadline to `after` from `now`, later or earlier.
    pub fn arm(&mut self, now: Instant, after: Duration) {
        self.deadline = now + after;
        if self.deadline < self.sleep.deadline() {
            self.sleep.as_mut().reset(self.deadline);
        }
    }

    /// Ready once the deadline has passed.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if Instant::now() >= self.deadline {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(self.deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test(start_paused = true)]
    async fn only_the_last_deadline_counts() {
        let start = Instant::now();
        let mut timer = LazyTimer::new(start, Duration::from_secs(1));
        timer.arm(start, Duration::from_secs(10));
        poll_fn(|cx| timer.poll_expired(cx)).await;
        assert!(start.elapsed() >= Duration::from_secs(10));
        assert!(start.elapsed() < Duration::from_millis(10_010));

        let now = Instant::now();
        timer.arm(now, Duration::from_secs(60));
        timer.arm(now, Duration::from_secs(2));
        poll_fn(|cx| timer.poll_expired(cx)).await;
        assert!(now.elapsed() < Duration::from_millis(2_010));
    }
}
