//! Means of a few rounds with their confidence intervals.

use super::{Estimate, Interval};

/// Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom: NIST/SEMATECH e-Handbook of Statistical
/// Methods, 1.3.6.7.2.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// The mean of `rounds` with its 95 % confidence interval by Student's t.
///
/// The rounds (at least one) must be independent of each other. Without rounds the mean is 0.
pub fn estimate(rounds: &[f64]) -> Estimate {
    let sample = Sample::of(rounds);
    let interval = sample.variance_of_mean().map(|variance| sample.within(variance, sample.count - 1.0));
    Estimate { mean: sample.mean, interval, rounds: rounds.to_vec() }
}

/// The paired difference `other` minus `base`. Numbers with the same index come from the same round, so that
/// effects that both share in a round cancel out. Numbers without a partner are ignored.
pub fn contrast(base: &[f64], other: &[f64]) -> Estimate {
    let differences: Vec<f64> = base.iter().zip(other).map(|(base, other)| other - base).collect();
    estimate(&differences)
}

/// The 95 % confidence interval of `new` minus `old` for unpaired samples, by Welch's t. `None` when one of
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
    /// Sum of the squared deviations from the mean.
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

    /// The interval around the mean. `freedom` is rounded down, which can only widen the interval.
    fn within(&self, variance: f64, freedom: f64) -> Interval {
        let place = (freedom.floor() as usize).clamp(1, T.len()) - 1;
        let reach = T.get(place).copied().unwrap_or(f64::INFINITY) * variance.sqrt();
        Interval { low: self.mean - reach, high: self.mean + reach }
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use fastrand::Rng;

    use super::*;

    /// Actions per round; few, so that the tail has an influence.
    const ACTIONS: usize = 300;
    /// Comparisons of two equal modes. With only 100, a true coverage of 95 % would now and then miss more
    /// than ten by chance; with 500 it does not.
    const RUNS: u64 = 500;
    const LEAST: usize = 465;

    #[test]
    fn a_mean_has_the_interval_of_students_t() {
        let Estimate { mean, interval, rounds } = estimate(&[128.0, 131.0, 134.0]);
        let Interval { low, high } = interval.unwrap();
        assert_eq!((mean, rounds), (131.0, vec![128.0, 131.0, 134.0]));
        // 4.303 * 3 / sqrt(3)
        assert!((low - 123.547).abs() < 0.001 && (high - 138.453).abs() < 0.001, "{low} to {high}");
    }

    #[test]
    fn one_round_has_a_mean_and_no_interval() {
        assert_eq!(estimate(&[7.0]), Estimate { mean: 7.0, interval: None, rounds: vec![7.0] });
    }

    #[test]
    fn equal_rounds_leave_no_doubt() {
        assert_eq!(estimate(&[0.0; 3]).interval, Some(Interval { low: 0.0, high: 0.0 }));
    }

    #[test]
    fn what_changes_for_both_from_round_to_round_cancels_out() {
        let difference = contrast(&[100.0, 200.0, 300.0], &[90.0, 190.0, 290.0, 1.0]);
        assert_eq!(difference.rounds, [-10.0; 3]);
        assert_eq!(difference.interval, Some(Interval { low: -10.0, high: -10.0 }));
    }

    #[test]
    fn welch_agrees_with_a_worked_example() {
        // Means 20 and 24, variances 4 and 16 over 4 rounds each: t has 4.41 degrees of freedom, taken as 4.
        let (old, new) = ([18.0, 19.0, 20.0, 23.0], [20.0, 22.0, 24.0, 30.0]);
        let Interval { low, high } = welch(&old, &new).unwrap();
        let reach = 2.776 * (14.0f64 / 3.0 / 4.0 + 56.0 / 3.0 / 4.0).sqrt();
        assert!((low - (4.0 - reach)).abs() < 1e-9 && (high - (4.0 + reach)).abs() < 1e-9, "{low} to {high}");
        assert_eq!(welch(&[1.0], &new), None);
        assert_eq!(welch(&[1.0, 1.0], &[1.0, 1.0]), Some(Interval { low: 0.0, high: 0.0 }));
    }

    /// Resamples recorded actions into rounds of a mode.
    struct Resampling {
        actions: Vec<f64>,
        rng: Rng,
    }

    impl Resampling {
        fn new(seed: u64) -> Self {
            let lines = include_str!("recorded_actions.txt").lines();
            let actions =
                lines.filter(|line| !line.starts_with('#')).map(|line| line.parse().unwrap()).collect();
            Self { actions, rng: Rng::with_seed(seed) }
        }

        /// A random factor with median 1.
        fn shift(&mut self, deviation: f64) -> f64 {
            let (radius, angle) = (1.0 - self.rng.f64(), self.rng.f64() * TAU);
            ((-2.0 * radius.ln()).sqrt() * angle.cos() * deviation).exp()
        }

        /// The figures of one run, in the order of [`NAMES`].
        fn run(&mut self, round: f64) -> [f64; 3] {
            let shift = round * self.shift(0.02);
            let mut times: Vec<f64> =
                (0..ACTIONS).map(|_| shift * self.actions[self.rng.usize(..self.actions.len())]).collect();
            times.sort_by(f64::total_cmp);
            let mean = times.iter().sum::<f64>() / ACTIONS as f64;
            [mean, times[ACTIONS * 95 / 100], times[ACTIONS * 99 / 100]]
        }

        /// `count` rounds of two equal modes, alternating within each round as in a comparison. The machine's
        /// speed varies by 5 % from round to round and by 2 % from run to run.
        fn rounds(&mut self, count: usize) -> Vec<[[f64; 3]; 2]> {
            (0..count)
                .map(|_| {
                    let round = self.shift(0.05);
                    [self.run(round), self.run(round)]
                })
                .collect()
        }
    }

    const NAMES: [&str; 3] = ["mean", "p95", "p99"];

    /// In how many of [`RUNS`] the interval contains 0, per figure.
    fn coverage(rounds: usize, interval: impl Fn(&[f64], &[f64]) -> Interval, paired: bool) -> [usize; 3] {
        let mut covered = [0; 3];
        for seed in 0..RUNS {
            let mut resampling = Resampling::new(seed);
            let runs = resampling.rounds(rounds);
            let others = if paired { runs.clone() } else { resampling.rounds(rounds) };
            for (figure, covered) in covered.iter_mut().enumerate() {
                let base: Vec<f64> = runs.iter().map(|run| run[0][figure]).collect();
                let other: Vec<f64> = others.iter().map(|run| run[1][figure]).collect();
                let Interval { low, high } = interval(&base, &other);
                *covered += usize::from(low <= 0.0 && 0.0 <= high);
            }
        }
        covered
    }

    #[test]
    fn paired_intervals_cover_the_difference_of_two_equal_modes() {
        for rounds in [2, 3, 5] {
            let covered = coverage(rounds, |base, other| contrast(base, other).interval.unwrap(), true);
            println!("PROOF A/A, {rounds} rounds: {NAMES:?} covered in {covered:?} of {RUNS} comparisons");
            assert!(covered.iter().all(|covered| *covered >= LEAST), "{rounds} rounds: {covered:?}");
        }
    }

    #[test]
    fn welchs_intervals_cover_the_difference_of_a_mode_to_itself() {
        for rounds in [2, 3, 5] {
            let covered = coverage(rounds, |base, other| welch(base, other).unwrap(), false);
            println!("PROOF A/A of a baseline, {rounds} rounds: {NAMES:?} covered in {covered:?} of {RUNS}");
            assert!(covered.iter().all(|covered| *covered >= LEAST), "{rounds} rounds: {covered:?}");
        }
    }

    #[test]
    fn the_interval_of_a_mean_covers_the_mean_of_what_was_recorded() {
        let mut covered = 0;
        for seed in 0..RUNS {
            let mut resampling = Resampling::new(seed);
            let truth = resampling.actions.iter().sum::<f64>() / resampling.actions.len() as f64;
            let means: Vec<f64> = resampling.rounds(3).iter().map(|run| run[0][0]).collect();
            let Interval { low, high } = estimate(&means).interval.unwrap();
            covered += usize::from(low <= truth && truth <= high);
        }
        println!("PROOF the mean of 3 rounds: covered in {covered} of {RUNS}");
        assert!(covered >= LEAST, "{covered}");
    }
}
