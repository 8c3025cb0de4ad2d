//! The random decisions of users. Each decision depends only on the seed and its number, so neither the order
//! of responses nor the number of threads changes any.

use std::f64::consts::TAU;
use std::time::Duration;

use fastrand::Rng;

use crate::config::scenario::{Hot, Scenario, Think};

/// The next action of a user.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Decision {
    /// Index into the scenario's actions.
    pub(super) action: usize,
    /// The value of `{random}`.
    pub(super) random: u64,
    /// Whether the user logs out afterwards.
    pub(super) logs_out: bool,
    /// Think time before the action, in the closed model.
    pub(super) think: Duration,
    /// The user of the action in the open model, from 0.
    pub(super) user: u32,
}

/// Makes all decisions of one load.
#[derive(Debug, Clone)]
pub(super) struct Decisions {
    seed: u64,
    /// Cumulative sums of the actions' weights.
    weights: Vec<u64>,
    users: u32,
    /// Users with a lower number are hot.
    hot: u32,
    hot_times: u32,
    think: Option<Think>,
    log_out: f64,
}

impl Decisions {
    pub(super) fn new(scenario: &Scenario, seed: u64) -> Self {
        let weights = scenario.actions.iter().scan(0, |sum, action| {
            *sum += u64::from(action.weight);
            Some(*sum)
        });
        let users = scenario.users.count;
        let hot = scenario.users.hot;
        let share = hot.map_or(0.0, |hot: Hot| hot.share.value() / 100.0);
        Decisions {
            seed,
            weights: weights.collect(),
            users,
            hot: (f64::from(users) * share).round() as u32,
            hot_times: hot.map_or(1, |hot| hot.times),
            think: scenario.users.think,
            log_out: scenario.session.as_ref().map_or(0.0, |login| login.log_out.value() / 100.0),
        }
    }

    /// Decision number `n` of `user` (from 0) in the closed model.
    pub(super) fn of_user(&self, user: u32, n: u64) -> Decision {
        let mut rng = self.rng(u64::from(user) + 1, n);
        let mut decision = self.draw(&mut rng, user);
        if let Some(think) = &self.think {
            let factor = if user < self.hot { 1.0 / f64::from(self.hot_times) } else { 1.0 };
            decision.think = lognormal(think, &mut rng).mul_f64(factor);
        }
        decision
    }

    /// The decision for action number `n` of the open model.
    pub(super) fn of_arrival(&self, n: u64) -> Decision {
        let mut rng = self.rng(0, n);
        let (hot, times) = (u64::from(self.hot), u64::from(self.hot_times));
        let ticket = rng.u64(..(hot * times + u64::from(self.users - self.hot)).max(1));
        let user = if ticket < hot * times { ticket / times } else { ticket - hot * times + hot };
        self.draw(&mut rng, u32::try_from(user).unwrap_or(0))
    }

    fn draw(&self, rng: &mut Rng, user: u32) -> Decision {
        let ticket = rng.u64(..self.weights.last().copied().unwrap_or(1));
        Decision {
            action: self.weights.partition_point(|sum| *sum <= ticket),
            random: rng.u64(..),
            logs_out: rng.f64() < self.log_out,
            think: Duration::ZERO,
            user,
        }
    }

    /// The random generator for event number `n` of `stream`.
    pub(super) fn rng(&self, stream: u64, n: u64) -> Rng {
        Rng::with_seed(mixed(mixed(mixed(self.seed) ^ stream) ^ n))
    }
}

/// SplitMix64's finaliser: adjacent inputs give unrelated outputs.
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn lognormal(think: &Think, rng: &mut Rng) -> Duration {
    /// The 95th percentile of the standard normal distribution.
    const AT_95: f64 = 1.644_853_627;
    let median = think.median.as_secs_f64();
    let sigma = (think.p95.as_secs_f64() / median).ln() / AT_95;
    // Box-Muller transform; `1 - x` avoids the logarithm of 0.
    let normal = (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (TAU * rng.f64()).cos();
    Duration::try_from_secs_f64(median * (sigma * normal).exp()).unwrap_or(think.p95)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_scenario;

    const SCENARIO: &str = "
name = 'x'
[users]
count = 100
think = { median = '1s', p95 = '3s' }
hot = { share = '10%', times = 9 }
[session]
log_out = '20%'
[[session.login]]
path = '/login'
[[action]]
name = 'often'
path = '/'
weight = 3
[[action]]
name = 'rarely'
path = '/r'
";

    fn decisions(seed: u64) -> Decisions {
        Decisions::new(&parse_scenario(SCENARIO, "x").unwrap(), seed)
    }

    fn near(count: usize, expected: usize) -> bool {
        count.abs_diff(expected) < expected / 10
    }

    #[test]
    fn the_same_seed_makes_the_same_decisions_and_another_does_not() {
        let all = |decisions: Decisions| {
            let of_users = (0..20).flat_map(|user| (0..20).map(move |n| (user, n)));
            let of_users: Vec<_> = of_users.map(|(user, n)| decisions.of_user(user, n)).collect();
            (of_users, (0..400).map(|n| decisions.of_arrival(n)).collect::<Vec<_>>())
        };
        assert_eq!(all(decisions(7)), all(decisions(7)));
        assert_ne!(all(decisions(7)), all(decisions(8)));
    }

    #[test]
    fn decisions_have_the_shares_that_the_scenario_gives() {
        let drawn: Vec<_> = (0..20_000).map(|n| decisions(1).of_arrival(n)).collect();
        let count = |is: fn(&Decision) -> bool| drawn.iter().filter(|decision| is(decision)).count();
        assert!(near(count(|decision| decision.action == 0), 15_000));
        assert!(near(count(|decision| decision.logs_out), 4_000));
        assert!(near(count(|decision| decision.user < 10), 10_000));
        assert!(
            near(count(|decision| decision.user == 99), 111) || count(|decision| decision.user == 99) > 70
        );
        assert_eq!(count(|decision| decision.user >= 100 || decision.action > 1), 0);
    }

    #[test]
    fn pauses_have_their_median_and_95th_percentile_and_hot_users_make_shorter_ones() {
        let thought = |user| {
            let mut pauses: Vec<_> =
                (0..20_000).map(|n| decisions(1).of_user(user, n).think.as_secs_f64()).collect();
            pauses.sort_by(f64::total_cmp);
            [pauses[10_000], pauses[19_000]]
        };
        let ([median, p95], [hot, _]) = (thought(50), thought(0));
        assert!((0.95..1.05).contains(&median), "{median}");
        assert!((2.8..3.2).contains(&p95), "{p95}");
        assert!((0.105..0.117).contains(&hot), "{hot}");
    }
}
