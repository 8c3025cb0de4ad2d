//! Means of a few rounds with their confidence intervals.

use super::{Estimate, Interval};

/// Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom: NIST/SEMATECH e-Handbook of Statistical
/// Methods, 1.3.6.7.2.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// The mean of what `rounds` gave, with its 95 % interval by Student's t.
///
/// The rounds, at least one, must be independent of each other. Of no round the mean is 0.
pub fn estimate(rounds: &[f64]) -> Estimate {
    let sample = Sample::of(rounds);
    let interval = sample.variance_of_mean().map(|variance| sample.within(variance, sample.count - 1.0));
    Estimate { mean: sample.mean, interval, rounds: rounds.to_vec() }
}

/// `other` less `base`, paired: the two numbers of a place come from the same round, so that what changed from
/// round to round for both cancels out. Numbers without a partner are left out.
pub fn contrast(base: &[f64], other: &[f64]) -> Estimate {
    let differences: Vec<f64> = base.iter().zip(other).map(|(base, other)| other - base).collect();
    estimate(&differences)
}

/// Where `new` less `old` lies when the two were measured apart from each other, by Welch's t; `None` when one of
/// them has a single round.
///
/// Welch (1947), degrees of freedom after Satterthwaite (1946).
pub(super) fn welch(old: &[f64], new: &[f64]) -> Option<Interval> {
    let (old, new) = (Sample::of(old), Sample::of(new));
    let (left, right) = (old.variance_of_mean()?, new.variance_of_mean()?);
    let spread = left.powi(2) / (old.count - 1.0) + right.powi(2) / (new.count - 1.0);
    let freedom = if spread > 0.0 { (left + right).powi(2) / spread } else { old.count + new.count - 2.0 };
    let difference = Sample { mean: new.mean - old.mean, ..new };
    Some(difference.within(left + right, freedom))
}

struct Sample {
    count: f64,
    mean: f64,
    /// Sum of the squared distances from the mean.
    squares: f64,
}

impl Sample {
    fn of(values: &[f64]) -> Sample {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count.max(1.0);
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum();
        Sample { count, mean, squares }
    }

    fn variance_of_mean(&self) -> Option<f64> {
        (self.count > 1.0).then(|| self.squares / (self.count - 1.0) / self.count)
    }

    /// The interval around the mean. `freedom` is rounded down, which makes it wider, never narrower.
    fn within(&self, variance: f64, freedom: f64) -> Interval {
        let place = (freedom.floor() as usize).clamp(1, T.len()) - 1;
        let reach = T.get(place).copied().unwrap_or(f64::INFINITY) * variance.sqrt();
        Interval { low: self.mean - reach, high: self.mean + reach }
    }
}
