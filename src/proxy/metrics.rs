//! Per-request metrics. Each worker has its own counters; a scrape adds them up.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::Method;

use super::canary::SideCounts;
use super::cohort::CohortCounts;
use crate::canary::Variant;
use crate::config::Mode;
use crate::session::{Source, StoreError};
use crate::telemetry::histogram::Histogram;

/// Methods with their own label. Any other counts as `other`, so that clients cannot create labels.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "other"];

/// Label set of the request counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestKey {
    /// Number of the route's name in [`RouteLabels`](super::RouteLabels); `None` when no route matched.
    pub route: Option<usize>,
    /// `None` when the request ended before its mode was chosen, while modes are compared.
    pub mode: Option<Mode>,
    method: usize,
    pub status: u16,
}

impl RequestKey {
    pub fn new(route: Option<usize>, mode: Option<Mode>, method: &Method, status: u16) -> Self {
        let other = METHODS.len() - 1;
        let method = METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(other);
        RequestKey { route, mode, method, status }
    }

    /// The key of a request that could not be parsed.
    pub fn unreadable(status: u16) -> Self {
        RequestKey { route: None, mode: None, method: METHODS.len() - 1, status }
    }

    /// The method's label.
    pub fn method(&self) -> &'static str {
        METHODS.get(self.method).copied().unwrap_or("other")
    }
}

/// All counters of one worker, as plain numbers: copy them to read, and merge copies. Each map has few keys,
/// for which an ordered map is faster than hashing.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub requests: BTreeMap<RequestKey, u64>,
    /// By number of the route's name, and mode.
    pub durations: BTreeMap<(Option<usize>, Option<Mode>), Histogram>,
    /// By outcome of the session resolution.
    pub sessions: BTreeMap<&'static str, u64>,
    /// By source of the outcome: `request`, `cache`, `store`, `stale`.
    pub session_sources: BTreeMap<&'static str, u64>,
    pub lookups: Histogram,
    pub store_errors: BTreeMap<&'static str, u64>,
    pub affinity: BTreeMap<&'static str, u64>,
    /// By command: `set`, `end`, and `refused` where the command was ignored.
    pub session_control: BTreeMap<&'static str, u64>,
    /// By canary id and variant.
    pub canaries: BTreeMap<(usize, Variant), SideCounts>,
    /// By mode and upstream, while modes are compared.
    pub cohorts: BTreeMap<(Mode, String), CohortCounts>,
    pub connects: u64,
    pub connect_failures: u64,
    /// By upstream.
    pub retries: BTreeMap<String, RetryCounts>,
    /// By upstream.
    pub queues: BTreeMap<String, QueueCounts>,
}

/// Reason for a retry on another instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RetryReason {
    /// The connection to the instance failed.
    Connect,
    /// The connection ended before the request was sent.
    Unsent,
    /// The connection broke before the response began.
    Broken,
    /// The response did not begin in time.
    Timeout,
    /// The response had this status.
    Status(u16),
}

impl fmt::Display for RetryReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RetryReason::Connect => f.write_str("connect"),
            RetryReason::Unsent => f.write_str("unsent"),
            RetryReason::Broken => f.write_str("broken"),
            RetryReason::Timeout => f.write_str("timeout"),
            RetryReason::Status(status) => status.fmt(f),
        }
    }
}

/// Retry counters of one upstream.
#[derive(Debug, Clone, Default)]
pub struct RetryCounts {
    /// Retries on another instance, by reason.
    pub reasons: BTreeMap<RetryReason, u64>,
    /// Retries prevented by the exhausted retry budget.
    pub exhausted: u64,
    /// Requests hedged with a second instance.
    pub hedges: u64,
    /// Requests sent again to the same instance on a fresh connection.
    pub resends: u64,
}

/// Queue counters of one upstream, for requests that found all slots taken.
#[derive(Debug, Clone, Default)]
pub struct QueueCounts {
    /// Waiting times of requests that got a slot.
    pub waits: Histogram,
    /// Requests rejected because the queue was full.
    pub full: u64,
    /// Requests whose wait timed out.
    pub timeouts: u64,
}

