//! Step five of a request: an instance, a connection to it, the request sent, the head of the answer.

use std::sync::Arc;

use http::{HeaderMap, Request, Response};
use tokio::time::Instant;

use crate::affinity::Hint;
use crate::balance::Balancer;
use crate::body::RequestBody;
use crate::config::Mode;
use crate::headers::cookie::{cookie_values, remove_cookie};
use crate::transport::{ConnectError, Connection, SendError, UpstreamBody};
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
    mut request: Request<RequestBody>,
) -> Result<Response<UpstreamBody>, ProxyError> {
    let mut tried: Vec<Arc<Instance>> = Vec::new();
    let mut failure = ProxyError::NoInstance;
    while let Some(lease) = choose(balancer, tie, &tried) {
        let instance = lease.instance().clone();
        exchange.affinity = tie.map(|tie| tie.outcome(instance.id));
        exchange.lease = Some(lease);
        exchange.attempts += 1;
        match attempt(exchange, &instance, request).await {
            Ok(response) => return Ok(response),
            Err(Attempt::Final(error)) => return Err(error),
            Err(Attempt::Unsent(unsent, error)) => (request, failure) = (*unsent, error),
        }
        tried.push(instance);
    }
    exchange.lease = None;
    Err(failure)
}

fn choose(balancer: &Balancer, tie: Option<Tie>, tried: &[Arc<Instance>]) -> Option<Lease> {
    let now = Instant::now();
    let tied = tie.and_then(Tie::instance).and_then(|id| balancer.upstream().find(id));
    tied.and_then(|instance| balancer.pick_tied(instance, tried, now)).or_else(|| balancer.pick(tried, now))
}

/// A failed attempt.
enum Attempt {
    /// Nothing was sent; another instance may try.
    Unsent(Box<Request<RequestBody>>, ProxyError),
    Final(ProxyError),
}

async fn attempt(
    exchange: &Exchange,
    instance: &Arc<Instance>,
    mut request: Request<RequestBody>,
) -> Result<Response<UpstreamBody>, Attempt> {
    let worker = exchange.service.worker();
    // An idle connection may have been closed by the instance just now; hyper then hands the request back.
    while let Some(idle) = worker.pool.take(instance.address, Instant::now()) {
        match send(exchange, idle, instance, request).await {
            Err(SendError::Unsent(unsent)) => request = *unsent,
            other => return other.map_err(|error| Attempt::Final(final_error(exchange, error))),
        }
    }
    let connection = match connect(exchange, instance).await {
        Ok(connection) => connection,
        Err(error) => return Err(Attempt::Unsent(Box::new(request), ProxyError::Connect(error))),
    };
    match send(exchange, connection, instance, request).await {
        Ok(response) => Ok(response),
        Err(SendError::Unsent(unsent)) => {
            let error = std::io::ErrorKind::ConnectionReset.into();
            Err(Attempt::Unsent(unsent, ProxyError::Connect(ConnectError::Failed(error))))
        }
        Err(error) => Err(Attempt::Final(final_error(exchange, error))),
    }
}

async fn connect(exchange: &Exchange, instance: &Instance) -> Result<Connection, ConnectError> {
    let worker = exchange.service.worker();
    let result = worker.pool.connect(instance.address).await;
    match &result {
        Ok(_) => instance.connected(),
        Err(error) => {
            instance.connect_failed(Instant::now());
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(instance = instance.label, %error, cause, "an instance cannot be reached");
        }
    }
    worker.counts.update(|counts| {
        counts.connects += 1;
        counts.connect_failures += u64::from(result.is_err());
    });
    result
}

async fn send(
    exchange: &Exchange,
    connection: Connection,
    instance: &Instance,
    request: Request<RequestBody>,
) -> Result<Response<UpstreamBody>, SendError> {
    let home = exchange.service.worker().pool.home(instance.address);
    let first_byte = exchange.plan.config.timeouts.first_byte;
    connection.send(request, exchange.upload.as_deref(), first_byte, home).await
}

/// A request body that failed is why the exchange broke, not the instance.
fn final_error(exchange: &Exchange, error: SendError) -> ProxyError {
    match exchange.upload.as_ref().and_then(|upload| upload.failure()) {
        Some(failure) => ProxyError::Body(failure),
        None => ProxyError::Send(error),
    }
}
