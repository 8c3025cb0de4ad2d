//! Comparisons over several rounds: `local` loses sessions, `sticky` exactly those of the killed instance, `shared`
//! none, also when the store fails over, and the instances' account is that of the users in every run.

use serde_json::Value;

use super::{report, scaled};
use crate::compare::{Compared, lost};

/// Runs of a mode, sessions and lost ones, and whether every account agrees.
fn told(compared: &Compared, mode: &str) -> u64 {
    let runs = compared.runs(mode);
    let begun: u64 = runs.iter().filter_map(|run| run["load"]["sessions"]["begun"].as_u64()).sum();
    let all: u64 = runs.iter().map(lost).sum();
    let agree = runs.iter().filter(|run| agrees(run)).count();
    report(mode, format!("{} runs, {begun} sessions, {all} lost, {agree} accounts agree", runs.len()));
    assert_eq!(agree, runs.len(), "{mode}");
    all
}

fn agrees(run: &Value) -> bool {
    run["oracle"]["agrees"] == true && run["oracle"]["lost"].as_u64() == Some(lost(run))
}

#[tokio::test]
async fn every_mode_loses_what_it_must_and_nothing_else() {
    let (rounds, duration) = scaled(("1", "6s"), ("5", "15s"));
    let arguments = ["--rounds", rounds, "--duration", duration, "--seed", "1"];
    let compared = Compared::of(&arguments).await;
    assert_eq!(compared.code, Some(0), "{}\n{}", compared.stdout, compared.stderr);
    assert!(told(&compared, "local") > 0);
    assert!(told(&compared, "sticky") > 0);
    assert_eq!(told(&compared, "shared"), 0);
    let events = "store-failover,rolling-restart,hot-spot";
    let modes = ["--modes", "shared,shared-uncached,shared-synchronous", "--events", events];
    let compared = Compared::of(&[&arguments[..], &modes].concat()).await;
    assert_eq!(compared.code, Some(0), "{}\n{}", compared.stdout, compared.stderr);
    for mode in ["shared", "shared-uncached", "shared-synchronous"] {
        assert_eq!(told(&compared, mode), 0);
    }
}
