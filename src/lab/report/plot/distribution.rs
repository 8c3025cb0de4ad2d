//! Latency distribution: duration over percentile, with a scale that expands the tail.

use std::fmt::Write;

use super::super::gather::{Distribution, runs};
use super::frame::{Frame, Scale, WIDTH, line, picture};
use super::{marker, places, style};
use crate::lab::compare::{Comparison, Figure};

/// Percentiles with a marker, and the minimum count for which they are meaningful.
const MARKS: [(f64, &str, u64); 5] = [
    (0.5, "50 %", 0),
    (0.9, "90 %", 10),
    (0.99, "99 %", 100),
    (0.999, "99.9 %", 1000),
    (0.9999, "99.99 %", 10_000),
];

/// A logarithmic scale on which every further nine (90 %, 99 %, 99.9 %) has the same width.
fn nines(share: f64) -> f64 {
    -(1.0 - share).log10()
}

/// All rounds together, one line per mode.
pub(in super::super) fn distribution(comparison: &Comparison) -> String {
    let modes: Vec<_> = places(comparison)
        .map(|(place, mode)| (place, mode, Distribution::of(&runs(comparison, mode))))
        .collect();
    let most = modes.iter().map(|(.., distribution)| distribution.count).max().unwrap_or_default();
    let marks: Vec<_> = MARKS.into_iter().filter(|(.., least)| most >= *least).collect();
    let end = marks.last().map_or(1.0, |(share, ..)| nines(*share)).max(1.0);
    let times = modes.iter().flat_map(|(.., distribution)| distribution.shares().map(|(time, _)| time));
    let frame = Frame {
        left: 46.0,
        right: WIDTH - 10.0,
        top: 30.0,
        bottom: 250.0,
        x: Scale::Linear { low: 0.0, high: end },
        y: Scale::log(times),
    };
    let labels = marks.iter().map(|(share, label, _)| (nines(*share), (*label).to_owned()));
    let mut drawn = frame.vertical("milliseconds") + &frame.horizontal(labels);
    let mut said = String::new();
    for (place, mode, distribution) in &modes {
        drawn += &curve(&frame, *place, distribution, end);
        if let (Some(half), Some(tail)) = (distribution.quantile(0.5), distribution.quantile(0.99)) {
            let show = |value| Figure::LatencyMean.show(value);
            let _ = write!(
                said,
                "{mode}: half of the actions within {}, 99 % within {}. ",
                show(half),
                show(tail)
            );
        }
    }
    picture(280.0, "Time of an action by percentile", said.trim_end(), &drawn)
}

fn curve(frame: &Frame, place: usize, distribution: &Distribution, end: f64) -> String {
    // Points closer than about a pixel are omitted, because they would not be visible.
    let mut last = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    let points =
        distribution.shares().filter(|(_, share)| nines(*share) <= end).filter_map(|(time, share)| {
            let point = frame.point(nines(share), time)?;
            let is_far = (point.0 - last.0).abs() + (point.1 - last.1).abs() > 0.8;
            is_far.then(|| {
                last = point;
                Some(point)
            })
        });
    // Adds the end point: the last mark lies between two steps, and the curve would end before its marker.
    let known = MARKS
        .into_iter()
        .find(|(share, _, least)| (nines(*share) - end).abs() < 1e-9 && distribution.count >= *least);
    let last = known.and_then(|(share, ..)| frame.point(nines(share), distribution.quantile(share)?));
    let curve = line(points.chain(last.map(Some)));
    let mut drawn = format!("<path class=\"line {}\" d=\"{curve}\"/>", style(place));
    for (share, _, least) in MARKS {
        let marked =
            distribution.quantile(share).filter(|_| distribution.count >= least && nines(share) <= end);
        if let Some((x, y)) = marked.and_then(|time| frame.point(nines(share), time)) {
            drawn += &marker(place, x, y);
        }
    }
    drawn
}
