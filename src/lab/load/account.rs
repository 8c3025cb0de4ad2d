//! Converts records into results and progress reports.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use hdrhistogram::{Counter, Histogram as Counts};

use super::record::{ActionRecord, Records, SLICE, SliceRecord};
use super::result::{ActionResult, Histogram, LoadResult, Slice};
use super::{Load, Progress};
use crate::config::scenario::Arrival;

/// Nanoseconds per millisecond.
const PER_MILLISECOND: f64 = 1e6;

/// The result of a load. `counted` is the duration for which actions were counted.
pub(super) fn result(load: &Load, records: Records, counted: Duration) -> LoadResult {
    let mut all: Option<ActionRecord> = None;
    for record in &records.actions {
        match &mut all {
            None => all = Some(record.clone()),
            Some(all) => {
                all.done += record.done;
                all.failed += record.failed;
                all.latency += &record.latency;
            }
        }
    }
    let names = load.scenario.actions.iter().map(|action| action.name.clone());
    let mut losses = records.losses;
    losses.sort_by(|a, b| a.at.total_cmp(&b.at));
    LoadResult {
        scenario: load.scenario.name.clone(),
        target: load.target.url(),
        seed: load.seed,
        asked_rate: match load.scenario.arrival {
            Arrival::Closed => None,
            Arrival::Open { rate, .. } => Some(rate),
        },
        seconds: counted.as_secs_f64(),
        requests: records.requests,
        bytes: records.bytes,
        actions: names.zip(records.actions.iter().map(action)).collect(),
        all: all.as_ref().map(action).unwrap_or_default(),
        first_token: histogram(&records.first_token),
        token_gap: histogram(&records.token_gap),
        sessions: records.sessions,
        losses,
        failures: records.failures.into_iter().map(|(failure, count)| (failure.to_string(), count)).collect(),
        instances: instances(&records.slices),
        timeline: records.slices.iter().enumerate().map(|(number, record)| slice(number, record)).collect(),
    }
}

/// The progress from the records of all threads (`parts`).
pub(super) fn progress(parts: &[impl Deref<Target = Records>], so_far: Progress) -> Progress {
    let slices = || parts.iter().flat_map(|records| &records.slices);
    // The last complete slice.
    let last = (so_far.elapsed.as_micros() / SLICE.as_micros())
        .checked_sub(1)
        .and_then(|last| usize::try_from(last).ok());
    let of_late: Vec<_> =
        last.map_or(Vec::new(), |last| parts.iter().filter_map(|records| records.slices.get(last)).collect());
    let mut latency: Option<Counts<u32>> = None;
    for slice in &of_late {
        match &mut latency {
            None => latency = Some(slice.latency.clone()),
            Some(latency) => *latency += &slice.latency,
        }
    }
    Progress {
        done: slices().map(|slice| slice.done).sum(),
        failed: slices().map(|slice| slice.failed).sum(),
        lost: slices().map(|slice| slice.lost).sum(),
        rate: of_late.iter().map(|slice| slice.done).sum::<u64>() as f64 / SLICE.as_secs_f64(),
        p99: latency.map_or(0.0, |latency| at(&latency, 0.99)),
        ..so_far
    }
}

fn action(record: &ActionRecord) -> ActionResult {
    ActionResult { done: record.done, failed: record.failed, latency: histogram(&record.latency) }
}

fn instances(slices: &[SliceRecord]) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (instance, count) in slices.iter().flat_map(|slice| &slice.instances) {
        *all.entry(instance.to_string()).or_default() += count;
    }
    all
}

fn slice(number: usize, record: &SliceRecord) -> Slice {
    Slice {
        at: number as f64 * SLICE.as_secs_f64(),
        done: record.done,
        failed: record.failed,
        lost: record.lost,
        mean: record.latency.mean() / PER_MILLISECOND,
        p50: at(&record.latency, 0.5),
        p95: at(&record.latency, 0.95),
        p99: at(&record.latency, 0.99),
        instances: record.instances.iter().map(|(name, count)| (name.to_string(), *count)).collect(),
    }
}

fn histogram(times: &Counts<u64>) -> Histogram {
    let middle = |value| milliseconds(times.median_equivalent(value));
    Histogram {
        count: times.len(),
        mean: times.mean() / PER_MILLISECOND,
        p50: at(times, 0.5),
        p90: at(times, 0.9),
        p95: at(times, 0.95),
        p99: at(times, 0.99),
        p999: at(times, 0.999),
        max: milliseconds(times.max()),
        counts: times
            .iter_recorded()
            .map(|step| (middle(step.value_iterated_to()), step.count_at_value()))
            .collect(),
    }
}

/// The quantile in milliseconds.
fn at<T: Counter>(times: &Counts<T>, quantile: f64) -> f64 {
    milliseconds(times.value_at_quantile(quantile))
}

fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / PER_MILLISECOND
}
