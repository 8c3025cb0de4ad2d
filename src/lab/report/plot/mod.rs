//! The plots of the report, as SVG. Modes differ in colour, dash pattern and marker, always in this order.

mod distribution;
mod frame;
mod instances;
mod intervals;
mod losses;
mod timeline;

use crate::lab::compare::Comparison;

pub(super) use distribution::distribution;
pub(super) use instances::instances;
pub(super) use intervals::intervals;
pub(super) use losses::losses;
pub(super) use timeline::timeline;

/// Distinguishable line styles; a sixth mode looks like the first.
const STYLES: usize = 5;

/// The CSS class of the mode with this index.
pub(super) fn style(place: usize) -> String {
    format!("s{}", place % STYLES)
}

/// The marker of the mode with this index, at a point.
pub(super) fn marker(place: usize, x: f64, y: f64) -> String {
    let class = style(place);
    let path = match place % STYLES {
        0 => "m-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
        1 => "m-4 -4h8v8h-8z",
        2 => "m0 -5.5l5 9h-10z",
        3 => "m0 -5.5l5.5 5.5l-5.5 5.5l-5.5-5.5z",
        _ => "m-1.5 -5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z",
    };
    format!("<path class=\"dot {class}\" d=\"M{x:.1} {y:.1}{path}\"/>")
}

/// Line and marker of the mode with this index, for a legend.
pub(super) fn sample(place: usize) -> String {
    let class = style(place);
    format!(
        "<svg class=\"sample\" viewBox=\"0 0 36 12\" aria-hidden=\"true\"><path class=\"line {class}\" d=\"M1 6H35\"/>{}</svg>",
        marker(place, 18.0, 6.0)
    )
}

/// The names of all modes with their indices.
fn places(comparison: &Comparison) -> impl Iterator<Item = (usize, &str)> {
    comparison.modes.iter().map(|mode| mode.mode.as_str()).enumerate()
}

/// A name, shortened to at most `most` characters.
fn shortened(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    name.chars().take(most - 1).chain(['\u{2026}']).collect()
}
