//! A lock-free rate limiter, shared by all workers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

/// One second in microseconds.
const SECOND: u64 = 1_000_000;

/// The generic cell rate algorithm (ITU-T I.371) with a burst of one second.
#[derive(Debug)]
pub(super) struct RateLimiter {
    born: Instant,
    /// Microseconds after `born`, up to which the rate is used up.
    handed_out: AtomicU64,
}

impl Default for RateLimiter {
    fn default() -> Self {
        RateLimiter { born: Instant::now(), handed_out: AtomicU64::new(0) }
    }
}

impl RateLimiter {
    /// Takes one permit at a rate of `per_second`. Returns false if the rate is used up. A rate of 0 counts
    /// as 1.
    pub(super) fn allows(&self, per_second: u32) -> bool {
        let now = u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_add(SECOND);
        let each = SECOND / u64::from(per_second.max(1));
        let next = |handed_out: u64| {
            let begun = handed_out.max(now - SECOND);
            (begun + each <= now).then_some(begun + each)
        };
        self.handed_out.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_rate_and_one_second_of_burst() {
        let pace = RateLimiter::default();
        let take = || (0..1_000).filter(|_| pace.allows(10)).count();
        assert_eq!(take(), 10);
        assert_eq!(take(), 0);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(take(), 5);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(take(), 10);
    }
}
