//! A figure of all modes with the intervals and the values of each round.

use std::fmt::Write;

use super::super::escape::escape;
use super::frame::{Frame, Scale, WIDTH, picture};
use super::{marker, shortened, style};
use crate::lab::compare::{Comparison, Estimate, Figure, number};

const ROW: f64 = 30.0;

/// One row per mode, from zero. `None` for a figure that no mode has.
pub(in super::super) fn intervals(comparison: &Comparison, figure: Figure) -> Option<String> {
    let measured = comparison.modes.iter().enumerate();
    let measured: Vec<(usize, &str, &Estimate)> = measured
        .filter_map(|(place, mode)| Some((place, mode.mode.as_str(), mode.figure(figure)?)))
        .collect();
    if measured.is_empty() {
        return None;
    }
    let ends = measured.iter().flat_map(|(.., estimate)| {
        let high = estimate.interval.map_or(estimate.mean, |interval| interval.high);
        estimate.rounds.iter().copied().chain([estimate.mean, high])
    });
    let frame = Frame {
        left: 124.0,
        right: WIDTH - 84.0,
        top: 4.0,
        bottom: 4.0 + ROW * measured.len() as f64,
        x: Scale::from_zero(ends),
        y: Scale::Linear { low: 0.0, high: 1.0 },
    };
    let mut drawn = frame.numbers();
    let mut said = String::new();
    for (row, (place, mode, estimate)) in measured.iter().enumerate() {
        let y = frame.top + ROW * (row as f64 + 0.5);
        let _ = write!(
            drawn,
            "<text class=\"e\" x=\"{:.1}\" y=\"{:.1}\">{}</text>{}<text class=\"v\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            frame.left - 10.0,
            y + 5.0,
            escape(&shortened(mode, 14)),
            whisker(&frame, *place, estimate, y),
            frame.right + 10.0,
            y + 5.0,
            escape(&figure.show(estimate.mean))
        );
        let _ = write!(said, "{mode}: {}{}. ", figure.show(estimate.mean), range(estimate));
    }
    Some(picture(frame.bottom + 26.0, figure.title(), said.trim_end(), &drawn))
}

fn range(estimate: &Estimate) -> String {
    estimate.interval.map_or_else(String::new, |i| format!(", {} to {}", number(i.low), number(i.high)))
}

/// The interval as a line with ends, rounds as small strokes, the mean as the mode's marker.
fn whisker(frame: &Frame, place: usize, estimate: &Estimate, y: f64) -> String {
    let mut drawn = String::new();
    let ends = estimate.interval.and_then(|i| Some((frame.across(i.low)?, frame.across(i.high)?)));
    let class = style(place);
    if let Some((low, high)) = ends {
        let top = y - 6.0;
        let _ = write!(
            drawn,
            "<path class=\"whisker {class}\" d=\"M{low:.1} {y:.1}H{high:.1}M{low:.1} {top:.1}v12M{high:.1} {top:.1}v12\"/>"
        );
    }
    for x in estimate.rounds.iter().filter_map(|round| frame.across(*round)) {
        let _ = write!(drawn, "<path class=\"round\" d=\"M{x:.1} {:.1}v5\"/>", y + 7.0);
    }
    if let Some(x) = frame.across(estimate.mean) {
        drawn += &marker(place, x, y);
    }
    drawn
}
