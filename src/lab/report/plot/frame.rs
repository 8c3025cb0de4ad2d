//! The basis of a plot: scales, axes, and coordinates.

use std::fmt::Write;

use super::super::escape::escape;
use crate::lab::compare::{EventMark, number};

/// Width of every plot in SVG user units; the page scales it.
pub(super) const WIDTH: f64 = 440.0;

/// Maps values to positions between 0 and 1.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scale {
    Linear {
        low: f64,
        high: f64,
    },
    /// Both ends are greater than zero.
    Log {
        low: f64,
        high: f64,
    },
}

impl Scale {
    /// From zero to slightly above the maximum of `values`, or to 1.
    pub(super) fn from_zero(values: impl Iterator<Item = f64>) -> Scale {
        let high = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        Scale::Linear { low: 0.0, high: if high > 0.0 { high * 1.08 } else { 1.0 } }
    }

    /// From the minimum to the maximum of `values`, at least one decade.
    pub(super) fn log(values: impl Iterator<Item = f64>) -> Scale {
        let known = values.filter(|value| value.is_finite() && *value > 0.0);
        let ends = known.fold(None, |ends: Option<(f64, f64)>, value| {
            Some(ends.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
        });
        let (low, high) = ends.unwrap_or((1.0, 10.0));
        let low = low.max(1e-3);
        Scale::Log { low, high: high.max(low * 10.0) }
    }

    /// The position of `value`, clamped to 0 to 1.
    pub(super) fn place(self, value: f64) -> Option<f64> {
        let place = match self {
            Scale::Linear { low, high } => (value - low) / (high - low),
            Scale::Log { low, high } => (value.max(low) / low).ln() / (high / low).ln(),
        };
        place.is_finite().then(|| place.clamp(0.0, 1.0))
    }

    /// Round values for four to eight ticks.
    fn ticks(self) -> Vec<f64> {
        match self {
            Scale::Linear { low, high } => linear_ticks(low, high),
            Scale::Log { low, high } => log_ticks(low, high),
        }
    }
}

fn linear_ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    let decade = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|many| many * decade).find(|step| *step >= rough);
    let Some(step) = step.filter(|step| step.is_normal()) else { return vec![low] };
    let first = (low / step).ceil();
    (0..8)
        .map(|place| (first + f64::from(place)) * step)
        .filter(|tick| *tick <= high * (1.0 + 1e-9))
        .collect()
}

fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let within: &[f64] = if last - first <= 2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    // Beyond eight decades only every second decade gets a tick, and so on.
    let stride = ((last - first) / 8 + 1).unsigned_abs() as usize;
    let ticks =
        (first..=last).step_by(stride).flat_map(|decade| within.iter().map(move |w| w * 10f64.powi(decade)));
    ticks.filter(|tick| (low * 0.999..=high * 1.001).contains(tick)).collect()
}

/// The plot area.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
    pub(super) x: Scale,
    pub(super) y: Scale,
}

impl Frame {
    /// The coordinates of a pair of values. `None` when one is not finite.
    pub(super) fn point(&self, x: f64, y: f64) -> Option<(f64, f64)> {
        Some((self.across(x)?, self.bottom - self.y.place(y)? * (self.bottom - self.top)))
    }

    pub(super) fn across(&self, x: f64) -> Option<f64> {
        Some(self.left + self.x.place(x)? * (self.right - self.left))
    }

    /// Grid lines and labels of the vertical axis, with `title` above it.
    pub(super) fn vertical(&self, title: &str) -> String {
        let mut drawn =
            format!("<text class=\"t\" x=\"0\" y=\"{:.1}\">{}</text>", self.top - 16.0, escape(title));
        for tick in self.y.ticks() {
            let Some(place) = self.y.place(tick) else { continue };
            let y = self.bottom - place * (self.bottom - self.top);
            let (left, right, label) = (self.left, self.right, number(tick));
            let _ = write!(
                drawn,
                "<path class=\"g\" d=\"M{left:.1} {y:.1}H{right:.1}\"/>\
                 <text class=\"e\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
                left - 6.0,
                y + 4.0
            );
        }
        drawn
    }

