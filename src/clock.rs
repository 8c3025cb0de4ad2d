//! Wall clock time, and a timer that is cheap to reset for every request.

use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, Sleep, sleep_until};

/// Seconds since the Unix epoch; 0 if the system clock is before it.
pub fn unix_seconds() -> u64 {
    unix_time().as_secs()
}

/// Time since the Unix epoch; zero if the system clock is before it.
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Time since the Unix epoch without jumps: the system clock at the first call plus the monotonic time since
/// then. Compare it only with its own values, because it does not follow later corrections of the system
/// clock.
pub fn steady_unix_time() -> Duration {
    static START: LazyLock<(Duration, std::time::Instant)> =
        LazyLock::new(|| (unix_time(), std::time::Instant::now()));
    START.0 + START.1.elapsed()
}

/// A timeout that is reset often. [`arm`](Self::arm) to a later deadline only stores the deadline; the
/// underlying timer fires at the old one and is then moved. A connection keeps one `LazyTimer` for its whole
/// life.
#[derive(Debug)]
pub struct LazyTimer {
    sleep: Pin<Box<Sleep>>,
    deadline: Instant,
}

impl LazyTimer {
    /// Creates a timer that expires `after` from `now`.
    pub fn new(now: Instant, after: Duration) -> Self {
        let deadline = now + after;
        LazyTimer { sleep: Box::pin(sleep_until(deadline)), deadline }
    }

    /// Moves the deadline to `after` from `now`, which may be later or earlier.
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
