//! Compares a comparison with an earlier one, the baseline.

use super::estimate::welch;
use super::{Comparison, Estimate, Figure, Interval};

/// A figure that has become worse.
#[derive(Debug, Clone, PartialEq)]
pub struct Regression {
    pub mode: String,
    pub figure: Figure,
    pub old: Estimate,
    pub new: Estimate,
    /// The 95 % confidence interval of `new` minus `old`.
    pub difference: Interval,
}

/// Why two comparisons cannot be compared with each other.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BaselineError {
    #[error("the baseline has format {old} and this is format {new}: make a new baseline with this program")]
    Format { old: u32, new: u32 },
    #[error("the baseline has another {what}: {old}, now {new}; {remedy}")]
    Different { what: &'static str, old: String, new: String, remedy: &'static str },
    #[error("the baseline has another scenario of the same name; take the same file or make a new baseline")]
    ScenarioText,
    #[error("{which} has a single round, which cannot tell a change from chance; run it with three or more")]
    SingleRound { which: &'static str },
    #[error(
        "the baseline has none of the modes that were compared; compare the same modes or make a new baseline"
    )]
    NoMode,
}

/// The figures that are worse in `new` than in `old`: Welch's interval excludes zero, and the change exceeds
/// [`Figure::margin`]. Modes and figures that only one of the two has are ignored.
///
/// # Errors
/// Why the two are not comparable, and how to fix it.
pub fn regressions(old: &Comparison, new: &Comparison) -> Result<Vec<Regression>, BaselineError> {
    comparable(old, new)?;
    let modes: Vec<_> = new
        .modes
        .iter()
        .filter_map(|mode| Some((mode, old.modes.iter().find(|other| other.mode == mode.mode)?)))
        .collect();
    if modes.is_empty() {
        return Err(BaselineError::NoMode);
    }
    let regressions = modes.into_iter().flat_map(|(mode, before)| {
        mode.figures.iter().filter_map(|(figure, new)| {
            let (old, new) = (before.figure(*figure)?.clone(), new.clone());
            let difference = worse(*figure, &old, &new)?;
            Some(Regression { mode: mode.mode.clone(), figure: *figure, old, new, difference })
        })
    });
    Ok(regressions.collect())
}

/// The interval of the difference, if it is a regression.
fn worse(figure: Figure, old: &Estimate, new: &Estimate) -> Option<Interval> {
    let difference = welch(&old.rounds, &new.rounds)?;
    let change = new.mean - old.mean;
    let (is_shown, loss) = if figure.more_is_better() {
        (difference.high < 0.0, -change)
    } else {
        (difference.low > 0.0, change)
    };
    (is_shown && loss > figure.margin(old.mean)).then_some(difference)
}

fn comparable(old: &Comparison, new: &Comparison) -> Result<(), BaselineError> {
    if old.version != new.version {
        return Err(BaselineError::Format { old: old.version, new: new.version });
    }
    let traits = traits(old).into_iter().zip(traits(new));
    for ((what, old, remedy), (_, new, _)) in traits {
        if old != new {
            return Err(BaselineError::Different { what, old, new, remedy });
        }
    }
    if old.setup.scenario_text != new.setup.scenario_text {
        return Err(BaselineError::ScenarioText);
    }
    for (which, comparison) in [("the baseline", old), ("this comparison", new)] {
        if comparison.runs.iter().all(|run| run.round <= 1) {
            return Err(BaselineError::SingleRound { which });
        }
    }
    Ok(())
}

/// The properties that must be equal: name, value, and the remedy when they differ.
fn traits(comparison: &Comparison) -> [(&'static str, String, &'static str); 6] {
    const REPEAT: &str = "repeat the baseline's command or make a new baseline";
    let (setup, machine) = (&comparison.setup, &comparison.machine);
    [
        ("scenario", setup.scenario.clone(), REPEAT),
        ("seed", setup.seed.to_string(), REPEAT),
        ("target", setup.target.clone(), REPEAT),
        ("store", setup.store.clone(), REPEAT),
        ("course of events", events(comparison), REPEAT),
        (
            "machine",
            format!("{}, {} cores", machine.processor, machine.cores),
            "make a new baseline on this one: times of two machines say nothing about the program",
        ),
    ]
}

