//! What each mode loses, by the users' and by the instances' account.

use serde_json::Value;

use super::{Compared, Comparing, SCENARIO, lost};

/// Whether the instances account for the same sessions that the users missed.
fn agrees(run: &Value) -> bool {
    run["oracle"]["agrees"] == true && run["oracle"]["lost"].as_u64() == Some(lost(run))
}

#[tokio::test]
async fn local_loses_sessions_sticky_those_of_the_killed_instance_and_shared_none() {
    let compared =
        Compared::of(&["--rounds", "2", "--instances", "2", "--events", "instance-killed", "--seed", "1"])
            .await;
    assert_eq!(compared.code, Some(0), "{}\n{}", compared.stdout, compared.stderr);
    for mode in ["local", "sticky", "shared"] {
        let runs = compared.runs(mode);
        assert_eq!(runs.len(), 2, "{mode}");
        for run in &runs {
            assert!(agrees(run), "{mode}: {} lost, {}", lost(run), run["oracle"]);
            assert!(run["load"]["sessions"]["begun"].as_u64().unwrap() >= 12);
            assert_eq!(run["events"][0]["name"], "instance killed");
        }
        let all: u64 = runs.iter().map(lost).sum();
        assert_eq!(all > 0, mode != "shared", "{mode} lost {all}");
    }
    let first = &compared.json()["runs"];
    let order: Vec<_> =
        first.as_array().unwrap().iter().map(|run| run["mode"].as_str().unwrap().to_owned()).collect();
    assert_eq!(order, ["local", "sticky", "shared", "sticky", "shared", "local"]);
}

#[tokio::test]
async fn new_instances_take_their_share_of_shared_sessions() {
    let compared =
        Compared::of(&["--rounds", "1", "--modes", "shared", "--events", "scale-out", "--duration", "6s"])
            .await;
    assert_eq!(compared.code, Some(0), "{}\n{}", compared.stdout, compared.stderr);
    let run = compared.runs("shared").remove(0);
    assert_eq!(run["events"][0]["subject"], "api-3, api-4");
    let figures = run["figures"].as_array().unwrap();
    let figure =
        |name: &str| figures.iter().find(|pair| pair[0] == name).map(|pair| pair[1].as_f64().unwrap());
    let share = figure("scale_out_share").unwrap();
    assert!((30.0..70.0).contains(&share), "{share} %");
    for name in ["latency_mean", "sessions_lost", "imbalance_max", "proxy_memory"] {
        assert!(figure(name).is_some(), "{name} of {figures:?}");
    }
    // How many requests there are by health check depends on the machine.
    for name in ["store_commands", "store_bytes", "proxy_cpu"] {
        let share = idle_share(&run, name).unwrap();
        assert_eq!(figure(name).is_some(), share <= 0.2, "{name}: {share} of it idle, {figures:?}");
    }
}

/// How much of a cost is there without any request.
fn idle_share(run: &Value, name: &str) -> Option<f64> {
    let shares = run["idle_shares"].as_array().unwrap();
    shares.iter().find(|pair| pair[0] == name).map(|pair| pair[1].as_f64().unwrap())
}

#[tokio::test]
async fn what_the_proxy_does_anyway_is_no_cost_of_the_few_requests_beside_it() {
    let (start, rest) = SCENARIO.split_once("[session]").unwrap();
    let action = rest.split_once("[[action]]").unwrap().1.replace("session = true\n", "");
    let scenario = format!("{start}\n[arrival]\nrate = 1\n[[action]]{action}")
        .replace("path = \"/console/api/account/profile\"", "path = \"/health\"")
        .replace("headers = { X-CSRF-Token = \"{cookie:csrf_token}\" }", "");
    let arguments = ["--rounds", "2", "--modes", "local,sticky", "--events", "none"];
    let compared = Comparing::start_with(&scenario, &arguments).end().await;
    assert_eq!(compared.code, Some(0), "{}\n{}", compared.stdout, compared.stderr);
    let told = "Not told, as more than a fifth of it is there without any request: processor time of the proxy per request";
    assert!(compared.stdout.contains(told), "{}", compared.stdout);
    assert!(!compared.stdout.contains("\nProcessor time of the proxy per request"), "{}", compared.stdout);
    for run in compared.runs("local").iter().chain(&compared.runs("sticky")) {
        let share = idle_share(run, "proxy_cpu").unwrap();
        assert!(share > 0.0 && !run["figures"].to_string().contains("proxy_cpu"), "{share}");
    }
}

#[tokio::test]
async fn a_careful_rolling_restart_loses_no_shared_session_and_is_exact_with_sticky_ones() {
    let arguments =
        ["--rounds", "1", "--modes", "sticky,shared", "--events", "rolling-restart", "--instances", "2"];
    let compared = Compared::of(&arguments).await;
    assert_eq!(compared.code, Some(0), "{}\n{}", compared.stdout, compared.stderr);
    let (sticky, shared) = (compared.runs("sticky").remove(0), compared.runs("shared").remove(0));
    assert!(agrees(&sticky) && lost(&sticky) > 0, "{}", sticky["oracle"]);
    assert!(agrees(&shared) && lost(&shared) == 0, "{}", shared["oracle"]);
}

#[tokio::test]
async fn a_failover_of_the_store_loses_no_session() {
    let compared = Compared::of(&["--rounds", "1", "--modes", "shared", "--events", "store-failover"]).await;
    assert_eq!(compared.code, Some(0), "{}\n{}", compared.stdout, compared.stderr);
    let run = compared.runs("shared").remove(0);
    assert_eq!(run["events"][0]["name"], "store primary killed");
    assert!(agrees(&run) && lost(&run) == 0, "{} of {}", run["oracle"], run["load"]["sessions"]);
}

#[tokio::test]
async fn the_same_seed_makes_the_same_decisions() {
    let decided = async || {
        let arguments = ["--rounds", "2", "--modes", "sticky", "--events", "instance-killed", "--seed", "7"];
        let compared = Compared::of(&[&arguments[..], &["--duration", "1s"]].concat()).await;
        assert_eq!(compared.code, Some(0), "{}\n{}", compared.stdout, compared.stderr);
        let of_run = |run: &Value| (run["load"]["seed"].clone(), run["events"][0]["subject"].clone());
        (
            compared.json()["setup"]["command"].clone(),
            compared.runs("sticky").iter().map(of_run).collect::<Vec<_>>(),
        )
    };
    let (first, second) = (decided().await, decided().await);
    assert_eq!(first.1, second.1);
    assert!(first.0.as_str().unwrap().ends_with("--seed 7"), "{}", first.0);
}
