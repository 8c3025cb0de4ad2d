//! The retry budget of an upstream, shared by all workers.
//!
//! A token bucket in one atomic word. Every request adds its share of a retry, the passing of time adds the
//! configured minimum, and the balance decays over [`WINDOW`]. The balance is therefore about the configured
//! share of the requests within the window, and retries add no more than that share to the load of a failing
//! upstream.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::RetryBudget;

/// Decay time of the balance. It decays exponentially while requests arrive, and completely after a pause of
/// this length.
const WINDOW: Duration = Duration::from_secs(10);

/// The budget of one upstream. It starts with the minimum for one window.
#[derive(Debug)]
pub struct Budget {
    /// Upper half: the balance, as the bits of an `f32`. Lower half: its time, in milliseconds after `born`.
    state: AtomicU64,
    born: Instant,
}

impl Budget {
    /// Adds the share of one request.
    pub fn earn(&self, rules: RetryBudget, now: Instant) {
        self.change(rules, now, |balance| Some(balance + rules.percent as f32 / 100.0));
    }

    /// Takes one retry from the budget. Returns false if less than one is left.
    pub fn spend(&self, rules: RetryBudget, now: Instant) -> bool {
        self.change(rules, now, |balance| (balance >= 1.0).then_some(balance - 1.0))
    }

    fn change(&self, rules: RetryBudget, now: Instant, change: impl Fn(f32) -> Option<f32>) -> bool {
        // Wraps around every seven weeks, and so does the difference below.
        let now = now.saturating_duration_since(self.born).as_millis() as u32;
        let changed = self.state.fetch_update(Relaxed, Relaxed, |state| {
            let (balance, then) = unpack(state);
            let passed = match now.wrapping_sub(then) {
                // Another worker read its clock later than this one, so the stored time is ahead.
                backwards if backwards > u32::MAX / 2 => 0,
                passed => passed,
            };
            let balance = change(aged(balance, passed, rules))?;
            Some(pack(balance, then.wrapping_add(passed)))
        });
        changed.is_ok()
    }
}

impl Default for Budget {
    fn default() -> Self {
        let window = WINDOW.as_millis() as u32;
        Budget { state: AtomicU64::new(pack(0.0, 0u32.wrapping_sub(window))), born: Instant::now() }
    }
}

/// The value of `balance` after `passed` milliseconds: decayed, plus the configured minimum.
fn aged(balance: f32, passed: u32, rules: RetryBudget) -> f32 {
    let part = (passed as f32 / WINDOW.as_millis() as f32).min(1.0);
    balance * (1.0 - part) + rules.per_second as f32 * WINDOW.as_secs_f32() * part
}

fn pack(balance: f32, at: u32) -> u64 {
    u64::from(balance.to_bits()) << 32 | u64::from(at)
}

fn unpack(state: u64) -> (f32, u32) {
    (f32::from_bits((state >> 32) as u32), state as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(percent: u32, per_second: u32) -> RetryBudget {
        RetryBudget { percent, per_second }
    }

    fn spent(budget: &Budget, rules: RetryBudget, now: Instant) -> usize {
        std::iter::repeat_with(|| budget.spend(rules, now)).take_while(|taken| *taken).count()
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_a_share_of_the_requests_of_the_last_seconds() {
        let (budget, rules) = (Budget::default(), rules(20, 0));
        let start = Instant::now();
        for millisecond in 0..60_000 {
            budget.earn(rules, start + Duration::from_millis(millisecond));
        }
        let end = start + Duration::from_secs(60);
        let left = spent(&budget, rules, end);
        assert!((1_970..=2_000).contains(&left), "{left} of 10,000 requests in ten seconds");
        assert_eq!(spent(&budget, rules, end + Duration::from_secs(3600)), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn without_requests_there_is_the_minimum() {
        let (budget, rules) = (Budget::default(), rules(20, 3));
        let start = Instant::now();
        assert_eq!(spent(&budget, rules, start), 30);
        assert_eq!(spent(&budget, rules, start + Duration::from_secs(1)), 3);
        assert_eq!(spent(&budget, rules, start + Duration::from_secs(900)), 30);
    }

    #[test]
    fn many_workers_together_take_no_more_than_there_is() {
        let (budget, rules) = (Budget::default(), rules(50, 0));
        let now = Instant::now();
        let earn_and_spend = || {
            budget.earn(rules, now);
            budget.spend(rules, now)
        };
        let worker = || (0..10_000).filter(|_| earn_and_spend()).count();
        let taken: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(taken + spent(&budget, rules, now), 20_000);
    }

    proptest! {
        /// For any sequence of calls, no more is spent than was earned, and after a pause the minimum is
        /// available again.
        #[test]
        fn no_more_is_spent_than_was_earned(
            percent in 0u32..=100,
            per_second in 0u32..50,
            steps in prop::collection::vec((0u64..3_000, 0usize..50, 0usize..50), 0..100),
        ) {
            let (budget, rules) = (Budget::default(), rules(percent, per_second));
            let start = Instant::now();
            let (mut now, mut earned, mut taken) = (start, 0, 0);
            for (pause, requests, repeats) in steps {
                now += Duration::from_millis(pause);
                (0..requests).for_each(|_| budget.earn(rules, now));
                earned += requests;
                taken += (0..repeats).filter(|_| budget.spend(rules, now)).count();
                let seconds = (now - start + WINDOW).as_secs_f64();
                let most = earned as f64 * f64::from(percent) / 100.0 + seconds * f64::from(per_second);
                prop_assert!(taken as f64 <= most + 0.1, "{taken} of {most}");
            }
            let minimum = per_second as usize * WINDOW.as_secs() as usize;
            prop_assert_eq!(spent(&budget, rules, now + WINDOW), minimum);
        }
    }
}
