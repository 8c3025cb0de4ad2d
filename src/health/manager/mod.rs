//! The health manager of one upstream.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::check::Finding;
use super::rise_fall::RiseFallCounter;
use super::window::{STEPS, Window, slow};
use crate::config::Outlier;
use crate::upstream::{Cause, CheckResult, Ejection, Health, Instance, Upstream};

/// Bounds of the interval at which ejections and windows are evaluated. An ejection that is over is noticed
/// after at most the longest.
const LONGEST_STEP: Duration = Duration::from_secs(1);
const SHORTEST_STEP: Duration = Duration::from_millis(10);

/// Collects check results and request outcomes, and sets the health of the instances.
pub(super) struct HealthManager<C> {
    upstream: Arc<Upstream>,
    wards: Vec<MemberHealth>,
    changed: C,
}

/// The manager's state of one instance.
struct MemberHealth {
    instance: Arc<Instance>,
    /// `None` without health checks.
    streak: Option<RiseFallCounter>,
    window: Window,
}

impl<C: Fn()> HealthManager<C> {
    /// Continues from the present health of the instances, except where it results from a mechanism that is
    /// no longer configured.
    pub(super) fn new(upstream: Arc<Upstream>, changed: C) -> Self {
        let has_changed = release_stale(&upstream);
        let ward = |instance: &Arc<Instance>| MemberHealth {
            streak: upstream.config.health.as_ref().map(|check| {
                let known = match instance.health() {
                    Health::Unchecked => None,
                    health => Some(health != Health::Down),
                };
                RiseFallCounter::new(check.rise, check.fall, known)
            }),
            instance: instance.clone(),
            window: Window::default(),
        };
        let wards = upstream.instances().iter().map(ward).collect();
        if has_changed {
            changed();
        }
        HealthManager { upstream, wards, changed }
    }

    /// Runs until it is dropped. Cancel-safe.
    pub(super) async fn run(mut self, mut findings: mpsc::Receiver<(usize, Finding)>) {
        let upstream = self.upstream.clone();
        let mut steps = interval(step(&upstream.config.outlier));
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_changed = tokio::select! {
                Some((place, finding)) = findings.recv() => self.on_check_result(place, &finding, Instant::now()),
                () = upstream.group().failure_signal().notified() => self.check_ejections(Instant::now()),
                _ = steps.tick(), if upstream.config.outlier.is_on() => self.tick(Instant::now()),
            };
            if has_changed {
                (self.changed)();
            }
        }
    }

    /// Processes a check result. Like the methods below, it returns true if the balancer must be refreshed.
    fn on_check_result(&mut self, place: usize, finding: &Finding, now: Instant) -> bool {
        let Some(MemberHealth { instance, streak: Some(streak), window }) = self.wards.get_mut(place) else {
            return false;
        };
        let health = instance.health();
        let mut is_proven_now = false;
        let verdict = match finding {
            Finding::Good => {
                instance.count_check(CheckResult::Ok);
                instance.connected();
                is_proven_now = instance.prove();
                streak.record(true)
            }
            Finding::Bad(_) => {
                instance.count_check(CheckResult::Failed);
                streak.record(false)
            }
            Finding::Busy(why) => {
                instance.count_check(CheckResult::Busy);
                let (upstream, instance_label) = (self.upstream.name(), &instance.label);
                tracing::debug!(
                    upstream,
                    instance = instance_label,
                    why,
                    "an instance is too busy for a check"
                );
                None
            }
        };
        let next = match (health, verdict, finding) {
            (_, Some(false), _) => Health::Down,
            (Health::Ejected, _, Finding::Good) if is_over(instance, now) => Health::Up,
            (Health::Ejected, ..) => return is_proven_now,
            (_, Some(true), _) | (Health::Unchecked, _, Finding::Good) => Health::Up,
            (health, None, _) => health,
        };
        if next == Health::Down || health == Health::Ejected {
            window.clear();
        }
        let has_changed = instance.judge(next, &reason(health, next, finding));
        if next != health {
            log_change(self.upstream.name(), instance, next);
        }
        let has_relented = next == Health::Down && self.uneject_all();
        has_changed || has_relented || is_proven_now
    }

    /// Ejects instances with too many failures in a row.
    fn check_ejections(&mut self, now: Instant) -> bool {
        let Some(limit) = self.upstream.config.outlier.consecutive else { return false };
        let mut has_changed = false;
        for place in 0..self.wards.len() {
            let Some(ward) = self.wards.get(place) else { break };
            let (in_row, last) = ward.instance.record().in_row();
            if in_row >= limit && ward.instance.is_healthy() {
                let reason = format!("{in_row} failures in a row, the last: {last}");
                has_changed |= self.eject(place, Cause::Consecutive, &reason, now);
            }
        }
        has_changed
    }

    /// Periodic work: ends ejections that are over, and ejects instances that were outliers within the
    /// window.
    fn tick(&mut self, now: Instant) -> bool {
        let mut has_changed = false;
        for ward in &mut self.wards {
            ward.window.push(ward.instance.record().collect());
            if ward.streak.is_none()
                && ward.instance.health() == Health::Ejected
                && is_over(&ward.instance, now)
            {
                ward.window.clear();
                has_changed |= ward.instance.judge(Health::Unchecked, "");
                log_change(self.upstream.name(), &ward.instance, Health::Unchecked);
            }
        }
        has_changed |= self.uneject_all();
        has_changed |= self.check_ejections(now);
        if self.upstream.config.outlier.has_window() {
            has_changed |= self.compare(now);
        }
        has_changed
    }

    fn compare(&mut self, now: Instant) -> bool {
        let config = self.upstream.config.outlier.clone();
        let able = || self.wards.iter().enumerate().filter(|(_, ward)| ward.instance.is_healthy());
        let times: Vec<_> =
            able().filter_map(|(place, ward)| Some((place, ward.window.typical_time(&config)?))).collect();
        let failing =
            able().filter_map(|(place, ward)| Some((place, Cause::ErrorRate, ward.window.failing(&config)?)));
        let lagging = times
            .iter()
            .filter_map(|(place, _)| Some((*place, Cause::Latency, slow(&config, &times, *place)?)));
        let suspects: Vec<_> = failing.chain(lagging).collect();
        let mut has_changed = false;
        for (place, cause, reason) in suspects {
            has_changed |= self.eject(place, cause, &reason, now);
        }
        has_changed
    }

    /// If no instance is left to serve, ends all ejections: an ejected instance is better than none.
    fn uneject_all(&mut self) -> bool {
        if self.wards.iter().any(|ward| serves(&ward.instance)) {
            return false;
        }
        let mut has_changed = false;
        for ward in self.wards.iter_mut().filter(|ward| ward.instance.health() == Health::Ejected) {
            ward.window.clear();
            has_changed |= ward.instance.judge(Health::Unchecked, "it was ejected, but nobody else is left");
            log_change(self.upstream.name(), &ward.instance, Health::Unchecked);
        }
        has_changed
    }

    /// Ejects the instance, unless too many are ejected already or no other instance serves.
    fn eject(&mut self, place: usize, cause: Cause, reason: &str, now: Instant) -> bool {
        let config = &self.upstream.config.outlier;
        let ejected = self.wards.iter().filter(|ward| ward.instance.health() == Health::Ejected).count();
        let is_needed =
            !self.wards.iter().enumerate().any(|(other, ward)| other != place && serves(&ward.instance));
        let is_allowed = ejected < config.most_ejected(self.wards.len()) && !is_needed;
        let Some(ward) = self.wards.get_mut(place).filter(|ward| ward.instance.is_healthy()) else {
            return false;
        };
        let (upstream, instance) = (self.upstream.name(), ward.instance.label.as_str());
        if !is_allowed {
            tracing::debug!(
                upstream,
                instance,
                reason,
                "an instance is not ejected, as too few would be left"
            );
            return false;
        }
        let ejection = next_ejection(config, ward.instance.standing().ejection, now);
        ward.window.clear();
        ward.instance.eject(ejection, cause, reason);
        let seconds = ejection.until.map_or(0.0, |until| until.saturating_duration_since(now).as_secs_f64());
        tracing::warn!(upstream, instance, cause = cause.as_str(), reason, seconds, "instance is ejected");
        true
    }
}

