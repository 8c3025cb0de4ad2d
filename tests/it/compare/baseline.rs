//! A comparison held against an earlier one.

use serde_json::{Value, json};

use super::{Compared, write};

const ARGUMENTS: [&str; 9] =
    ["--modes", "shared", "--events", "none", "--rounds", "3", "--duration", "1s", "--instances=2"];

/// The comparison with some figures as if they had been this many times what they were.
fn doctored(comparison: &Value, times: f64, which: impl Fn(&Value) -> bool) -> Value {
    let mut doctored = comparison.clone();
    let figures = doctored["modes"][0]["figures"].as_array_mut().unwrap();
    for pair in figures.iter_mut().filter(|pair| which(&pair[0])) {
        let scaled = |value: &Value| json!(value.as_f64().unwrap() * times);
        let estimate = &mut pair[1];
        estimate["mean"] = scaled(&estimate["mean"]);
        for end in ["low", "high"] {
            estimate["interval"][end] = scaled(&estimate["interval"][end]);
        }
        estimate["rounds"] = estimate["rounds"].as_array().unwrap().iter().map(scaled).collect();
    }
    doctored
}

async fn against(baseline: &Value) -> Compared {
    let file = write(&baseline.to_string());
    Compared::of(&[&ARGUMENTS[..], &["--baseline", file.path().to_str().unwrap()]].concat()).await
}

#[tokio::test]
async fn a_figure_that_became_worse_is_named_and_exits_with_10() {
    let first = Compared::of(&ARGUMENTS).await;
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    // A figure that hardly varies, however busy the machine is.
    let again = against(&doctored(&first.json(), 0.01, |figure| figure == "proxy_memory")).await;
    assert_eq!(again.code, Some(10), "{}\n{}", again.stdout, again.stderr);
    let told = again.stdout.split("worse than in the baseline:").nth(1).unwrap();
    assert!(told.contains("shared: Memory of the proxy"), "{told}");
    // Only of this figure more is better.
    let again = against(&doctored(&first.json(), 100.0, |figure| figure != "actions_per_second")).await;
    assert_eq!(again.code, Some(0), "{}\n{}", again.stdout, again.stderr);
    assert!(again.stdout.contains("no figure is worse"), "{}", again.stdout);
}

#[tokio::test]
async fn a_baseline_that_is_none_is_refused_before_anything_is_measured() {
    let none = write("{}");
    let compared = Compared::of(&["--baseline", none.path().to_str().unwrap()]).await;
    assert_eq!(compared.code, Some(1));
    assert!(compared.stderr.contains("is no baseline"), "{}", compared.stderr);
    assert!(!compared.json_path().exists());
}
