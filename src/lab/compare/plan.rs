//! What is to be compared, and whether it can be.

use std::time::Duration;

use super::event::Event;
use super::mode::SessionMode;
use super::stage::{StoreKind, redis_server};
use super::target::Target;
use crate::config::scenario::Hot;
use crate::config::staging::StubStaging;
use crate::config::{Percent, Scenario};

/// Users who act more often than others, when that is asked for: so many percent, so many times as often.
const HOT: (f64, u32) = (5.0, 10);

/// Everything that a comparison is told.
#[derive(Debug, Clone)]
pub struct Plan {
    pub scenario: Scenario,
    /// The scenario's file.
    pub scenario_text: String,
    pub target: Target,
    /// What the way to a store of our own and back takes longer than it does here.
    pub store_delay: Duration,
    /// At least one, each once.
    pub modes: Vec<SessionMode>,
    /// In the order in which they happen, each once.
    pub events: Vec<Event>,
    /// At least 1.
    pub rounds: u32,
    /// The same plan and seed make the same decisions.
    pub seed: u64,
    /// The command line that does it again.
    pub command: String,
}

/// Why a comparison cannot be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    #[error("{what} needs redis-server, which was not found: install it, or leave {what} out")]
    NoRedis { what: &'static str },
    #[error("store-failover needs a mode with shared sessions: add shared to the modes")]
    NothingShared,
}

/// A plan that can be carried out, and what had to be left out of it.
#[derive(Debug)]
pub(super) struct Feasible {
    pub(super) plan: Plan,
    pub(super) store: StoreKind,
    /// In words, with the reason.
    pub(super) omissions: Vec<String>,
}

impl Plan {
    /// Leaves out what the target cannot show.
    ///
    /// # Errors
    /// What the plan needs and this machine does not have.
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

    /// What is wished of instances and store that are not ours to choose, with the reason.
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

    /// The modes in the order of a round, from 1: each comes first as often as the others.
    pub(super) fn order(&self, round: u32) -> Vec<SessionMode> {
        let mut modes = self.modes.clone();
        modes.rotate_left((round.saturating_sub(1) as usize) % self.modes.len().max(1));
        modes
    }

    /// What a round's decisions come from: the same in every mode.
    pub(super) fn seed_of(&self, round: u32) -> u64 {
        self.seed.wrapping_add(u64::from(round))
    }

    /// How long the load of one run takes.
    pub(super) fn length(&self) -> Duration {
        self.scenario.warm_up + self.scenario.duration
    }
}
