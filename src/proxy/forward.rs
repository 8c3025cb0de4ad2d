//! Step five of a request: an instance, a connection to it, the request sent, the head of the answer.

use std::sync::Arc;

use http::{HeaderMap, Request, Response};
use tokio::time::Instant;

use crate::affinity::Hint;
use crate::balance::Balancer;
use crate::body::RequestBody;
use crate::config::Mode;
use crate::headers::cookie::{cookie_values, remove_cookie};
use crate::transport::{ConnectError, Connection, Pool, SendError, UpstreamBody};
use crate::upstream::{Instance, InstanceId, Lease};

use super::error::ProxyError;
use super::exchange::{AffinityOutcome, Exchange};
use super::plan::Plan;

/// The instance a client is tied to, and what becomes of the tie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tie {
    hint: Hint,
}

impl Tie {
    /// Reads the tie to the upstream with this index and hides it from the instance. Nothing is read in
    /// other modes than sticky.
    pub(super) fn take(plan: &Plan, upstream: usize, headers: &mut HeaderMap) -> Option<Tie> {
        if plan.mode != Mode::Sticky {
            return None;
        }
        let (cookie, balancer) = (plan.affinity_cookies.get(upstream)?, plan.balancers.get(upstream)?);
        let name = &balancer.upstream().name;
        let mut hint = Hint::None;
        for value in cookie_values(headers, cookie) {
            hint = plan.affinity.read(name, value);
            if matches!(hint, Hint::Instance { .. }) {
                break;
            }
        }
        if hint != Hint::None {
            remove_cookie(headers, cookie);
        }
        Some(Tie { hint })
    }

    fn instance(self) -> Option<InstanceId> {
        match self.hint {
            Hint::Instance { id, .. } => Some(id),
            _ => None,
        }
    }

    /// What the choice of `chosen` means for the tie.
    fn outcome(self, chosen: InstanceId) -> AffinityOutcome {
        match self.hint {
            Hint::Instance { id, .. } if id == chosen => AffinityOutcome::Kept,
            Hint::Instance { .. } => AffinityOutcome::Lost,
            Hint::None => AffinityOutcome::New,
            Hint::Expired => AffinityOutcome::Expired,
            Hint::Forged => AffinityOutcome::Forged,
        }
    }

    /// Whether the client needs a new cookie after going to `chosen`.
    pub(super) fn needs_cookie(self, chosen: InstanceId) -> bool {
        !matches!(self.hint, Hint::Instance { id, renew: false } if id == chosen)
    }
}

/// Sends `request` to an instance of `balancer`. Instances that cannot be reached are left out and the
/// unsent request goes to another; what an instance may have seen is never sent twice.
pub(super) async fn forward(
    exchange: &mut Exchange,
    balancer: &Balancer,
    tie: Option<Tie>,
    request: Box<Request<RequestBody>>,
) -> Result<Response<UpstreamBody>, ProxyError> {
    let mut request = Some(request);
    let mut tried: Vec<Arc<Instance>> = Vec::new();
    let mut failure = ProxyError::NoInstance;
    let mut now = Instant::now();
    while let Some(lease) = choose(balancer, tie, &tried, now) {
        let instance = lease.instance().clone();
        exchange.affinity = tie.map(|tie| tie.outcome(instance.id));
        exchange.lease = Some(lease);
        exchange.attempts += 1;
        failure = match attempt(exchange, &instance, &mut request, now).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        if request.is_none() {
            return Err(failure);
        }
        tried.push(instance);
        now = Instant::now();
    }
    exchange.lease = None;
    Err(failure)
}

fn choose(balancer: &Balancer, tie: Option<Tie>, tried: &[Arc<Instance>], now: Instant) -> Option<Lease> {
    let tied = tie.and_then(Tie::instance).and_then(|id| balancer.upstream().find(id));
    tied.and_then(|instance| balancer.pick_tied(instance, tried, now)).or_else(|| balancer.pick(tried, now))
}

/// One attempt on one instance. When it fails and the request is still in its place, nothing was sent.
async fn attempt(
    exchange: &Exchange,
    instance: &Instance,
    request: &mut Option<Box<Request<RequestBody>>>,
    now: Instant,
) -> Result<Response<UpstreamBody>, ProxyError> {
    let upload = exchange.upload.as_ref();
    let pool = exchange.service.worker().pools.to(instance.address);
    // An idle connection may be closed by the instance just now; then it is as if it had not been there.
    while let Some(idle) = pool.take(now) {
        match idle.send(request, upload, &pool, now).await {
            Err(SendError::Unsent) => {}
            other => return other.map_err(|error| blame(exchange, error)),
        }
    }
    let connection = connect(exchange, instance, &pool).await.map_err(ProxyError::Connect)?;
    connection.send(request, upload, &pool, Instant::now()).await.map_err(|error| blame(exchange, error))
}

async fn connect(exchange: &Exchange, instance: &Instance, pool: &Pool) -> Result<Connection, ConnectError> {
    let result = pool.connect().await;
    match &result {
        Ok(_) => instance.connected(),
        Err(error @ ConnectError::Exhausted(_)) => {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::error!(%error, cause, "no connection can be opened");
        }
        Err(error) => {
            instance.connect_failed(Instant::now());
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(instance = instance.label, %error, cause, "an instance cannot be reached");
        }
    }
    exchange.service.worker().counts.update(|counts| {
        counts.connects += 1;
        counts.connect_failures += u64::from(result.is_err());
    });
    result
}

/// A request body that failed is why the exchange broke, not the instance.
fn blame(exchange: &Exchange, error: SendError) -> ProxyError {
    match exchange.upload.as_ref().and_then(|upload| upload.failure()) {
        Some(failure) => ProxyError::Body(failure),
        None => ProxyError::Send(error),
    }
}
