//! A second version gets its share of the sessions and keeps them; a worse one is found out within so many requests,
//! an equal one goes to everybody, and false alarms are as rare as stated.

use std::collections::HashMap;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;
use vestibule::canary::{Controller, Decision, Tallies};
use vestibule::config::{CanaryAuto, Percent};

use super::{report, scaled};
use crate::support::client::{Client, Response};
use crate::support::config::Config;
use crate::support::service::Service;
use crate::support::vestibule::{Program, write};

const RUNS: u64 = 200;
/// Requests between two looks.
const BATCH: u64 = 500;
/// Requests to the canary within which one that fails 5 % more is rolled back at 10 %, as the README states.
const WITHIN_ERRORS: u64 = 2_000;
/// Likewise one that is 30 % slower.
const WITHIN_LATENCY: u64 = 1_000;
/// Requests to the canary within which an equal one takes a step.
const WITHIN_STEP: u64 = 20_000;

/// A second version beside one that fails once in a hundred requests and takes 50 ms, with logarithms that
/// deviate by 0.5.
#[derive(Clone, Copy)]
struct Version {
    failure: f64,
    slowness: f64,
}

const EQUAL: Version = Version { failure: 0.01, slowness: 1.0 };

/// The defaults, but without waiting.
fn auto() -> CanaryAuto {
    CanaryAuto {
        steps: [10.0, 25.0, 50.0, 100.0].into_iter().filter_map(Percent::new).collect(),
        hold: Duration::from_nanos(1),
        max_error_increase: 0.01,
        max_latency_increase: 0.1,
        false_alarm: 0.01,
    }
}

/// Standard normal (Box and Muller).
fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

/// One rollout with its requests drawn one by one.
struct Rollout {
    rng: Rng,
    controller: Controller,
    totals: Tallies,
    version: Version,
    now: Instant,
}

impl Rollout {
    fn new(seed: u64, version: Version) -> Self {
        let (rng, now) = (Rng::with_seed(seed), Instant::now());
        Self { rng, controller: Controller::new(auto()), totals: Tallies::default(), version, now }
    }

    /// The next requests at this share, and what is decided then.
    fn go_on(&mut self, share: Percent) -> Decision {
        for _ in 0..BATCH {
            let is_canary = self.rng.f64() * 100.0 < share.value();
            let version = if is_canary { self.version } else { EQUAL };
            let tally = if is_canary { &mut self.totals.canary } else { &mut self.totals.stable };
            if self.rng.f64() < version.failure {
                tally.failed();
            } else {
                let seconds = 0.05 * version.slowness * (0.5 * normal(&mut self.rng)).exp();
                tally.answered(Some(Duration::from_secs_f64(seconds)));
            }
        }
        self.now += Duration::from_secs(1);
        self.controller.look(&self.totals, share, self.now).0
    }

    fn sent(&self) -> u64 {
        self.totals.canary.trials.requests
    }

    /// Stays at `share` until there is a decision or the canary has had this many requests; these are told.
    fn decide(&mut self, share: Percent, most: u64) -> (Decision, u64) {
        // The first look only begins.
        self.controller.look(&self.totals, share, self.now);
        let before = self.sent();
        loop {
            let decision = self.go_on(share);
            let sent = self.sent() - before;
            if decision != Decision::Wait || sent >= most {
                return (decision, sent);
            }
        }
    }
}

fn percent(value: f64) -> Percent {
    Percent::new(value).unwrap()
}

/// `p50 a, p95 b, max c`.
fn spread(mut numbers: Vec<u64>) -> String {
    numbers.sort_unstable();
    let at = |percent: usize| numbers[(numbers.len() * percent / 100).min(numbers.len() - 1)];
    format!("p50 {}, p95 {}, max {}", at(50), at(95), at(100))
}

/// Every run must end with `expected`.
fn found_out(what: &str, version: Version, within: u64, expected: Decision) {
    let mut samples = Vec::new();
    for seed in 0..RUNS {
        let (decision, sent) = Rollout::new(seed, version).decide(percent(10.0), within);
        assert_eq!((decision, seed), (expected, seed), "after {sent} requests");
        samples.push(sent);
    }
    let figures = format!("{RUNS} of {RUNS} rolled back within {within} requests to it: {}", spread(samples));
    report(what, figures);
}

#[test]
fn a_version_that_fails_five_percent_more_is_rolled_back_within_the_stated_requests() {
    let version = Version { failure: 0.06, ..EQUAL };
    found_out("a canary that fails 5 % more", version, WITHIN_ERRORS, Decision::TooManyErrors);
}

