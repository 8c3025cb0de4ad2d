//! A run of a plan, and the search for the smallest plan that still fails.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::history::What;
use super::house::House;
use super::nemesis::strike;
use super::plan::Plan;
use super::verdict::{Terms, Verdict, judge};
use super::world::World;
use super::{applications, clients};
use crate::proofs::{Spread, report, scaled};

/// How long everything may take to be right after the last fault.
const RECOVERY: Duration = Duration::from_secs(3);

pub(super) fn terms(plan: &Plan) -> Terms {
    Terms {
        prompt: Duration::from_millis(50),
        max_staleness: Duration::from_secs(1),
        slack: scaled(Duration::from_millis(250), Duration::from_millis(150)),
        goes_on: plan.goes_on,
    }
}

/// Lets it happen and judges it.
pub(super) async fn run(plan: &Plan) -> Verdict {
    let mut house = House::start(plan).await;
    let world = World::new(house.primary().address(), [house.seat(0), house.seat(1)], plan);
    let threads =
        [clients::start(&world, 0), clients::start(&world, 1), applications::start(&world, plan.seed)];
    sleep(Duration::from_millis(500)).await; // there are sessions, and they are used
    for phase in &plan.phases {
        strike(&mut house, &world, phase).await;
        sleep(phase.pause).await; // all is well
    }
    let begun = world.log.now();
    sleep(RECOVERY).await; // all is well
    world.log.add(begun, What::Healed);
    sleep(Duration::from_millis(800)).await; // all are served
    world.end();
    for thread in threads {
        let joined = tokio::task::spawn_blocking(|| thread.join()).await.unwrap();
        if let Err(panic) = joined {
            std::panic::resume_unwind(panic);
        }
    }
    let history = world.log.end();
    keep(&history);
    judge(&history, &terms(plan))
}

/// Writes a history to the file that `VESTIBULE_HISTORY` names.
fn keep(history: &[super::history::Event]) {
    let Some(path) = std::env::var_os("VESTIBULE_HISTORY") else { return };
    let lines: Vec<String> = history.iter().map(ToString::to_string).collect();
    std::fs::write(path, lines.join("\n")).unwrap();
}

/// Runs a plan; of one that fails, shows the smallest part that still does, and fails.
pub(super) async fn hold(plan: &Plan) -> Verdict {
    let verdict = run(plan).await;
    tell(plan, &verdict);
    if verdict.violations.is_empty() {
        return verdict;
    }
    let smallest = shrink(plan, scaled(Duration::from_secs(120), Duration::from_secs(900))).await;
    panic!("broken; once more: VESTIBULE_SCHEDULE=\"{smallest}\" (all of it: \"{plan}\")");
}

async fn shrink(plan: &Plan, patience: Duration) -> Plan {
    let (mut smallest, end) = (plan.clone(), Instant::now() + patience);
    'again: loop {
        for smaller in smallest.smaller() {
            for _ in 0..2 {
                if Instant::now() > end {
                    return smallest;
                }
                if !run(&smaller).await.violations.is_empty() {
                    smallest = smaller;
                    continue 'again;
                }
            }
        }
        return smallest;
    }
}

pub(super) fn tell(plan: &Plan, verdict: &Verdict) {
    let Verdict { asked, refused, changes, revoked, faults, surprises, .. } = verdict;
    report("checker", format!("VESTIBULE_SCHEDULE=\"{plan}\""));
    report(
        "checker",
        format!(
            "{asked} requests, {refused} of them refused, {changes} changes, {revoked} revocations, faults {faults:?}, {surprises} sessions that ended by themselves"
        ),
    );
    let spread = |durations: &[Duration]| Spread::of(durations.iter().copied());
    report("checker", format!("late: {}", spread(&verdict.late)));
    report("checker", format!("late in faults: {}", spread(&verdict.late_in_faults)));
    report("checker", format!("last 503 after a fault: {}", spread(&verdict.recoveries)));
    for (number, violation) in verdict.violations.iter().enumerate() {
        if number < 8 {
            report("checker", violation);
        }
    }
    let mut by_promise = std::collections::BTreeMap::new();
    for violation in &verdict.violations {
        *by_promise.entry(violation.promise).or_insert(0) += 1;
    }
    report("checker", format!("broken: {by_promise:?}"));
}
