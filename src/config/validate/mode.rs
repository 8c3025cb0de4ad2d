//! `session.mode`.

use super::canary::share;
use crate::config::canary::Percent;
use crate::config::fault::Fault;
use crate::config::file::{Node, Value};
use crate::config::mode::{Mode, Modes, Shares};
use crate::config::section::Section;
use crate::config::value::{choice, integer};

const EXAMPLE: &str = "{ compare = { shared = 50, sticky = 50 } }";

/// One of three words, or `{ compare = { shared = 50, sticky = 50 } }`.
pub(super) fn modes(s: &mut Section<'_>) -> Modes {
    if s.has_table("mode") {
        let compared = s.table("mode", |s| match s.has("compare") {
            true => s.optional_table("compare", shares).flatten(),
            false => {
                // Registers `compare` as a known key, so that a misspelled key gets a suggestion.
                s.optional_table("compare", |_| ());
                s.fault(s.own_spot(), nothing_compared());
                None
            }
        });
        return compared.map_or(Mode::Shared.into(), Modes::Compare);
    }
    let words = choice(&[("shared", Mode::Shared), ("sticky", Mode::Sticky), ("local", Mode::Local)]);
    s.value("mode", words, Mode::Shared).into()
}

/// `None` has been reported.
fn shares(s: &mut Section<'_>) -> Option<Shares> {
    let keys = ["shared", "sticky", "local"];
    let shares = keys.map(|key| s.optional(key, whole_or_share));
    let said = keys.into_iter().filter(|key| s.has(key)).count();
    if !s.are_sound(&keys) {
        return None;
    }
    let made = Shares::new(shares);
    if made.is_none() {
        let fault = if said < 2 { too_few(said) } else { wrong_sum(&shares) };
        s.fault(s.own_spot(), fault);
    }
    made
}

/// An integer percentage, or a share such as `"12.5%"`.
fn whole_or_share(node: &Node) -> Result<Percent, Fault> {
    match &node.value {
        Value::Integer(_) => {
            let percent = integer(0..=100_u8)(node)?;
            Percent::new(f64::from(percent)).ok_or_else(nothing_compared)
        }
        _ => share(node),
    }
}

fn nothing_compared() -> Fault {
    Fault::new(
        "no modes to compare are named",
        "it would be unknown how requests are to be served",
        format!("write \"shared\", \"sticky\", \"local\" or {EXAMPLE}"),
    )
}

fn too_few(said: usize) -> Fault {
    let what = format!("{} compared", if said == 0 { "no mode is" } else { "only one mode is" });
    let why = "a comparison takes two cohorts of clients";
    Fault::new(what, why, format!("write one of the modes alone, or name two of them: {EXAMPLE}"))
}

fn wrong_sum(shares: &[Option<Percent>]) -> Fault {
    let sum: f64 = shares.iter().flatten().map(|share| share.value()).sum();
    Fault::new(
        format!("the shares make up {sum}% of the clients, not 100%"),
        "every client belongs to exactly one cohort",
        format!("let them add up to 100, as in {EXAMPLE}"),
    )
}
