//! Comparison of session modes: assigns each request a mode and determines its counterfactual outcome in
//! another mode.
//!
//! Sticky mode is compared with the other two modes, which choose instances freely. Every client therefore
//! has an affinity binding. In sticky mode it is applied. In the other modes it is only maintained, and shows
//! where sticky mode would have sent the request. For a request in sticky mode, the balancer predicts the
//! free choice ([`Balancer::foresee`]).

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use crate::balance::Balancer;
use crate::cohort::Cohorts;
use crate::config::{InstanceState, Mode, OnLost, Route, Stick};
use crate::headers::cookie::{cookie_values, remove_cookie, unquoted};
use crate::session::Session;
use crate::upstream::{Instance, InstanceId};

use super::context::{AffinityOutcome, RequestContext};
use super::hash_key;
use super::metrics::{Counts, add_all};
use super::runtime_config::RuntimeConfig;
use super::sticky_binding::StickyBinding;

/// Where another mode would have sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OtherModeOutcome {
    /// To the same instance.
    Same,
    /// To another instance.
    Elsewhere,
    /// The client had no binding yet, so every mode chooses freely.
    New,
}

impl OtherModeOutcome {
    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            OtherModeOutcome::Same => "same",
            OtherModeOutcome::Elsewhere => "elsewhere",
            OtherModeOutcome::New => "new",
        }
    }

    fn of(chosen: InstanceId, other: InstanceId) -> Self {
        if chosen == other { OtherModeOutcome::Same } else { OtherModeOutcome::Elsewhere }
    }
}

/// Outcome of one request in another mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Comparison {
    /// `None` when it cannot be determined.
    pub(super) other: Option<OtherModeOutcome>,
    /// Whether the bound instance is gone and with it a session in its memory. This is real in sticky mode
    /// and counterfactual in the others.
    pub(super) tie_lost: bool,
}

/// Counters of one cohort in one upstream. Only requests that an instance answered are counted.
#[derive(Debug, Clone, Default)]
pub struct CohortCounts {
    /// Requests by instance.
    pub requests: BTreeMap<String, u64>,
    pub others: BTreeMap<OtherModeOutcome, u64>,
    /// Requests whose binding was lost.
    pub ties_lost: u64,
}

impl CohortCounts {
    /// Adds the counters of `other`.
    pub(super) fn merge(&mut self, other: &CohortCounts) {
        add_all(&mut self.requests, &other.requests);
        add_all(&mut self.others, &other.others);
        self.ties_lost += other.ties_lost;
    }
}

/// Chooses the mode of a request and removes the cohort cookie from the request, so that the instance does
/// not see it. Returns the cookie to set, if any.
pub(super) fn choose(
    headers: &mut HeaderMap,
    plan: &RuntimeConfig,
    cohorts: &Cohorts,
    exchange: &mut RequestContext,
    https: bool,
) -> Option<HeaderValue> {
    let config = &plan.config.session;
    let in_header = || headers.get(config.header.as_ref()?).map(HeaderValue::as_bytes);
    let session = cookie_values(headers, &config.cookie.name).next().map(unquoted).or_else(in_header);
    let choice = cohorts.choose(headers, session);
    remove_cookie(headers, cohorts.cookie());
    exchange.mode = Some(choice.mode);
    cohorts.set_cookie(choice, https)
}

/// Inputs of the comparison, recorded before the instance is chosen.
pub(super) enum Counterfactual {
    /// The instance that the other mode would choose.
    Foreseen(Option<InstanceId>),
    /// The request is in sticky mode and has no binding yet.
    New,
    /// The binding that sticky mode would apply.
    Tie(StickyBinding),
}

impl Counterfactual {
    /// Records the inputs for a request; `tie` is its binding in sticky mode. Returns `None` where all modes
    /// choose in the same way.
    pub(super) fn of(
        plan: &RuntimeConfig,
        route: &Route,
        exchange: &RequestContext,
        tie: Option<StickyBinding>,
        headers: &mut HeaderMap,
        session: Option<&Session>,
    ) -> Option<Counterfactual> {
        let (upstream, mode) = (exchange.upstream()?, exchange.mode?);
        let balancer = plan.balancers.get(upstream)?;
        if route.single || !plan.modes.include(Mode::Sticky) {
            return None;
        }
        let foresee = |is_sticky, headers: &HeaderMap| {
            let key = hash_key::of(plan, is_sticky, route, balancer, headers, session, exchange.client);
            Counterfactual::Foreseen(balancer.foresee(key, exchange.started))
        };
        Some(match (mode, tie) {
            (Mode::Sticky, Some(tie)) if tie.binding().is_none() => Counterfactual::New,
            (Mode::Sticky, _) => foresee(false, headers),
            (Mode::Shared | Mode::Local, _) => match StickyBinding::read(plan, upstream, headers) {
                // Cookies of the application are not modified, so a client without a binding gets none.
                Some(tie) if is_in_app_cookie(balancer) && tie.binding().is_none() => {
                    Counterfactual::Foreseen(None)
                }
                Some(tie) => Counterfactual::Tie(tie),
                None => foresee(true, headers),
            },
        })
    }

