//! What the figures come to, before it is put into words.

use super::standing::{Standing, beside};
use crate::lab::compare::{Comparison, Figure};

/// What the users feel, and every load has.
const FELT: [Figure; 3] = [Figure::SessionsLost, Figure::ActionsFailed, Figure::LatencyMean];

/// What they feel besides: told where it was shown, as the few who wait long are lost in a mean.
pub(super) const FELT_BESIDES: [Figure; 4] =
    [Figure::LatencyP50, Figure::LatencyP95, Figure::LatencyP99, Figure::FirstTokenP50];

/// What serving them takes.
pub(super) const COSTS: [Figure; 4] =
    [Figure::StoreCommands, Figure::StoreBytes, Figure::ProxyCpu, Figure::ProxyMemory];

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision<'a> {
    /// No mode was run, or none of what users feel was measured.
    Nothing,
    /// There is nothing to hold it against.
    Alone(&'a str),
    /// A single round decides nothing.
    SingleRound,
    Best(&'a str),
    /// Between these, at least two, no difference was shown; they are better than all others.
    Level(Vec<&'a str>),
    /// Each of these, at least two, is better than another of them in something.
    Trade(Vec<&'a str>),
}

/// How one mode serves the users beside another, all that they feel together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Better,
    Worse,
    Level,
    Mixed,
}

/// The figures that decide: lost sessions do not where the instances counted others than the users.
pub(super) fn weighed(comparison: &Comparison) -> Vec<Figure> {
    let is_told = |figure: &Figure| *figure != Figure::SessionsLost || !is_disputed(comparison);
    FELT.into_iter().filter(is_told).collect()
}

/// Whether in some run the instances counted other lost sessions than the users.
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

/// Whether some two modes share no more than one round.
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

/// Every two, the earlier one first.
pub(super) fn pairs<'a>(modes: &[&'a str]) -> impl Iterator<Item = (&'a str, &'a str)> {
    let pairs: Vec<_> = modes
        .iter()
        .enumerate()
        .flat_map(|(place, base)| modes.iter().skip(place + 1).map(move |other| (*base, *other)))
        .collect();
    pairs.into_iter()
}