    /// Labels of the horizontal axis, in seconds.
    pub(super) fn seconds(&self) -> String {
        self.horizontal(self.x.ticks().into_iter().map(|tick| (tick, format!("{} s", number(tick)))))
    }

    /// Labels of the horizontal axis, without a unit.
    pub(super) fn numbers(&self) -> String {
        self.horizontal(self.x.ticks().into_iter().map(|tick| (tick, number(tick))))
    }

    /// Ticks of the horizontal axis.
    pub(super) fn horizontal(&self, marks: impl Iterator<Item = (f64, String)>) -> String {
        let mut drawn =
            format!("<path class=\"a\" d=\"M{:.1} {:.1}H{:.1}\"/>", self.left, self.bottom, self.right);
        for (value, label) in marks {
            let Some(x) = self.across(value) else { continue };
            let anchor = if x > self.right - 16.0 { "e" } else { "m" };
            let (y, label) = (self.bottom, escape(&label));
            let _ = write!(
                drawn,
                "<path class=\"a\" d=\"M{x:.1} {y:.1}v4\"/><text class=\"{anchor}\" x=\"{x:.1}\" y=\"{:.1}\">{label}</text>",
                y + 20.0
            );
        }
        drawn
    }

    /// Numbered lines at the events; a band from begin to end where both are known.
    pub(super) fn events(&self, events: &[EventMark]) -> String {
        let mut drawn = String::new();
        for (place, event) in events.iter().enumerate() {
            let Some(x) = self.across(event.at) else { continue };
            let (top, bottom) = (self.top, self.bottom);
            if let Some(until) = event.until.and_then(|until| self.across(until)) {
                let width = (until - x).max(0.0);
                let height = bottom - top;
                let _ = write!(
                    drawn,
                    "<rect class=\"during\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
                );
            }
            let _ = write!(
                drawn,
                "<path class=\"event\" d=\"M{x:.1} {top:.1}V{bottom:.1}\"/><circle class=\"pin\" cx=\"{x:.1}\" \
                 cy=\"{top:.1}\" r=\"10\"/><text class=\"number\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                top + 4.75,
                place + 1
            );
        }
        drawn
    }
}

/// A line through points, interrupted where a point is missing.
pub(super) fn line(points: impl Iterator<Item = Option<(f64, f64)>>) -> String {
    let mut path = String::new();
    let mut is_begun = false;
    for point in points {
        if let Some((x, y)) = point {
            let command = if is_begun { 'L' } else { 'M' };
            let _ = write!(path, "{command}{x:.1} {y:.1}");
        }
        is_begun = point.is_some();
    }
    path
}

/// A complete plot: the image with a title and a description for screen readers.
pub(super) fn picture(height: f64, title: &str, description: &str, drawn: &str) -> String {
    let (title, description) = (escape(title), escape(description));
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"{title}. {description}\">{drawn}</svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_scale() {
        assert_eq!(linear_ticks(0.0, 45.0), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(linear_ticks(0.0, 1.0), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(log_ticks(7.0, 300.0), [10.0, 100.0]);
        assert_eq!(log_ticks(20.0, 300.0).len(), 5 - 1);
        assert!(log_ticks(1e-3, 1e30).len() <= 9);
    }

    #[test]
    fn what_is_no_number_has_no_place() {
        let scale = Scale::log([1.0, 100.0, f64::NAN, -3.0].into_iter());
        assert_eq!(
            (scale.place(1.0), scale.place(10.0), scale.place(1e9)),
            (Some(0.0), Some(0.5), Some(1.0))
        );
        assert_eq!(scale.place(0.0), Some(0.0));
        assert_eq!(Scale::from_zero([f64::INFINITY].into_iter()).place(f64::INFINITY), None);
    }
}
