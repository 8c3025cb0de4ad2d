//! A checker that knows nothing of how the program works: clients, applications, operators and a nemesis do what
//! they do, and a verdict about the promises is given from their history alone.

mod applications;
mod clients;
mod crowd;
mod history;
mod house;
mod life;
mod nemesis;
mod plan;
mod run;
mod series;
mod servers;
mod verdict;
mod verdict_tests;
mod world;
mod writer;

use plan::{Kind, Plan, Topology};
use series::{Sum, hold};

use crate::proofs::{report, scaled};

/// So that uses lengthen the life of sessions once or twice, often, very often, and never.
fn idle_timeouts() -> [Option<u64>; 4] {
    [Some(60), Some(20), Some(shortest()), None]
}

/// A session is used at least so often, also on a machine that has other things to do.
fn shortest() -> u64 {
    scaled(15, 6)
}

/// What goes wrong with servers of this kind: so many phases.
fn plan(topology: Topology, seed: u64, count: usize) -> Plan {
    use Kind::*;
    let idle = idle_timeouts()[seed as usize % 4];
    let mut kinds = Kind::ALL.map(|(kind, _)| kind).to_vec();
    match idle {
        // A session that cannot be used for so short a time ends.
        Some(idle) if idle == shortest() => {
            kinds = vec![Nothing, Script, Storm, KilledFollowers, LateLookUps, LateChanges, Swapped, Flushed]
        }
        _ => kinds.retain(|kind| !matches!(kind, FlushedBeforeSilence | EndedInGapBeforeSilence)),
    }
    Plan { topology, goes_on: false, idle, locks_out: true, seed, phases: Vec::new() }.draw(&kinds, count)
}

#[tokio::test]
async fn at_one_address_every_promise_holds_whatever_goes_wrong() {
    let count = scaled(6, 25);
    hold("one address", 0.35, |seed| plan(Topology::One, seed, count)).await;
}

#[tokio::test]
async fn at_several_addresses_every_promise_holds_whatever_goes_wrong() {
    let count = scaled(5, 25);
    hold("hosts", 0.2, |seed| plan(Topology::Hosts, seed, count)).await;
}

#[tokio::test]
async fn with_sentinels_every_promise_holds_whatever_goes_wrong() {
    let count = scaled(3, 15);
    hold("sentinel", 0.3, |seed| plan(Topology::Sentinel, seed, count)).await;
}

#[tokio::test]
async fn what_goes_on_in_an_outage_is_nothing_that_was_over_before() {
    use Kind::*;
    let kinds = [FlushedBeforeSilence, EndedInGapBeforeSilence, Silence, NoReplies, Cut, Frozen, Restarted];
    let count = scaled(3, 14);
    hold("stale", 0.15, |seed| {
        Plan { goes_on: true, idle: None, ..plan(Topology::One, seed, 0) }.draw(&kinds, count)
    })
    .await;
}

#[tokio::test]
async fn while_nothing_is_wrong_every_promise_holds() {
    let count = scaled(1, 4);
    hold("healthy", 0.0, |seed| plan(Topology::One, seed, 0).draw(&[Kind::Nothing], count)).await;
}

/// What `VESTIBULE_SCHEDULE` says, if it does.
#[tokio::test]
async fn a_plan_that_is_given_holds() {
    let Ok(text) = std::env::var("VESTIBULE_SCHEDULE") else { return };
    let plan: Plan = text.parse().unwrap();
    let verdict = run::run(&plan).await;
    run::tell(&plan, &verdict);
    let is_kept = verdict.violations.is_empty();
    let mut sum = Sum::default();
    sum.add(verdict);
    report("checker", format!("as given: {sum}"));
    assert!(is_kept, "broken");
}
