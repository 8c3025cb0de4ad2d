//! The short report for a pull request.

use super::escape::escape_markdown;
use super::published;
use crate::lab::compare::{Comparison, Estimate, Figure, number};

/// Verdict, table, conditions, and the command that repeats it.
pub(super) fn markdown(comparison: &Comparison) -> String {
    let verdict = &comparison.verdict;
    format!(
        "## {}\n\n{}\n{}\n{}### Conditions\n\n{}\n### Repeat it\n\n{}",
        escape_markdown(&verdict.headline),
        list(&verdict.reasons),
        table(comparison),
        published::markdown(comparison),
        list(&verdict.conditions),
        fenced(&comparison.setup.command)
    )
}

fn list(items: &[String]) -> String {
    items.iter().map(|item| format!("- {}\n", escape_markdown(item))).collect()
}

fn table(comparison: &Comparison) -> String {
    let modes = &comparison.modes;
    let names: String = modes.iter().map(|mode| format!(" {} |", escape_markdown(&mode.mode))).collect();
    let rule: String = modes.iter().map(|_| " ---: |").collect();
    let rows =
        Figure::ALL.into_iter().filter(|figure| modes.iter().any(|mode| mode.figure(*figure).is_some()));
    let rows = rows.map(|figure| {
        let cells: String =
            modes.iter().map(|mode| format!(" {} |", cell(figure, mode.figure(figure)))).collect();
        format!("| {} |{cells}\n", figure.title())
    });
    format!("| Figure |{names}\n| --- |{rule}\n{}", rows.collect::<String>())
}

fn cell(figure: Figure, estimate: Option<&Estimate>) -> String {
    let Some(estimate) = estimate else { return "not measured".to_owned() };
    let value = figure.show(estimate.mean);
    match estimate.interval {
        Some(interval) => format!("{value} ({} to {})", number(interval.low), number(interval.high)),
        None => value,
    }
}

/// A code block whose fence is longer than any run of backticks in it.
fn fenced(code: &str) -> String {
    let longest = code.split(|character| character != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(3.max(longest + 1));
    format!("{fence}sh\n{code}\n{fence}\n")
}
