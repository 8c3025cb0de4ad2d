//! Cumulative lost sessions over time.

use std::fmt::Write;

use super::super::gather::{end, events, runs};
use super::frame::{Frame, Scale, WIDTH, line, picture};
use super::{marker, places, style};
use crate::lab::compare::{Comparison, Figure, number};

/// Percent of the sessions lost so far; mean of all rounds.
pub(in super::super) fn losses(comparison: &Comparison) -> String {
    let end = end(comparison);
    let modes: Vec<_> =
        places(comparison).map(|(place, mode)| (place, mode, steps(comparison, mode, end))).collect();
    let totals = modes.iter().filter_map(|(.., steps)| steps.last()).map(|(_, lost)| *lost);
    let frame = Frame {
        left: 46.0,
        right: WIDTH - 10.0,
        top: 30.0,
        bottom: 250.0,
        x: Scale::Linear { low: 0.0, high: end },
        y: Scale::from_zero(totals),
    };
    let mut drawn =
        frame.vertical("% of all sessions") + &frame.seconds() + &frame.events(events(comparison));
    let mut said = String::new();
    for (place, mode, steps) in &modes {
        let points = steps.iter().map(|(at, lost)| frame.point(*at, *lost));
        let _ = write!(drawn, "<path class=\"line {}\" d=\"{}\"/>", style(*place), line(points));
        let Some((at, lost)) = steps.last() else { continue };
        if let Some((x, y)) = frame.point(*at, *lost) {
            drawn += &marker(*place, x, y);
        }
        let _ = write!(said, "{mode}: {} after {} s. ", Figure::SessionsLost.show(*lost), number(*at));
    }
    picture(280.0, "Sessions lost over time", said.trim_end(), &drawn)
}

/// The corners of the step line: times with the losses so far.
fn steps(comparison: &Comparison, mode: &str, end: f64) -> Vec<(f64, f64)> {
    let runs = runs(comparison, mode);
    let begun: u64 = runs.iter().map(|run| run.load.sessions.begun).fold(0, u64::saturating_add);
    if runs.is_empty() {
        return Vec::new();
    }
    let moments = runs.iter().flat_map(|run| run.load.losses.iter().map(|loss| loss.at));
    let mut moments: Vec<f64> = moments.filter(|at| at.is_finite()).collect();
    moments.sort_by(f64::total_cmp);
    let share = |many: usize| many as f64 * 100.0 / begun.max(1) as f64;
    let mut steps = vec![(0.0, 0.0)];
    for (many, at) in moments.iter().enumerate() {
        steps.extend([(*at, share(many)), (*at, share(many + 1))]);
    }
    steps.push((end, share(moments.len())));
    steps
}
