//! Automatic control of a canary: increases its share step by step, or rolls it back.

use std::time::Duration;

use tokio::time::Instant;

use super::sequential::{Bounds, Levels, Logarithms, Trials, error_increase, latency_increase};
use crate::config::{CanaryAuto, Percent};

/// The counts of one side.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    pub trials: Trials,
    /// Times to first byte in seconds, of requests that did not fail.
    pub times: Logarithms,
}

/// The counts of both sides over the same period.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tallies {
    pub canary: Tally,
    pub stable: Tally,
}

impl Tally {
    /// Counts a failed request.
    pub fn failed(&mut self) {
        self.trials.requests += 1;
        self.trials.failed += 1;
    }

    /// Counts a successful request. `time` is its time to first byte, if comparable.
    pub fn answered(&mut self, time: Option<Duration>) {
        self.trials.requests += 1;
        if let Some(time) = time {
            self.times.add(time.as_secs_f64());
        }
    }

    /// Adds the counts of `other`.
    pub fn merge(&mut self, other: &Tally) {
        self.trials.requests += other.trials.requests;
        self.trials.failed += other.trials.failed;
        self.times.count += other.times.count;
        self.times.sum += other.times.sum;
        self.times.squares += other.times.squares;
    }

    /// The difference to the counts at an earlier time.
    fn since(&self, earlier: &Tally) -> Tally {
        let trials = Trials {
            requests: self.trials.requests.saturating_sub(earlier.trials.requests),
            failed: self.trials.failed.saturating_sub(earlier.trials.failed),
        };
        let times = Logarithms {
            count: self.times.count.saturating_sub(earlier.times.count),
            sum: self.times.sum - earlier.times.sum,
            squares: self.times.squares - earlier.times.squares,
        };
        Tally { trials, times }
    }
}

/// What was measured at one share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    pub tallies: Tallies,
    /// Difference of the failure rates.
    pub errors: Bounds,
    /// Difference of the mean logarithms of the times to first byte; `None` while there are too few.
    pub latency: Option<Bounds>,
    /// How long the share has been unchanged.
    pub held: Duration,
}

/// The result of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is significant yet.
    Wait,
    /// The canary is not worse than allowed. Set this share.
    Step(Percent),
    /// The canary fails more often than allowed.
    TooManyErrors,
    /// The canary is slower than allowed.
    TooSlow,
}

/// Compares both sides, in one comparison per share.
#[derive(Debug)]
pub struct Controller {
    config: CanaryAuto,
    comparison: Option<Comparison>,
    /// Number of comparisons, including the present one.
    number: f64,
}

#[derive(Debug)]
struct Comparison {
    percent: Percent,
    since: Instant,
    /// The totals at its start.
    before: Tallies,
}

impl Controller {
    pub fn new(config: CanaryAuto) -> Self {
        Controller { config, comparison: None, number: 0.0 }
    }

    /// Evaluates the totals counted so far, which never decrease. `percent` is the present share of the
    /// canary. A changed share starts a new comparison.
    pub fn look(&mut self, totals: &Tallies, percent: Percent, now: Instant) -> (Decision, Evidence) {
        if self.comparison.as_ref().is_none_or(|comparison| comparison.percent != percent) {
            self.comparison = Some(Comparison { percent, since: now, before: *totals });
            self.number += 1.0;
        }
        let evidence = self.evidence(totals, now);
        (self.decide(&evidence, percent), evidence)
    }

    /// Discards the present comparison. The next call of [`look`](Self::look) starts a new one, even at the
    /// same share.
    pub fn restart(&mut self) {
        self.comparison = None;
    }

    fn evidence(&self, totals: &Tallies, now: Instant) -> Evidence {
        let (before, held) = match &self.comparison {
            Some(comparison) => (comparison.before, now.saturating_duration_since(comparison.since)),
            None => (Tallies::default(), Duration::ZERO),
        };
        let tallies = Tallies {
            canary: totals.canary.since(&before.canary),
            stable: totals.stable.since(&before.stable),
        };
        let Tallies { canary, stable } = &tallies;
        let levels = self.levels();
        Evidence {
            errors: error_increase(canary.trials, stable.trials, levels),
            latency: latency_increase(canary.times, stable.times, levels),
            tallies,
            held,
        }
    }

    /// The n-th comparison may use 1 / n(n+1) of the false alarm probability, half of it for each quantity.
    /// The sum over any number of comparisons is then at most the whole. A step up requires that both
    /// quantities pass, which needs no such correction (intersection-union test: Berger, Technometrics 24,
    /// 1982).
    fn levels(&self) -> Levels {
        let share = 1.0 / (self.number * (self.number + 1.0));
        Levels { lower: self.config.false_alarm * share / 2.0, upper: self.config.false_alarm }
    }

