//! A checker that knows nothing of how the program works: clients, applications, operators and a nemesis do what
//! they do, and a verdict about the promises is given from their history alone.

mod applications;
mod clients;
mod history;
mod house;
mod life;
mod nemesis;
mod plan;
mod run;
mod servers;
mod verdict;
mod verdict_tests;
mod world;
mod writer;

use plan::{Kind, Plan, Topology};
use run::{hold, run, tell};

#[tokio::test]
async fn a_plan_that_is_given_holds() {
    let Ok(text) = std::env::var("VESTIBULE_SCHEDULE") else { return };
    let plan: Plan = text.parse().unwrap();
    let verdict = run(&plan).await;
    tell(&plan, &verdict);
    assert!(verdict.violations.is_empty(), "broken");
}
