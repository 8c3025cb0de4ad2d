//! One mode in one round.

use std::convert::Infallible;
use std::future::pending;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::event::{Play, Played};
use super::figures::figures;
use super::idle::Spent;
use super::mode::SessionMode;
use super::model::{Figure, Run};
use super::oracle::Account;
use super::plan::Feasible;
use super::stage::{Scene, Stage, StoreKind};
use super::status::Status;
use super::target::Target;
use super::{CompareError, Event};
use crate::lab::load::{self, Load, LoadResult, Progress, TargetOptions};

/// A run with its remarks.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) run: Run,
    /// Disagreements between the accounts of instances and users.
    pub(super) objections: Vec<String>,
    /// The proxy's configuration.
    pub(super) configuration: String,
}

/// Runs one mode in one round, on its own stage.
pub(super) async fn run(
    feasible: &Feasible,
    mode: SessionMode,
    round: u32,
    status: &watch::Sender<Status>,
) -> Result<Ran, CompareError> {
    let plan = &feasible.plan;
    let scene = Scene {
        target: plan.target.clone(),
        mode,
        store: feasible.store,
        store_delay: plan.store_delay,
        scales_out: plan.events.contains(&Event::ScaleOut),
    };
    let mut stage = Stage::set(&scene).await?;
    let idle = stage.idle().await?;
    let (before, began) = (stage.usage().await?, Instant::now());
    let (load, played) = play(feasible, &mut stage, (mode, round), status).await?;
    let seconds = began.elapsed().as_secs_f64();
    let used = stage.usage().await?.less(&before).less(&idle.asking);
    let spent = Spent { used, idle: idle.per_second.times(seconds) };
    let ledgers = stage.ledgers()?;
    let judgement = (!ledgers.is_empty()).then(|| Account::read(&ledgers, played.over).judge(&load, mode));
    let mut figures = figures(&load, &played, &spent);
    if measures_store(feasible) && !mode.is_shared() {
        // The store is not used in this mode.
        figures.extend([(Figure::StoreCommands, 0.0), (Figure::StoreBytes, 0.0)]);
        figures.sort_by_key(|(figure, _)| Figure::ALL.iter().position(|other| other == figure));
    }
    let configuration = stage.configuration();
    let (oracle, objections) =
        judgement.map_or((None, Vec::new()), |judgement| (Some(judgement.oracle), judgement.objections));
    let run = Run {
        mode: mode.as_str().to_owned(),
        round,
        load,
        events: played.marks,
        oracle,
        figures,
        idle_shares: spent.idle_shares(),
    };
    Ok(Ran { run, objections, configuration })
}

/// Whether the sessions of these instances are only in their memory or in a Redis whose usage can be
/// measured.
fn measures_store(feasible: &Feasible) -> bool {
    matches!(feasible.plan.target, Target::Stubs(_)) && feasible.store == StoreKind::Redis
}

/// Runs the load and the events concurrently.
async fn play(
    feasible: &Feasible,
    stage: &mut Stage,
    (mode, round): (SessionMode, u32),
    status: &watch::Sender<Status>,
) -> Result<(LoadResult, Played), CompareError> {
    let plan = &feasible.plan;
    let target = load::Target::new(&format!("http://{}", stage.address()), &TargetOptions::default())?;
    let load = Load { scenario: plan.scenario.clone(), target, seed: plan.seed_of(round), threads: None };
    let (progress, mut watched) = watch::channel(Progress::default());
    let (now, happening) = watch::channel(None);
    // The other modes have no store that could fail.
    let concerns = |event: &Event| *event != Event::StoreFailover || mode.is_shared();
    let events: Vec<Event> = plan.events.iter().copied().filter(concerns).collect();
    let play = Play {
        target: &plan.target,
        events: &events,
        warm_up: plan.scenario.warm_up,
        duration: plan.scenario.duration,
        seed: plan.seed_of(round),
        now: &now,
    };
    let told = tell(watched.clone(), happening, status);
    let played = async {
        let began = watched.wait_for(|progress| progress.began.is_some()).await;
        let began = began.ok().and_then(|progress| progress.began);
        let Some(began) = began else { return Ok(Played::default()) };
        Ok::<_, CompareError>(play.run(stage, Instant::from_std(began)).await?)
    };
    let loaded = async { Ok(load.run(progress, CancellationToken::new()).await?) };
    tokio::select! {
        both = async { tokio::try_join!(loaded, played) } => both,
        never = told => match never {},
    }
}

/// Forwards the load's progress and the current event.
async fn tell(
    mut load: watch::Receiver<Progress>,
    mut happening: watch::Receiver<Option<String>>,
    status: &watch::Sender<Status>,
) -> Infallible {
    loop {
        let (load_now, event) = (load.borrow_and_update().clone(), happening.borrow_and_update().clone());
        status.send_modify(|status| (status.load, status.event) = (load_now, event));
        tokio::select! {
            Ok(()) = load.changed() => {}
            Ok(()) = happening.changed() => {}
            else => pending().await,
        }
    }
}
