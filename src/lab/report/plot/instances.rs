//! Load of each instance over time: one row per instance, so that no colours are needed to distinguish them.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::super::escape::escape;
use super::super::gather::{Moment, end, events, runs, timeline};
use super::frame::{Frame, Scale, WIDTH, line, picture};
use super::{places, shortened, style};
use crate::lab::compare::{Comparison, Figure};

/// Height of a row.
const ROW: f64 = 34.0;
/// Maximum rows. Of more instances those with the most load are drawn.
const MOST: usize = 24;

/// One plot per mode, all with the same scale. Omitted for a mode whose instances are not identified.
pub(in super::super) fn instances(comparison: &Comparison) -> Vec<(usize, String)> {
    let modes: Vec<_> =
        places(comparison).map(|(place, mode)| (place, mode, timeline(&runs(comparison, mode)))).collect();
    let loads = modes.iter().flat_map(|(.., moments)| moments).flat_map(|moment| moment.instances.values());
    let y = Scale::from_zero(loads.copied());
    let x = Scale::Linear { low: 0.0, high: end(comparison) };
    let plots = modes.iter().filter_map(|(place, mode, moments)| {
        let totals = totals(moments);
        (!totals.is_empty()).then(|| (*place, plot(comparison, *place, mode, moments, &totals, (x, y))))
    });
    plots.collect()
}

/// Responses per instance, ordered by name.
fn totals(moments: &[Moment]) -> Vec<(&str, f64)> {
    let mut totals = BTreeMap::new();
    for moment in moments {
        for (name, rate) in &moment.instances {
            *totals.entry(name.as_str()).or_insert(0.0) += rate * moment.seconds;
        }
    }
    let mut totals: Vec<_> = totals.into_iter().filter(|(_, total): &(_, f64)| total.is_finite()).collect();
    totals.sort_by(|left, right| right.1.total_cmp(&left.1));
    totals.truncate(MOST);
    totals.sort_by(|left, right| natural(left.0).cmp(&natural(right.0)));
    totals
}

/// Natural order: `api-2` before `api-10`.
fn natural(name: &str) -> (&str, u64, &str) {
    let stem = name.trim_end_matches(|character: char| character.is_ascii_digit());
    let digits = name.get(stem.len()..).unwrap_or_default();
    (stem, digits.parse().unwrap_or_default(), name)
}

fn plot(
    comparison: &Comparison,
    place: usize,
    mode: &str,
    moments: &[Moment],
    totals: &[(&str, f64)],
    (x, y): (Scale, Scale),
) -> String {
    let all: f64 = totals.iter().map(|(_, total)| total).sum();
    let ground =
        Frame { left: 88.0, right: WIDTH - 58.0, top: 30.0, bottom: 30.0 + ROW * totals.len() as f64, x, y };
    let mut drawn = "<text class=\"e\" x=\"440\" y=\"18\">share</text>".to_owned();
    drawn += &(ground.seconds() + &ground.events(events(comparison)));
    let mut said = String::new();
    for (row, (name, total)) in totals.iter().enumerate() {
        let bottom = 30.0 + ROW * (row + 1) as f64;
        let frame = Frame { top: bottom - ROW + 5.0, bottom, ..ground };
        let share = Figure::ScaleOutShare.show((total * 1000.0 / all.max(f64::MIN_POSITIVE)).round() / 10.0);
        let _ = write!(
            drawn,
            "{}<text class=\"e\" x=\"{:.1}\" y=\"{:.1}\">{}<title>{}</title></text>\
             <text class=\"e\" x=\"440\" y=\"{:.1}\">{share}</text>",
            area(&frame, place, name, moments),
            frame.left - 8.0,
            bottom - 8.0,
            escape(&shortened(name, 10)),
            escape(name),
            bottom - 8.0
        );
        let _ = write!(said, "{name} {share}, ");
    }
    let said = format!("Share of all answers: {}.", said.trim_end_matches(", "));
    picture(ground.bottom + 28.0, &format!("Load by instance over time, {mode}"), &said, &drawn)
}

fn area(frame: &Frame, place: usize, name: &str, moments: &[Moment]) -> String {
    let points = moments.iter().flat_map(|moment| {
        let rate = moment.instances.get(name).copied().unwrap_or_default();
        [frame.point(moment.at, rate), frame.point(moment.at + moment.seconds, rate)]
    });
    let points: Vec<(f64, f64)> = points.flatten().collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    let (base, from, to) = (frame.bottom, first.0, last.0);
    format!(
        "<path class=\"g\" d=\"M{:.1} {base:.1}H{:.1}\"/><path class=\"area {}\" d=\"{}L{to:.1} {base:.1}L{from:.1} {base:.1}Z\"/>",
        frame.left,
        frame.right,
        style(place),
        line(points.iter().copied().map(Some)),
    )
}