/// The event names of the run with the most events.
fn events(comparison: &Comparison) -> String {
    let run = comparison.runs.iter().max_by_key(|run| run.events.len());
    let names = run.iter().flat_map(|run| &run.events).map(|event| event.name.as_str());
    let names = names.collect::<Vec<_>>().join(", ");
    if names.is_empty() { "none".to_owned() } else { names }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Mode, comparison};
    use super::*;
    use Figure::{LatencyMean, ScaleOutShare, SessionsLost};

    const OLD: Mode<'_> = (
        "sticky",
        &[
            (LatencyMean, [100.0, 101.0, 102.0]),
            (SessionsLost, [3.0, 3.1, 3.2]),
            (ScaleOutShare, [49.0, 50.0, 51.0]),
        ],
    );

    fn found(new: Mode<'_>) -> Vec<(String, Figure)> {
        let regressions = regressions(&comparison(3, &[OLD]), &comparison(3, &[new])).unwrap();
        regressions.into_iter().map(|regression| (regression.mode, regression.figure)).collect()
    }

    #[test]
    fn a_figure_that_is_surely_and_clearly_worse_is_a_regression() {
        let new = [(LatencyMean, [120.0, 121.0, 122.0]), (SessionsLost, [3.9, 4.0, 4.1])];
        let expected = [("sticky".to_owned(), LatencyMean), ("sticky".to_owned(), SessionsLost)];
        assert_eq!(found(("sticky", &new)), expected);
    }

    #[test]
    fn less_of_what_is_better_with_more_is_a_regression() {
        assert_eq!(found(("sticky", &[(ScaleOutShare, [30.0, 31.0, 32.0])])).len(), 1);
        assert_eq!(found(("sticky", &[(ScaleOutShare, [70.0, 71.0, 72.0])])), []);
    }

    #[test]
    fn what_is_better_within_chance_within_the_margin_or_new_is_none() {
        assert_eq!(found(("sticky", &[(LatencyMean, [50.0, 51.0, 52.0])])), []);
        assert_eq!(found(("sticky", &[(LatencyMean, [100.0, 160.0, 101.0])])), []);
        assert_eq!(found(("sticky", &[(LatencyMean, [109.0, 110.0, 111.0])])), []);
        assert_eq!(found(("sticky", &[(Figure::ProxyCpu, [1e6; 3])])), []);
    }

    #[test]
    fn comparisons_of_different_things_are_refused_with_a_remedy() {
        let old = comparison(3, &[OLD]);
        let refused = |change: &dyn Fn(&mut Comparison)| {
            let mut new = old.clone();
            change(&mut new);
            regressions(&old, &new).unwrap_err().to_string()
        };
        let repeat = "repeat the baseline's command or make a new baseline";
        assert_eq!(
            refused(&|new| new.version = 3),
            "the baseline has format 2 and this is format 3: make a new baseline with this program"
        );
        assert_eq!(
            refused(&|new| new.setup.scenario = "plain-api".to_owned()),
            format!("the baseline has another scenario: dify-chat, now plain-api; {repeat}")
        );
        assert_eq!(
            refused(&|new| new.setup.seed = 8),
            format!("the baseline has another seed: 7, now 8; {repeat}")
        );
        assert_eq!(
            refused(&|new| new.setup.scenario_text = "rate = 50".to_owned()),
            "the baseline has another scenario of the same name; take the same file or make a new baseline"
        );
        assert_eq!(
            refused(&|new| new.machine.cores = 8),
            "the baseline has another machine: EPYC, 4 cores, now EPYC, 8 cores; make a new baseline on this one: \
             times of two machines say nothing about the program"
        );
        assert_eq!(
            refused(&|new| new.modes.clear()),
            "the baseline has none of the modes that were compared; compare the same modes or make a new baseline"
        );
        assert_eq!(
            regressions(&old, &comparison(1, &[OLD])).unwrap_err().to_string(),
            "this comparison has a single round, which cannot tell a change from chance; run it with three or more"
        );
    }
}
