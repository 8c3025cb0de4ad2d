//! The figures of one run.

use std::collections::{BTreeMap, BTreeSet};

use super::event::Played;
use super::idle::Spent;
use super::model::Figure;
use crate::lab::load::{LoadResult, Slice};

/// Seconds after which new instances should have their share.
const SETTLED: f64 = 10.0;
/// Seconds over which the share is measured.
const WINDOW: f64 = 3.0;

/// The figures of a run, in the order of [`Figure::ALL`]. Figures that could not be measured are missing.
pub(super) fn figures(load: &LoadResult, played: &Played, spent: &Spent) -> Vec<(Figure, f64)> {
    Figure::ALL
        .into_iter()
        .filter_map(|figure| Some((figure, measured(figure, load, played, spent)?)))
        .collect()
}

fn measured(figure: Figure, load: &LoadResult, played: &Played, spent: &Spent) -> Option<f64> {
    let latency = (load.all.latency.count > 0).then_some(&load.all.latency);
    match figure {
        Figure::LatencyMean => latency.map(|latency| latency.mean),
        Figure::LatencyP50 => latency.map(|latency| latency.p50),
        Figure::LatencyP95 => latency.map(|latency| latency.p95),
        Figure::LatencyP99 => latency.map(|latency| latency.p99),
        Figure::FirstTokenP50 => (load.first_token.count > 0).then_some(load.first_token.p50),
        Figure::SessionsLost => percent(load.sessions.lost, load.sessions.begun),
        Figure::ActionsFailed => percent(load.all.failed, load.all.done),
        Figure::ActionsPerSecond => ratio((load.all.done - load.all.failed) as f64, load.seconds),
        Figure::ImbalanceMax => imbalance(load, played).map(|(most, _)| most),
        Figure::ImbalanceCv => imbalance(load, played).map(|(_, variation)| variation),
        Figure::ScaleOutShare => scale_out_share(load, played),
        Figure::StoreCommands | Figure::StoreBytes | Figure::ProxyCpu => {
            ratio(spent.of_requests(figure)?, load.requests as f64)
        }
        Figure::ProxyMemory => spent.used.memory,
    }
}

