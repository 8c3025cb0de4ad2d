//! Report on the effects of a drill on traffic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::super::metrics::Counts;
use super::super::runtime_config::RuntimeConfig;
use super::super::service::Shared;
use super::{Drill, What};
use crate::telemetry::histogram::Histogram;
use crate::upstream::Upstream;

/// State and results of a drill. Times are in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct FaultReport {
    pub id: u64,
    pub target: String,
    pub running: bool,
    pub took_ms: u64,
    /// After the end: the reason, and the time since.
    pub ended_by: Option<&'static str>,
    pub since_end_ms: Option<u64>,
    /// Responses aborted at the start.
    pub cut: usize,
    /// Baseline: requests that finished during the measurement before the drill, if there was one, and its
    /// duration.
    pub before: Option<TrafficStats>,
    pub before_ms: u64,
    /// Requests that finished during the drill.
    pub during: TrafficStats,
    /// Requests that finished since the end of the drill.
    pub after: Option<TrafficStats>,
    /// Whether the target has recovered.
    pub well: bool,
}

/// Statistics of the requests that finished within a period.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TrafficStats {
    pub requests: u64,
    /// By status. 499: the client disconnected before the response began.
    pub statuses: BTreeMap<u16, u64>,
    /// Statuses of 500 and more.
    pub errors: u64,
    /// Estimated from the buckets of `http_request_duration_seconds`. `None` without requests.
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// Session lookups by source: `request`, `cache`, `store`, `stale`.
    pub sessions: BTreeMap<&'static str, u64>,
    /// Requests whose session could not be looked up.
    pub sessions_denied: u64,
    /// Sticky mode: requests whose binding was lost.
    pub ties_lost: u64,
    /// Retries on another instance.
    pub retries: u64,
}

impl TrafficStats {
    /// The difference between two sets of counters.
    pub fn between(before: &Counts, after: &Counts) -> Self {
        let mut statuses = BTreeMap::new();
        for (key, count) in &after.requests {
            let count = count - before.requests.get(key).copied().unwrap_or_default().min(*count);
            if count > 0 {
                *statuses.entry(key.status).or_default() += count;
            }
        }
        let took = histogram(after).since(&histogram(before));
        let quantile = |part| took.quantile(part).map(|seconds| seconds * 1_000.0);
        let word = |of: fn(&Counts) -> &BTreeMap<&'static str, u64>, word: &str| {
            let count = |counts: &Counts| of(counts).get(word).copied().unwrap_or_default();
            count(after).saturating_sub(count(before))
        };
        let sources =
            after.session_sources.keys().map(|source| (*source, word(|c| &c.session_sources, source)));
        TrafficStats {
            requests: statuses.values().sum(),
            errors: statuses.range(500..).map(|(_, count)| count).sum(),
            statuses,
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            sessions: sources.filter(|(_, count)| *count > 0).collect(),
            sessions_denied: word(|counts| &counts.sessions, "unavailable"),
            ties_lost: word(|counts| &counts.affinity, "lost"),
            retries: retries(after).saturating_sub(retries(before)),
        }
    }
}

fn histogram(counts: &Counts) -> Histogram {
    let mut all = Histogram::default();
    counts.durations.values().for_each(|one| all.merge(one));
    all
}

fn retries(counts: &Counts) -> u64 {
    counts.retries.values().flat_map(|retries| retries.reasons.values()).sum()
}

/// Impact that a drill would have.
#[derive(Debug, Clone, Serialize)]
pub struct Preview {
    pub target: String,
    /// In flight: on the instance, or on all instances.
    pub requests: usize,
    pub streams: usize,
    /// Bound to the instance, or in the session cache.
    pub sessions: u64,
    /// For an instance: the number of other instances that receive requests.
    pub others: Option<usize>,
}

impl Preview {
    pub(super) fn of(what: &What, shared: &Shared, plan: &RuntimeConfig) -> Self {
        let now = Instant::now();
        let all = || plan.upstreams().flat_map(|upstream| upstream.instances());
        match what {
            What::Store(_) => Preview {
                target: what.to_string(),
                requests: all().map(|instance| instance.in_flight()).sum(),
                streams: all().map(|instance| instance.streams(now)).sum(),
                sessions: shared.sessions.as_ref().map_or(0, |cache| cache.stats().entries),
                others: None,
            },
            What::Instance(own) => {
                let is_own = |id| own.iter().any(|instance| instance.id == id);
                let has_own =
                    |upstream: &&Arc<Upstream>| upstream.instances().iter().any(|one| is_own(one.id));
                let beside = plan.upstreams().filter(has_own).flat_map(|upstream| upstream.instances());
                let sessions = own.iter().map(|one| one.pinned().within(plan.session_idle(), now)).sum();
                Preview {
                    target: what.to_string(),
                    requests: own.iter().map(|instance| instance.in_flight()).sum(),
                    streams: own.iter().map(|instance| instance.streams(now)).sum(),
                    sessions,
                    others: Some(beside.filter(|one| !is_own(one.id) && one.is_open()).count()),
                }
            }
        }
    }
}

/// Builds the report of `drill` from the current counters.
pub(super) fn of(drill: &Drill, shared: &Shared, now: &Counts) -> FaultReport {
    let end = drill.end.as_ref();
    let took = end.map_or_else(|| drill.begun.elapsed(), |end| end.at - drill.begun);
    FaultReport {
        id: drill.id,
        target: drill.what.to_string(),
        running: end.is_none(),
        took_ms: millis(took),
        ended_by: end.map(|end| end.why.as_str()),
        since_end_ms: end.map(|end| millis(end.at.elapsed())),
        cut: drill.cut,
        before: drill.measured.as_ref().map(|(_, counts)| TrafficStats::between(counts, &drill.before)),
        before_ms: drill.measured.as_ref().map_or(0, |(since, _)| millis(drill.begun - *since)),
        during: TrafficStats::between(&drill.before, end.map_or(now, |end| &end.counts)),
        after: end.map(|end| TrafficStats::between(&end.counts, now)),
        well: end.is_some() && drill.what.is_well(shared),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_what_was_measured_is_written_like_this() {
        let reading = TrafficStats {
            requests: 1,
            statuses: BTreeMap::from([(200, 2)]),
            errors: 3,
            p50_ms: Some(4.5),
            p99_ms: None,
            sessions: BTreeMap::from([("cache", 5)]),
            sessions_denied: 6,
            ties_lost: 7,
            retries: 8,
        };
        let expected = r#"{"requests":1,"statuses":{"200":2},"errors":3,"p50_ms":4.5,"p99_ms":null,"#
            .to_owned()
            + r#""sessions":{"cache":5},"sessions_denied":6,"ties_lost":7,"retries":8}"#;
        assert_eq!(serde_json::to_string(&reading).unwrap(), expected);
    }
}
