//! A comparison as it could have been: three modes, three rounds, one instance killed, two added.

use std::collections::BTreeMap;

use fastrand::Rng;
use vestibule::lab::compare::{
    Assumption, Claim, Comparison, Contrast, EventMark, Figure, Machine, ModeResult, Oracle, Published, Run,
    Setup, Verdict, contrast, estimate, verdict,
};
use vestibule::lab::load::{ActionResult, Histogram, LoadResult, Loss, Sessions, Slice};

const SECONDS: usize = 60;
const KILLED: f64 = 20.0;
const BACK: f64 = 26.0;
const ADDED: f64 = 40.0;
/// Actions per second.
const RATE: u64 = 120;
const SESSIONS: u64 = 400;

/// How a mode behaves.
struct Habit {
    mode: &'static str,
    /// Lost sessions in percent of all, at all times and at the kill.
    drip: f64,
    burst: f64,
    /// Factor on all times.
    slowness: f64,
    /// Whether clients stay with their instance when new ones come.
    stays: bool,
    costs: [f64; 4],
}

const HABITS: [Habit; 3] = [
    Habit {
        mode: "local",
        drip: 10.8,
        burst: 1.4,
        slowness: 1.0,
        stays: false,
        costs: [0.0, 0.0, 41.0, 31.0],
    },
    Habit {
        mode: "sticky",
        drip: 0.0,
        burst: 24.6,
        slowness: 1.03,
        stays: true,
        costs: [0.0, 0.0, 42.0, 32.0],
    },
    Habit {
        mode: "shared",
        drip: 0.0,
        burst: 0.0,
        slowness: 1.01,
        stays: false,
        costs: [0.21, 118.0, 46.5, 39.0],
    },
];

/// The sample with its verdict.
pub(crate) fn comparison() -> Comparison {
    let mut rng = Rng::with_seed(11);
    let runs: Vec<Run> = (1..=3)
        .flat_map(|round| {
            let shift = 1.0 + (rng.f64() - 0.5) * 0.06;
            HABITS.iter().map(|habit| run(habit, round, shift, &mut rng)).collect::<Vec<_>>()
        })
        .collect();
    with_verdict(runs)
}

/// What somebody else has measured.
fn published() -> Published {
    let figure = Figure::LatencyMean;
    let claim = |mode: &str, published| Claim { mode: mode.to_owned(), figure, published, measured: None };
    let about = "A login takes twice as long <as \"before\">".to_owned();
    let modes = vec![("local".to_owned(), vec![(figure, 1234.5)])];
    Published {
        claims: vec![claim("local", 680.0), claim("shared", 130.0)],
        assumptions: vec![Assumption { about, modes }],
    }
}

/// Everything else of a comparison, from its runs.
pub(crate) fn with_verdict(runs: Vec<Run>) -> Comparison {
    let mut names: Vec<String> = Vec::new();
    for run in &runs {
        if !names.contains(&run.mode) {
            names.push(run.mode.clone());
        }
    }
    let mut comparison = Comparison {
        version: Comparison::VERSION,
        created: "2026-11-23T10:04:31Z".to_owned(),
        program: "0.1.0".to_owned(),
        machine: Machine {
            processor: "AMD EPYC 7763".to_owned(),
            cores: 4,
            memory_mib: 15_990,
            system: "Linux 6.1.0".to_owned(),
        },
        setup: setup(),
        modes: Vec::new(),
        contrasts: Vec::new(),
        verdict: Verdict::default(),
        published: Some(published()),
        runs,
    };
    let values = |mode: &str, figure| comparison.rounds(mode, figure).into_values().collect::<Vec<f64>>();
    let (mut modes, mut contrasts) = (Vec::new(), Vec::new());
    for name in &names {
        let measured = Figure::ALL.into_iter().filter(|figure| !values(name, *figure).is_empty());
        let figures = measured.map(|figure| (figure, estimate(&values(name, figure)))).collect();
        modes.push(ModeResult { mode: name.clone(), figures });
        for figure in Figure::ALL {
            let (base, other) = (values(&names[0], figure), values(name, figure));
            if *name != names[0] && !base.is_empty() && !other.is_empty() {
                let difference = contrast(&base, &other);
                contrasts.push(Contrast { figure, base: names[0].clone(), other: name.clone(), difference });
            }
        }
    }
    (comparison.modes, comparison.contrasts) = (modes, contrasts);
    comparison.verdict = verdict(&comparison);
    comparison
}

