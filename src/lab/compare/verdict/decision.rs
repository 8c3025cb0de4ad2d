//! The decision, before it is put into words.

use super::standing::{Standing, beside};
use crate::lab::compare::{Comparison, Figure};

/// The deciding figures: users experience them, and every load has them.
const FELT: [Figure; 3] = [Figure::SessionsLost, Figure::ActionsFailed, Figure::LatencyMean];

/// Further figures that users experience. Reported where a difference was shown, because slow outliers are
/// not visible in a mean.
pub(super) const FELT_BESIDES: [Figure; 4] =
    [Figure::LatencyP50, Figure::LatencyP95, Figure::LatencyP99, Figure::FirstTokenP50];

/// The cost figures.
pub(super) const COSTS: [Figure; 4] =
    [Figure::StoreCommands, Figure::StoreBytes, Figure::ProxyCpu, Figure::ProxyMemory];

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision<'a> {
    /// No mode was run, or no deciding figure was measured.
    Nothing,
    /// There is no other mode to compare with.
    Alone(&'a str),
    /// A single round decides nothing.
    SingleRound,
    Best(&'a str),
    /// No difference was shown between these modes (at least two); they are better than all others.
    Level(Vec<&'a str>),
    /// Each of these modes (at least two) is better than another one of them in some figure.
    Trade(Vec<&'a str>),
}

/// How one mode compares with another in all deciding figures together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Better,
    Worse,
    Level,
    Mixed,
}

/// The deciding figures. Lost sessions are excluded when the accounts of instances and users disagree.
pub(super) fn weighed(comparison: &Comparison) -> Vec<Figure> {
    let is_told = |figure: &Figure| *figure != Figure::SessionsLost || !is_disputed(comparison);
    FELT.into_iter().filter(is_told).collect()
}

/// Whether the accounts of lost sessions disagree in some run.
pub(super) fn is_disputed(comparison: &Comparison) -> bool {
    comparison.runs.iter().any(|run| run.oracle.is_some_and(|oracle| !oracle.agrees))
}

pub(super) fn decide(comparison: &Comparison) -> Decision<'_> {
    let is_measured = |mode: &str| FELT.iter().any(|figure| !comparison.rounds(mode, *figure).is_empty());
    let modes = comparison.modes.iter().map(|mode| mode.mode.as_str());
    let modes: Vec<&str> = modes.filter(|mode| is_measured(mode)).collect();
    match modes.as_slice() {
        [] => Decision::Nothing,
        [only] => Decision::Alone(only),
        _ if is_single_round(comparison, &modes) => Decision::SingleRound,
        _ => rank(comparison, &modes),
    }
}

/// Whether some two modes have at most one round in common.
fn is_single_round(comparison: &Comparison, modes: &[&str]) -> bool {
    let standings = |base, other| {
        FELT.iter()
            .filter_map(move |figure| beside(comparison, *figure, other, base))
            .map(|beside| beside.standing)
    };
    pairs(modes).any(|(base, other)| standings(base, other).all(|standing| standing == Standing::Single))
}

fn rank<'a>(comparison: &Comparison, modes: &[&'a str]) -> Decision<'a> {
    let is_beaten = |mode: &str| {
        modes.iter().any(|other| *other != mode && relation(comparison, other, mode) == Relation::Better)
    };
    let mut leaders: Vec<&str> = modes.iter().copied().filter(|mode| !is_beaten(mode)).collect();
    if leaders.is_empty() {
        leaders = modes.to_vec();
    }
    let is_level = |(base, other)| relation(comparison, other, base) == Relation::Level;
    match leaders.as_slice() {
        [best] => Decision::Best(best),
        _ if pairs(&leaders).all(is_level) => Decision::Level(leaders),
        _ => Decision::Trade(leaders),
    }
}

fn relation(comparison: &Comparison, mode: &str, base: &str) -> Relation {
    let figures = weighed(comparison);
    let standings: Vec<Standing> = figures
        .into_iter()
        .filter_map(|figure| beside(comparison, figure, mode, base))
        .map(|beside| beside.standing)
        .collect();
    match (standings.contains(&Standing::Better), standings.contains(&Standing::Worse)) {
        (true, false) => Relation::Better,
        (false, true) => Relation::Worse,
        (false, false) => Relation::Level,
        (true, true) => Relation::Mixed,
    }
}

/// All pairs, the earlier mode first.
pub(super) fn pairs<'a>(modes: &[&'a str]) -> impl Iterator<Item = (&'a str, &'a str)> {
    let pairs: Vec<_> = modes
        .iter()
        .enumerate()
        .flat_map(|(place, base)| modes.iter().skip(place + 1).map(move |other| (*base, *other)))
        .collect();
    pairs.into_iter()
}
