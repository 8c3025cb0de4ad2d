//! The condition of an instance, derived from health checks, requests, connects and fault injection.

use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::Instance;
use crate::upstream::fresh_check::UnprovenReason;
use crate::upstream::health_state::{Cause, CheckResult, Ejection, Health, HealthState};
use crate::upstream::request_stats::{Outcome, RequestStats};

/// Whether an instance can serve, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// No health check is configured, or none has finished since an ejection ended because no other instance
    /// was left.
    Unchecked,
    /// Health checks succeed.
    Up,
    /// Health checks fail.
    Down,
    /// Ejected for a time because requests failed (outlier detection).
    Ejected,
    /// None of the above applies, but connecting failed. No connect is tried until the backoff is over.
    BackingOff,
    /// None of the above applies, but no health check has succeeded since the process started or since the
    /// instance was away.
    Unproven,
    /// Treated as dead by fault injection.
    Fenced,
}

impl Condition {
    /// The word used in the API, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Condition::Unchecked => "unchecked",
            Condition::Up => "up",
            Condition::Down => "down",
            Condition::Ejected => "ejected",
            Condition::BackingOff => "backing_off",
            Condition::Unproven => "unproven",
            Condition::Fenced => "fenced",
        }
    }

    /// Whether the instance can serve new requests.
    pub fn is_able(self) -> bool {
        matches!(self, Condition::Unchecked | Condition::Up)
    }
}

impl Instance {
    /// The condition according to health checks, requests and connects. It does not include the operator's
    /// setting, which is [`Instance::state`].
    pub fn condition(&self, now: Instant) -> Condition {
        match self.health() {
            _ if self.is_fenced() => Condition::Fenced,
            Health::Down => Condition::Down,
            Health::Ejected => Condition::Ejected,
            _ if self.is_backing_off(now) => Condition::BackingOff,
            _ if self.doubts().is_some() => Condition::Unproven,
            Health::Up => Condition::Up,
            Health::Unchecked => Condition::Unchecked,
        }
    }

    /// The reason for the condition, as text for people; empty if there is none. Takes a lock, so it must not
    /// be called per request.
    pub fn reason(&self, now: Instant) -> String {
        match (self.condition(now), self.doubts()) {
            (Condition::Fenced, _) => "a drill treats it as dead".to_owned(),
            (Condition::BackingOff, _) if self.is_refused() => "nobody listens at its address".to_owned(),
            (Condition::BackingOff, _) => "connecting failed".to_owned(),
            (Condition::Unproven, Some(doubt)) => match self.standing().reason {
                reason if reason.is_empty() => doubt.as_reason().to_owned(),
                reason => reason,
            },
            _ => self.standing().reason,
        }
    }

    /// Whether the health manager considers the instance able to serve.
    pub fn is_healthy(&self) -> bool {
        self.health().is_able()
    }

    /// The health as set by the health manager. One atomic load.
    pub fn health(&self) -> Health {
        self.judgement.health()
    }

    /// The health with its reason and counters. Takes a lock, so it must not be called per request.
    pub fn standing(&self) -> HealthState {
        self.judgement.standing()
    }

    /// Whether health and fault injection permit new requests. The operator's setting is not considered.
    pub fn is_fit(&self) -> bool {
        self.is_healthy() && !self.is_fenced()
    }

    /// Sets the health and its reason. To be called by the upstream's health manager only. Returns true if
    /// the ability to serve changes; the balancer must then be refreshed.
    pub fn judge(&self, health: Health, reason: &str) -> bool {
        let now = Instant::now();
        let before = self.judgement.set(health, reason, now);
        if health.is_able() && !before.is_able() {
            self.record.forget();
            self.connected();
            self.back_at.store(self.millis(now).max(1), Relaxed);
        }
        before.is_able() != health.is_able()
    }

    /// Ejects the instance (outlier detection). To be called by the health manager only, and only for an
    /// instance that is able to serve. The balancer must then be refreshed.
    pub fn eject(&self, ejection: Ejection, cause: Cause, reason: &str) {
        self.judgement.eject(ejection, cause, reason, Instant::now());
    }

    /// Counts a health check. To be called by the health manager only.
    pub fn count_check(&self, result: CheckResult) {
        self.judgement.count(result);
    }

    /// Records the outcome of a request. Wakes the health manager if the limit of consecutive failures is
    /// reached.
    pub fn note(&self, outcome: Outcome) {
        if self.record.add(outcome) {
            self.group.failure_signal().notify_one();
        }
    }

    /// The recorded outcomes of requests.
    pub fn record(&self) -> &RequestStats {
        &self.record
    }

    /// Why a health check must succeed before the instance gets new requests. `None` without health checks,
    /// and after a successful one.
    pub fn doubts(&self) -> Option<UnprovenReason> {
        self.proof.doubts()
    }

    /// If health checks are configured, requires one that starts from now on to succeed before the instance
    /// gets new requests. The balancer must then be refreshed.
    pub fn doubt(&self, why: UnprovenReason) {
        if self.proof.doubt(why) {
            self.judgement.doubt();
        }
    }

    /// Records a successful health check. To be called by the health manager only. Returns true if a
    /// successful check was required; the balancer must then be refreshed.
    pub fn prove(&self) -> bool {
        self.proof.prove()
    }

    /// Completes when a health check should start at once. There must be only one caller, the health check
    /// task. Cancel-safe.
    pub async fn doubted(&self) {
        self.proof.doubted().await;
    }

    pub(in crate::upstream) fn set_checked(&self, checked: bool, at_first: UnprovenReason) {
        self.proof.set_checked(checked, at_first);
    }
}
