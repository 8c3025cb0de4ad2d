//! What the users of one thread share.

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

/// What there is to do, how, until when, and where it is written down.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) scenario: Scenario,
    pub(super) target: Target,
    pub(super) decisions: Decisions,
    /// As in the scenario.
    pub(super) actions: Vec<Vec<PreparedStep>>,
    pub(super) login: Vec<Prepared>,
    pub(super) logout: Vec<Prepared>,
    pub(super) check: Option<Prepared>,
    pub(super) times: Times,
    records: Arc<Mutex<Records>>,
}

/// One request of an action, made ready.
#[derive(Debug)]
pub(super) struct PreparedStep {
    pub(super) prepared: Prepared,
    pub(super) stream: bool,
    /// What is asked once the stream runs.
    pub(super) meanwhile: Option<Prepared>,
}

/// When the load begins and ends.
#[derive(Debug, Clone)]
pub(super) struct Times {
    pub(super) began: Instant,
    /// No action begins any more.
    pub(super) closing: CancellationToken,
    /// What is under way ends now.
    pub(super) cut: CancellationToken,
}

/// Which users a thread has: every `threads`th of `count`, from `first` on.
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

    /// Where a user stands among those of this thread, if it is one of them.
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

    /// Writes down that an action came to its end now.
    pub(super) fn ended(&self, decision: Decision, due: Instant, failure: Option<Failure>) {
        let counted = self.is_counted(due);
        self.records().ended(Instant::now(), Ended { action: decision.action, due, counted, failure });
    }

    /// When a user comes: all over the warming up.
    pub(super) fn arrival(&self, user: u32) -> Instant {
        let share = f64::from(user) / f64::from(self.scenario.users.count);
        self.times.began + self.scenario.warm_up.mul_f64(share)
    }

    /// Waits until `moment`; false if the load ended before.
    pub(super) async fn pause(&self, moment: Instant) -> bool {
        self.times.closing.run_until_cancelled(sleep_until(moment)).await.is_some()
    }

    /// How many logins may be tried for one action.
    pub(super) fn attempts(&self) -> u32 {
        self.scenario.session.as_ref().map_or(0, |login| login.login_attempts)
    }

    pub(super) fn on_lost(&self) -> OnLost {
        self.scenario.session.as_ref().map_or(OnLost::Login, |login| login.on_lost)
    }

    /// Whether an action that was due then counts.
    pub(super) fn is_counted(&self, due: Instant) -> bool {
        due >= self.times.began + self.scenario.warm_up
    }

    /// When no action is due any more.
    pub(super) fn end(&self) -> Instant {
        self.times.began + self.scenario.warm_up + self.scenario.duration
    }

    /// What comes of `task`; `None` if it was cut.
    pub(super) async fn unless_cut<T>(&self, task: impl Future<Output = T>) -> Option<T> {
        self.times.cut.run_until_cancelled(task).await
    }
}