fn setup() -> Setup {
    Setup {
        scenario: "dify-chat".to_owned(),
        scenario_text:
            "name = \"dify-chat\"\nseed = 7\n\n[load]\nmodel = \"open\"\nrate = 120\nseconds = 60\n"
                .to_owned(),
        seed: 7,
        rounds: 3,
        target: "4 stub instances of 10 slots".to_owned(),
        store: "a Redis of its own on this machine".to_owned(),
        command: "vestibule compare --scenario dify-chat --seed 7 --rounds 3".to_owned(),
        configurations: HABITS
            .iter()
            .map(|habit| {
                (habit.mode.to_owned(), format!("version = 1\n\n[session]\nmode = \"{}\"\n", habit.mode))
            })
            .collect(),
    }
}

fn run(habit: &Habit, round: u32, shift: f64, rng: &mut Rng) -> Run {
    let losses = losses(habit, rng);
    let mut times = Vec::new();
    let timeline: Vec<Slice> =
        (0..SECONDS).map(|second| slice(habit, second as f64, shift, &losses, &mut times, rng)).collect();
    let all = ActionResult {
        done: timeline.iter().map(|slice| slice.done).sum(),
        failed: timeline.iter().map(|slice| slice.failed).sum(),
        latency: histogram(times),
    };
    let mut instances = BTreeMap::new();
    for slice in &timeline {
        for (name, count) in &slice.instances {
            *instances.entry(name.clone()).or_default() += count;
        }
    }
    let failures = BTreeMap::from([
        ("connect".to_owned(), all.failed / 3),
        ("status 502".to_owned(), all.failed - all.failed / 3),
    ]);
    let load = LoadResult {
        scenario: "dify-chat".to_owned(),
        target: "http://127.0.0.1:8080".to_owned(),
        seed: 7,
        asked_rate: Some(RATE as f64),
        seconds: SECONDS as f64,
        requests: all.done + losses.len() as u64 * 2 + SESSIONS,
        bytes: all.done * 1804,
        sessions: Sessions {
            begun: SESSIONS + losses.len() as u64,
            lost: losses.len() as u64,
            ..Sessions::default()
        },
        all,
        losses,
        failures,
        instances,
        timeline,
        ..LoadResult::default()
    };
    let figures = figures(habit, &load, rng);
    Run {
        mode: habit.mode.to_owned(),
        round,
        idle_shares: Vec::new(),
        oracle: Some(Oracle { lost: load.sessions.lost, agrees: true }),
        events: vec![
            EventMark {
                name: "instance killed".to_owned(),
                subject: "api-2".to_owned(),
                at: KILLED,
                until: Some(BACK),
            },
            EventMark {
                name: "scale-out".to_owned(),
                subject: "api-5, api-6".to_owned(),
                at: ADDED,
                until: None,
            },
        ],
        load,
        figures,
    }
}

fn losses(habit: &Habit, rng: &mut Rng) -> Vec<Loss> {
    let drip =
        (habit.drip / 100.0 * SESSIONS as f64) as u32 + if habit.drip > 0.0 { rng.u32(..5) } else { 0 };
    let burst =
        (habit.burst / 100.0 * SESSIONS as f64) as u32 + if habit.burst > 0.0 { rng.u32(..6) } else { 0 };
    let dripped = (0..drip).map(|_| rng.f64() * SECONDS as f64).collect::<Vec<_>>();
    let moments = dripped.into_iter().chain((0..burst).map(|_| KILLED + rng.f64() * rng.f64() * 12.0));
    let mut moments: Vec<f64> = moments.collect();
    moments.sort_by(f64::total_cmp);
    let numbered = moments.into_iter().zip(0..);
    numbered.map(|(at, user)| Loss { at, user, login: None, instance: Some("api-1".to_owned()) }).collect()
}