#[test]
fn a_version_that_is_thirty_percent_slower_is_rolled_back_within_the_stated_requests() {
    let version = Version { slowness: 1.3, ..EQUAL };
    found_out("a canary that is 30 % slower", version, WITHIN_LATENCY, Decision::TooSlow);
}

#[test]
fn an_equal_version_is_promoted_and_false_alarms_are_no_more_than_stated() {
    let (mut promoted, mut alarms, mut samples) = (0, 0, Vec::new());
    for seed in 0..RUNS {
        let mut rollout = Rollout::new(seed, EQUAL);
        let mut share = percent(10.0);
        while share < Percent::ALL {
            match rollout.decide(share, WITHIN_STEP) {
                (Decision::Step(next), _) => share = next,
                (Decision::Wait, sent) => panic!("run {seed}: nothing decided at {share} after {sent}"),
                (Decision::TooManyErrors | Decision::TooSlow, _) => break,
            }
        }
        match share {
            Percent::ALL => promoted += 1,
            _ => alarms += 1,
        }
        samples.push(rollout.sent());
    }
    report(
        "an equal canary",
        format!(
            "{promoted} of {RUNS} promoted, {alarms} false alarms (stated: at most 1 %), requests to it: {}",
            spread(samples)
        ),
    );
    assert!(alarms <= RUNS / 100 && promoted + alarms == RUNS);
}

#[test]
fn a_version_just_as_bad_as_allowed_raises_no_more_false_alarms_than_stated() {
    let version = Version { failure: 0.02, slowness: 1.1 };
    let most = scaled(3_000, 20_000);
    let mut count: HashMap<&str, u64> = HashMap::new();
    for seed in 0..RUNS {
        let word = match Rollout::new(seed, version).decide(percent(10.0), most).0 {
            Decision::TooManyErrors | Decision::TooSlow => "alarm",
            Decision::Step(_) => "step",
            Decision::Wait => "wait",
        };
        *count.entry(word).or_default() += 1;
    }
    let of = |word| count.get(word).copied().unwrap_or_default();
    let (alarms, steps) = (of("alarm"), of("step"));
    report(
        "a canary just as bad as allowed",
        format!(
            "{alarms} false alarms and {steps} steps in {RUNS} runs of {most} requests to it (stated: at most 1 %)"
        ),
    );
    assert!(alarms <= RUNS / 100 && steps <= RUNS / 100);
}

fn side(response: &Response) -> &str {
    response.text()
}

#[tokio::test]
async fn ten_percent_of_the_sessions_are_ten_percent_and_nobody_changes_side() {
    let sessions = scaled(4_000, 20_000);
    let (stable, canary) =
        (Service::telling(|_| "stable".to_owned()), Service::telling(|_| "canary".to_owned()));
    let secret = write("0123456789abcdef0123456789abcdef");
    let token = "operator-token-0123456789";
    let tables = format!(
        "[route.canary]\nupstream = \"v2\"\npercent = \"10%\"\n\
         [[upstream]]\nname = \"v2\"\n[[upstream.instance]]\naddress = \"{}\"\n\
         [session]\nmode = \"local\"\n[affinity]\nsecret = \"file:{}\"",
        canary.address(),
        secret.path().display()
    );
    let config = Config::to(&[stable.address()]).workers(2).token(token).with(&tables);
    let program = Program::start(config).await;
    let mut client = Client::connect(program.address).await;
    let mut clients = Vec::new();
    for n in 0..sessions {
        let cookie = format!("session-id=session-{n}");
        let answer = client.request("GET", "/", &[("Cookie", &cookie)], b"").await;
        let kept = answer.headers.get("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        clients.push((side(&answer).to_owned(), format!("{cookie}; {kept}")));
    }
    let on_canary = clients.iter().filter(|(side, _)| side == "canary").count();
    let mut moved = 0;
    for share in [50, 1, 100] {
        let authorization = format!("Bearer {token}");
        let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
        let body = format!("{{\"route\": \"/\", \"percent\": {share}}}");
        let mut admin = Client::connect(program.admin).await;
        let answer = admin.request("POST", "/api/v1/canaries", &headers, body.as_bytes()).await;
        assert_eq!(answer.status, 200);
        for (expected, cookie) in clients.iter().step_by(4) {
            let answer = client.request("GET", "/", &[("Cookie", cookie)], b"").await;
            moved += usize::from(side(&answer) != expected);
        }
    }
    let share = 100.0 * on_canary as f64 / sessions as f64;
    report(
        "a canary at 10 %",
        format!("{share:.2} % of {sessions} sessions, {moved} changed side over three other shares"),
    );
    assert!((9.0..=11.0).contains(&share), "{share}");
    assert_eq!(moved, 0);
}
