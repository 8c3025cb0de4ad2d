//! The statistical test: bounds on how much worse the canary is. They may be evaluated after every request.
//!
//! The error probability of ordinary confidence intervals grows each time they are evaluated. With these
//! bounds the probability that a bound is *ever* wrong is at most its level, however often they are evaluated
//! and whenever the evaluation stops (Ville's inequality for non-negative supermartingales).
//!
//! - **Failed requests.** Let `p` and `q` be the failure probabilities of both versions. The likelihood of
//!   all outcomes averaged over Beta(1/2, 1/2) priors, divided by their likelihood under the true `(p, q)`,
//!   is a martingale that starts at 1 (H. Robbins, "Statistical Methods Related to the Law of the Iterated
//!   Logarithm", Ann. Math. Statist. 41, 1970). A difference `d` is excluded when the smallest of these
//!   ratios over all `(p, q)` with `p - q = d` has reached `1 / level` (universal inference: Wasserman,
//!   Ramdas, Balakrishnan, PNAS 117, 2020). The bound is exact: it holds for any number of requests and for
//!   rare failures.
//! - **Time to first byte.** The mixture sequential probability ratio test for the difference of the means of
//!   the logarithms (Johari, Koomen, Pekelis, Walsh, "Always Valid Inference", Operations Research 70, 2022).
//!   It uses sample variances in place of the true ones and is therefore approximate, so there is no result
//!   below [`FEWEST_TIMES`] on either side. Logarithms turn "30 % slower" into a shift and reduce the effect
//!   of the long tail.
//!
//! Both assume that the requests of one version are independent and identically distributed. Sessions with
//! very many requests violate that somewhat; the allowed increases are the margin for it.

/// Minimum number of times to first byte on each side. Below it there is no result for latency.
pub const FEWEST_TIMES: u64 = 100;

/// Standard deviation of the mixture over differences of mean logarithms. The test decides fastest on
/// differences of about this size.
const MIXTURE_SD: f64 = 0.2;

/// Bisection steps, which narrow an interval to about 1e-12 of its length.
const HALVINGS: usize = 40;

/// Number of requests, and how many of them failed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Trials {
    pub requests: u64,
    /// At most `requests`.
    pub failed: u64,
}

/// Logarithms of times: their number, sum and sum of squares.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Logarithms {
    pub count: u64,
    pub sum: f64,
    pub squares: f64,
}

/// Estimate of an increase, with its bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    pub estimate: f64,
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
}

/// Probability that a bound is ever wrong. Each is between 0 and 1, exclusive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Levels {
    pub lower: f64,
    pub upper: f64,
}

impl Trials {
    /// Share of failed requests; 0 without requests.
    pub fn rate(self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.failed as f64 / self.requests as f64 }
    }

    fn passed(self) -> f64 {
        self.requests.saturating_sub(self.failed) as f64
    }

    /// Logarithm of the likelihood for the failure probability `p`.
    fn log_likelihood(self, p: f64) -> f64 {
        times_ln(self.failed as f64, p) + times_ln(self.passed(), 1.0 - p)
    }

    /// Logarithm of the likelihood averaged over Beta(1/2, 1/2).
    fn log_mixture(self) -> f64 {
        let (failed, passed) = (self.failed as f64 + 0.5, self.passed() + 0.5);
        ln_gamma(failed) + ln_gamma(passed) - ln_gamma(failed + passed) - std::f64::consts::PI.ln()
    }
}

impl Logarithms {
    /// Adds a time. The unit is arbitrary but must be the same for all. Values of 0 or less count as the
    /// smallest positive number.
    pub fn add(&mut self, time: f64) {
        let logarithm = time.max(f64::MIN_POSITIVE).ln();
        self.count += 1;
        self.sum += logarithm;
        self.squares += logarithm * logarithm;
    }

    /// Mean of the logarithms; 0 if there are none.
    pub fn mean(self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }

    /// Variance of the mean.
    fn variance_of_mean(self) -> f64 {
        let count = self.count as f64;
        let variance = (self.squares - self.sum * self.sum / count) / (count - 1.0);
        variance.max(0.0) / count
    }
}

/// Increase of the failure rate: canary minus stable, -1 to 1.
pub fn error_increase(canary: Trials, stable: Trials, levels: Levels) -> Bounds {
    let estimate = canary.rate() - stable.rate();
    let gained = canary.log_mixture() + stable.log_mixture();
    let is_excluded =
        |increase: f64, level: f64| gained - greatest_likelihood(canary, stable, increase) >= -level.ln();
    let edge = |end: f64, level: f64| {
        if !is_excluded(end, level) {
            return end;
        }
        // The bound is between an excluded value and the estimate, which is never excluded.
        let (mut excluded, mut possible) = (end, estimate);
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(excluded, possible);
            if is_excluded(middle, level) { excluded = middle } else { possible = middle }
        }
        excluded
    };
    Bounds { estimate, lower: edge(-1.0, levels.lower), upper: edge(1.0, levels.upper) }
}

/// Increase of the time to first byte: a difference of mean logarithms, so 0.1 is about 10 %. `None` while
/// there are too few times.
pub fn latency_increase(canary: Logarithms, stable: Logarithms, levels: Levels) -> Option<Bounds> {
    if canary.count.min(stable.count) < FEWEST_TIMES {
        return None;
    }
    let estimate = canary.mean() - stable.mean();
    // Without variance any difference would be significant.
    let variance = (canary.variance_of_mean() + stable.variance_of_mean()).max(f64::EPSILON);
    let mixed = variance + MIXTURE_SD * MIXTURE_SD;
    let radius = |level: f64| {
        let threshold = -level.ln() + 0.5 * (mixed / variance).ln();
        (2.0 * variance * mixed * threshold).sqrt() / MIXTURE_SD
    };
    Some(Bounds { estimate, lower: estimate - radius(levels.lower), upper: estimate + radius(levels.upper) })
}