    /// Rolls back as soon as a lower bound exceeds what is allowed. Steps up only if both upper bounds are
    /// within it and the share has been held for the configured time.
    fn decide(&self, evidence: &Evidence, percent: Percent) -> Decision {
        let (most_errors, most_latency) =
            (self.config.max_error_increase, self.config.max_latency_increase.ln_1p());
        let Evidence { errors, latency, held, .. } = evidence;
        if errors.lower > most_errors {
            return Decision::TooManyErrors;
        }
        let Some(latency) = latency else { return Decision::Wait };
        if latency.lower > most_latency {
            return Decision::TooSlow;
        }
        let is_good = errors.upper <= most_errors && latency.upper <= most_latency;
        let next = self.config.steps.iter().copied().find(|step| *step > percent);
        match next.filter(|_| is_good && *held >= self.config.hold) {
            Some(next) => Decision::Step(next),
            None => Decision::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto() -> CanaryAuto {
        CanaryAuto {
            steps: [10.0, 50.0, 100.0].into_iter().filter_map(Percent::new).collect(),
            hold: Duration::from_secs(60),
            max_error_increase: 0.01,
            max_latency_increase: 0.1,
            false_alarm: 0.01,
        }
    }

    /// `requests` requests, of which 1 + `extra` in a hundred fail. The others take 10 to 20 ms, times
    /// `factor`.
    fn tally(requests: u64, extra: u64, factor: f64) -> Tally {
        let mut tally = Tally::default();
        for n in 0..requests {
            match n % 100 < 1 + extra {
                true => tally.failed(),
                false => {
                    tally.answered(Some(Duration::from_secs_f64((0.01 + (n % 10) as f64 / 1000.0) * factor)))
                }
            }
        }
        tally
    }

    fn percent(value: f64) -> Percent {
        Percent::new(value).unwrap()
    }

    /// The decision after `held` seconds with the canary's counts `canary` and nine times as many requests to
    /// the stable version.
    fn decided(canary: Tally, held: u64) -> Decision {
        let mut controller = Controller::new(auto());
        let start = Instant::now();
        let (first, _) = controller.look(&Tallies::default(), percent(10.0), start);
        assert_eq!(first, Decision::Wait);
        let totals = Tallies { canary, stable: tally(canary.trials.requests * 9, 0, 1.0) };
        controller.look(&totals, percent(10.0), start + Duration::from_secs(held)).0
    }

    #[test]
    fn an_equal_version_goes_on_when_that_is_certain_and_the_time_has_come() {
        assert_eq!(decided(tally(10_000, 0, 1.0), 60), Decision::Step(percent(50.0)));
        assert_eq!(decided(tally(10_000, 0, 1.0), 59), Decision::Wait);
        assert_eq!(decided(tally(500, 0, 1.0), 60), Decision::Wait);
    }

    #[test]
    fn a_worse_version_is_found_out_whatever_the_time() {
        assert_eq!(decided(tally(10_000, 5, 1.0), 1), Decision::TooManyErrors);
        assert_eq!(decided(tally(10_000, 0, 1.3), 1), Decision::TooSlow);
    }

    #[test]
    fn a_better_version_goes_on() {
        assert_eq!(decided(tally(10_000, 0, 0.5), 60), Decision::Step(percent(50.0)));
    }

    #[test]
    fn a_version_as_much_worse_as_allowed_is_left_where_it_is() {
        assert_eq!(decided(tally(10_000, 1, 1.1), 60), Decision::Wait);
    }

    #[test]
    fn a_new_share_begins_anew() {
        let mut controller = Controller::new(auto());
        let start = Instant::now();
        let bad = Tallies { canary: tally(10_000, 5, 1.0), stable: tally(90_000, 0, 1.0) };
        let (decision, evidence) = controller.look(&bad, percent(10.0), start);
        assert_eq!((decision, evidence.tallies), (Decision::Wait, Tallies::default()));
        let mut more = bad;
        more.canary.merge(&tally(1_000, 0, 1.0));
        let later = start + Duration::from_secs(100);
        assert_eq!(controller.look(&more, percent(20.0), later).0, Decision::Wait);
        let evidence = controller.look(&more, percent(20.0), later + Duration::from_secs(1)).1;
        assert_eq!((evidence.tallies, evidence.held), (Tallies::default(), Duration::from_secs(1)));
    }

    #[test]
    fn all_comparisons_together_spend_no_more_false_alarms_than_stated() {
        let mut controller = Controller::new(auto());
        let now = Instant::now();
        let spent: f64 = (0..1_000)
            .map(|n| {
                controller.look(&Tallies::default(), percent(f64::from(n % 2) + 1.0), now);
                2.0 * controller.levels().lower
            })
            .sum();
        assert!((0.0099..=0.01).contains(&spent), "{spent}");
    }
}
