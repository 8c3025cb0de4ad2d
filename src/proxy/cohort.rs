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

use super::exchange::{AffinityOutcome, Exchange};
use super::hash_key;
use super::metrics::{Counts, add_all};
use super::plan::Plan;
use super::tie::Tie;

/// Where another mode would have sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Other {
    /// To the same instance.
    Same,
    /// To another one.
    Elsewhere,
    /// The client had no tie yet, so that any mode chooses freely.
    New,
}

impl Other {
    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Other::Same => "same",
            Other::Elsewhere => "elsewhere",
            Other::New => "new",
        }
    }

    fn of(chosen: InstanceId, other: InstanceId) -> Self {
        if chosen == other { Other::Same } else { Other::Elsewhere }
    }
}

/// What is known of one request in other modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Comparison {
    /// `None` when it cannot be known.
    pub(super) other: Option<Other>,
    /// The instance that the client's tie names is gone, and with it a session in its memory: in fact in sticky mode,
    /// and as it would have been in others.
    pub(super) tie_lost: bool,
}

/// What is counted of one cohort in one upstream, of requests that an instance answered.
#[derive(Debug, Clone, Default)]
pub struct CohortCounts {
    /// By instance.
    pub requests: BTreeMap<String, u64>,
    pub others: BTreeMap<Other, u64>,
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
    plan: &Plan,
    cohorts: &Cohorts,
    exchange: &mut Exchange,
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
pub(super) enum Probe {
    /// Where another mode would send it.
    Foreseen(Option<InstanceId>),
    /// It is new to sticky mode, in which it is.
    New,
    /// The tie that sticky mode would obey.
    Tie(Tie),
}

impl Probe {
    /// Of a request that `tie` leads, where it is in sticky mode. `None` where all modes choose alike.
    pub(super) fn of(
        plan: &Plan,
        route: &Route,
        exchange: &Exchange,
        tie: Option<Tie>,
        headers: &mut HeaderMap,
        session: Option<&Session>,
    ) -> Option<Probe> {
        let (upstream, mode) = (exchange.upstream()?, exchange.mode?);
        let balancer = plan.balancers.get(upstream)?;
        if route.single || !plan.modes.include(Mode::Sticky) {
            return None;
        }
        let foresee = |is_sticky, headers: &HeaderMap| {
            let key = hash_key::of(plan, is_sticky, route, balancer, headers, session, exchange.client);
            Probe::Foreseen(balancer.foresee(key, exchange.started))
        };
        Some(match (mode, tie) {
            (Mode::Sticky, Some(tie)) if tie.tied().is_none() => Probe::New,
            (Mode::Sticky, _) => foresee(false, headers),
            (Mode::Shared | Mode::Local, _) => match Tie::read(plan, upstream, headers) {
                // The application's own cookies are left as they are: who has no tie gets none.
                Some(tie) if is_in_app_cookie(balancer) && tie.tied().is_none() => Probe::Foreseen(None),
                Some(tie) => Probe::Tie(tie),
                None => foresee(true, headers),
            },
        })
    }

    /// Compares, once the request has got an answer. Returns the tie as it is from now on, with its instance.
    pub(super) fn compare(
        self,
        balancer: &Balancer,
        exchange: &mut Exchange,
        tie: Option<Tie>,
    ) -> Option<(Tie, InstanceId)> {
        let chosen = exchange.lease.as_ref()?.instance().id;
        let (other, is_lost, kept) = match self {
            Probe::Tie(tie) => {
                let (other, is_lost, kept) = shadow(tie, balancer, chosen);
                (other, is_lost, kept.filter(|_| !is_in_app_cookie(balancer)))
            }
            Probe::New => (Some(Other::New), false, tie.map(|tie| (tie, chosen))),
            Probe::Foreseen(other) => {
                let other = other.map(|other| Other::of(chosen, other));
                match tie {
                    Some(tie) if is_forgotten(balancer, tie) => {
                        (other, true, Some((tie.begun_anew(), chosen)))
                    }
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
fn shadow(
    tie: Tie,
    balancer: &Balancer,
    chosen: InstanceId,
) -> (Option<Other>, bool, Option<(Tie, InstanceId)>) {
    let Some(tied) = tie.tied() else { return (Some(Other::New), false, Some((tie, chosen))) };
    let other = Some(Other::of(chosen, tied.instance));
    match balancer.upstream().find(tied.instance) {
        Some(instance) if serves(instance) || waits_for(instance, balancer) => {
            let is_forgotten = is_forgotten(balancer, tie);
            let tie = if is_forgotten { tie.begun_anew() } else { tie };
            (other, is_forgotten, Some((tie, tied.instance)))
        }
        // Without its instance sticky mode would have chosen freely, too.
        _ => (Some(Other::Same), true, Some((tie, chosen))),
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
fn is_forgotten(balancer: &Balancer, tie: Tie) -> bool {
    tie.tied().is_some_and(|tied| {
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
pub(super) fn count(counts: &mut Counts, exchange: &Exchange) {
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
