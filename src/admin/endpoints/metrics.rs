//! Metrics in the OpenMetrics text format, which Prometheus scrapes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::config::Mode;
use crate::discovery::State;
use crate::proxy::metrics::Counts;
use crate::session::CacheStats;
use crate::telemetry::histogram::Histogram;

use super::canary_metrics::Canaries;
use super::cohort_metrics;
use super::discovery_metrics;
use super::upstream_metrics::Upstreams;
use crate::admin::{Admin, ReloadStats};

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All current metrics.
pub(super) fn exposition(admin: &Admin) -> Result<String, fmt::Error> {
    page(Snapshot::take(admin))
}

fn page(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

/// A snapshot of all metrics, taken before encoding so that no lock is held meanwhile.
#[derive(Debug)]
struct Snapshot {
    counts: Counts,
    routes: Vec<String>,
    upstreams: Upstreams,
    canaries: Canaries,
    discovery: BTreeMap<String, State>,
    cache: CacheStats,
    mode: &'static str,
    drill: Option<&'static str>,
    connections: u64,
    buffered: u64,
    lines_dropped: u64,
    reloads: ReloadStats,
}

impl Snapshot {
    fn take(admin: &Admin) -> Self {
        let plan = admin.shared.plan.load();
        let mut counts = Counts::default();
        admin.shards.iter().for_each(|shard| counts.merge(&shard.read()));
        let places = admin.most_clients.saturating_sub(admin.places.available_permits());
        Snapshot {
            counts,
            routes: plan.labels().names().to_vec(),
            upstreams: Upstreams::take(&plan),
            canaries: Canaries::take(&plan),
            discovery: admin.discovery.states(),
            cache: admin.shared.sessions.as_ref().map(|sessions| sessions.stats()).unwrap_or_default(),
            mode: plan.modes.as_str(),
            drill: admin.shared.drills.running(),
            connections: places as u64,
            buffered: admin.shared.stock.held() as u64,
            reloads: admin.reloads.stats(),
            lines_dropped: admin.dropped_lines.as_ref().map_or(0, |lines| lines.load(Relaxed)),
        }
    }

    fn route(&self, index: Option<usize>) -> &str {
        index.and_then(|index| self.routes.get(index)).map_or("none", String::as_str)
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut encoder;
        self.encode_requests(out)?;
        self.encode_sessions(out)?;
        self.upstreams.encode(&self.counts, out)?;
        self.canaries.encode(&self.counts, out)?;
        cohort_metrics::encode(&self.counts.cohorts, out)?;
        discovery_metrics::encode(&self.discovery, out)?;
        self.encode_process(out)?;
        self.encode_config(out)
    }
}

impl Snapshot {
    fn encode_requests(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = counter(out, "http_requests", "Requests, by method, status, route and mode")?;
        for (key, count) in &self.counts.requests {
            let status = key.status.to_string();
            let labels = [
                ("method", key.method()),
                ("status", &status),
                ("route", self.route(key.route)),
                ("mode", word(key.mode)),
            ];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
        let help = "Time from the head of a request to the last byte of its answer";
        let mut metric =
            out.encode_descriptor("http_request_duration_seconds", help, None, MetricType::Histogram)?;
        for ((route, mode), histogram) in &self.counts.durations {
            let labels = [("route", self.route(*route)), ("mode", word(*mode))];
            encode_histogram(metric.encode_family(&labels)?, histogram)?;
        }
        Ok(())
    }

    fn encode_sessions(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counts = &self.counts;
        encode_words(
            out,
            "session_resolutions",
            "Resolved sessions, by outcome",
            "outcome",
            &counts.sessions,
        )?;
        encode_words(
            out,
            "session_sources",
            "Resolved sessions, by where the outcome came from",
            "source",
            &counts.session_sources,
        )?;
        encode_cache(out, &self.cache)?;
        let help = "Time the session store took to answer or to fail";
        let metric =
            out.encode_descriptor("session_lookup_duration_seconds", help, None, MetricType::Histogram)?;
        encode_histogram(metric, &counts.lookups)?;
        encode_words(
            out,
            "session_store_errors",
            "Failures of the session store, by kind",
            "kind",
            &counts.store_errors,
        )?;
        let help = "Vestibule-Session headers of upstreams, by action";
        encode_words(out, "session_control", help, "action", &counts.session_control)?;
        encode_words(
            out,
            "affinity",
            "Requests in sticky mode, by what became of the tie",
            "outcome",
            &counts.affinity,
        )
    }

    fn encode_process(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        gauge(out, "client_connections", "Open client connections")?.encode_gauge(&self.connections)?;
        let help = "Bytes held of bodies of HTTP/2 clients";
        gauge(out, "client_buffer_bytes", help)?.encode_gauge(&self.buffered)?;
        let help = "Access-log lines lost because the output did not keep up";
        encode_number(out, "access_log_lines_dropped", help, self.lines_dropped)?;
        let mut drill = gauge(out, "vestibule_drill", "1 while a failure is rehearsed")?;
        for target in ["store", "instance"] {
            let runs = u64::from(self.drill == Some(target));
            drill.encode_family(&[("target", target)])?.encode_gauge(&runs)?;
        }
        let mut info = gauge(out, "vestibule_info", "Version and session mode")?;
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("mode", self.mode)];
        info.encode_family(&labels)?.encode_gauge(&1u64)
    }
}

/// The label for the session mode of a request.
fn word(mode: Option<Mode>) -> &'static str {
    mode.map_or("none", Mode::as_str)
}

