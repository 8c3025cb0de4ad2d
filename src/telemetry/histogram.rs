//! Histograms of durations with fixed buckets for proxying: from half a millisecond to ten minutes.

use std::time::Duration;

/// Upper bounds of the buckets, in seconds. One more bucket counts longer durations.
pub const BOUNDS: [f64; 18] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
    600.0,
];

/// A histogram of durations. Not synchronised: the owner guards it, and readers merge copies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Not cumulative. The last bucket counts durations above every bound.
    counts: [u64; BOUNDS.len() + 1],
    sum: Duration,
}

impl Histogram {
    pub fn observe(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += duration;
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Histogram) {
        for (own, more) in self.counts.iter_mut().zip(other.counts) {
            *own += more;
        }
        self.sum += other.sum;
    }

    /// The difference to `earlier`, an older copy of this histogram.
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let mut later = self.clone();
        later.counts.iter_mut().zip(earlier.counts).for_each(|(own, less)| *own = own.saturating_sub(less));
        later.sum = self.sum.saturating_sub(earlier.sum);
        later
    }

    /// The quantile `part` (0 to 1) in seconds, interpolated linearly within a bucket. Beyond the last bound
    /// it returns that bound. `None` for an empty histogram.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let wanted = self.count() as f64 * part;
        let (mut below, mut lower) = (0.0, 0.0);
        for (upper, count) in self.buckets().filter(|_| self.count() > 0) {
            let count = count as f64;
            if count > 0.0 && below + count >= wanted {
                let inside = (wanted - below) / count;
                return Some(if upper.is_finite() { lower + (upper - lower) * inside } else { lower });
            }
            (below, lower) = (below + count, upper);
        }
        None
    }

    pub fn sum_seconds(&self) -> f64 {
        self.sum.as_secs_f64()
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Upper bound (infinite for the last) and count of every bucket, not cumulative.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        BOUNDS.into_iter().chain([f64::INFINITY]).zip(self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_lands_in_the_first_bucket_that_holds_it() {
        let mut histogram = Histogram::default();
        for millis in [1, 2, 700_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let filled: Vec<f64> =
            histogram.buckets().filter(|(_, count)| *count > 0).map(|(bound, _)| bound).collect();
        assert_eq!(filled, [0.001, 0.0025, f64::INFINITY]);
        assert_eq!(histogram.count(), 3);
        assert_eq!(histogram.sum_seconds(), 700.003);
    }

    #[test]
    fn a_quantile_lies_where_its_bucket_says() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for _ in 0..100 {
            histogram.observe(Duration::from_millis(7));
        }
        let earlier = histogram.clone();
        assert_eq!(histogram.quantile(0.5), Some(0.0075));
        for millis in [2, 2, 2, 700_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let later = histogram.since(&earlier);
        assert_eq!((later.count(), later.sum_seconds()), (4, 700.006));
        assert_eq!((later.quantile(0.75), later.quantile(1.0)), (Some(0.0025), Some(600.0)));
    }

    #[test]
    fn merging_adds_counts_and_sums() {
        let (mut a, mut b) = (Histogram::default(), Histogram::default());
        a.observe(Duration::from_millis(1));
        b.observe(Duration::from_millis(1));
        a.merge(&b);
        assert_eq!((a.count(), a.sum_seconds()), (2, 0.002));
    }
}
