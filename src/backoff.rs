//! Growing, jittered pauses between attempts.

use std::time::Duration;

/// Pauses that double from `first` to `last`, each shortened by a random share of up to one half, so that
/// many who failed together do not come back together.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    first: Duration,
    last: Duration,
}

impl Backoff {
    pub const fn new(first: Duration, last: Duration) -> Self {
        Backoff { first, last }
    }

    /// The pause after the failure number `attempt`, counted from 0.
    pub fn delay(&self, attempt: u32) -> Duration {
        let longest = self.first.saturating_mul(1 << attempt.min(30)).min(self.last);
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_last_and_keep_at_least_half() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for (attempt, longest) in
            [(0, 100), (1, 200), (2, 400), (3, 800), (4, 1000), (5, 1000), (u32::MAX, 1000)]
        {
            let longest = Duration::from_millis(longest);
            for _ in 0..100 {
                let pause = backoff.delay(attempt);
                assert!(pause <= longest && pause >= longest / 2, "{attempt}: {pause:?}");
            }
        }
    }
}
