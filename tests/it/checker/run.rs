//! A run of a plan, and the search for the smallest plan that still fails.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::history::What;
use super::house::House;
use super::nemesis::strike;
use super::plan::Plan;
use super::servers::follow_sentinels;
use super::verdict::{Promise, Terms, Verdict, judge};
use super::world::World;
use super::{applications, clients};
use crate::proofs::{Pace, report, scaled};

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
    let (pace, mut house) = (Pace::start(), House::start(plan).await);
    let world = World::new(house.primary().address(), [house.seat(0), house.seat(1)], plan);
    let threads =
        [clients::start(&world, 0), clients::start(&world, 1), applications::start(&world, plan.seed)];
    sleep(Duration::from_millis(500)).await; // there are sessions, and they are used
    for phase in &plan.phases {
        let begun = world.log.now();
        strike(&mut house, &world, phase).await;
        sleep(phase.pause).await; // all is well
        follow_sentinels(&mut house, &world, begun).await;
    }
    let begun = world.log.now();
    sleep(RECOVERY).await; // all is well
    world.log.add(begun, What::Healed);
    sleep(Duration::from_millis(800)).await; // all are served
    follow_sentinels(&mut house, &world, begun).await;
    world.end();
    for thread in threads {
        let joined = tokio::task::spawn_blocking(|| thread.join()).await.unwrap();
        if let Err(panic) = joined {
            std::panic::resume_unwind(panic);
        }
    }
    let history = world.log.end();
    keep(&history);
    judge(&history, &terms(plan), &|from, to| pace.kept(world.log.at(from), world.log.at(to)))
}

/// Writes a history to the file that `VESTIBULE_HISTORY` names.
fn keep(history: &[super::history::Event]) {
    let Some(path) = std::env::var_os("VESTIBULE_HISTORY") else { return };
    let lines: Vec<String> = history.iter().map(ToString::to_string).collect();
    std::fs::write(path, lines.join("\n")).unwrap();
}

/// The smallest part of a plan that still breaks this promise, as far as there is time to find it.
pub(super) async fn shrink(plan: &Plan, promise: Promise, patience: Duration) -> Plan {
    let (mut smallest, end) = (plan.clone(), Instant::now() + patience);
    'again: loop {
        for smaller in smallest.smaller() {
            for _ in 0..2 {
                if Instant::now() > end {
                    return smallest;
                }
                let verdict = run(&smaller).await;
                if verdict.violations.iter().any(|violation| violation.promise == promise) {
                    smallest = smaller;
                    continue 'again;
                }
            }
        }
        return smallest;
    }
}

/// Shows what a run was, and what it broke.
pub(super) fn tell(plan: &Plan, verdict: &Verdict) {
    report("checker", format!("VESTIBULE_SCHEDULE=\"{plan}\""));
    for violation in verdict.violations.iter().take(8) {
        report("checker", violation);
    }
}
