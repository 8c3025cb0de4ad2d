//! The plan of a comparison, and whether it is feasible.

use std::time::Duration;

use super::event::Event;
use super::mode::SessionMode;
use super::stage::{StoreKind, redis_server};
use super::target::Target;
use crate::config::scenario::Hot;
use crate::config::staging::StubStaging;
use crate::config::{Percent, Scenario};

/// The hot users of the hot-spot event: their percentage, and how many times as often they act.
const HOT: (f64, u32) = (5.0, 10);

/// All parameters of a comparison.
#[derive(Debug, Clone)]
pub struct Plan {
    pub scenario: Scenario,
    /// The text of the scenario file.
    pub scenario_text: String,
    pub target: Target,
    /// Network latency (round trip) that is added to the comparison's own store.
    pub store_delay: Duration,
    /// At least one, without duplicates.
    pub modes: Vec<SessionMode>,
    /// In order of execution, without duplicates.
    pub events: Vec<Event>,
    /// At least 1.
    pub rounds: u32,
    /// The same plan and seed give the same decisions.
    pub seed: u64,
    /// The command line that reproduces the comparison.
    pub command: String,
}

/// Why a comparison is impossible.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    #[error("{what} needs redis-server, which was not found: install it, or leave {what} out")]
    NoRedis { what: &'static str },
    #[error("store-failover needs a mode with shared sessions: add shared to the modes")]
    NothingShared,
}

/// A feasible plan, and what had to be omitted.
#[derive(Debug)]
pub(super) struct Feasible {
    pub(super) plan: Plan,
    pub(super) store: StoreKind,
    /// In words, with the reason.
    pub(super) omissions: Vec<String>,
}

impl Plan {
    /// Omits what the target cannot show.
    ///
    /// # Errors
    /// A requirement of the plan that this machine does not meet.
    pub(super) fn feasible(mut self) -> Result<Feasible, PlanError> {
        let mut omissions = Vec::new();
        self.events.retain(|event| {
            let obstacle = event.obstacle(&self.target);
            omissions.extend(
                obstacle.map(|obstacle| format!("The event {} was left out: {obstacle}.", event.as_str())),
            );
            obstacle.is_none()
        });
        let store = self.store()?;
        omissions.extend(self.ignored(store).map(|(what, why)| format!("{what} was left out: {why}.")));
        if self.events.contains(&Event::HotSpot) {
            let (share, times) = HOT;
            self.scenario.users.hot = Percent::new(share).map(|share| Hot { share, times });
        }
        Ok(Feasible { plan: self, store, omissions })
    }

    /// The scenario's settings for instances and store that cannot be applied, with the reason.
    fn ignored(&self, store: StoreKind) -> Option<(&'static str, &'static str)> {
        let staging = &self.scenario.staging;
        if matches!(self.target, Target::Own(_)) {
            let wished = staging.stubs != StubStaging::default() || !self.store_delay.is_zero();
            return wished
                .then_some(("What the scenario wishes of instances and store", "they are your own"));
        }
        let shares = self.modes.iter().any(|mode| mode.is_shared());
        let delays = !self.store_delay.is_zero() && shares && store != StoreKind::Redis;
        delays.then_some(("The longer way to the store", "only one Redis without a failover can have it"))
    }

    fn store(&self) -> Result<StoreKind, PlanError> {
        let fails_over = self.events.contains(&Event::StoreFailover);
        let demanding = self.modes.iter().find(|mode| mode.needs_redis());
        if matches!(self.target, Target::Own(_)) {
            return Ok(StoreKind::Memory);
        }
        if fails_over && !self.modes.iter().any(|mode| mode.is_shared()) {
            return Err(PlanError::NothingShared);
        }
        match (redis_server().is_some(), fails_over, demanding) {
            (true, true, _) => Ok(StoreKind::Sentinel),
            (true, false, _) => Ok(StoreKind::Redis),
            (false, true, _) => Err(PlanError::NoRedis { what: Event::StoreFailover.as_str() }),
            (false, false, Some(mode)) => Err(PlanError::NoRedis { what: mode.as_str() }),
            (false, false, None) => Ok(StoreKind::Memory),
        }
    }

    /// The modes in the order of a round (from 1). Each mode comes first equally often.
    pub(super) fn order(&self, round: u32) -> Vec<SessionMode> {
        let mut modes = self.modes.clone();
        modes.rotate_left((round.saturating_sub(1) as usize) % self.modes.len().max(1));
        modes
    }

    /// The seed of a round: the same in every mode.
    pub(super) fn seed_of(&self, round: u32) -> u64 {
        self.seed.wrapping_add(u64::from(round))
    }

    /// Duration of the load in one run.
    pub(super) fn length(&self) -> Duration {
        self.scenario.warm_up + self.scenario.duration
    }
}