fn percent(part: u64, whole: u64) -> Option<f64> {
    ratio(part as f64 * 100.0, whole as f64)
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// The load of the busiest instance divided by the mean, and the coefficient of variation, while all
/// instances run. The times before and after the scale-out are measured separately and weighted by their
/// responses.
fn imbalance(load: &LoadResult, played: &Played) -> Option<(f64, f64)> {
    let is_quiet = |slice: &&Slice| {
        !played.marks.iter().any(|mark| mark.until.is_some_and(|until| disturbs((mark.at, until), slice.at)))
            && !played.growth.is_some_and(|growth| disturbs(growth, slice.at))
    };
    let (before, after): (Vec<&Slice>, Vec<&Slice>) = load
        .timeline
        .iter()
        .filter(is_quiet)
        .partition(|slice| played.growth.is_none_or(|(began, _)| slice.at < began));
    let phases = [(before, played.instances), (after, played.instances + played.later)];
    let (mut most, mut variation, mut weight) = (0.0, 0.0, 0.0);
    for (slices, instances) in phases {
        let loads = by_instance(&slices);
        let instances = instances.max(loads.len());
        let answers = loads.values().sum::<u64>() as f64;
        let mean = answers / instances.max(1) as f64;
        if answers > 0.0 {
            let absent = (instances - loads.len()) as f64;
            let squares: f64 = loads.values().map(|load| (*load as f64 - mean).powi(2)).sum();
            let deviation = ((squares + absent * mean.powi(2)) / instances.max(1) as f64).sqrt();
            most += answers * loads.values().max().map_or(0.0, |load| *load as f64) / mean;
            variation += answers * deviation / mean;
            weight += answers;
        }
    }
    Some((ratio(most, weight)?, ratio(variation, weight)?))
}

/// Whether some instances may be missing in the slice that begins at `at`.
fn disturbs((began, ended): (f64, f64), at: f64) -> bool {
    const MARGIN: f64 = 1.0;
    at > began - MARGIN && at < ended + MARGIN
}

fn by_instance(slices: &[&Slice]) -> BTreeMap<String, u64> {
    let mut loads = BTreeMap::new();
    for (instance, answers) in slices.iter().flat_map(|slice| &slice.instances) {
        *loads.entry(instance.clone()).or_default() += answers;
    }
    loads
}

/// Percent of the responses that come from the instances of the scale-out.
fn scale_out_share(load: &LoadResult, played: &Played) -> Option<f64> {
    let (began, grown) = played.growth?;
    // The last slice may be shorter than the others.
    let (last, before) = (load.timeline.last()?.at, load.timeline.iter().rev().nth(1)?.at);
    let length = last - before;
    let end = last + length;
    let next = played.marks.iter().map(|mark| mark.at).filter(|at| *at > grown).fold(end, f64::min);
    let until = next.min(grown + SETTLED);
    let slices = |from: f64, to: f64| -> Vec<&Slice> {
        load.timeline.iter().filter(|slice| slice.at >= from && slice.at < to).collect()
    };
    let old: BTreeSet<String> = by_instance(&slices(f64::MIN, began - length)).into_keys().collect();
    let loads = by_instance(&slices((until - WINDOW).max(grown), until));
    let new: u64 = loads.iter().filter(|(instance, _)| !old.contains(*instance)).map(|(_, load)| load).sum();
    percent(new, loads.values().sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::compare::EventMark;
    use crate::lab::compare::stage::Usage;

    const NOTHING: Spent = Spent { used: Usage::NOTHING, idle: Usage::NOTHING };

    fn slice(at: f64, loads: &[(&str, u64)]) -> Slice {
        let instances = loads.iter().map(|(name, load)| (name.to_string(), *load)).collect();
        Slice { at, instances, ..Slice::default() }
    }

    fn mark(at: f64, until: Option<f64>) -> EventMark {
        EventMark { name: String::new(), subject: String::new(), at, until }
    }

    fn found(load: &LoadResult, played: &Played) -> BTreeMap<Figure, f64> {
        figures(load, played, &NOTHING).into_iter().collect()
    }

    #[test]
    fn what_was_not_measured_is_missing() {
        assert_eq!(figures(&LoadResult::default(), &Played::default(), &NOTHING), []);
    }

    #[test]
    fn costs_are_by_request_and_losses_by_session() {
        let mut load = LoadResult { requests: 50, ..LoadResult::default() };
        (load.sessions.begun, load.sessions.lost) = (40, 10);
        (load.all.done, load.all.failed) = (200, 1);
        let used =
            Usage { processor: Some(600.0), memory: Some(9.0), store_commands: Some(26.0), ..Usage::NOTHING };
        let idle = Usage { processor: Some(100.0), store_commands: Some(1.0), ..Usage::NOTHING };
        let figures = figures(&load, &Played::default(), &Spent { used, idle });
        assert_eq!(
            figures,
            [
                (Figure::SessionsLost, 25.0),
                (Figure::ActionsFailed, 0.5),
                (Figure::StoreCommands, 0.5),
                (Figure::ProxyCpu, 10.0),
                (Figure::ProxyMemory, 9.0),
            ]
        );
    }

    #[test]
    fn imbalance_is_taken_while_all_run_and_counts_who_gets_nothing() {
        let timeline =
            vec![slice(0.0, &[("a", 30), ("b", 10)]), slice(5.0, &[("a", 100)]), slice(10.0, &[("a", 0)])];
        let load = LoadResult { timeline, ..LoadResult::default() };
        let killed = Played { marks: vec![mark(4.5, Some(5.5))], instances: 2, ..Played::default() };
        let figures = found(&load, &killed);
        assert_eq!((figures[&Figure::ImbalanceMax], figures[&Figure::ImbalanceCv]), (1.5, 0.5));
        let third = Played { marks: vec![mark(4.5, Some(5.5))], instances: 4, ..Played::default() };
        assert_eq!(found(&load, &third)[&Figure::ImbalanceMax], 3.0);
    }

    #[test]
    fn new_instances_are_those_that_nobody_had_heard_of() {
        let timeline = vec![
            slice(0.0, &[("a", 10)]),
            slice(5.0, &[("a", 10)]),
            slice(6.0, &[("a", 9), ("b", 1)]),
            slice(7.0, &[("a", 6), ("b", 4)]),
            slice(8.0, &[("b", 10)]),
            slice(9.0, &[]),
        ];
        let load = LoadResult { timeline, ..LoadResult::default() };
        let marks = vec![mark(6.0, None), mark(8.0, Some(8.5))];
        let played = Played { marks, instances: 1, later: 1, growth: Some((5.5, 6.0)), over: None };
        assert_eq!(found(&load, &played)[&Figure::ScaleOutShare], 25.0);
    }
}