impl Counts {
    /// Adds the counters of `other`.
    pub fn merge(&mut self, other: &Counts) {
        add_all(&mut self.requests, &other.requests);
        for (key, histogram) in &other.durations {
            self.durations.entry(*key).or_default().merge(histogram);
        }
        add_all(&mut self.sessions, &other.sessions);
        add_all(&mut self.session_sources, &other.session_sources);
        self.lookups.merge(&other.lookups);
        add_all(&mut self.store_errors, &other.store_errors);
        add_all(&mut self.affinity, &other.affinity);
        add_all(&mut self.session_control, &other.session_control);
        self.merge_canaries(other);
        for (key, cohort) in &other.cohorts {
            self.cohorts.entry(key.clone()).or_default().merge(cohort);
        }
        self.connects += other.connects;
        self.connect_failures += other.connect_failures;
        for (upstream, retries) in &other.retries {
            self.retries(upstream).merge(retries);
        }
        for (upstream, queue) in &other.queues {
            self.queue(upstream).merge(queue);
        }
    }

    /// The queue counters of the upstream with this name.
    pub(super) fn queue(&mut self, upstream: &str) -> &mut QueueCounts {
        self.queues.entry(upstream.to_owned()).or_default()
    }

    /// Adds only the canary counters of `other`.
    pub(super) fn merge_canaries(&mut self, other: &Counts) {
        for (key, counts) in &other.canaries {
            self.canaries.entry(*key).or_default().merge(counts);
        }
    }

    /// The retry counters of the upstream with this name.
    pub(super) fn retries(&mut self, upstream: &str) -> &mut RetryCounts {
        self.retries.entry(upstream.to_owned()).or_default()
    }

    /// Counts a finished request.
    pub(super) fn request(&mut self, key: RequestKey, took: Duration) {
        *self.requests.entry(key).or_default() += 1;
        self.durations.entry((key.route, key.mode)).or_default().observe(took);
    }

    /// Counts the source of a session resolution and the duration of its store lookup.
    pub(super) fn session_source(&mut self, source: Source) {
        let (word, took) = match source {
            Source::Request => ("request", None),
            Source::Cache => ("cache", None),
            Source::Store(took) => ("store", Some(took)),
            Source::Stale(error, took) => {
                self.store_error(error);
                ("stale", Some(took))
            }
        };
        *self.session_sources.entry(word).or_default() += 1;
        if let Some(took) = took {
            self.lookups.observe(took);
        }
    }

    /// Counts a failed lookup or change in the session store.
    pub(super) fn store_error(&mut self, error: StoreError) {
        *self.store_errors.entry(error.kind()).or_default() += 1;
    }
}

impl RetryCounts {
    fn merge(&mut self, other: &RetryCounts) {
        add_all(&mut self.reasons, &other.reasons);
        self.exhausted += other.exhausted;
        self.hedges += other.hedges;
        self.resends += other.resends;
    }
}

impl QueueCounts {
    fn merge(&mut self, other: &QueueCounts) {
        self.waits.merge(&other.waits);
        self.full += other.full;
        self.timeouts += other.timeouts;
    }
}

pub(super) fn add_all<K: Clone + Ord>(to: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (key, count) in from {
        *to.entry(key.clone()).or_default() += count;
    }
}

/// Counters of one worker. The lock is contended only while a scrape copies them.
#[derive(Debug, Default)]
pub struct Shard(Mutex<Counts>);

impl Shard {
    pub(super) fn update<R>(&self, change: impl FnOnce(&mut Counts) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A copy of the current values.
    pub fn read(&self) -> Counts {
        self.update(|counts| counts.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_adds_everything_up() {
        let shards = [Shard::default(), Shard::default()];
        for shard in &shards {
            shard.update(|counts| {
                counts.request(RequestKey::new(Some(0), None, &Method::GET, 200), Duration::from_millis(3));
                counts.store_error(StoreError::Timeout);
                *counts.sessions.entry("active").or_default() += 2;
                *counts.retries("app").reasons.entry(RetryReason::Broken).or_default() += 1;
            });
        }
        let mut total = Counts::default();
        shards.iter().for_each(|shard| total.merge(&shard.read()));
        assert_eq!(total.requests[&RequestKey::new(Some(0), None, &Method::GET, 200)], 2);
        assert_eq!(total.durations[&(Some(0), None)].count(), 2);
        assert_eq!((total.sessions["active"], total.store_errors["timeout"]), (4, 2));
        assert_eq!(total.retries["app"].reasons[&RetryReason::Broken], 2);
    }

    #[test]
    fn clients_cannot_make_up_labels() {
        let made_up = Method::from_bytes(b"BREW").unwrap();
        assert_eq!(RequestKey::new(None, None, &made_up, 200).method(), "other");
        assert_eq!(RequestKey::new(None, None, &Method::PATCH, 200).method(), "PATCH");
    }
}
