//! The summary on standard output.

use std::io::{self, Write};

use crate::lab::compare::{Comparison, Estimate, Figure, Interval, ModeResult, Published};

/// Prints the verdict, the table and the conditions.
pub(super) fn print(comparison: &Comparison, out: &mut impl Write) -> io::Result<()> {
    let verdict = &comparison.verdict;
    writeln!(out, "{}", verdict.headline)?;
    verdict.reasons.iter().try_for_each(|reason| writeln!(out, "  - {reason}"))?;
    writeln!(out)?;
    write_rows(rows(&comparison.modes), out)?;
    if let Some(published) = &comparison.published {
        writeln!(out)?;
        write_rows(align(&published.claim_table()), out)?;
        writeln!(out)?;
        write_rows(align(&otherwise(published, &comparison.modes)), out)?;
    }
    writeln!(out, "\nmean of {} rounds ± 95 % confidence", comparison.setup.rounds)?;
    verdict.conditions.iter().try_for_each(|condition| writeln!(out, "  - {condition}"))
}

fn write_rows(rows: Vec<String>, out: &mut impl Write) -> io::Result<()> {
    rows.into_iter().try_for_each(|row| writeln!(out, "{row}"))
}

fn rows(modes: &[ModeResult]) -> Vec<String> {
    let mut table =
        vec![std::iter::once(String::new()).chain(modes.iter().map(|mode| mode.mode.clone())).collect()];
    for figure in Figure::ALL {
        let cells: Vec<Option<&Estimate>> = modes.iter().map(|mode| mode.figure(figure)).collect();
        if cells.iter().any(Option::is_some) {
            let title = figure.title().to_owned();
            let shown = cells.into_iter().map(|cell| cell.map_or("-".to_owned(), |cell| told(cell, figure)));
            table.push(std::iter::once(title).chain(shown).collect::<Vec<_>>());
        }
    }
    align(&table)
}

/// The measurements with one thing changed; one column per mode.
fn otherwise(published: &Published, modes: &[ModeResult]) -> Vec<Vec<String>> {
    let mut named: Vec<&str> = published.claims.iter().map(|claim| claim.mode.as_str()).collect();
    named.dedup();
    let head = std::iter::once("Changed").chain(named.iter().copied()).map(str::to_owned).collect();
    let row = |row: &Vec<String>| {
        let (about, cells) =
            row.split_first().map_or((String::new(), row.as_slice()), |(a, c)| (a.clone(), c));
        let of_mode = |mode: &&str| {
            let cells = published.claims.iter().zip(cells).filter(|(claim, _)| claim.mode == **mode);
            cells.map(|(_, cell)| cell.as_str()).collect::<Vec<_>>().join(", ")
        };
        std::iter::once(about).chain(named.iter().map(of_mode)).collect()
    };
    std::iter::once(head).chain(published.assumption_table(modes).iter().skip(1).map(row)).collect()
}

fn told(estimate: &Estimate, figure: Figure) -> String {
    let unit = figure.unit().symbol();
    match estimate.interval {
        None => number(estimate.mean, unit),
        Some(interval) if is_cut(estimate, &interval) => format!(
            "{} ({} to {})",
            number(estimate.mean, unit),
            number(interval.low, ""),
            number(interval.high, "")
        ),
        Some(interval) => {
            let half = (interval.high - interval.low) / 2.0;
            format!("{} ± {}", number(estimate.mean, ""), number(half, unit))
        }
    }
}

/// Whether the interval is asymmetric around the mean: it is cut where a figure cannot be below zero or above
/// its maximum.
fn is_cut(estimate: &Estimate, interval: &Interval) -> bool {
    let (below, above) = (estimate.mean - interval.low, interval.high - estimate.mean);
    (below - above).abs() > f64::max(below, above) * 1e-6
}

/// Three significant digits and the unit.
pub(super) fn number(value: f64, unit: &str) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {unit}").trim_end().to_owned()
}

/// Left-aligns the first column and right-aligns the others.
fn align(table: &[Vec<String>]) -> Vec<String> {
    let columns = table.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        table
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("   {cell:>width$}"),
        });
        cells.collect::<String>()
    };
    table.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_interval_reaches_below_nothing_or_beyond_all() {
        let within = |low, high| Some(Interval { low, high });
        let estimate = |mean, interval| Estimate { mean, interval, rounds: vec![mean] };
        assert_eq!(told(&estimate(0.25, within(0.0, 0.75)), Figure::SessionsLost), "0.25 % (0.00 to 0.75)");
        assert_eq!(told(&estimate(99.0, within(90.0, 100.0)), Figure::ScaleOutShare), "99.0 % (90.0 to 100)");
    }

    #[test]
    fn modes_stand_side_by_side_and_what_is_missing_is_a_dash() {
        let estimate = |mean, interval| Estimate { mean, interval, rounds: vec![mean] };
        let within = Interval { low: 110.0, high: 130.0 };
        let modes = [
            ModeResult {
                mode: "local".into(),
                figures: vec![(Figure::LatencyMean, estimate(120.0, Some(within)))],
            },
            ModeResult {
                mode: "shared".into(),
                figures: vec![
                    (Figure::LatencyMean, estimate(9.5, None)),
                    (Figure::StoreCommands, estimate(0.25, None)),
                ],
            },
        ];
        let expected = [
            "                                    local    shared",
            "Mean time of an action     120 ± 10.0 ms   9.50 ms",
            "Store commands per request             -      0.25",
        ];
        let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let rows = rows(&modes);
        assert_eq!(rows.iter().map(|row| squeezed(row)).collect::<Vec<_>>(), expected.map(squeezed));
        let widths: Vec<_> = rows.iter().map(|row| row.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{rows:#?}");
    }
}
