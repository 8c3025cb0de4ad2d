//! What checks, requests and drills make of an instance.

use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::Instance;
use crate::upstream::fresh_check::UnprovenReason;
use crate::upstream::health_state::{Cause, CheckResult, Ejection, Health, HealthState};
use crate::upstream::request_stats::{Outcome, RequestStats};

/// What is known of an instance's ability to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// No checks are configured, or none has ended since it was let back in for want of others.
    Unchecked,
    /// Checks succeed.
    Up,
    /// Checks fail.
    Down,
    /// Requests failed, so it is left alone for a while.
    Ejected,
    /// Nothing of that, but connecting failed; it is left alone for a moment.
    BackingOff,
    /// Nothing of that, but no check has found it good since it was away, or since we began.
    Unproven,
    /// It is treated as dead, for a rehearsal.
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

    pub fn is_able(self) -> bool {
        matches!(self, Condition::Unchecked | Condition::Up)
    }
}

impl Instance {
    /// What checks, requests and connects tell; the operator's wish is [`Instance::state`].
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

    /// Why its condition is what it is, for people; empty when there is nothing to say. Takes a lock: not for requests.
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

    pub fn is_healthy(&self) -> bool {
        self.health().is_able()
    }

    pub fn health(&self) -> Health {
        self.judgement.health()
    }

    /// Its health with the reason, and what led to it. Takes a lock: not for requests.
    pub fn standing(&self) -> HealthState {
        self.judgement.standing()
    }

    /// Whether new requests may go there by what is known of it, if the operator wants that.
    pub fn is_fit(&self) -> bool {
        self.is_healthy() && !self.is_fenced()
    }

    /// The verdict of the upstream's warden, which alone calls this, and why. True when it begins or ceases to be fit
    /// to serve, which the balancer must be told.
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

    /// Leaves it alone for what requests met there; only the health manager calls this, and only when it is fit to serve. The
    /// balancer must be told.
    pub fn eject(&self, ejection: Ejection, cause: Cause, reason: &str) {
        self.judgement.eject(ejection, cause, reason, Instant::now());
    }

    /// Counts a check; only the health manager calls this.
    pub fn count_check(&self, result: CheckResult) {
        self.judgement.count(result);
    }

    /// Takes note of what a request met here.
    pub fn note(&self, outcome: Outcome) {
        if self.record.add(outcome) {
            self.group.failure_signal().notify_one();
        }
    }

    /// What requests met here.
    pub fn record(&self) -> &RequestStats {
        &self.record
    }

    /// Why it needs a good check before new requests go there; `None` without checks, and after a good one.
    pub fn doubts(&self) -> Option<UnprovenReason> {
        self.proof.doubts()
    }

    /// Where there are checks, a good one that begins from now on is needed before new requests go there. The balancer
    /// must be told.
    pub fn doubt(&self, why: UnprovenReason) {
        if self.proof.doubt(why) {
            self.judgement.doubt();
        }
    }

    /// A check has found it good; only the health manager calls this. True when that was in doubt, which the balancer must be
    /// told.
    pub fn prove(&self) -> bool {
        self.proof.prove()
    }

    /// Completes when a check is wanted, for the one who makes them. Cancel-safe.
    pub async fn doubted(&self) {
        self.proof.doubted().await;
    }

    pub(in crate::upstream) fn set_checked(&self, checked: bool, at_first: UnprovenReason) {
        self.proof.set_checked(checked, at_first);
    }
}
