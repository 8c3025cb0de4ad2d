//! Step five of a request: an instance, a connection to it, the request sent, the head of the answer.

use std::pin::pin;
use std::sync::Arc;

use http::{Request, Response};
use tokio::time::{Instant, sleep};

use crate::balance::{Balancer, Pick, Wanted};
use crate::body::RequestBody;
use crate::config::{InstanceState, OnLost};
use crate::transport::{ConnectError, Connection, Pool, PoolSettings, SendError, UpstreamBody};
use crate::upstream::{Instance, Lease, Wish};

use super::error::ProxyError;
use super::exchange::Exchange;
use super::outcome;
use super::tie::Tie;

/// Where a request may go, and what leads it there.
pub(super) struct Destination<'a> {
    pub(super) balancer: &'a Balancer,
    pub(super) connections: &'a PoolSettings,
    pub(super) tie: Option<Tie>,
    /// What is hashed, where instances are chosen by that.
    pub(super) key: Option<u64>,
}

/// Sends `request` to an instance. Instances that cannot be reached are left out and the unsent request goes to
/// another; what an instance may have seen is never sent twice.
pub(super) async fn forward(
    exchange: &mut Exchange,
    to: &Destination<'_>,
    request: Box<Request<RequestBody>>,
) -> Result<Response<UpstreamBody>, ProxyError> {
    let mut request = Some(request);
    let mut tried: Vec<Arc<Instance>> = Vec::new();
    let mut failure = ProxyError::NoInstance;
    let mut now = Instant::now();
    loop {
        let lease = match to.choose(&tried, now) {
            Pick::Taken(lease) => lease,
            Pick::Full(wish) => {
                let lease = Box::pin(to.wait(exchange, wish, &tried)).await?;
                now = Instant::now();
                lease
            }
            Pick::None => break,
        };
        let instance = lease.instance().clone();
        exchange.affinity = to.tie.map(|tie| tie.outcome(instance.id));
        exchange.lease = Some(lease);
        exchange.attempts += 1;
        let result = attempt(exchange, &instance, to.connections, &mut request, now).await;
        outcome::attempted(exchange, &instance, &result, now);
        failure = match result {
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

impl Destination<'_> {
    fn choose(&self, tried: &[Arc<Instance>], now: Instant) -> Pick {
        let wanted = Wanted { key: self.key, tried, now };
        let tied = self.tie.and_then(Tie::instance).and_then(|id| self.balancer.upstream().find(id));
        match tied.map(|instance| self.balancer.pick_tied(instance, wanted)) {
            Some(Pick::None) if tied.is_some_and(|instance| self.holds_on_to(instance)) => Pick::None,
            None | Some(Pick::None) => self.balancer.pick(wanted),
            Some(pick) => pick,
        }
    }

    /// Why nobody was chosen, as the client should know it.
    pub(super) fn explain(&self, error: ProxyError) -> ProxyError {
        let tied = self.tie.and_then(Tie::instance).and_then(|id| self.balancer.upstream().find(id));
        match error {
            ProxyError::NoInstance if tied.is_some_and(|instance| self.holds_on_to(instance)) => {
                ProxyError::TieLost
            }
            error => error,
        }
    }

    /// Whether a client tied to `instance`, which cannot serve, goes nowhere else.
    fn holds_on_to(&self, instance: &Instance) -> bool {
        let on_lost = self.balancer.upstream().config.on_lost;
        on_lost == OnLost::Fail && instance.state() != InstanceState::Down
    }

    /// Waits for a slot, and chooses again when what is waited for cannot come any more.
    async fn wait(
        &self,
        exchange: &mut Exchange,
        mut wish: Wish,
        tried: &[Arc<Instance>],
    ) -> Result<Lease, ProxyError> {
        exchange.lease = None;
        let (queue, group) = (self.balancer.upstream().config.queue, self.balancer.upstream().group());
        let (begun, over) = (Instant::now(), sleep(queue.timeout));
        let mut over = pin!(over);
        let result = loop {
            let Some(mut ticket) = group.join(wish, queue.length) else { break Err(ProxyError::QueueFull) };
            // A slot that became free before we stood in the line is not handed to us.
            match self.choose(tried, Instant::now()) {
                Pick::Taken(lease) => break Ok(lease),
                Pick::None => break Err(ProxyError::NoInstance),
                Pick::Full(again) => wish = again,
            }
            tokio::select! {
                biased;
                Some(lease) = ticket.slot() => break Ok(lease),
                () = &mut over => break Err(ProxyError::QueueTimeout),
                else => {}
            }
        };
        exchange.service.worker().counts.update(|counts| {
            let queue = counts.queue(self.balancer.upstream().name());
            match result {
                Err(ProxyError::QueueFull) => queue.full += 1,
                Err(ProxyError::QueueTimeout) => queue.timeouts += 1,
                _ => queue.waits.observe(begun.elapsed()),
            }
        });
        result
    }
}

/// One attempt on one instance. When it fails and the request is still in its place, nothing was sent.
async fn attempt(
    exchange: &Exchange,
    instance: &Instance,
    connections: &PoolSettings,
    request: &mut Option<Box<Request<RequestBody>>>,
    now: Instant,
) -> Result<Response<UpstreamBody>, ProxyError> {
    let upload = exchange.upload.as_ref();
    let settings = PoolSettings { limit: instance.slots(), ..*connections };
    let pool = exchange.service.worker().pools.to(instance.address, &settings);
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
        Err(error @ (ConnectError::Exhausted(_) | ConnectError::Full)) => {
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
