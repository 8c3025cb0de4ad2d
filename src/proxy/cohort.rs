//! Requests while modes are compared: the mode of each, and what another mode would have made of it.
//!
//! Sticky mode is compared with the other two, which choose instances freely. So every client has a tie, obeyed in
//! sticky mode and elsewhere only kept: it tells where sticky mode would have sent the request. Where a request of
//! sticky mode would have gone otherwise, the balancer tells ([`Balancer::foresee`]).

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
    /// To another one.
    Elsewhere,
    /// The client had no tie yet, so that any mode chooses freely.
    New,
}

impl OtherModeOutcome {
    /// The word used in logs and metrics.
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

/// What is known of one request in other modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Comparison {
    /// `None` when it cannot be known.
    pub(super) other: Option<OtherModeOutcome>,
    /// The instance that the client's tie names is gone, and with it a session in its memory: in fact in sticky mode,
    /// and as it would have been in others.
    pub(super) tie_lost: bool,
}

/// What is counted of one cohort in one upstream, of requests that an instance answered.
#[derive(Debug, Clone, Default)]
pub struct CohortCounts {
    /// By instance.
    pub requests: BTreeMap<String, u64>,
    pub others: BTreeMap<OtherModeOutcome, u64>,
    /// Requests that met a lost tie.
    pub ties_lost: u64,
}

impl CohortCounts {
    /// Adds the numbers of `other`.
    pub(super) fn merge(&mut self, other: &CohortCounts) {
        add_all(&mut self.requests, &other.requests);
        add_all(&mut self.others, &other.others);
        self.ties_lost += other.ties_lost;
    }
}

/// Chooses the mode of a request, and hides the cookie that keeps it from the instance. Returns the cookie to be set,
/// if any.
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

/// What is noted of a request before its instance is chosen.
pub(super) enum Counterfactual {
    /// Where another mode would send it.
    Foreseen(Option<InstanceId>),
    /// It is new to sticky mode, in which it is.
    New,
    /// The tie that sticky mode would obey.
    Tie(StickyBinding),
}

impl Counterfactual {
    /// Of a request that `tie` leads, where it is in sticky mode. `None` where all modes choose alike.
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
                // The application's own cookies are left as they are: who has no tie gets none.
                Some(tie) if is_in_app_cookie(balancer) && tie.binding().is_none() => {
                    Counterfactual::Foreseen(None)
                }
                Some(tie) => Counterfactual::Tie(tie),
                None => foresee(true, headers),
            },
        })
    }

    /// Compares, once the request has got an answer. Returns the tie as it is from now on, with its instance.
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

/// What sticky mode would have made of a request with this tie that went to `chosen`, whether the tie would have been
/// lost, and where the client would be tied then.
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
        // Without its instance sticky mode would have chosen freely, too.
        _ => (Some(OtherModeOutcome::Same), true, Some((tie, chosen))),
    }
}

/// As far as checks and requests have found out.
fn serves(instance: &Instance) -> bool {
    instance.keeps_ties() && !instance.is_unreachable() && !instance.is_backing_off(Instant::now())
}

/// Whether sticky mode would have refused the request rather than send it elsewhere.
fn waits_for(instance: &Instance, balancer: &Balancer) -> bool {
    balancer.upstream().config.on_lost == OnLost::Fail && instance.state() != InstanceState::Down
}

/// Whether the instance of the tie was restarted since the client got there.
fn is_forgotten(balancer: &Balancer, tie: StickyBinding) -> bool {
    tie.binding().is_some_and(|tied| {
        let instance = balancer.upstream().find(tied.instance);
        instance.is_some_and(|instance| tied.since < instance.restarted()) && is_countable(balancer)
    })
}

fn is_in_app_cookie(balancer: &Balancer) -> bool {
    matches!(balancer.upstream().config.stick, Stick::AppCookie(_))
}

/// Whether a loss is met once: a tie in a cookie of the application's stays what it is until that sets it again.
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
