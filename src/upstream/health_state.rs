//! What is thought of an instance, since when and why.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::time::Instant;

/// The verdict of the upstream's warden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// No check has ended yet, or none is configured.
    Unchecked = 0,
    /// Checks succeed.
    Up = 1,
    /// Checks fail.
    Down = 2,
    /// Requests failed; it is left alone for a while.
    Ejected = 3,
}

impl Health {
    /// Whether it is fit to serve.
    pub fn is_able(self) -> bool {
        matches!(self, Health::Unchecked | Health::Up)
    }
}

/// Why an instance was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Consecutive,
    ErrorRate,
    Latency,
}

impl Cause {
    pub const ALL: [Cause; 3] = [Cause::Consecutive, Cause::ErrorRate, Cause::Latency];

    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Consecutive => "consecutive",
            Cause::ErrorRate => "error_rate",
            Cause::Latency => "latency",
        }
    }
}

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckResult {
    Ok,
    Failed,
    /// It could not be made, which says nothing about the instance.
    Busy,
}

impl CheckResult {
    pub const ALL: [CheckResult; 3] = [CheckResult::Ok, CheckResult::Failed, CheckResult::Busy];

    /// The word used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckResult::Ok => "ok",
            CheckResult::Failed => "failed",
            CheckResult::Busy => "busy",
        }
    }
}

/// Everything known about an instance's health.
#[derive(Debug, Clone)]
pub struct HealthState {
    pub health: Health,
    /// For people; empty when there is nothing to say.
    pub reason: String,
    /// Since when its health is what it is.
    pub since: SystemTime,
    pub ejection: Ejection,
    /// By [`CheckResult`], in the order of `ALL`.
    pub checks: [u64; 3],
    /// By [`Cause`], in the order of `ALL`.
    pub ejections: [u64; 3],
}

/// The last ejection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ejection {
    /// Until when, at least, while the instance is ejected.
    pub until: Option<Instant>,
    /// How often without a long time in between.
    pub times: u32,
    /// When the instance came back from it.
    pub returned: Option<Instant>,
}

/// Written by the health manager, but for doubts; requests read one atomic of it.
#[derive(Debug)]
pub(super) struct HealthCell {
    hot: AtomicU8,
    cold: Mutex<HealthState>,
}

impl Default for HealthCell {
    fn default() -> Self {
        let standing = HealthState {
            health: Health::Unchecked,
            reason: String::new(),
            since: SystemTime::now(),
            ejection: Ejection::default(),
            checks: [0; 3],
            ejections: [0; 3],
        };
        HealthCell { hot: AtomicU8::new(Health::Unchecked as u8), cold: Mutex::new(standing) }
    }
}

impl HealthCell {
    pub(super) fn health(&self) -> Health {
        match self.hot.load(Relaxed) {
            0 => Health::Unchecked,
            1 => Health::Up,
            2 => Health::Down,
            _ => Health::Ejected,
        }
    }

    pub(super) fn standing(&self) -> HealthState {
        self.cold().clone()
    }

    /// Returns what it was before. Any other health ends an ejection.
    pub(super) fn set(&self, health: Health, reason: &str, now: Instant) -> Health {
        let mut cold = self.cold();
        let before = cold.health;
        if cold.reason != reason {
            reason.clone_into(&mut cold.reason);
        }
        if before != health {
            (cold.health, cold.since) = (health, SystemTime::now());
            if cold.ejection.until.take().is_some() {
                cold.ejection.returned = Some(now);
            }
        }
        self.hot.store(health as u8, Relaxed);
        before
    }

    /// What was found good may not be so any more: the reason is not one now.
    pub(super) fn doubt(&self) {
        let mut cold = self.cold();
        if cold.health.is_able() {
            cold.reason.clear();
        }
    }

    pub(super) fn eject(&self, ejection: Ejection, cause: Cause, reason: &str, now: Instant) {
        self.set(Health::Ejected, reason, now);
        let mut cold = self.cold();
        cold.ejection = ejection;
        add(&mut cold.ejections, cause as usize);
    }

    pub(super) fn count(&self, result: CheckResult) {
        add(&mut self.cold().checks, result as usize);
    }

    fn cold(&self) -> MutexGuard<'_, HealthState> {
        self.cold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(counts: &mut [u64; 3], place: usize) {
    if let Some(count) = counts.get_mut(place) {
        *count += 1;
    }
}