/// Largest logarithm of the likelihood over all pairs of failure probabilities that differ by `increase`.
fn greatest_likelihood(canary: Trials, stable: Trials, increase: f64) -> f64 {
    let at = |q: f64| canary.log_likelihood(q + increase) + stable.log_likelihood(q);
    let slope = |trials: Trials, p: f64| divided(trials.failed as f64, p) - divided(trials.passed(), 1.0 - p);
    let (mut low, mut high) = ((-increase).max(0.0), (1.0 - increase).min(1.0));
    // The logarithm is concave in `q`, so its slope decreases and its root is found by bisection.
    for _ in 0..HALVINGS {
        let q = f64::midpoint(low, high);
        if slope(canary, q + increase) + slope(stable, q) > 0.0 { low = q } else { high = q }
    }
    at(f64::midpoint(low, high))
}

/// `count * ln(p)`, and 0 if `count` is 0.
fn times_ln(count: f64, p: f64) -> f64 {
    if count == 0.0 { 0.0 } else { count * p.max(0.0).ln() }
}

fn divided(count: f64, p: f64) -> f64 {
    if count == 0.0 { 0.0 } else { count / p.max(f64::MIN_POSITIVE) }
}

/// Logarithm of the gamma function for `x` > 0. Stirling's series (NIST DLMF 5.11.1) from 8 on, recurrence
/// below. Accurate to 1e-11.
fn ln_gamma(mut x: f64) -> f64 {
    let mut shift = 0.0;
    while x < 8.0 {
        shift += x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - shift
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEVELS: Levels = Levels { lower: 0.01, upper: 0.01 };

    fn trials(failed: u64, requests: u64) -> Trials {
        Trials { requests, failed }
    }

    #[test]
    fn the_gamma_function_is_what_tables_say() {
        for (x, expected) in [
            (0.5, 0.572_364_942_924_700_1),
            (1.0, 0.0),
            (7.5, 7.534_364_236_758_733),
            (11.0, 15.104_412_573_075_516),
            (1000.5, 5_908.674_175_848_678),
        ] {
            assert!((ln_gamma(x) - expected).abs() < 1e-9, "{x}: {}", ln_gamma(x));
        }
    }

    #[test]
    fn without_requests_nothing_is_excluded() {
        let bounds = error_increase(Trials::default(), Trials::default(), LEVELS);
        assert_eq!((bounds.estimate, bounds.lower, bounds.upper), (0.0, -1.0, 1.0));
        assert_eq!(latency_increase(Logarithms::default(), Logarithms::default(), LEVELS), None);
    }

    #[test]
    fn bounds_close_in_on_the_truth_as_requests_come() {
        let few = error_increase(trials(6, 100), trials(9, 900), LEVELS);
        let many = error_increase(trials(600, 10_000), trials(900, 90_000), LEVELS);
        assert!(few.lower < 0.01 && few.upper > 0.1, "{few:?}");
        assert!(many.lower > 0.035 && many.upper < 0.065, "{many:?}");
    }

    /// `count` times, evenly spread from `from` to `to`.
    fn times(from: f64, to: f64, count: u64) -> Logarithms {
        let mut logarithms = Logarithms::default();
        (0..count).for_each(|n| logarithms.add(from + (to - from) * n as f64 / count as f64));
        logarithms
    }

    #[test]
    fn a_longer_time_is_told_as_its_logarithm() {
        let (slow, quick) = (times(13.0, 26.0, 5_000), times(10.0, 20.0, 5_000));
        let bounds = latency_increase(slow, quick, LEVELS).unwrap();
        assert!((bounds.estimate - 1.3_f64.ln()).abs() < 1e-9, "{bounds:?}");
        assert!(bounds.lower > 0.2 && bounds.upper < 0.3, "{bounds:?}");
        assert_eq!(latency_increase(slow, times(10.0, 20.0, FEWEST_TIMES - 1), LEVELS), None);
    }

    #[test]
    fn a_time_of_nothing_is_no_infinity() {
        let mut logarithms = Logarithms::default();
        logarithms.add(0.0);
        assert!(logarithms.sum.is_finite() && logarithms.squares.is_finite());
    }

    proptest! {
        #[test]
        fn the_estimate_is_always_within_its_bounds(
            (a, of_a) in (0..5_000_u64).prop_flat_map(|n| (0..=n, Just(n))),
            (b, of_b) in (0..5_000_u64).prop_flat_map(|n| (0..=n, Just(n))),
        ) {
            let bounds = error_increase(trials(a, of_a), trials(b, of_b), LEVELS);
            prop_assert!(-1.0 <= bounds.lower && bounds.upper <= 1.0);
            prop_assert!(bounds.lower <= bounds.estimate && bounds.estimate <= bounds.upper, "{:?}", bounds);
        }

        #[test]
        fn both_directions_mirror_each_other(
            (a, of_a) in (1..500_u64).prop_flat_map(|n| (0..=n, Just(n))),
            (b, of_b) in (1..500_u64).prop_flat_map(|n| (0..=n, Just(n))),
        ) {
            let there = error_increase(trials(a, of_a), trials(b, of_b), LEVELS);
            let back = error_increase(trials(b, of_b), trials(a, of_a), LEVELS);
            prop_assert!((there.lower + back.upper).abs() < 1e-6, "{:?} {:?}", there, back);
        }
    }
}
