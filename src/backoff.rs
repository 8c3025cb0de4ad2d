//! How long to wait before trying again.

use std::time::Duration;

/// Exponential backoff with full jitter: the n-th delay is drawn evenly from zero to
/// `min(cap, base * 2^n)`, so that many clients of one failed server do not come back in step.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
}

impl Backoff {
    /// The first delay is at most `base`, every later one at most `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Backoff { base, cap, attempt: 0 }
    }

    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        let ceiling = self.ceiling();
        self.attempt = self.attempt.saturating_add(1);
        ceiling.mul_f64(fastrand::f64())
    }

    /// Begins again with the shortest delays.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    fn ceiling(&self) -> Duration {
        let factor = 1u32.checked_shl(self.attempt).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(50);
    const CAP: Duration = Duration::from_secs(1);

    #[test]
    fn the_ceiling_doubles_up_to_the_cap_and_stays_there() {
        let mut backoff = Backoff::new(BASE, CAP);
        let mut ceilings = Vec::new();
        for _ in 0..7 {
            ceilings.push(backoff.ceiling().as_millis());
            backoff.next_delay();
        }
        assert_eq!(ceilings, [50, 100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn no_delay_exceeds_the_cap_however_many_attempts() {
        let mut backoff = Backoff::new(BASE, CAP);
        assert!((0..1000).all(|_| backoff.next_delay() <= CAP));
        backoff.attempt = u32::MAX;
        assert_eq!(backoff.ceiling(), CAP);
    }

    #[test]
    fn delays_are_spread_over_the_whole_range() {
        let mut backoff = Backoff::new(CAP, CAP);
        let delays: Vec<_> = (0..1000).map(|_| backoff.next_delay()).collect();
        assert!(delays.iter().any(|delay| *delay < CAP / 4));
        assert!(delays.iter().any(|delay| *delay > CAP / 4 * 3));
    }

    #[test]
    fn reset_begins_with_the_base_again() {
        let mut backoff = Backoff::new(BASE, CAP);
        (0..9).for_each(|_| drop(backoff.next_delay()));
        backoff.reset();
        assert_eq!(backoff.ceiling(), BASE);
    }
}
