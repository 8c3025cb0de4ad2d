//! The health of an instance, with its reason and history.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::time::Instant;

/// The health as decided by the upstream's health manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// No health check has finished yet, or none is configured.
    Unchecked = 0,
    /// Health checks succeed.
    Up = 1,
    /// Health checks fail.
    Down = 2,
    /// Ejected for a time because requests failed (outlier detection).
    Ejected = 3,
}

impl Health {
    /// Whether the instance is able to serve.
    pub fn is_able(self) -> bool {
        matches!(self, Health::Unchecked | Health::Up)
    }
}

/// Why an instance was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Too many failures in a row.
    Consecutive,
    /// Too high a share of failures within the window.
    ErrorRate,
    /// The health check could not be made for lack of a slot, connection or socket. It does not affect the
    /// health.
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

/// The result of a health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckResult {
    Ok,
    Failed,
    /// The health check could not be made for lack of a slot, connection or socket. It says nothing about the
    /// instance.
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

/// The health with its reason, counters and last ejection.
#[derive(Debug, Clone)]
pub struct HealthState {
    pub health: Health,
    /// Text for people; empty if there is none.
    pub reason: String,
    /// When `health` last changed.
    pub since: SystemTime,
    pub ejection: Ejection,
    /// Number of health checks by [`CheckResult`], in the order of `ALL`.
    pub checks: [u64; 3],
    /// Number of ejections by [`Cause`], in the order of `ALL`.
    pub ejections: [u64; 3],
}

/// The last ejection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ejection {
    /// Earliest end of the ejection. `None` unless the instance is ejected.
    pub until: Option<Instant>,
    /// Number of ejections that followed each other without a long time in between.
    pub times: u32,
    /// When the last ejection ended.
    pub returned: Option<Instant>,
}

/// Written by the health manager, except for `doubt`. Requests read only the atomic `hot`.
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

    /// Sets health and reason, and returns the previous health. A change of health ends an ejection.
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

    /// Clears the reason of an instance that is able to serve, because a new health check is required and the
    /// old reason may not hold any more.
    pub(super) fn doubt(&self) {
        let mut cold = self.cold();
        if cold.health.is_able() {
            cold.reason.clear();
        }
    }

    /// Sets the health to [`Health::Ejected`], and stores and counts the ejection.
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