/// One second; adds what its actions took to `times`.
fn slice(habit: &Habit, at: f64, shift: f64, losses: &[Loss], times: &mut Vec<f64>, rng: &mut Rng) -> Slice {
    let lost = losses.iter().filter(|loss| (at..at + 1.0).contains(&loss.at)).count() as u64;
    let done = RATE - 9 + rng.u64(..18);
    let failed = if at == KILLED { 9 + rng.u64(..8) } else { u64::from(rng.f64() < 0.03) };
    let crowded = if (KILLED..BACK).contains(&at) { 1.35 } else { 1.0 };
    let mut own: Vec<f64> = (0..done - failed)
        .map(|action| {
            let spread = (0..6).map(|_| rng.f64()).sum::<f64>() - 3.0;
            let stream = if rng.f64() < 0.12 { 14.0 } else { 1.0 };
            let again = if action < lost * 4 { 320.0 } else { 0.0 };
            let time = 22.0 * (spread * 0.8).exp() * stream * crowded * habit.slowness * shift + again;
            (time * 100.0).round() / 100.0
        })
        .collect();
    times.extend(&own);
    own.sort_by(f64::total_cmp);
    let quantile = |share: f64| own[((own.len() - 1) as f64 * share) as usize];
    Slice {
        at,
        done,
        failed,
        lost,
        mean: own.iter().sum::<f64>() / own.len() as f64,
        p50: quantile(0.5),
        p95: quantile(0.95),
        p99: quantile(0.99),
        instances: instances(habit, at, done, rng),
    }
}

fn instances(habit: &Habit, at: f64, done: u64, rng: &mut Rng) -> BTreeMap<String, u64> {
    let weights = (1..=6).map(|number| {
        let is_dead = number == 2 && (KILLED..BACK).contains(&at);
        let is_missing = number > 4 && at < ADDED;
        let newcomer = if habit.stays { 0.3 } else { 1.0 };
        let weight = match (is_dead || is_missing, number > 4) {
            (true, _) => 0.0,
            (_, true) => newcomer,
            _ if habit.stays => 0.8 + 0.15 * f64::from(number),
            _ => 1.0,
        };
        (number, weight * (0.95 + rng.f64() * 0.1))
    });
    let weights: Vec<(i32, f64)> = weights.collect();
    let all: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let share = |weight: f64| (done as f64 * weight / all).round() as u64;
    let present = weights.into_iter().filter(|(_, weight)| *weight > 0.0);
    present.map(|(number, weight)| (format!("api-{number}"), share(weight))).collect()
}

fn histogram(mut times: Vec<f64>) -> Histogram {
    times.sort_by(f64::total_cmp);
    let quantile = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let mut counts: Vec<(f64, u64)> = Vec::new();
    for time in &times {
        match counts.last_mut() {
            Some((last, count)) if last == time => *count += 1,
            _ => counts.push((*time, 1)),
        }
    }
    Histogram {
        count: times.len() as u64,
        mean: times.iter().sum::<f64>() / times.len() as f64,
        p50: quantile(0.5),
        p90: quantile(0.9),
        p95: quantile(0.95),
        p99: quantile(0.99),
        p999: quantile(0.999),
        max: quantile(1.0),
        counts,
    }
}

fn figures(habit: &Habit, load: &LoadResult, rng: &mut Rng) -> Vec<(Figure, f64)> {
    let mut near = |value: f64| value * (0.99 + rng.f64() * 0.02);
    let latency = &load.all.latency;
    let [commands, bytes, cpu, memory] = habit.costs.map(&mut near);
    let (busiest, spread, share) = if habit.stays { (1.31, 0.21, 15.8) } else { (1.03, 0.02, 33.2) };
    vec![
        (Figure::LatencyMean, latency.mean),
        (Figure::LatencyP50, latency.p50),
        (Figure::LatencyP95, latency.p95),
        (Figure::LatencyP99, latency.p99),
        (Figure::FirstTokenP50, near(151.0 * habit.slowness)),
        (Figure::SessionsLost, load.sessions.lost as f64 * 100.0 / load.sessions.begun as f64),
        (Figure::ActionsFailed, load.all.failed as f64 * 100.0 / load.all.done as f64),
        (Figure::ImbalanceMax, near(busiest)),
        (Figure::ImbalanceCv, near(spread)),
        (Figure::ScaleOutShare, near(share)),
        (Figure::StoreCommands, commands),
        (Figure::StoreBytes, bytes),
        (Figure::ProxyCpu, cpu),
        (Figure::ProxyMemory, memory),
    ]
}
