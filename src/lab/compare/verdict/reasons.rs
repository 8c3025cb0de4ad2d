//! The support of the verdict: one sentence per figure.

use super::standing::{Standing, beside};
use crate::lab::compare::{Comparison, Estimate, Figure, number};

/// The reported figures, in this order. The table contains the others.
const TOLD: [Figure; 9] = [
    Figure::SessionsLost,
    Figure::ActionsFailed,
    Figure::LatencyMean,
    Figure::LatencyP99,
    Figure::FirstTokenP50,
    Figure::ScaleOutShare,
    Figure::StoreCommands,
    Figure::ProxyCpu,
    Figure::ProxyMemory,
];

/// One sentence per figure: the value of the best mode (or the first), and the differences of all others.
pub(super) fn reasons(comparison: &Comparison, best: Option<&str>) -> Vec<String> {
    let first = comparison.modes.first().map(|mode| mode.mode.as_str());
    let Some(base) = best.or(first) else { return Vec::new() };
    TOLD.into_iter().filter_map(|figure| reason(comparison, figure, base)).collect()
}

fn reason(comparison: &Comparison, figure: Figure, base: &str) -> Option<String> {
    let measured =
        comparison.modes.iter().filter_map(|mode| Some((mode.mode.as_str(), mode.figure(figure)?)));
    let measured: Vec<(&str, &Estimate)> = measured.collect();
    let (_, own) = measured.iter().find(|(mode, _)| *mode == base)?;
    let value = figure.show(own.mean);
    let is_same = |(_, other): &(&str, &Estimate)| other.rounds.iter().all(|round| *round == own.mean);
    if measured.len() > 1 && measured.iter().all(is_same) {
        return Some(format!("{}: {value} in every mode.", figure.title()));
    }
    let others = measured.iter().filter(|(mode, _)| *mode != base).map(|(mode, estimate)| {
        let distance = distance(comparison, figure, mode, base);
        format!("; {mode} {}{distance}", figure.show(estimate.mean))
    });
    Some(format!("{}: {base} {value}{}.", figure.title(), others.collect::<String>()))
}

/// The difference between `mode` and `base`, with the interval.
fn distance(comparison: &Comparison, figure: Figure, mode: &str, base: &str) -> String {
    let Some(beside) = beside(comparison, figure, mode, base) else { return String::new() };
    let difference = &beside.difference;
    let Some(interval) = difference.interval else {
        return format!(", {} in the only round", directed(figure, difference.mean));
    };
    let ends =
        if difference.mean < 0.0 { (-interval.high, -interval.low) } else { (interval.low, interval.high) };
    let range = format!("{} to {}", number(ends.0), number(ends.1));
    match beside.standing {
        Standing::Unshown => {
            let (low, high) = (number(interval.low), figure.show_difference(interval.high));
            format!(", no difference was shown ({low} to {high})")
        }
        Standing::Trifle => {
            format!(", {} ({range}), too little to matter", directed(figure, difference.mean))
        }
        _ => format!(", {} ({range})", directed(figure, difference.mean)),
    }
}

/// `3.1 points more`
fn directed(figure: Figure, difference: f64) -> String {
    let direction = if difference < 0.0 { "less" } else { "more" };
    format!("{} {direction}", figure.show_difference(difference.abs()))
}
