//! Metrics of canaries.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::metrics::{counter, encode_histogram, gauge};
use crate::canary::{State, Variant};
use crate::proxy::metrics::Counts;
use crate::proxy::{RuntimeConfig, SideCounts};

/// A snapshot of all canaries, taken before encoding.
#[derive(Debug)]
pub(super) struct Canaries(Vec<Row>);

#[derive(Debug)]
struct Row {
    id: usize,
    route: String,
    state: State,
    percent: f64,
}

impl Canaries {
    pub(super) fn take(plan: &RuntimeConfig) -> Self {
        let rows = plan.canaries().map(|canary| {
            let (state, percent) = canary.live();
            Row { id: canary.id(), route: canary.route.clone(), state, percent: percent.value() }
        });
        Canaries(rows.collect())
    }

    /// Encodes the snapshot together with the workers' counters.
    pub(super) fn encode(&self, counts: &Counts, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = gauge(out, "canary_percent", "Share of new clients that a canary gets, 0 to 100")?;
        for row in &self.0 {
            metric.encode_family(&[("route", row.route.as_str())])?.encode_gauge(&row.percent)?;
        }
        let mut metric = gauge(out, "canary_state", "1 for the state a canary is in")?;
        for row in &self.0 {
            let labels = [("route", row.route.as_str()), ("state", row.state.as_str())];
            metric.encode_family(&labels)?.encode_gauge(&1u64)?;
        }
        let sides = self.sides(counts);
        let mut metric = counter(out, "canary_requests", "Requests of routes with a canary, by side")?;
        for (labels, side) in &sides {
            metric.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&side.requests, None)?;
        }
        let mut metric = counter(out, "canary_errors", "Those of them that failed")?;
        for (labels, side) in &sides {
            metric.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&side.errors, None)?;
        }
        let help = "Time from the choice of the side to the head of the answer";
        let mut metric =
            out.encode_descriptor("canary_first_byte_seconds", help, None, MetricType::Histogram)?;
        for (labels, side) in &sides {
            encode_histogram(metric.encode_family(labels)?, &side.first_byte)?;
        }
        Ok(())
    }

    /// The counters of each side, with their labels.
    fn sides<'a>(&'a self, counts: &'a Counts) -> Vec<([(&'static str, &'a str); 2], &'a SideCounts)> {
        let of_row = |row: &'a Row| {
            Variant::BOTH.into_iter().filter_map(move |side| {
                let labels = [("route", row.route.as_str()), ("side", side.as_str())];
                Some((labels, counts.canaries.get(&(row.id, side))?))
            })
        };
        self.0.iter().flat_map(of_row).collect()
    }
}
