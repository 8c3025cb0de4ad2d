//! Published figures beside what is measured.

use super::{Comparing, SCENARIO};

/// What the scenario wishes of a comparison.
const STAGING: &str = r#"
[compare]
modes = ["local", "shared"]
events = []
instances = 2
slots = 32
answer = "20ms"
login = "10ms"

[[compare.published]]
mode = "local"
figure = "latency_mean"
value = "680"
[[compare.published]]
mode = "sticky"
figure = "actions_failed"
value = "0.2"

[[compare.assumption]]
about = "One instance"
instances = 1
[[compare.assumption]]
about = "The store is far away"
store_delay = "4ms"
"#;

#[tokio::test]
async fn published_figures_are_shown_beside_ours_and_each_assumption_is_measured() {
    let scenario = format!("{SCENARIO}{STAGING}");
    let compared = Comparing::start_with(&scenario, &["--rounds", "1", "--duration", "2s"]).end().await;
    assert_eq!(compared.code, Some(0), "{}\n{}", compared.stdout, compared.stderr);

    let json = compared.json();
    let target = "2 stub instances of 32 slots, a profile takes 20 ms, a login takes 10 ms";
    assert_eq!(json["setup"]["target"], target);
    let claims = &json["published"]["claims"];
    assert_eq!((&claims[0]["mode"], &claims[0]["published"]), (&"local".into(), &680.0.into()));
    assert!(claims[0]["measured"]["mean"].as_f64().unwrap() > 20.0);
    assert!(claims[1]["measured"].is_null(), "sticky did not run");

    let assumptions = json["published"]["assumptions"].as_array().unwrap();
    let about: Vec<_> = assumptions.iter().map(|assumption| assumption["about"].as_str().unwrap()).collect();
    assert_eq!(about, ["One instance", "The store is far away"]);
    let figure = |assumption: usize, mode: usize, name: &str| {
        let figures = assumptions[assumption]["modes"][mode][1].as_array().unwrap();
        figures.iter().find(|figure| figure[0] == name).unwrap()[1].as_f64().unwrap()
    };
    assert_eq!(figure(0, 0, "sessions_lost"), 0.0, "one instance knows every login");
    assert!(figure(1, 0, "sessions_lost") > 0.0, "two instances do not");
    assert_eq!(figure(1, 1, "sessions_lost"), 0.0, "shared sessions are not lost to a slow store");
    assert!(compared.stdout.contains("The store is far away"), "{}", compared.stdout);
}
