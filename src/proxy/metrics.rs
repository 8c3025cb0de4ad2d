//! What is counted per request. Each worker counts for itself; a scrape adds the workers up.

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

/// The methods that are told apart; any other counts as `other`, so that clients cannot make labels.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "other"];

/// Requests with these in common are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestKey {
    /// Number of the route's name in [`RouteLabels`](super::RouteLabels); `None` when none was found.
    pub route: Option<usize>,
    /// `None` when the request ended before its mode was known, while modes are compared.
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

    /// The key of a request that could not be read.
    pub fn unreadable(status: u16) -> Self {
        RequestKey { route: None, mode: None, method: METHODS.len() - 1, status }
    }

    /// The method's label.
    pub fn method(&self) -> &'static str {
        METHODS.get(self.method).copied().unwrap_or("other")
    }
}

/// Everything one worker counts. Plain numbers: read a copy, add copies up. The maps hold few keys each,
/// which an ordered map finds faster than a hash is made.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub requests: BTreeMap<RequestKey, u64>,
    /// By number of the route's name, and mode.
    pub durations: BTreeMap<(Option<usize>, Option<Mode>), Histogram>,
    /// By outcome of resolving.
    pub sessions: BTreeMap<&'static str, u64>,
    /// By where the outcome came from: `request`, `cache`, `store`, `stale`.
    pub session_sources: BTreeMap<&'static str, u64>,
    pub lookups: Histogram,
    pub store_errors: BTreeMap<&'static str, u64>,
    pub affinity: BTreeMap<&'static str, u64>,
    /// By what was asked for: `set`, `end`, and `refused` for upstreams that are not trusted with it.
    pub session_control: BTreeMap<&'static str, u64>,
    /// By the canary's id and the side.
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

/// Why a request went to another instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RetryReason {
    /// The instance could not be reached.
    Connect,
    /// Its connection ended before the request was sent.
    Unsent,
    /// Its connection broke before the answer began.
    Broken,
    /// The answer did not begin in time.
    Timeout,
    /// The answer had this status.
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

/// Requests that one instance was not enough for.
#[derive(Debug, Clone, Default)]
pub struct RetryCounts {
    /// Those that went to another instance.
    pub reasons: BTreeMap<RetryReason, u64>,
    /// Those that would have, had there been more budget.
    pub exhausted: u64,
    /// Those that were also asked of a second instance.
    pub hedges: u64,
    /// Those that went to the same instance again, on a fresh connection.
    pub resends: u64,
}

/// Requests that found all slots taken.
#[derive(Debug, Clone, Default)]
pub struct QueueCounts {
    /// How long those waited that got a slot.
    pub waits: Histogram,
    /// Those that were refused because too many waited already.
    pub full: u64,
    /// Those that waited in vain.
    pub timeouts: u64,
}

impl Counts {
    /// Adds the numbers of `other`.
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

    /// The queue of the upstream with this name.
    pub(super) fn queue(&mut self, upstream: &str) -> &mut QueueCounts {
        self.queues.entry(upstream.to_owned()).or_default()
    }

    /// Adds what `other` has counted of canaries, and only that.
    pub(super) fn merge_canaries(&mut self, other: &Counts) {
        for (key, counts) in &other.canaries {
            self.canaries.entry(*key).or_default().merge(counts);
        }
    }

    /// The repeats of the upstream with this name.
    pub(super) fn retries(&mut self, upstream: &str) -> &mut RetryCounts {
        self.retries.entry(upstream.to_owned()).or_default()
    }

    /// Counts a finished request.
    pub(super) fn request(&mut self, key: RequestKey, took: Duration) {
        *self.requests.entry(key).or_default() += 1;
        self.durations.entry((key.route, key.mode)).or_default().observe(took);
    }

    /// Counts where a resolution came from, and how long the store took for it.
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

    /// Counts a failed look-up or change in the store.
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

/// One worker's counts. The lock is contended only while a scrape copies them.
#[derive(Debug, Default)]
pub struct Shard(Mutex<Counts>);

impl Shard {
    pub(super) fn update<R>(&self, change: impl FnOnce(&mut Counts) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A copy of the numbers as they are now.
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
