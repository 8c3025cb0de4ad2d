//! Aggregates all rounds of a mode.

use std::collections::BTreeMap;

use crate::lab::compare::{Comparison, EventMark, Run};

/// The runs of a mode, in the order of execution.
pub(super) fn runs<'a>(comparison: &'a Comparison, mode: &str) -> Vec<&'a Run> {
    comparison.runs.iter().filter(|run| run.mode == mode).collect()
}

/// The events that plots mark: those of the run with the most events.
pub(super) fn events(comparison: &Comparison) -> &[EventMark] {
    comparison
        .runs
        .iter()
        .map(|run| run.events.as_slice())
        .max_by_key(|events| events.len())
        .unwrap_or_default()
}

/// The end of the longest run, in seconds; at least 1.
pub(super) fn end(comparison: &Comparison) -> f64 {
    let ends = comparison.runs.iter().map(|run| {
        let last = run.load.timeline.last().map_or(0.0, |slice| slice.at + width(run));
        last.max(run.load.seconds)
    });
    ends.filter(|end| end.is_finite()).fold(1.0, f64::max)
}

/// The length of a run's timeline slices, in seconds.
fn width(run: &Run) -> f64 {
    match run.load.timeline.as_slice() {
        [first, second, ..] if second.at > first.at => second.at - first.at,
        _ => 1.0,
    }
}

/// A distribution of durations over all rounds.
pub(super) struct Distribution {
    /// Durations in ascending order, each with its cumulative count.
    steps: Vec<(f64, u64)>,
    pub(super) count: u64,
}

impl Distribution {
    pub(super) fn of(runs: &[&Run]) -> Distribution {
        let counts = runs.iter().flat_map(|run| run.load.all.latency.counts.iter().copied());
        let mut counts: Vec<(f64, u64)> =
            counts.filter(|(time, count)| time.is_finite() && *time >= 0.0 && *count > 0).collect();
        counts.sort_by(|left, right| left.0.total_cmp(&right.0));
        let mut count: u64 = 0;
        for (_, many) in &mut counts {
            count = count.saturating_add(*many);
            *many = count;
        }
        Distribution { steps: counts, count }
    }

    /// Durations with the share of all that are not greater, 0 to 1.
    pub(super) fn shares(&self) -> impl Iterator<Item = (f64, f64)> {
        let count = self.count as f64;
        self.steps.iter().map(move |(time, until)| (*time, *until as f64 / count))
    }

    /// The quantile at `share`. `None` for an empty distribution.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        self.shares()
            .find(|(_, until)| *until >= share)
            .or_else(|| self.shares().last())
            .map(|(time, _)| time)
    }
}

/// A timeline slice, averaged over all rounds.
#[derive(Debug, Default)]
pub(super) struct Moment {
    pub(super) at: f64,
    pub(super) seconds: f64,
    /// Milliseconds. `None` when no action ended.
    pub(super) p50: Option<f64>,
    pub(super) p95: Option<f64>,
    /// The smallest and the largest 95th percentile of the rounds.
    pub(super) p95_range: Option<(f64, f64)>,
    pub(super) failed: f64,
    pub(super) instances: BTreeMap<String, f64>,
}

/// The timelines of all rounds, averaged slice by slice.
pub(super) fn timeline(runs: &[&Run]) -> Vec<Moment> {
    let length = runs.iter().map(|run| run.load.timeline.len()).max().unwrap_or_default();
    (0..length).map(|place| moment(runs, place)).collect()
}

fn moment(runs: &[&Run], place: usize) -> Moment {
    let slices: Vec<_> =
        runs.iter().filter_map(|run| Some((width(run), run.load.timeline.get(place)?))).collect();
    let Some((seconds, first)) = slices.first() else { return Moment::default() };
    let busy = || slices.iter().map(|(_, slice)| slice).filter(|slice| slice.done > slice.failed);
    let many = slices.len() as f64;
    let mut instances = BTreeMap::new();
    for (seconds, slice) in &slices {
        for (name, answers) in &slice.instances {
            *instances.entry(name.clone()).or_default() += *answers as f64 / seconds / many;
        }
    }
    Moment {
        at: first.at,
        seconds: *seconds,
        p50: mean(busy().map(|slice| slice.p50)),
        p95: mean(busy().map(|slice| slice.p95)),
        p95_range: busy().map(|slice| (slice.p95, slice.p95)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))),
        failed: slices.iter().map(|(_, slice)| slice.failed as f64).sum::<f64>() / many,
        instances,
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    (count > 0.0).then(|| sum / count)
}
