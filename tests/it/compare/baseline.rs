//! A comparison held against an earlier one.

use serde_json::{Value, json};

use super::{Compared, write};

const ARGUMENTS: [&str; 9] =
    ["--modes", "shared", "--events", "none", "--rounds", "3", "--duration", "1s", "--instances=2"];

/// The comparison with its mean latency as if it had been this many times what it was.
fn doctored(comparison: &Value, times: f64) -> Value {
    let mut doctored = comparison.clone();
    for pair in doctored["modes"][0]["figures"].as_array_mut().unwrap() {
        if pair[0] == "latency_mean" {
            let scaled = |value: &Value| json!(value.as_f64().unwrap() * times);
            let estimate = &mut pair[1];
            estimate["mean"] = scaled(&estimate["mean"]);
            for end in ["low", "high"] {
                estimate["interval"][end] = scaled(&estimate["interval"][end]);
            }
            let rounds: Vec<Value> = estimate["rounds"].as_array().unwrap().iter().map(scaled).collect();
            estimate["rounds"] = json!(rounds);
        }
    }
    doctored
}

#[tokio::test]
async fn a_figure_that_became_worse_is_named_and_exits_with_10() {
    let first = Compared::of(&ARGUMENTS).await;
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let faster = write(&doctored(&first.json(), 0.01).to_string());
    let path = faster.path().to_str().unwrap();
    let again = Compared::of(&[&ARGUMENTS[..], &["--baseline", path]].concat()).await;
    assert_eq!(again.code, Some(10), "{}\n{}", again.stdout, again.stderr);
    let told = again.stdout.split("worse than in the baseline:").nth(1).unwrap();
    assert!(told.contains("shared: Mean time of an action"), "{told}");
    let slower = write(&doctored(&first.json(), 100.0).to_string());
    let path = slower.path().to_str().unwrap();
    let again = Compared::of(&[&ARGUMENTS[..], &["--baseline", path]].concat()).await;
    assert!(!again.stdout.contains("Mean time of an action 0"), "{}", again.stdout);
    let told = again.stdout.split("worse than in the baseline:").nth(1).unwrap_or_default();
    assert!(!told.contains("Mean time of an action"), "{told}");
}

#[tokio::test]
async fn a_baseline_that_is_none_is_refused_before_anything_is_measured() {
    let none = write("{}");
    let compared = Compared::of(&["--baseline", none.path().to_str().unwrap()]).await;
    assert_eq!(compared.code, Some(1));
    assert!(compared.stderr.contains("is no baseline"), "{}", compared.stderr);
    assert!(!compared.json_path().exists());
}
