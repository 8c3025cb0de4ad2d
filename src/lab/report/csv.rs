//! CSV for spreadsheets: one row per run.

use super::escape::escape_csv;
use crate::lab::compare::{Comparison, Figure, Run};

/// Mode, round, counters of the run, then all figures. A figure that was not measured is an empty field.
pub(super) fn csv(comparison: &Comparison) -> String {
    let counts =
        ["mode", "round", "seconds", "requests", "actions", "failed", "sessions", "lost", "oracle_lost"];
    let header = counts.into_iter().chain(Figure::ALL.iter().map(|figure| figure.key()));
    let header = header.collect::<Vec<_>>().join(",");
    let rows = comparison.runs.iter().map(row);
    std::iter::once(header).chain(rows).map(|line| line + "\r\n").collect()
}

fn row(run: &Run) -> String {
    let load = &run.load;
    let counts = [
        escape_csv(&run.mode),
        run.round.to_string(),
        load.seconds.to_string(),
        load.requests.to_string(),
        load.all.done.to_string(),
        load.all.failed.to_string(),
        load.sessions.begun.to_string(),
        load.sessions.lost.to_string(),
        run.oracle.map_or_else(String::new, |oracle| oracle.lost.to_string()),
    ];
    let figures = Figure::ALL
        .iter()
        .map(|figure| run.figure(*figure).map_or_else(String::new, |value| value.to_string()));
    counts.into_iter().chain(figures).collect::<Vec<_>>().join(",")
}
