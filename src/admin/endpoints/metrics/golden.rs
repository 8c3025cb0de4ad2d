//! Golden test of the metrics page with every metric present, written to `tests/golden/metrics.txt`.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::*;
use crate::canary::Variant;
use crate::config;
use crate::golden::assert_golden;
use crate::proxy::metrics::{QueueCounts, RequestKey, RetryCounts, RetryReason};
use crate::proxy::{CohortCounts, OtherModeOutcome, RuntimeConfig, SideCounts};

const CONFIG: &str = r#"
version = 1
workers = 1
[[listener]]
address = "127.0.0.1:8080"
[session]
mode = "sticky"
[[upstream]]
name = "app"
[[upstream.instance]]
address = "127.0.0.1:5001"
[[upstream]]
name = "app-v2"
[[upstream.instance]]
address = "127.0.0.1:5002"
[[route]]
path = "/"
upstream = "app"
[route.canary]
upstream = "app-v2"
percent = "5%"
"#;

fn once(word: &'static str) -> BTreeMap<&'static str, u64> {
    BTreeMap::from([(word, 1)])
}

fn times() -> Histogram {
    let mut times = Histogram::default();
    times.observe(Duration::from_millis(3));
    times
}

fn counts(plan: &RuntimeConfig) -> Counts {
    let app = || "app".to_owned();
    let side = SideCounts { requests: 1, errors: 1, first_byte: times(), compared: Default::default() };
    let reasons = [
        RetryReason::Connect,
        RetryReason::Unsent,
        RetryReason::Broken,
        RetryReason::Timeout,
        RetryReason::Status(503),
    ];
    let reasons = reasons.into_iter().map(|reason| (reason, 1)).collect();
    let others = [OtherModeOutcome::Same, OtherModeOutcome::Elsewhere, OtherModeOutcome::New]
        .into_iter()
        .map(|other| (other, 1))
        .collect();
    let requests = BTreeMap::from([("127.0.0.1:5001".to_owned(), 1)]);
    Counts {
        requests: BTreeMap::from([
            (RequestKey::new(Some(0), Some(Mode::Sticky), &Method::GET, 200), 1),
            (RequestKey::unreadable(400), 1),
        ]),
        durations: BTreeMap::from([((Some(0), Some(Mode::Sticky)), times()), ((None, None), times())]),
        sessions: once("active"),
        session_sources: once("cache"),
        lookups: times(),
        store_errors: once("timeout"),
        affinity: once("kept"),
        session_control: once("set"),
        canaries: plan
            .canaries()
            .flat_map(|canary| Variant::BOTH.map(|side| (canary.id(), side)))
            .map(|key| (key, side.clone()))
            .collect(),
        cohorts: BTreeMap::from([((Mode::Shared, app()), CohortCounts { requests, others, ties_lost: 1 })]),
        connects: 1,
        connect_failures: 1,
        retries: BTreeMap::from([(app(), RetryCounts { reasons, exhausted: 1, hedges: 1, resends: 1 })]),
        queues: BTreeMap::from([(app(), QueueCounts { waits: times(), full: 1, timeouts: 1 })]),
    }
}

fn snapshot() -> Snapshot {
    let plan = RuntimeConfig::new(Arc::new(config::parse(CONFIG, "x").unwrap())).unwrap();
    Snapshot {
        counts: counts(&plan),
        routes: plan.labels().names().to_vec(),
        upstreams: Upstreams::take(&plan),
        canaries: Canaries::take(&plan),
        discovery: BTreeMap::from([("app".to_owned(), State::default())]),
        cache: CacheStats { invalidation_delays: times(), ..CacheStats::default() },
        mode: plan.modes.as_str(),
        drill: None,
        connections: 1,
        buffered: 1,
        lines_dropped: 1,
        reloads: ReloadStats {
            applied: 1,
            unchanged: 1,
            failed: 1,
            last_succeeded: true,
            last_success: 1,
            hash: "0".to_owned(),
        },
    }
}

/// A line of the page without its value.
fn name_of(line: &str) -> String {
    if line.starts_with('#') {
        return format!("{line}\n");
    }
    let name = line.rsplit_once(' ').unwrap().0;
    format!(
        "{}\n",
        name.replace(&format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), "version=\"VERSION\"")
    )
}

#[test]
fn golden_metrics_keep_their_names_helps_types_and_labels() {
    let page = page(snapshot()).unwrap();
    assert_golden("metrics.txt", &page.lines().map(name_of).collect::<String>());
}
