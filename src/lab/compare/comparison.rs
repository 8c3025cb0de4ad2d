//! The whole comparison: round by round, mode by mode.

use tokio::sync::watch;
use tokio::time::Instant;

use super::estimate::{contrast, estimate};
use super::idle::withhold;
use super::mode::SessionMode;
use super::model::{Comparison, Contrast, Figure, Machine, ModeResult, Run, Setup, Verdict};
use super::plan::{Feasible, Plan, PlanError};
use super::published::{Assumed, Published, assumptions, claims};
use super::run::{Ran, run};
use super::stage::StageError;
use super::status::Status;
use super::target::Target;
use super::verdict::verdict;
use crate::lab::load::{LoadError, TargetError};

/// Why the comparison failed.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// A comparison and the objections to its validity.
#[derive(Debug)]
pub struct Compared {
    pub comparison: Comparison,
    /// Differences between the instances' own accounts of lost sessions and those of the users, run by run.
    /// Empty in a valid comparison.
    pub objections: Vec<String>,
}

/// Executes `plan`. Every mode runs once per round, in an order that rotates from round to round. `status`
/// receives the progress. Dropping the future ends everything that was started.
pub async fn compare(plan: Plan, status: &watch::Sender<Status>) -> Result<Compared, CompareError> {
    let feasible = plan.feasible()?;
    let plan = &feasible.plan;
    let created = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let (mut runs, mut configurations, mut objections) = (Vec::new(), Vec::new(), Vec::new());
    status.send_modify(|status| {
        let assumptions = plan.scenario.staging.assumptions.len() as u32;
        status.runs = (plan.rounds + assumptions) * plan.modes.len() as u32;
        status.rounds = plan.rounds;
        status.began = Some(Instant::now());
    });
    for round in 1..=plan.rounds {
        for mode in plan.order(round) {
            status.send_modify(|status| {
                status.round = round;
                status.begin(mode.as_str(), plan.length());
            });
            let Ran { run, objections: objected, configuration } =
                run(&feasible, mode, round, status).await?;
            let told = objected.iter().map(|objection| format!("{} in round {round}: {objection}", run.mode));
            objections.extend(told);
            if round == 1 {
                configurations.push((run.mode.clone(), configuration));
            }
            runs.push(run);
            status.send_modify(Status::end);
        }
    }
    withhold(&mut runs);
    let Assumed { assumptions, omissions, objections: objected } = assumptions(plan, status).await?;
    objections.extend(objected);
    let mut comparison = assemble(&feasible, created, configurations, runs);
    comparison.verdict.conditions.extend(omissions);
    let claims = claims(plan, &comparison.modes);
    if !claims.is_empty() || !assumptions.is_empty() {
        comparison.published = Some(Published { claims, assumptions });
    }
    Ok(Compared { comparison, objections })
}

fn assemble(
    feasible: &Feasible,
    created: String,
    mut configurations: Vec<(String, String)>,
    runs: Vec<Run>,
) -> Comparison {
    let plan = &feasible.plan;
    let place = |name: &str| plan.modes.iter().position(|mode| mode.as_str() == name);
    configurations.sort_by_key(|(mode, _)| place(mode));
    let modes: Vec<ModeResult> = plan.modes.iter().map(|mode| result(*mode, &runs)).collect();
    let mut comparison = Comparison {
        version: Comparison::VERSION,
        created,
        program: concat!("vestibule ", env!("CARGO_PKG_VERSION")).to_owned(),
        machine: Machine::this(),
        setup: Setup {
            scenario: plan.scenario.name.clone(),
            scenario_text: plan.scenario_text.clone(),
            seed: plan.seed,
            rounds: plan.rounds,
            target: plan.target.words(),
            store: store(feasible),
            command: plan.command.clone(),
            configurations,
        },
        contrasts: contrasts(&modes),
        modes,
        verdict: Verdict::default(),
        published: None,
        runs,
    };
    comparison.verdict = verdict(&comparison);
    comparison.verdict.conditions.extend(feasible.omissions.iter().cloned());
    comparison
}

fn store(feasible: &Feasible) -> String {
    let shares = feasible.plan.modes.iter().any(|mode| mode.is_shared());
    match feasible.plan.target {
        _ if !shares => "none: no mode shared sessions".to_owned(),
        Target::Own(_) => "the application's own".to_owned(),
        Target::Stubs(_) => feasible.store.words().to_owned(),
    }
}

/// The figures that were measured in every round of a mode.
fn result(mode: SessionMode, runs: &[Run]) -> ModeResult {
    let runs: Vec<&Run> = runs.iter().filter(|run| run.mode == mode.as_str()).collect();
    let figures = Figure::ALL.into_iter().filter_map(|figure| {
        let rounds: Vec<f64> = runs.iter().map(|run| run.figure(figure)).collect::<Option<_>>()?;
        Some((figure, figure.possible(estimate(&rounds))))
    });
    ModeResult { mode: mode.as_str().to_owned(), figures: figures.collect() }
}

/// Every later mode compared with the first, paired by round.
fn contrasts(modes: &[ModeResult]) -> Vec<Contrast> {
    let Some((base, others)) = modes.split_first() else { return Vec::new() };
    let beside = |other: &ModeResult| {
        let both = base.figures.iter().filter_map(|(figure, estimate)| {
            let its = other.figure(*figure)?;
            let difference = contrast(&estimate.rounds, &its.rounds);
            Some(Contrast { figure: *figure, base: base.mode.clone(), other: other.mode.clone(), difference })
        });
        both.collect::<Vec<_>>()
    };
    others.iter().flat_map(beside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::load::LoadResult;

    fn run(mode: SessionMode, round: u32, figures: &[(Figure, f64)]) -> Run {
        Run {
            mode: mode.as_str().to_owned(),
            round,
            load: LoadResult::default(),
            events: Vec::new(),
            oracle: None,
            figures: figures.to_vec(),
            idle_shares: Vec::new(),
        }
    }

    #[test]
    fn a_figure_counts_when_every_round_has_it_and_is_paired_by_round() {
        use Figure::{LatencyMean, ProxyCpu, ProxyMemory};
        let runs = [
            run(SessionMode::Local, 1, &[(LatencyMean, 10.0), (ProxyCpu, 1.0)]),
            run(SessionMode::Shared, 1, &[(LatencyMean, 7.0), (ProxyMemory, 1.0)]),
            run(SessionMode::Shared, 2, &[(LatencyMean, 17.0), (ProxyMemory, 1.0)]),
            run(SessionMode::Local, 2, &[(LatencyMean, 20.0)]),
        ];
        let modes = [result(SessionMode::Local, &runs), result(SessionMode::Shared, &runs)];
        assert_eq!(modes[0].figures.len(), 1);
        assert_eq!(modes[0].figures[0].1.rounds, [10.0, 20.0]);
        let contrasts = contrasts(&modes);
        assert_eq!(contrasts.len(), 1);
        assert_eq!(contrasts[0].difference.rounds, [-3.0, -3.0]);
    }
}
