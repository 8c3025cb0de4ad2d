//! When actions are due in the open model.

use std::time::Duration;

use fastrand::Rng;

use crate::config::scenario::Spacing;

/// One stretch of time with a known number of actions.
#[derive(Debug)]
struct Stretch {
    begins: f64,
    ends: f64,
    count: u64,
}

/// The moments at which actions are due, since the load began, rising.
///
/// Over the warming up and over the counted time there are exactly as many as the rate says. Those of
/// [`Spacing::Poisson`] are a Poisson process of which that number is known, so they lie like as many points thrown
/// independently of each other.
#[derive(Debug)]
pub(super) struct Arrivals {
    stretches: Vec<Stretch>,
    spacing: Spacing,
    rng: Rng,
    /// The last one, in seconds.
    last: f64,
    /// Of the stretch.
    given: u64,
}

impl Arrivals {
    pub(super) fn new(rate: f64, spacing: Spacing, warm_up: Duration, duration: Duration, rng: Rng) -> Self {
        let (warm_up, duration) = (warm_up.as_secs_f64(), duration.as_secs_f64());
        let count = |seconds: f64| (rate * seconds).round() as u64;
        let counted = Stretch { begins: warm_up, ends: warm_up + duration, count: count(duration) };
        let warming = Stretch { begins: 0.0, ends: warm_up, count: count(warm_up) };
        Arrivals { stretches: vec![counted, warming], spacing, rng, last: 0.0, given: 0 }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        while self.stretches.last()?.count == self.given {
            let ended = self.stretches.pop()?;
            (self.last, self.given) = (ended.ends, 0);
        }
        let Stretch { begins, ends, count } = self.stretches.last()?;
        self.last = match self.spacing {
            Spacing::Even => begins + (ends - begins) * (self.given as f64 / *count as f64),
            Spacing::Poisson => {
                // The first of the points that are left, all equally likely anywhere in what is left.
                let left = (count - self.given) as f64;
                self.last + (ends - self.last) * (1.0 - (1.0 - self.rng.f64()).powf(1.0 / left))
            }
        };
        self.given += 1;
        Some(Duration::from_secs_f64(self.last.max(0.0)))
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
        let due = arrivals(4.0, Spacing::Even, 1, 1);
        assert_eq!(due, [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75]);
        assert_eq!(arrivals(0.5, Spacing::Even, 0, 4), [0.0, 2.0]);
    }

    #[test]
    fn there_are_exactly_as_many_as_the_rate_says() {
        let due = arrivals(1000.0, Spacing::Poisson, 2, 10);
        assert_eq!(due.len(), 12_000);
        assert!(due.is_sorted());
        assert!(due[1999] < 2.0 && due[2000] >= 2.0 && due[11_999] < 12.0);
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