/// Resets instances whose health results from a mechanism that is no longer configured: up or down without
/// health checks, ejected without outlier detection. Also ends ejections beyond the permitted number. Returns
/// true if the ability to serve of any instance changed.
fn release_stale(upstream: &Upstream) -> bool {
    let config = &upstream.config;
    let mut may_be_out =
        if config.outlier.is_on() { config.outlier.most_ejected(upstream.instances().len()) } else { 0 };
    let mut has_changed = false;
    for instance in upstream.instances() {
        let is_held = match instance.health() {
            Health::Unchecked => true,
            Health::Up | Health::Down => config.health.is_some(),
            Health::Ejected => {
                let is_held = may_be_out > 0;
                may_be_out = may_be_out.saturating_sub(1);
                is_held
            }
        };
        if !is_held {
            has_changed |= instance.judge(Health::Unchecked, "");
        }
    }
    has_changed
}

/// A tenth of the shorter of window and ejection time, so that both are measured accurately enough.
fn step(config: &Outlier) -> Duration {
    let step = (config.window / STEPS).min(config.eject / STEPS);
    step.clamp(SHORTEST_STEP, LONGEST_STEP)
}

fn serves(instance: &Instance) -> bool {
    instance.is_fit() && instance.is_in_use() && instance.doubts().is_none()
}

fn is_over(instance: &Instance, now: Instant) -> bool {
    instance.standing().ejection.until.is_none_or(|until| until <= now)
}

/// The next ejection. Each lasts twice as long as the one before, up to `max_eject`. The series starts again
/// after the instance was not ejected for `max_eject`.
fn next_ejection(config: &Outlier, last: Ejection, now: Instant) -> Ejection {
    let has_done_well =
        last.returned.is_some_and(|returned| now.saturating_duration_since(returned) >= config.max_eject);
    let before = if has_done_well { 0 } else { last.times };
    let time = config.eject.saturating_mul(1 << before.min(30)).min(config.max_eject);
    Ejection { until: Some(now + time), times: before.saturating_add(1), returned: None }
}

fn reason(before: Health, now: Health, finding: &Finding) -> String {
    match finding {
        Finding::Good if before == Health::Down && now == Health::Down => {
            "checks begin to succeed".to_owned()
        }
        Finding::Good => "checks succeed".to_owned(),
        Finding::Bad(error) if now == Health::Down => error.to_string(),
        Finding::Bad(error) => format!("the last check failed: {error}"),
        Finding::Busy(why) => format!("not checked: {why}"),
    }
}

fn log_change(upstream: &str, instance: &Instance, health: Health) {
    let reason = instance.standing().reason;
    let instance = instance.label.as_str();
    match health {
        Health::Down => tracing::warn!(upstream, instance, reason, "instance is down"),
        _ => tracing::info!(upstream, instance, reason, "instance is up"),
    }
}

#[cfg(test)]
mod tests;