fn encode_cache(out: &mut DescriptorEncoder<'_>, cache: &CacheStats) -> fmt::Result {
    for (name, help, number) in [
        ("session_cache_entries", "Sessions and absences in the cache", cache.entries),
        ("session_cache_bytes", "What they weigh, estimated", cache.bytes),
        ("session_cache_fresh", "1 while the cache is in step with the store and used", cache.fresh.into()),
        (
            "session_cache_linked",
            "1 when the store reports changes, 0 while entries only age",
            cache.linked.into(),
        ),
        ("session_tombstones", "Ended sessions that are remembered", cache.tombstones),
    ] {
        gauge(out, name, help)?.encode_gauge(&number)?;
    }
    for (name, help, number) in [
        ("session_invalidations", "Changes of sessions heard of", cache.invalidations),
        ("session_renewals", "Renewals written to the store", cache.renewals_written),
        ("session_renewals_dropped", "Renewals given up because too many waited", cache.renewals_dropped),
        ("session_cache_checks", "Looks whether a session in the cache is what the store has", cache.checks),
        (
            "session_cache_mismatches",
            "Looks that found something else, of which no change was reported: defects",
            cache.mismatches,
        ),
    ] {
        encode_number(out, name, help, number)?;
    }
    let help = "Time from a change of our own in the store to the report of it";
    let metric =
        out.encode_descriptor("session_invalidation_delay_seconds", help, None, MetricType::Histogram)?;
    encode_histogram(metric, &cache.invalidation_delays)
}

impl Snapshot {
    fn encode_config(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let ReloadStats { applied, unchanged, failed, last_succeeded, last_success, hash } = &self.reloads;
        let results = BTreeMap::from([("applied", *applied), ("unchanged", *unchanged), ("failed", *failed)]);
        encode_words(out, "config_reloads", "Readings of the configuration, by result", "result", &results)?;
        gauge(out, "config_last_reload_successful", "Whether the last reading was of use")?
            .encode_gauge(&i64::from(*last_succeeded))?;
        gauge(out, "config_last_reload_success_timestamp_seconds", "When the last one was that was of use")?
            .encode_gauge(&i64::try_from(*last_success).unwrap_or(i64::MAX))?;
        gauge(out, "config_hash", "The configuration in use, secrets left out, by its hash")?
            .encode_family(&[("hash", hash.as_str())])?
            .encode_gauge(&1_i64)
    }
}

pub(super) fn counter<'a>(
    out: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    out.encode_descriptor(name, help, None, MetricType::Counter)
}

pub(super) fn gauge<'a>(
    out: &'a mut DescriptorEncoder<'_>,
    name: &'a str,
    help: &str,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    out.encode_descriptor(name, help, None, MetricType::Gauge)
}

pub(super) fn encode_number(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    number: u64,
) -> fmt::Result {
    counter(out, name, help)?.encode_counter::<NoLabelSet, _, u64>(&number, None)
}

/// Encodes a counter with one label that has a fixed set of values.
fn encode_words(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    words: &BTreeMap<&'static str, u64>,
) -> fmt::Result {
    let mut metric = counter(out, name, help)?;
    for (word, count) in words {
        metric.encode_family(&[(label, *word)])?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
    }
    Ok(())
}

pub(super) fn encode_histogram(mut metric: MetricEncoder<'_>, histogram: &Histogram) -> fmt::Result {
    let buckets: Vec<(f64, u64)> = histogram.buckets().collect();
    metric.encode_histogram::<NoLabelSet>(histogram.sum_seconds(), histogram.count(), &buckets, None)
}

#[cfg(test)]
mod golden;
