//! Costs per request, and the idle costs: what health checks, pings and the process itself use without any
//! request.

use super::model::{Comparison, Figure, Run};
use super::stage::Usage;

/// Maximum idle share of a cost. Up to this share, an error of a fifth in the idle cost (which two seconds of
/// measurement can have) changes the cost per request by an irrelevant amount only (see [`Figure::trifle`]).
const MOST_IDLE: f64 = 0.2;

/// Resource usage of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spent {
    pub(super) used: Usage,
    /// The idle usage in the same time.
    pub(super) idle: Usage,
}

impl Spent {
    /// The part of a cost that requests caused. `None` when it was not measured.
    pub(super) fn of_requests(&self, figure: Figure) -> Option<f64> {
        let cost = cost(figure)?;
        Some(cost(&self.used)? - cost(&self.idle)?)
    }

    /// The idle share of each measured cost.
    pub(super) fn idle_shares(&self) -> Vec<(Figure, f64)> {
        let share = |figure| {
            let cost = cost(figure)?;
            let (used, idle) = (cost(&self.used)?, cost(&self.idle)?);
            let share = if used > 0.0 { idle / used } else { f64::from(u8::from(idle > 0.0)) };
            Some((figure, share.clamp(0.0, 1.0)))
        };
        Figure::ALL.into_iter().filter_map(share).collect()
    }
}

fn cost(figure: Figure) -> Option<fn(&Usage) -> Option<f64>> {
    match figure {
        Figure::StoreCommands => Some(|usage| usage.store_commands),
        Figure::StoreBytes => Some(|usage| usage.store_bytes),
        Figure::ProxyCpu => Some(|usage| usage.processor),
        _ => None,
    }
}

/// The costs whose idle share is too large in at least one of `runs`, with the largest share, from 0 to 1.
fn withheld(runs: &[Run]) -> Vec<(Figure, f64)> {
    let most = |figure: Figure| {
        let shares = runs.iter().flat_map(|run| &run.idle_shares).filter(|(own, _)| *own == figure);
        (figure, shares.map(|(_, share)| *share).fold(0.0, f64::max))
    };
    Figure::ALL.into_iter().map(most).filter(|(_, share)| *share > MOST_IDLE).collect()
}

/// Removes those costs from all `runs`, because modes are compared only in figures that all of them have.
pub(super) fn withhold(runs: &mut [Run]) {
    let withheld = withheld(runs);
    for run in runs {
        run.figures.retain(|(figure, _)| withheld.iter().all(|(other, _)| other != figure));
    }
}

impl Comparison {
    /// The costs that are withheld because more than a fifth of them is idle cost in some run, with the
    /// largest share, from 0 to 1.
    pub fn withheld(&self) -> Vec<(Figure, f64)> {
        withheld(&self.runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(processor: Option<f64>, commands: Option<f64>) -> Usage {
        Usage { processor, store_commands: commands, ..Usage::NOTHING }
    }

    #[test]
    fn a_cost_is_what_is_not_there_anyway() {
        let spent = Spent { used: usage(Some(100.0), Some(0.0)), idle: usage(Some(20.0), Some(0.0)) };
        assert_eq!(spent.of_requests(Figure::ProxyCpu), Some(80.0));
        assert_eq!(spent.of_requests(Figure::StoreBytes), None);
        assert_eq!(spent.of_requests(Figure::ProxyMemory), None);
        assert_eq!(spent.idle_shares(), [(Figure::StoreCommands, 0.0), (Figure::ProxyCpu, 0.2)]);
        let idle = Spent { used: usage(Some(10.0), None), idle: usage(Some(20.0), None) };
        assert_eq!(idle.idle_shares(), [(Figure::ProxyCpu, 1.0)]);
        let unknown = Spent { used: usage(Some(10.0), None), idle: usage(None, None) };
        assert_eq!((unknown.of_requests(Figure::ProxyCpu), unknown.idle_shares()), (None, vec![]));
    }

    #[test]
    fn what_is_mostly_idle_in_one_run_is_told_of_none() {
        use Figure::{ProxyCpu, StoreCommands};
        let run = |shares: [f64; 2]| Run {
            mode: "shared".to_owned(),
            round: 1,
            load: Default::default(),
            events: Vec::new(),
            oracle: None,
            figures: vec![(StoreCommands, 1.0), (ProxyCpu, 80.0)],
            idle_shares: vec![(StoreCommands, shares[0]), (ProxyCpu, shares[1])],
        };
        let mut runs = [run([0.2, 0.1]), run([0.1, 0.6]), run([0.0, 0.1])];
        withhold(&mut runs);
        assert!(runs.iter().all(|run| run.figures == [(StoreCommands, 1.0)]), "{runs:?}");
        assert_eq!(withheld(&runs), [(ProxyCpu, 0.6)]);
    }
}
