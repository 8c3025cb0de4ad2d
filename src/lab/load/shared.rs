//! State shared by the users of one thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Load;
use super::decision::{Decision, Decisions};
use super::failure::Failure;
use super::record::{Ended, Records};
use super::request::Prepared;
use super::target::Target;
use crate::config::scenario::{Ask, OnLost, Scenario, Step};

/// The scenario prepared for execution, its times, and its records.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) scenario: Scenario,
    pub(super) target: Target,
    pub(super) decisions: Decisions,
    /// Indexed like the scenario's actions.
    pub(super) actions: Vec<Vec<PreparedStep>>,
    pub(super) login: Vec<Prepared>,
    pub(super) logout: Vec<Prepared>,
    pub(super) check: Option<Prepared>,
    pub(super) times: Times,
    records: Arc<Mutex<Records>>,
}

/// A prepared step of an action.
#[derive(Debug)]
pub(super) struct PreparedStep {
    pub(super) prepared: Prepared,
    pub(super) stream: bool,
    /// The request to send once the stream runs.
    pub(super) meanwhile: Option<Prepared>,
}

/// The start and the end of a load.
#[derive(Debug, Clone)]
pub(super) struct Times {
    pub(super) began: Instant,
    /// Cancelled when no further action may begin.
    pub(super) closing: CancellationToken,
    /// Cancelled when actions in flight must end at once.
    pub(super) cut: CancellationToken,
}

/// The users of a thread: every `threads`th of `count`, beginning with `first`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) first: u32,
    pub(super) threads: u32,
    pub(super) count: u32,
}

impl Part {
    /// Their numbers, from 0.
    pub(super) fn users(self) -> impl Iterator<Item = u32> {
        (self.first..self.count).step_by(usize::try_from(self.threads).unwrap_or(1))
    }

    /// The index of a user within this thread, if it belongs to it.
    pub(super) fn place(self, user: u32) -> Option<usize> {
        let above = user.checked_sub(self.first).filter(|above| above % self.threads == 0)?;
        usize::try_from(above / self.threads).ok()
    }
}

impl Shared {
    pub(super) fn new(load: &Load, times: Times, records: Arc<Mutex<Records>>) -> Self {
        let scenario = load.scenario.clone();
        let prepare = |ask: &Ask| Prepared::new(ask, &load.target, scenario.keep_alive);
        let step = |step: &Step| PreparedStep {
            prepared: prepare(&step.ask),
            stream: step.stream,
            meanwhile: step.meanwhile.as_ref().map(prepare),
        };
        let session = scenario.session.as_ref();
        Shared {
            decisions: Decisions::new(&scenario, load.seed),
            actions: scenario.actions.iter().map(|action| action.steps.iter().map(step).collect()).collect(),
            login: session.map_or(Vec::new(), |login| login.login.iter().map(prepare).collect()),
            logout: session.map_or(Vec::new(), |login| login.logout.iter().map(prepare).collect()),
            check: session.and_then(|login| login.check.as_ref()).map(prepare),
            target: load.target.clone(),
            times,
            records,
            scenario,
        }
    }

    pub(super) fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that an action ends now.
    pub(super) fn ended(&self, decision: Decision, due: Instant, failure: Option<Failure>) {
        let counted = self.is_counted(due);
        self.records().ended(Instant::now(), Ended { action: decision.action, due, counted, failure });
    }

    /// When a user arrives: arrivals are spread evenly over the warm-up.
    pub(super) fn arrival(&self, user: u32) -> Instant {
        let share = f64::from(user) / f64::from(self.scenario.users.count);
        self.times.began + self.scenario.warm_up.mul_f64(share)
    }

    /// Waits until `moment`. Returns false if the load ends first.
    pub(super) async fn pause(&self, moment: Instant) -> bool {
        self.times.closing.run_until_cancelled(sleep_until(moment)).await.is_some()
    }

    /// Maximum login attempts per action.
    pub(super) fn attempts(&self) -> u32 {
        self.scenario.session.as_ref().map_or(0, |login| login.login_attempts)
    }

    pub(super) fn on_lost(&self) -> OnLost {
        self.scenario.session.as_ref().map_or(OnLost::Login, |login| login.on_lost)
    }

    /// Whether an action that is due at this time is counted.
    pub(super) fn is_counted(&self, due: Instant) -> bool {
        due >= self.times.began + self.scenario.warm_up
    }

    /// The end of the load: no action is due after it.
    pub(super) fn end(&self) -> Instant {
        self.times.began + self.scenario.warm_up + self.scenario.duration
    }

    /// The output of `task`, or `None` if it was cut.
    pub(super) async fn unless_cut<T>(&self, task: impl Future<Output = T>) -> Option<T> {
        self.times.cut.run_until_cancelled(task).await
    }
}
