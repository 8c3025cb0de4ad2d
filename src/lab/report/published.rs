//! Published figures next to the measured ones, for the page and for the pull request.

use super::escape::{escape, escape_markdown};
use crate::lab::compare::Comparison;

const ABOUT: &str = "These figures were published without their conditions. The scenario is one set of conditions \
                     under which they may come out; its text says how. Below, one run of each mode with one thing \
                     changed tells which of the conditions matter.";

/// The section of the page; empty when nothing was published.
pub(super) fn section(comparison: &Comparison) -> String {
    let Some(published) = &comparison.published else { return String::new() };
    format!(
        "<section><h2>Published figures</h2><p class=\"note\">{ABOUT}</p>{}<h3>What they rest on</h3>{}</section>",
        table("Published figures", &published.claim_table()),
        table("What they rest on", &published.assumption_table(&comparison.modes)),
    )
}

/// The same for a pull request.
pub(super) fn markdown(comparison: &Comparison) -> String {
    let Some(published) = &comparison.published else { return String::new() };
    format!(
        "### Published figures\n\n{ABOUT}\n\n{}\n{}\n",
        markdown_table(&published.claim_table()),
        markdown_table(&published.assumption_table(&comparison.modes)),
    )
}

/// A table that may be wide, so it scrolls on its own.
fn table(label: &str, rows: &[Vec<String>]) -> String {
    let Some((head, rows)) = rows.split_first() else { return String::new() };
    let heads: String = head.iter().map(|cell| format!("<th scope=\"col\">{}</th>", escape(cell))).collect();
    let row = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(place, cell)| match place {
            0 => format!("<th scope=\"row\">{}</th>", escape(cell)),
            _ => format!("<td>{}</td>", escape(cell)),
        });
        format!("<tr>{}</tr>", cells.collect::<String>())
    };
    let rows: String = rows.iter().map(row).collect();
    format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{label}\" tabindex=\"0\"><table><thead><tr>{heads}</tr>\
         </thead><tbody>{rows}</tbody></table></div>"
    )
}

fn markdown_table(rows: &[Vec<String>]) -> String {
    let line = |row: &Vec<String>| {
        let cells: String = row.iter().map(|cell| format!(" {} |", escape_markdown(cell))).collect();
        format!("|{cells}\n")
    };
    let Some((head, rows)) = rows.split_first() else { return String::new() };
    let rule = format!("|{}\n", " --- |".repeat(head.len()));
    std::iter::once(line(head)).chain([rule]).chain(rows.iter().map(line)).collect()
}
