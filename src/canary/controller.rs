//! Steps up and back by what both sides have shown.

use std::time::Duration;

use tokio::time::Instant;

use super::sequential::{Bounds, Levels, Logarithms, Trials, error_increase, latency_increase};
use crate::config::{CanaryAuto, Percent};

/// What one side has shown.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    pub trials: Trials,
    /// Of times to the first byte, in seconds, of requests that did not fail.
    pub times: Logarithms,
}

/// What both sides have shown, counted alike.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tallies {
    pub canary: Tally,
    pub stable: Tally,
}

impl Tally {
    /// Counts a request that failed.
    pub fn failed(&mut self) {
        self.trials.requests += 1;
        self.trials.failed += 1;
    }

    /// Counts a request that was answered, after `time` where that can be compared.
    pub fn answered(&mut self, time: Option<Duration>) {
        self.trials.requests += 1;
        if let Some(time) = time {
            self.times.add(time.as_secs_f64());
        }
    }

    /// Adds the numbers of `other`.
    pub fn merge(&mut self, other: &Tally) {
        self.trials.requests += other.trials.requests;
        self.trials.failed += other.trials.failed;
        self.times.count += other.times.count;
        self.times.sum += other.times.sum;
        self.times.squares += other.times.squares;
    }

    /// What came after `earlier`.
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

/// What is known at one share of clients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    pub tallies: Tallies,
    /// Difference of the shares of failed requests.
    pub errors: Bounds,
    /// Difference of the mean logarithms of the times to the first byte, once there are enough.
    pub latency: Option<Bounds>,
    /// How long the share has been what it is.
    pub held: Duration,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is certain yet.
    Wait,
    /// The canary is certainly not worse than allowed: go on with this share.
    Step(Percent),
    /// It certainly fails more often than allowed.
    TooManyErrors,
    /// It is certainly slower than allowed.
    TooSlow,
}

/// Compares both sides at one share after the other.
#[derive(Debug)]
pub struct Controller {
    config: CanaryAuto,
    comparison: Option<Comparison>,
    /// Comparisons so far, the present one included.
    number: f64,
}

#[derive(Debug)]
struct Comparison {
    percent: Percent,
    since: Instant,
    /// What had been counted before.
    before: Tallies,
}

impl Controller {
    pub fn new(config: CanaryAuto) -> Self {
        Controller { config, comparison: None, number: 0.0 }
    }

    /// Looks at all that has been counted so far (`totals`, never falling) while the canary's share is `percent`.
    /// A new share begins a new comparison.
    pub fn look(&mut self, totals: &Tallies, percent: Percent, now: Instant) -> (Decision, Evidence) {
        if self.comparison.as_ref().is_none_or(|comparison| comparison.percent != percent) {
            self.comparison = Some(Comparison { percent, since: now, before: *totals });
            self.number += 1.0;
        }
        let evidence = self.evidence(totals, now);
        (self.decide(&evidence, percent), evidence)
    }

    /// Forgets the present comparison: the next look begins a new one, whatever the share.
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

    /// The n-th comparison spends 1 / n(n+1) of the false alarms, half of it on either quantity: over any number of
    /// comparisons that is all of it at most. To step up both quantities must pass, which needs no such
    /// correction (intersection-union test: Berger, Technometrics 24, 1982).
    fn levels(&self) -> Levels {
        let share = 1.0 / (self.number * (self.number + 1.0));
        Levels { lower: self.config.false_alarm * share / 2.0, upper: self.config.false_alarm }
    }

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

    /// So many requests, of which one in a hundred fails, `extra` besides, and the others take 10 to 20 ms, times
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

    /// What is decided on so many requests of the canary and nine times as many of the stable version, after
    /// `held`.
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
