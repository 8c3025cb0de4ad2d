//! The due times of actions in the open model.

use std::time::Duration;

use fastrand::Rng;

use crate::config::scenario::Spacing;

/// A time span with a fixed number of actions.
#[derive(Debug)]
struct Stretch {
    begins: f64,
    ends: f64,
    count: u64,
    /// Whether the rate rises linearly from zero.
    rises: bool,
}

impl Stretch {
    /// The time by which this share of the span's actions is due.
    fn moment(&self, share: f64) -> f64 {
        let share = if self.rises { share.sqrt() } else { share };
        self.begins + (self.ends - self.begins) * share
    }
}

/// The due times of actions since the start of the load, ascending.
///
/// The counted time contains exactly as many actions as the rate says. During warm-up the rate rises with the
/// number of users that have arrived; otherwise actions would queue for users that have not arrived yet, and
/// the queue would last into the counted time. [`Spacing::Poisson`] is a Poisson process conditioned on that
/// number: the actions are distributed like the same number of independent uniform points.
#[derive(Debug)]
pub(super) struct Arrivals {
    stretches: Vec<Stretch>,
    spacing: Spacing,
    rng: Rng,
    /// The position of the last action within the span, as a share of its actions.
    last: f64,
    /// Actions of the current span so far.
    given: u64,
}

impl Arrivals {
    pub(super) fn new(rate: f64, spacing: Spacing, warm_up: Duration, duration: Duration, rng: Rng) -> Self {
        let (warm_up, duration) = (warm_up.as_secs_f64(), duration.as_secs_f64());
        let count = |seconds: f64| (rate * seconds).round() as u64;
        let ends = warm_up + duration;
        let counted = Stretch { begins: warm_up, ends, count: count(duration), rises: false };
        let warming = Stretch { begins: 0.0, ends: warm_up, count: count(warm_up / 2.0), rises: true };
        Arrivals { stretches: vec![counted, warming], spacing, rng, last: 0.0, given: 0 }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        while self.stretches.last()?.count == self.given {
            self.stretches.pop()?;
            (self.last, self.given) = (0.0, 0);
        }
        let stretch = self.stretches.last()?;
        self.last = match self.spacing {
            Spacing::Even => self.given as f64 / stretch.count as f64,
            Spacing::Poisson => {
                // The minimum of the remaining points, which are uniform in the rest of the span.
                let left = (stretch.count - self.given) as f64;
                self.last + (1.0 - self.last) * (1.0 - (1.0 - self.rng.f64()).powf(1.0 / left))
            }
        };
        self.given += 1;
        Some(Duration::from_secs_f64(stretch.moment(self.last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(rate: f64, spacing: Spacing, warm_up: u64, duration: u64) -> Vec<f64> {
        let seconds = Duration::from_secs;
        let arrivals = Arrivals::new(rate, spacing, seconds(warm_up), seconds(duration), Rng::with_seed(1));
        arrivals.map(|due| due.as_secs_f64()).collect()
    }

    #[test]
    fn even_arrivals_are_a_period_apart() {
        assert_eq!(arrivals(4.0, Spacing::Even, 0, 2), [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75]);
        assert_eq!(arrivals(0.5, Spacing::Even, 0, 4), [0.0, 2.0]);
    }

    #[test]
    fn there_are_exactly_as_many_as_the_rate_says() {
        let due = arrivals(1000.0, Spacing::Poisson, 2, 10);
        assert_eq!(due.len(), 11_000);
        assert!(due.is_sorted());
        assert!(due[999] < 2.0 && due[1000] >= 2.0 && due[10_999] < 12.0);
    }

    #[test]
    fn the_rate_rises_while_users_come() {
        let even = arrivals(8.0, Spacing::Even, 1, 1);
        assert_eq!((even.len(), &even[..2], even[4]), (12, [0.0, 0.5].as_slice(), 1.0));
        let due = arrivals(1000.0, Spacing::Poisson, 4, 1);
        let until = |end: f64| due.iter().filter(|due| **due < end).count() as f64;
        for (end, expected) in [(1.0, 125.0), (2.0, 500.0), (3.0, 1125.0)] {
            assert!((until(end) - expected).abs() < 0.15 * expected + 20.0, "{end}: {}", until(end));
        }
    }

    #[test]
    fn pauses_of_a_poisson_process_vary_as_much_as_they_last() {
        let due = arrivals(1000.0, Spacing::Poisson, 0, 100);
        let gaps: Vec<_> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((0.000_99..0.001_01).contains(&mean), "{mean}");
        assert!((0.98..1.02).contains(&(variance.sqrt() / mean)), "{}", variance.sqrt() / mean);
    }

    #[test]
    fn without_warming_up_the_first_is_counted() {
        assert_eq!(arrivals(2.0, Spacing::Even, 0, 1), [0.0, 0.5]);
        assert_eq!(arrivals(0.1, Spacing::Even, 1, 1), [] as [f64; 0]);
    }
}
