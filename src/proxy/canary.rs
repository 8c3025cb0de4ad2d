//! Requests of routes with two versions: which one they go to, and what comes of it.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::Instant;

use crate::canary::{Choice, Tallies, Tally, Variant};
use crate::drain::Drain;
use crate::headers::cookie::{cookie_values, remove_cookie, unquoted};
use crate::session::Session;
use crate::telemetry::histogram::Histogram;

use super::context::{Ending, RequestContext};
use super::metrics::{Counts, Shard};
use super::runtime_config::RuntimeConfig;
use super::service::Shared;

/// How often both versions are compared.
const LOOK: Duration = Duration::from_secs(1);

/// What is counted of one side of one canary.
#[derive(Debug, Clone, Default)]
pub struct SideCounts {
    pub requests: u64,
    /// Answered with 500 or more, by the instance or for want of one, or cut off.
    pub errors: u64,
    /// From the choice of the side to the head of the answer.
    pub first_byte: Histogram,
    /// Only what can be compared with the other side.
    pub compared: Tally,
}

impl SideCounts {
    /// Adds the numbers of `other`.
    pub(super) fn merge(&mut self, other: &SideCounts) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.first_byte.merge(&other.first_byte);
        self.compared.merge(&other.compared);
    }
}

/// A request's side.
#[derive(Debug, Clone, Copy)]
pub(super) struct CanaryAssignment {
    pub(super) choice: Choice,
    /// When it was chosen, from the beginning of the request.
    chosen: Duration,
}

/// Chooses the side of a request, and hides the cookie that keeps it from the instance.
/// Returns the cookie to be set, if any.
pub(super) fn choose(
    headers: &mut HeaderMap,
    plan: &RuntimeConfig,
    exchange: &mut RequestContext,
    session: Option<&Session>,
    https: bool,
) -> Option<HeaderValue> {
    let canary = exchange.route.and_then(|route| plan.canaries.of_route(route))?;
    let user = session.and_then(Session::user);
    let id = match &exchange.session_id {
        Some(id) => Some(id.expose().as_bytes()),
        // In other modes, or where no session is resolved, the id is still the client's.
        None => cookie_values(headers, &plan.config.session.cookie.name).next().map(unquoted),
    };
    let choice = canary.choose(headers, id, user);
    remove_cookie(headers, canary.cookie());
    exchange.visit = Some(CanaryAssignment { choice, chosen: exchange.started.elapsed() });
    canary.set_cookie(choice, https)
}

/// Counts a finished request, which took `took`.
pub(super) fn count(counts: &mut Counts, exchange: &RequestContext, took: Duration) {
    let canary = exchange.route.and_then(|route| exchange.plan.canaries.of_route(route));
    let (Some(canary), Some(visit)) = (canary, &exchange.visit) else { return };
    if exchange.ending == Ending::Open && exchange.service.is_cutting() {
        // We left, not the client.
        return;
    }
    let side = counts.canaries.entry((canary.id(), visit.choice.side)).or_default();
    let failed = exchange.final_status() >= 500 || exchange.ending == Ending::Cut;
    let first_byte = exchange.first_byte.map(|time| time.saturating_sub(visit.chosen));
    side.requests += 1;
    side.errors += u64::from(failed);
    if let Some(time) = first_byte {
        side.first_byte.observe(time);
    }
    if !canary.compares(visit.choice) {
        return;
    }
    match (failed, exchange.status) {
        (true, _) => side.compared.failed(),
        // How soon a protocol is switched says nothing of how soon pages come, nor do our own answers.
        (false, Some(StatusCode::SWITCHING_PROTOCOLS)) => side.compared.answered(None),
        (false, Some(_)) if exchange.reason.is_some() => side.compared.answered(None),
        (false, Some(_)) => side.compared.answered(first_byte),
        // Who did not wait for the answer would have waited at least so long.
        (false, None) => side.compared.answered(Some(took.saturating_sub(visit.chosen))),
    }
}

/// Compares both versions of every route that wants it, once a second until `drain` begins, by what the workers count
/// in `shards`.
pub async fn steer_canaries(shared: Arc<Shared>, shards: Vec<Arc<Shard>>, drain: Drain) {
    while tokio::time::timeout(LOOK, drain.begun()).await.is_err() {
        let plan = shared.plan.load_full();
        if plan.canaries().next().is_none() {
            continue;
        }
        let mut counts = Counts::default();
        shards.iter().for_each(|shard| shard.update(|own| counts.merge_canaries(own)));
        for canary in plan.canaries() {
            let of = |side| counts.canaries.get(&(canary.id(), side)).map(|counts| counts.compared);
            let totals = Tallies {
                canary: of(Variant::Canary).unwrap_or_default(),
                stable: of(Variant::Stable).unwrap_or_default(),
            };
            canary.look(&totals, Instant::now());
        }
    }
}
