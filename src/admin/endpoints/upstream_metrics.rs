//! Metrics of upstreams and their instances.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use tokio::time::Instant;

use super::metrics::{counter, encode_histogram, encode_number, gauge};
use crate::balance::Balancer;
use crate::proxy::RuntimeConfig;
use crate::proxy::metrics::Counts;
use crate::upstream::{Cause, CheckResult, Condition, HealthState, Instance};

/// A snapshot of all upstreams, taken before encoding.
#[derive(Debug)]
pub(super) struct Upstreams {
    upstreams: Vec<UpstreamRow>,
    instances: Vec<InstanceRow>,
}

#[derive(Debug)]
struct UpstreamRow {
    labels: [(&'static str, String); 1],
    waiting: u64,
    panic: u64,
}

#[derive(Debug)]
struct InstanceRow {
    labels: [(&'static str, String); 2],
    condition: Condition,
    standing: HealthState,
    state: &'static str,
    requests: u64,
    in_flight: u64,
    streams: u64,
    streams_closed: u64,
    sessions: u64,
}

impl Upstreams {
    pub(super) fn take(plan: &RuntimeConfig) -> Self {
        let now = Instant::now();
        let idle = plan.session_idle();
        let instances = plan.upstreams().flat_map(|upstream| {
            upstream
                .instances()
                .iter()
                .map(move |instance| instance_row(upstream.name(), instance, now, idle))
        });
        Upstreams {
            upstreams: plan.balancers().iter().map(|balancer| upstream_row(balancer)).collect(),
            instances: instances.collect(),
        }
    }

    pub(super) fn encode(&self, counts: &Counts, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_instances(out)?;
        self.encode_queues(counts, out)?;
        encode_number(out, "upstream_connects", "Connections opened to instances", counts.connects)?;
        let failures = counts.connect_failures;
        encode_number(out, "upstream_connect_failures", "Connections that could not be opened", failures)?;
        encode_retries(counts, out)
    }

    fn encode_instances(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = counter(out, "upstream_requests", "Requests given to an instance")?;
        for row in &self.instances {
            metric.encode_family(&row.labels)?.encode_counter::<NoLabelSet, _, u64>(&row.requests, None)?;
        }
        let mut metric = gauge(out, "upstream_requests_in_flight", "Requests under way on an instance")?;
        for row in &self.instances {
            metric.encode_family(&row.labels)?.encode_gauge(&row.in_flight)?;
        }
        let mut metric = gauge(out, "upstream_streams", "Of these, the streams")?;
        for row in &self.instances {
            metric.encode_family(&row.labels)?.encode_gauge(&row.streams)?;
        }
        let mut metric = counter(out, "upstream_streams_closed", "Streams cut with their instance")?;
        for row in &self.instances {
            let count = &row.streams_closed;
            metric.encode_family(&row.labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
        let help = "Sessions that live on an instance, in sticky mode";
        let mut metric = gauge(out, "upstream_sessions", help)?;
        for row in &self.instances {
            metric.encode_family(&row.labels)?.encode_gauge(&row.sessions)?;
        }
        let mut metric = gauge(out, "upstream_instance_up", "1 when an instance is able to serve")?;
        for row in &self.instances {
            metric.encode_family(&row.labels)?.encode_gauge(&u64::from(row.condition.is_able()))?;
        }
        let mut metric = gauge(out, "upstream_instance_condition", "1 for the condition an instance is in")?;
        for row in &self.instances {
            metric.encode_family(&row.with("condition", row.condition.as_str()))?.encode_gauge(&1u64)?;
        }
        let mut metric =
            gauge(out, "upstream_instance_state", "1 for what the operator wants of an instance")?;
        for row in &self.instances {
            metric.encode_family(&row.with("state", row.state))?.encode_gauge(&1u64)?;
        }
        self.encode_health(out)
    }

    fn encode_health(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = counter(out, "upstream_health_checks", "Checks of an instance, by result")?;
        for row in &self.instances {
            for (result, count) in CheckResult::ALL.iter().zip(row.standing.checks) {
                let labels = row.with("result", result.as_str());
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        let help = "How often an instance was ejected for what requests met there, by reason";
        let mut metric = counter(out, "upstream_ejections", help)?;
        for row in &self.instances {
            for (cause, count) in Cause::ALL.iter().zip(row.standing.ejections) {
                let labels = row.with("reason", cause.as_str());
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        Ok(())
    }

    fn encode_queues(&self, counts: &Counts, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric =
            gauge(out, "upstream_panic", "1 while too few instances are fit to serve to believe it")?;
        for row in &self.upstreams {
            metric.encode_family(&row.labels)?.encode_gauge(&row.panic)?;
        }
        let mut metric = gauge(out, "upstream_queue_length", "Requests that wait for a free slot")?;
        for row in &self.upstreams {
            metric.encode_family(&row.labels)?.encode_gauge(&row.waiting)?;
        }
        let help = "Time for which requests waited for a free slot and got one";
        let mut metric =
            out.encode_descriptor("upstream_queue_wait_seconds", help, None, MetricType::Histogram)?;
        for (upstream, queue) in &counts.queues {
            encode_histogram(metric.encode_family(&[("upstream", upstream.as_str())])?, &queue.waits)?;
        }
        let help = "Requests refused because all slots were taken, by reason";
        let mut metric = counter(out, "upstream_queue_refusals", help)?;
        for (upstream, queue) in &counts.queues {
            for (reason, count) in [("full", queue.full), ("timeout", queue.timeouts)] {
                let labels = [("upstream", upstream.as_str()), ("reason", reason)];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        Ok(())
    }
}

fn encode_retries(counts: &Counts, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut metric = counter(out, "upstream_retries", "Requests that went to another instance, by reason")?;
    for (upstream, retries) in &counts.retries {
        for (reason, count) in &retries.reasons {
            let labels = [("upstream", upstream.clone()), ("reason", reason.to_string())];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
    }
    let help = "Requests that were not sent again because the budget was spent";
    let mut metric = counter(out, "upstream_retry_budget_exhausted", help)?;
    for (upstream, retries) in &counts.retries {
        let labels = [("upstream", upstream.as_str())];
        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&retries.exhausted, None)?;
    }
    let help = "Requests that were also asked of a second instance because the first was slow";
    let mut metric = counter(out, "upstream_hedges", help)?;
    for (upstream, retries) in &counts.retries {
        let labels = [("upstream", upstream.as_str())];
        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&retries.hedges, None)?;
    }
    let help =
        "Requests that were sent again to the same instance because a kept connection ended without a byte";
    let mut metric = counter(out, "upstream_resends", help)?;
    for (upstream, retries) in &counts.retries {
        let labels = [("upstream", upstream.as_str())];
        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&retries.resends, None)?;
    }
    Ok(())
}

fn upstream_row(balancer: &Balancer) -> UpstreamRow {
    UpstreamRow {
        labels: [("upstream", balancer.upstream().name().to_owned())],
        waiting: balancer.upstream().group().waiting() as u64,
        panic: balancer.is_panicking().into(),
    }
}

fn instance_row(upstream: &str, instance: &Instance, now: Instant, session_idle: Duration) -> InstanceRow {
    InstanceRow {
        labels: [("upstream", upstream.to_owned()), ("instance", instance.label.clone())],
        condition: instance.condition(now),
        standing: instance.standing(),
        state: instance.state().as_str(),
        requests: instance.requests(),
        in_flight: instance.in_flight() as u64,
        streams: instance.streams(now) as u64,
        streams_closed: instance.closed_streams(),
        sessions: instance.pinned().within(session_idle, now),
    }
}

impl InstanceRow {
    fn with<'a>(&'a self, label: &'a str, value: &'a str) -> [(&'a str, &'a str); 3] {
        let [upstream, instance] = &self.labels;
        [(upstream.0, &upstream.1), (instance.0, &instance.1), (label, value)]
    }
}
