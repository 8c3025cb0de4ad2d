//! The verdict in one sentence.

use super::decision::{COSTS, Decision, FELT_BESIDES, is_disputed, pairs, weighed};
use super::standing::{Standing, beside};
use super::{capitalised, listed, sessions};
use crate::lab::compare::{Comparison, Figure};

/// The decision in one sentence.
pub(super) fn headline(comparison: &Comparison, decision: &Decision<'_>) -> String {
    let sentence = match decision {
        Decision::Nothing => "nothing was measured that users feel, so nothing can be said".to_owned(),
        Decision::Alone(mode) => alone(comparison, mode),
        Decision::SingleRound => single_round(comparison),
        Decision::Best(mode) => best(comparison, mode),
        Decision::Level(modes) => level(comparison, modes),
        Decision::Trade(modes) => trade(comparison, modes),
    };
    let dispute = "; lost sessions are not weighed, because the instances counted others than the users";
    format!("{}{}.", capitalised(&sentence), if is_disputed(comparison) { dispute } else { "" })
}

fn alone(comparison: &Comparison, mode: &str) -> String {
    let said = weighed(comparison).into_iter().filter_map(|figure| said(comparison, figure, mode));
    let said = listed(&said.collect::<Vec<_>>());
    format!("only {} were tried, so there is nothing to hold them against: {said}", sessions(mode))
}

fn single_round(comparison: &Comparison) -> String {
    let figures = weighed(comparison).into_iter().filter_map(|figure| {
        let values = values(comparison, figure, comparison.modes.iter().map(|mode| mode.mode.as_str()));
        (!values.is_empty()).then(|| format!("{} {}", lower(figure), values.join(", ")))
    });
    let figures: Vec<String> = figures.collect();
    format!(
        "a single round cannot tell a difference from chance, so it takes three or more; this one gave {}",
        figures.join("; ")
    )
}

fn best(comparison: &Comparison, mode: &str) -> String {
    let others = || comparison.modes.iter().map(|other| other.mode.as_str()).filter(|other| *other != mode);
    let is_won = |figure: &Figure| others().any(|other| is_better(comparison, *figure, mode, other));
    let won = weighed(comparison).into_iter().filter(is_won).filter_map(|figure| {
        Some(format!(
            "{} ({})",
            said(comparison, figure, mode)?,
            values(comparison, figure, others()).join(", ")
        ))
    });
    let won = listed(&won.collect::<Vec<_>>());
    let cost = alternative(mode, others()).map_or_else(String::new, |other| cost(comparison, mode, other));
    let slower =
        alternative(mode, others()).map_or_else(String::new, |other| slower(comparison, mode, other));
    format!("{} served the users best: {won}{cost}{slower}", sessions(mode))
}

/// The non-deciding figures that users experience in which `mode` was shown to be worse than `other`.
fn slower(comparison: &Comparison, mode: &str, other: &str) -> String {
    let worse = FELT_BESIDES.into_iter().filter_map(|figure| {
        let beside = beside(comparison, figure, mode, other)?;
        let longer = figure.show_difference(beside.difference.mean);
        (beside.standing == Standing::Worse).then(|| format!("the {} is {longer} longer", lower(figure)))
    });
    let worse: Vec<String> = worse.collect();
    if worse.is_empty() {
        return String::new();
    }
    format!("; yet with {} {} than with {}", sessions(mode), listed(&worse), sessions(other))
}

/// The natural alternative to a mode: sticky for shared and shared for sticky, if they were run.
fn alternative<'a>(mode: &str, mut others: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let counterpart = if mode == "sticky" { "shared" } else { "sticky" };
    others.clone().find(|other| *other == counterpart).or_else(|| others.next())
}

/// The additional costs of `mode` over `other`.
fn cost(comparison: &Comparison, mode: &str, other: &str) -> String {
    let besides: Vec<_> = COSTS
        .into_iter()
        .filter_map(|figure| Some((figure, beside(comparison, figure, mode, other)?)))
        .collect();
    let dearer = besides.iter().filter(|(_, beside)| beside.standing == Standing::Worse);
    let dearer: Vec<String> =
        dearer.map(|(figure, beside)| costing(*figure, beside.difference.mean)).collect();
    match (besides.is_empty(), dearer.is_empty()) {
        _ if dearer.is_empty() && is_withheld(comparison) => {
            "; what they cost does not show at so few requests a second".to_owned()
        }
        (true, _) => "; what they cost was not measured".to_owned(),
        (_, true) => format!("; they were not shown to cost more than {}", sessions(other)),
        _ => format!("; they cost {} more than {}", listed(&dearer), sessions(other)),
    }
}

