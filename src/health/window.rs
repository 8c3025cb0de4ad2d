//! A sliding window of request outcomes, in steps.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::Outlier;
use crate::upstream::Tally;

/// Number of steps in a window.
pub(super) const STEPS: u32 = 10;

/// An instance is not an outlier if its typical time is at most this, however fast the others are.
const FAST: Duration = Duration::from_millis(10);

/// The tallies of one instance.
#[derive(Debug, Default)]
pub(super) struct Window {
    steps: VecDeque<Tally>,
    total: Tally,
}

impl Window {
    /// Adds a step and removes the oldest.
    pub(super) fn push(&mut self, tally: Tally) {
        self.steps.push_back(tally);
        if self.steps.len() > STEPS as usize {
            self.steps.pop_front();
        }
        self.total = Tally::default();
        self.steps.iter().for_each(|step| self.total += *step);
    }

    pub(super) fn clear(&mut self) {
        *self = Window::default();
    }

    /// The reason why the failure rate is too high, or `None` if it is not.
    pub(super) fn failing(&self, config: &Outlier) -> Option<String> {
        let Tally { requests, failures, .. } = self.total;
        let limit = u64::from(config.error_rate?);
        let is_failing = requests >= config.min_requests && failures * 100 >= limit * requests;
        is_failing.then(|| format!("{failures} failures of {requests} requests within {:?}", config.window))
    }

    /// The typical response time, or `None` if fewer than `min_requests` requests got a response.
    pub(super) fn typical_time(&self, config: &Outlier) -> Option<Duration> {
        self.total.typical_time().filter(|_| self.total.answers() >= config.min_requests)
    }
}

/// The reason why the instance at index `place` is too slow compared with the median of the others, or `None`
/// if it is not. `times` holds the typical times of the instances that are able to serve and have enough
/// requests.
pub(super) fn slow(config: &Outlier, times: &[(usize, Duration)], place: usize) -> Option<String> {
    let factor = config.latency?;
    let (_, own) = times.iter().find(|(one, _)| *one == place)?;
    let mut others: Vec<Duration> =
        times.iter().filter(|(one, _)| *one != place).map(|(_, time)| *time).collect();
    others.sort_unstable();
    // The median; of an even number of times the lower of the two in the middle.
    let usual = *others.get(others.len().checked_sub(1)? / 2)?;
    let is_slow = *own > FAST && *own >= usual * factor;
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    is_slow.then(|| {
        format!(
            "{:.1} ms to the head of an answer, others {:.1} ms, within {:?}",
            millis(*own),
            millis(usual),
            config.window
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(times: &[u64]) -> Vec<(usize, Duration)> {
        times.iter().map(|time| Duration::from_millis(*time)).enumerate().collect()
    }

    fn tally(requests: u64, failures: u64) -> Tally {
        let mut tally = Tally::default();
        (tally.requests, tally.failures) = (requests, failures);
        tally
    }

    #[test]
    fn a_share_of_failures_counts_from_enough_requests_on() {
        let config = Outlier { error_rate: Some(50), min_requests: 20, ..Outlier::DEFAULT };
        for (requests, failures, failing) in
            [(19, 19, false), (20, 9, false), (20, 10, true), (1000, 499, false)]
        {
            let mut window = Window::default();
            window.push(tally(requests, failures));
            assert_eq!(window.failing(&config).is_some(), failing, "{failures} of {requests}");
        }
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let config = Outlier { error_rate: Some(50), min_requests: 20, ..Outlier::DEFAULT };
        let mut window = Window::default();
        window.push(tally(20, 20));
        for _ in 1..STEPS {
            window.push(tally(0, 0));
            assert!(window.failing(&config).is_some());
        }
        window.push(tally(0, 0));
        assert_eq!(window.failing(&config), None);
    }

    #[test]
    fn slow_is_who_takes_several_times_as_long_as_the_others() {
        let config = Outlier { latency: Some(3), ..Outlier::DEFAULT };
        let times = millis(&[20, 22, 60, 19]);
        let slow_ones: Vec<_> = (0..5).filter(|place| slow(&config, &times, *place).is_some()).collect();
        assert_eq!(slow_ones, [2]);
    }

    #[test]
    fn nobody_is_slow_alone_or_when_all_are_or_within_a_few_milliseconds() {
        let config = Outlier { latency: Some(3), ..Outlier::DEFAULT };
        for times in [&[5000][..], &[5000, 5000, 4000], &[1, 1, 9]] {
            let times = millis(times);
            assert!((0..times.len()).all(|place| slow(&config, &times, place).is_none()), "{times:?}");
        }
    }
}
