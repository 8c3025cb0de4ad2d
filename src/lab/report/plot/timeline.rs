//! Latency and failures over time.

use std::fmt::Write;

use super::super::gather::{Moment, end, events, runs, timeline as moments};
use super::frame::{Frame, Scale, WIDTH, line, picture};
use super::{places, style};
use crate::lab::compare::{Comparison, Figure, number};

/// One plot per mode, all with the same scales.
pub(in super::super) fn timeline(comparison: &Comparison) -> Vec<(usize, String)> {
    let modes: Vec<_> =
        places(comparison).map(|(place, mode)| (place, mode, moments(&runs(comparison, mode)))).collect();
    let all = || modes.iter().flat_map(|(.., moments)| moments);
    let x = Scale::Linear { low: 0.0, high: end(comparison) };
    let times = all().flat_map(|moment| [moment.p50, moment.p95].into_iter().chain(ends(moment))).flatten();
    let latency =
        Frame { left: 46.0, right: WIDTH - 10.0, top: 30.0, bottom: 200.0, x, y: Scale::log(times) };
    let failed = Frame {
        top: 244.0,
        bottom: 300.0,
        y: Scale::from_zero(all().map(|m| m.failed / m.seconds)),
        ..latency
    };
    let draw = |(place, mode, moments): &(usize, &str, Vec<Moment>)| {
        let drawn = latency.vertical("milliseconds")
            + &latency.horizontal(std::iter::empty())
            + &latency.events(events(comparison))
            + &times_drawn(&latency, *place, moments)
            + &failed.vertical("failed actions per second")
            + &failed.seconds()
            + &bars(&failed, moments);
        (
            *place,
            picture(
                330.0,
                &format!("Time of an action and failures over time, {mode}"),
                &said(moments),
                &drawn,
            ),
        )
    };
    modes.iter().map(draw).collect()
}

fn ends(moment: &Moment) -> [Option<f64>; 2] {
    [moment.p95_range.map(|range| range.0), moment.p95_range.map(|range| range.1)]
}

/// The range of the 95th percentile, its mean, and the median.
fn times_drawn(frame: &Frame, place: usize, moments: &[Moment]) -> String {
    let class = style(place);
    let middle = |moment: &Moment| moment.at + moment.seconds / 2.0;
    let upper = moments.iter().filter_map(|m| frame.point(middle(m), m.p95_range?.1));
    let lower = moments.iter().rev().filter_map(|m| frame.point(middle(m), m.p95_range?.0));
    let band = line(upper.chain(lower).map(Some));
    let of = |value: fn(&Moment) -> Option<f64>| {
        line(moments.iter().map(|m| value(m).and_then(|time| frame.point(middle(m), time))))
    };
    let close = if band.is_empty() { "" } else { "Z" };
    format!(
        "<path class=\"band {class}\" d=\"{band}{close}\"/><path class=\"thin {class}\" d=\"{}\"/>\
         <path class=\"thick {class}\" d=\"{}\"/>",
        of(|m| m.p95),
        of(|m| m.p50)
    )
}

fn bars(frame: &Frame, moments: &[Moment]) -> String {
    let mut drawn = String::new();
    for moment in moments.iter().filter(|moment| moment.failed > 0.0) {
        let corner = frame.point(moment.at, moment.failed / moment.seconds);
        let (Some((x, y)), Some(right)) = (corner, frame.across(moment.at + moment.seconds)) else {
            continue;
        };
        let (width, height) = ((right - x - 0.5).max(0.5), frame.bottom - y);
        let _ = write!(
            drawn,
            "<rect class=\"failed\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
        );
    }
    drawn
}

fn said(moments: &[Moment]) -> String {
    let show = |value| Figure::LatencyMean.show(value);
    let tails = moments.iter().filter_map(|moment| moment.p95);
    let range = tails.fold(None, |ends: Option<(f64, f64)>, time| {
        Some(ends.map_or((time, time), |(low, high)| (low.min(time), high.max(time))))
    });
    let range = range.map_or_else(
        || "No action ended".to_owned(),
        |(low, high)| format!("95th percentile between {} and {}", show(low), show(high)),
    );
    let failed: f64 = moments.iter().map(|moment| moment.failed).sum();
    format!("{range}; {} failed actions per round.", number(failed))
}