    /// Compares the outcomes after the response arrived. Returns the binding to keep and its instance.
    pub(super) fn compare(
        self,
        balancer: &Balancer,
        exchange: &mut RequestContext,
        tie: Option<StickyBinding>,
    ) -> Option<(StickyBinding, InstanceId)> {
        let chosen = exchange.lease.as_ref()?.instance().id;
        let (other, is_lost, kept) = match self {
            Counterfactual::Tie(tie) => {
                let (other, is_lost, kept) = other_choice(tie, balancer, chosen);
                (other, is_lost, kept.filter(|_| !is_in_app_cookie(balancer)))
            }
            Counterfactual::New => (Some(OtherModeOutcome::New), false, tie.map(|tie| (tie, chosen))),
            Counterfactual::Foreseen(other) => {
                let other = other.map(|other| OtherModeOutcome::of(chosen, other));
                match tie {
                    Some(tie) if is_forgotten(balancer, tie) => (other, true, Some((tie.rebound(), chosen))),
                    tie => {
                        let is_lost = exchange.affinity == Some(AffinityOutcome::Lost);
                        (other, is_lost, tie.map(|tie| (tie, chosen)))
                    }
                }
            }
        };
        exchange.comparison = Some(Comparison { other, tie_lost: is_lost && is_countable(balancer) });
        kept
    }
}

/// Returns for a request with this binding that went to `chosen`: the outcome in sticky mode, whether the
/// binding would have been lost, and the binding that would result.
fn other_choice(
    tie: StickyBinding,
    balancer: &Balancer,
    chosen: InstanceId,
) -> (Option<OtherModeOutcome>, bool, Option<(StickyBinding, InstanceId)>) {
    let Some(tied) = tie.binding() else { return (Some(OtherModeOutcome::New), false, Some((tie, chosen))) };
    let other = Some(OtherModeOutcome::of(chosen, tied.instance));
    match balancer.upstream().find(tied.instance) {
        Some(instance) if serves(instance) || waits_for(instance, balancer) => {
            let is_forgotten = is_forgotten(balancer, tie);
            let tie = if is_forgotten { tie.rebound() } else { tie };
            (other, is_forgotten, Some((tie, tied.instance)))
        }
        // Without its instance, sticky mode would have chosen freely too.
        _ => (Some(OtherModeOutcome::Same), true, Some((tie, chosen))),
    }
}

/// Whether the instance can serve bound clients, according to health checks and outlier detection.
fn serves(instance: &Instance) -> bool {
    instance.keeps_ties() && !instance.is_unreachable() && !instance.is_backing_off(Instant::now())
}

/// Whether sticky mode would have failed the request (`on_lost = fail`) and not moved the client.
fn waits_for(instance: &Instance, balancer: &Balancer) -> bool {
    balancer.upstream().config.on_lost == OnLost::Fail && instance.state() != InstanceState::Down
}

/// Whether the bound instance was restarted after the client was bound to it.
fn is_forgotten(balancer: &Balancer, tie: StickyBinding) -> bool {
    tie.binding().is_some_and(|tied| {
        let instance = balancer.upstream().find(tied.instance);
        instance.is_some_and(|instance| tied.since < instance.restarted()) && is_countable(balancer)
    })
}

fn is_in_app_cookie(balancer: &Balancer) -> bool {
    matches!(balancer.upstream().config.stick, Stick::AppCookie(_))
}

/// Whether a loss is counted once only. A binding in a cookie of the application stays unchanged until the
/// application sets the cookie again, so its loss would be counted repeatedly.
fn is_countable(balancer: &Balancer) -> bool {
    balancer.upstream().config.stick == Stick::Cookie
}

/// Counts a finished request.
pub(super) fn count(counts: &mut Counts, exchange: &RequestContext) {
    let (Some(comparison), Some(mode), Some(lease)) = (exchange.comparison, exchange.mode, &exchange.lease)
    else {
        return;
    };
    let upstream = exchange.upstream().and_then(|index| exchange.plan.config.upstreams.get(index));
    let name = upstream.map(|upstream| upstream.name.clone()).unwrap_or_default();
    let cohort = counts.cohorts.entry((mode, name)).or_default();
    *cohort.requests.entry(lease.instance().label.clone()).or_default() += 1;
    if let Some(other) = comparison.other {
        *cohort.others.entry(other).or_default() += 1;
    }
    cohort.ties_lost += u64::from(comparison.tie_lost);
}
