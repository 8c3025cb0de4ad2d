//! The figures as tables.

use super::escape::escape;
use super::gather::{Distribution, runs};
use super::plot::{sample, style};
use crate::lab::compare::{Comparison, Contrast, Estimate, Figure, ModeResult, number};

/// All figures by mode, each with its interval and its difference from the first mode.
pub(super) fn figures(comparison: &Comparison) -> String {
    let measured =
        Figure::ALL.into_iter().filter(|f| comparison.modes.iter().any(|m| m.figure(*f).is_some()));
    let rows = measured.map(|figure| {
        let cells: String = comparison.modes.iter().map(|mode| cell(comparison, figure, mode)).collect();
        format!("<tr role=\"row\"><th role=\"rowheader\" scope=\"row\">{}</th>{cells}</tr>", figure.title())
    });
    table("figures", "Figure", comparison, &rows.collect::<String>())
}

fn cell(comparison: &Comparison, figure: Figure, mode: &ModeResult) -> String {
    let name = escape(&mode.mode);
    let Some(estimate) = mode.figure(figure) else {
        return format!("<td role=\"cell\" data-mode=\"{name}\"><small>not measured</small></td>");
    };
    let contrast = comparison.contrasts.iter().find(|c| c.figure == figure && c.other == mode.mode);
    format!(
        "<td role=\"cell\" data-mode=\"{name}\"><b>{}</b><small>{}</small>{}</td>",
        figure.show(estimate.mean),
        interval(estimate),
        contrast.map_or_else(String::new, |contrast| difference(comparison, contrast))
    )
}

fn interval(estimate: &Estimate) -> String {
    match estimate.interval {
        Some(interval) => format!("{} to {}", number(interval.low), number(interval.high)),
        None => "one round".to_owned(),
    }
}

/// The difference of a mode from the first, in words and with a sign for better or worse.
fn difference(comparison: &Comparison, contrast: &Contrast) -> String {
    let (figure, difference) = (contrast.figure, &contrast.difference);
    let Some(interval) = difference.interval else { return String::new() };
    if interval.low <= 0.0 && 0.0 <= interval.high {
        return "<small class=\"even\">no difference shown</small>".to_owned();
    }
    let direction = if difference.mean < 0.0 { "less" } else { "more" };
    let amount = figure.show_difference(difference.mean.abs());
    let base = comparison.modes.iter().find(|mode| mode.mode == contrast.base);
    let base = base.and_then(|mode| mode.figure(figure)).map_or(0.0, |estimate| estimate.mean);
    if difference.mean.abs() <= figure.trifle(base) {
        return format!("<small class=\"even\">{amount} {direction}, too little to matter</small>");
    }
    let is_better = (difference.mean > 0.0) == figure.more_is_better();
    let (class, sign) = if is_better { ("better", "\u{2713} better") } else { ("worse", "\u{2717} worse") };
    format!("<small class=\"{class}\">{sign}: {amount} {direction}</small>")
}

/// Percentiles over all rounds.
pub(super) fn percentiles(comparison: &Comparison) -> String {
    const SHARES: [(&str, f64); 6] =
        [("50 %", 0.5), ("90 %", 0.9), ("95 %", 0.95), ("99 %", 0.99), ("99.9 %", 0.999), ("all", 1.0)];
    let modes: Vec<_> =
        comparison.modes.iter().map(|mode| Distribution::of(&runs(comparison, &mode.mode))).collect();
    let rows = SHARES.into_iter().map(|(name, share)| {
        let cells = comparison.modes.iter().zip(&modes).map(|(mode, distribution)| {
            let value = distribution
                .quantile(share)
                .map_or("\u{2013}".to_owned(), |time| Figure::LatencyMean.show(time));
            format!("<td role=\"cell\" data-mode=\"{}\">{value}</td>", escape(&mode.mode))
        });
        let cells: String = cells.collect();
        format!("<tr role=\"row\"><th role=\"rowheader\" scope=\"row\">{name}</th>{cells}</tr>")
    });
    table("plain", "Actions done within", comparison, &rows.collect::<String>())
}

