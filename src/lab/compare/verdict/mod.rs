//! The verdict: which mode serves the users better, at which cost, and under which conditions.

mod conditions;
mod decision;
mod headline;
mod reasons;
mod standing;
#[cfg(test)]
mod tests;

use super::{Comparison, Verdict};
use decision::{Decision, decide};

/// Derives the verdict from a comparison. The verdict in it is ignored.
///
/// One mode serves the users better than another when fewer sessions are lost, fewer actions fail or the mean
/// latency of actions is lower, and none of the three is worse. A difference counts when its interval
/// excludes zero and it is greater than [`Figure::trifle`](super::Figure::trifle).
pub fn verdict(comparison: &Comparison) -> Verdict {
    let decision = decide(comparison);
    let best = match &decision {
        Decision::Best(mode) => Some((*mode).to_owned()),
        _ => None,
    };
    Verdict {
        headline: headline::headline(comparison, &decision),
        reasons: reasons::reasons(comparison, best.as_deref()),
        conditions: conditions::conditions(comparison),
        best,
    }
}

/// The mode as the subject of a sentence: `shared sessions`.
fn sessions(mode: &str) -> String {
    match mode {
        "shared-uncached" => "shared sessions without the cache".to_owned(),
        "shared-synchronous" => "shared sessions with synchronous renewal".to_owned(),
        other => format!("{other} sessions"),
    }
}

/// `a, b and c`.
fn listed(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn capitalised(sentence: &str) -> String {
    let mut characters = sentence.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}