fn level(comparison: &Comparison, modes: &[&str]) -> String {
    let names: Vec<String> = modes.iter().map(|mode| (*mode).to_owned()).collect();
    let others: Vec<String> = comparison
        .modes
        .iter()
        .filter(|other| !modes.contains(&other.mode.as_str()))
        .map(|other| sessions(&other.mode))
        .collect();
    let rest =
        if others.is_empty() { String::new() } else { format!("; {} served them worse", listed(&others)) };
    let cheaper = cheaper(comparison, modes);
    let slower = match modes {
        &[base, other] => slower(comparison, base, other) + &slower(comparison, other, base),
        _ => String::new(),
    };
    let felt = if slower.is_empty() { "" } else { " on the whole" };
    format!(
        "no difference between {} sessions was shown to the users{felt}{rest}{cheaper}{slower}",
        listed(&names)
    )
}

/// Which of two modes costs less.
fn cheaper(comparison: &Comparison, modes: &[&str]) -> String {
    let &[base, other] = modes else { return String::new() };
    let standing = |standing: Standing| {
        move |figure: &Figure| {
            beside(comparison, *figure, other, base).is_some_and(|beside| beside.standing == standing)
        }
    };
    let dearer: Vec<Figure> = COSTS.into_iter().filter(standing(Standing::Worse)).collect();
    let spared: Vec<Figure> = COSTS.into_iter().filter(standing(Standing::Better)).collect();
    let (more, less) = (costs(comparison, &dearer, other, base), costs(comparison, &spared, base, other));
    match (dearer.is_empty(), spared.is_empty()) {
        (true, true) if is_withheld(comparison) => {
            "; what they cost does not show at so few requests a second".to_owned()
        }
        (true, true) => "; nor was a difference in what they cost".to_owned(),
        (false, true) => format!("; {more} more than {}", sessions(base)),
        (true, false) => format!("; {less} more than {}", sessions(other)),
        (false, false) => format!("; {more} more, {less} more"),
    }
}

/// Whether some cost is withheld because of its idle share.
fn is_withheld(comparison: &Comparison) -> bool {
    comparison.withheld().iter().any(|(figure, _)| COSTS.contains(figure))
}

/// `shared sessions cost 1.9 store commands per request`
fn costs(comparison: &Comparison, figures: &[Figure], mode: &str, base: &str) -> String {
    let amounts = figures.iter().filter_map(|figure| {
        Some(costing(*figure, beside(comparison, *figure, mode, base)?.difference.mean))
    });
    format!("{} cost {}", sessions(mode), listed(&amounts.collect::<Vec<_>>()))
}

fn trade(comparison: &Comparison, modes: &[&str]) -> String {
    let gains = pairs(modes).flat_map(|(base, other)| [(base, other), (other, base)]);
    let gains: Vec<String> = gains.filter_map(|(base, mode)| gain(comparison, base, mode)).collect();
    format!("no mode served the users best in everything: {}", gains.join("; "))
}

/// `with sticky sessions an action took 121 ms on average (shared 133 ms)`; `None` where `mode` is better in nothing.
fn gain(comparison: &Comparison, base: &str, mode: &str) -> Option<String> {
    let won = weighed(comparison).into_iter().filter(|figure| is_better(comparison, *figure, mode, base));
    let won: Vec<String> = won
        .filter_map(|figure| {
            let (said, other) = (said(comparison, figure, mode)?, mean(comparison, figure, base)?);
            Some(format!("{said} ({base} {})", figure.show(other)))
        })
        .collect();
    (!won.is_empty()).then(|| format!("with {} {}", sessions(mode), listed(&won)))
}

fn is_better(comparison: &Comparison, figure: Figure, mode: &str, base: &str) -> bool {
    beside(comparison, figure, mode, base).is_some_and(|beside| beside.standing == Standing::Better)
}

/// `0 % of the sessions were lost`
fn said(comparison: &Comparison, figure: Figure, mode: &str) -> Option<String> {
    let value = figure.show(mean(comparison, figure, mode)?);
    Some(match figure {
        Figure::SessionsLost => format!("{value} of the sessions were lost"),
        Figure::ActionsFailed => format!("{value} of the actions failed"),
        _ => format!("an action took {value} on average"),
    })
}

fn costing(figure: Figure, amount: f64) -> String {
    let amount = figure.show_difference(amount);
    match figure {
        Figure::StoreCommands => format!("{amount} store commands per request"),
        Figure::StoreBytes => format!("{amount} of store traffic per request"),
        Figure::ProxyCpu => format!("{amount} of processor time per request"),
        _ => format!("{amount} of memory"),
    }
}

/// `sticky 3.1 %`, `local 11.8 %`
fn values<'a>(comparison: &Comparison, figure: Figure, modes: impl Iterator<Item = &'a str>) -> Vec<String> {
    modes
        .filter_map(|mode| Some(format!("{mode} {}", figure.show(mean(comparison, figure, mode)?))))
        .collect()
}

fn mean(comparison: &Comparison, figure: Figure, mode: &str) -> Option<f64> {
    comparison.modes.iter().find(|own| own.mode == mode)?.figure(figure).map(|estimate| estimate.mean)
}

fn lower(figure: Figure) -> String {
    let title = figure.title();
    let mut characters = title.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}