/// Failed actions of all rounds by failure; a short note when there are none.
pub(super) fn failures(comparison: &Comparison) -> String {
    let kinds: std::collections::BTreeSet<&str> =
        comparison.runs.iter().flat_map(|run| run.load.failures.keys()).map(String::as_str).collect();
    if kinds.is_empty() {
        return "<p>No action failed.</p>".to_owned();
    }
    let rows = kinds.into_iter().map(|kind| {
        let cells = comparison.modes.iter().map(|mode| {
            let counts =
                runs(comparison, &mode.mode).into_iter().filter_map(|run| run.load.failures.get(kind));
            let count = counts.fold(0, |sum: u64, count| sum.saturating_add(*count));
            format!("<td role=\"cell\" data-mode=\"{}\">{count}</td>", escape(&mode.mode))
        });
        let cells: String = cells.collect();
        format!("<tr role=\"row\"><th role=\"rowheader\" scope=\"row\">{}</th>{cells}</tr>", escape(kind))
    });
    table("plain", "What failed", comparison, &rows.collect::<String>())
}

/// A table with a column per mode. Roles are explicit, because the CSS layout for narrow screens changes the
/// display type.
fn table(class: &str, corner: &str, comparison: &Comparison, rows: &str) -> String {
    let heads = comparison.modes.iter().enumerate().map(|(place, mode)| {
        let (class, name) = (style(place), escape(&mode.mode));
        format!("<th role=\"columnheader\" scope=\"col\" class=\"{class}\">{} {name}</th>", sample(place))
    });
    format!(
        "<table role=\"table\" class=\"by-mode {class}\"><thead role=\"rowgroup\"><tr role=\"row\">\
         <th role=\"columnheader\" scope=\"col\">{corner}</th>{}</tr></thead><tbody role=\"rowgroup\">{rows}</tbody></table>",
        heads.collect::<String>()
    )
}

/// Every run with its counters and figures; wide, so it scrolls on its own.
pub(super) fn every_run(comparison: &Comparison) -> String {
    let figures: Vec<Figure> = Figure::ALL
        .into_iter()
        .filter(|figure| comparison.runs.iter().any(|run| run.figure(*figure).is_some()))
        .collect();
    let heads: String =
        figures.iter().map(|figure| format!("<th scope=\"col\">{}</th>", unit_title(*figure))).collect();
    let rows = comparison.runs.iter().map(|run| {
        let load = &run.load;
        let values = figures.iter().map(|figure| {
            let value = run.figure(*figure).map_or("\u{2013}".to_owned(), number);
            format!("<td>{value}</td>")
        });
        let oracle = match run.oracle {
            None => "unknown".to_owned(),
            Some(oracle) => format!("{} {}", oracle.lost, if oracle.agrees { "(agrees)" } else { "(disagrees)" }),
        };
        format!(
            "<tr><th scope=\"row\">{} {}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{oracle}</td>{}</tr>",
            escape(&run.mode),
            run.round,
            load.requests,
            load.all.done,
            load.all.failed,
            load.sessions.begun,
            load.sessions.lost,
            values.collect::<String>()
        )
    });
    let rows: String = rows.collect();
    format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"Every run\" tabindex=\"0\"><table><thead><tr>\
         <th scope=\"col\">Run</th><th scope=\"col\">Requests</th><th scope=\"col\">Actions</th>\
         <th scope=\"col\">Failed</th><th scope=\"col\">Sessions</th><th scope=\"col\">Lost</th>\
         <th scope=\"col\">Lost, by the instances</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

fn unit_title(figure: Figure) -> String {
    match figure.unit().symbol() {
        "" => figure.title().to_owned(),
        symbol => format!("{} ({symbol})", figure.title()),
    }
}
