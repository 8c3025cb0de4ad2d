//! Step 5 of the pipeline: selects an instance of the upstream and queues for a slot.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::balance::{Balancer, Pick, Wanted};
use crate::body::RequestBody;
use crate::config::{InstanceState, OnLost};
use crate::transport::{PoolSettings, UpstreamBody};
use crate::upstream::{Instance, Lease, QueuePosition, SlotRequest};

use super::context::RequestContext;
use super::error::ProxyError;
use super::interim::Relay;
use super::retry_loop::RetryLoop;
use super::sticky_binding::StickyBinding;

/// The upstream of a request and the inputs of the instance selection.
pub(super) struct UpstreamSelection<'a> {
    pub(super) balancer: &'a Balancer,
    pub(super) connections: &'a PoolSettings,
    /// The client's affinity binding, in sticky mode.
    pub(super) tie: Option<StickyBinding>,
    /// The hash key, where instances are selected by hash.
    pub(super) key: Option<u64>,
    /// Whether the hash key binds the request to its instance.
    pub(super) bound: bool,
    /// Destination of interim responses.
    pub(super) relay: Option<Relay>,
}

/// Sends `request` to an instance and retries on others as [`RetryLoop`] decides. `total_timeout` limits the
/// time until the response head.
pub(super) async fn forward(
    exchange: &mut RequestContext,
    to: &UpstreamSelection<'_>,
    request: Box<Request<RequestBody>>,
) -> Result<Response<UpstreamBody>, ProxyError> {
    match to.balancer.upstream().config.retry.total_timeout {
        None => RetryLoop::new(exchange, to, request).run().await,
        // Optional feature. Boxing keeps its state out of every request's future.
        Some(limit) => Box::pin(within(limit, exchange, to, request)).await,
    }
}

/// Runs the retry loop within `limit`. Fails with [`ProxyError::TotalTimeout`].
async fn within(
    limit: Duration,
    exchange: &mut RequestContext,
    to: &UpstreamSelection<'_>,
    request: Box<Request<RequestBody>>,
) -> Result<Response<UpstreamBody>, ProxyError> {
    let (upload, mut uploaded) = (exchange.upload.clone(), 0);
    let mut sending = pin!(RetryLoop::new(exchange, to, request).run());
    loop {
        if let Ok(outcome) = timeout(limit, sending.as_mut()).await {
            return outcome;
        }
        // The timeout restarts as long as the client's upload makes progress: that time is not the instances'
        // fault.
        let upload = upload.as_ref().filter(|upload| !upload.is_over());
        let bytes = upload.map_or(0, |upload| upload.bytes());
        if bytes == uploaded || bytes == 0 {
            return Err(ProxyError::TotalTimeout);
        }
        uploaded = bytes;
    }
}

impl UpstreamSelection<'_> {
    /// Whether `instance` holds the client's session, which other instances do not have.
    pub(super) fn is_tied_to(&self, instance: &Instance) -> bool {
        self.bound || self.tie.and_then(StickyBinding::instance) == Some(instance.id)
    }

    /// Selects an instance that is not in `tried`: the bound instance if it can serve, otherwise one chosen
    /// by the balancer, unless `on_lost = fail` forbids the move.
    pub(super) fn select(&self, tried: &[Arc<Instance>], now: Instant) -> Pick {
        let wanted = Wanted { key: self.key, tried, now };
        let tied =
            self.tie.and_then(StickyBinding::instance).and_then(|id| self.balancer.upstream().find(id));
        match tied.map(|instance| self.balancer.pick_tied(instance, wanted)) {
            Some(Pick::None) if tied.is_some_and(|instance| self.holds_on_to(instance)) => Pick::None,
            None | Some(Pick::None) => self.balancer.pick(wanted),
            Some(pick) => pick,
        }
    }

    /// Replaces `NoInstance` by `TieLost` when the client is bound to an instance that cannot serve and must
    /// not be moved.
    pub(super) fn with_affinity_cause(&self, error: ProxyError) -> ProxyError {
        let tied =
            self.tie.and_then(StickyBinding::instance).and_then(|id| self.balancer.upstream().find(id));
        match error {
            ProxyError::NoInstance if tied.is_some_and(|instance| self.holds_on_to(instance)) => {
                ProxyError::TieLost
            }
            error => error,
        }
    }

    /// Whether a client bound to `instance`, which cannot serve, must not be moved to another instance.
    fn holds_on_to(&self, instance: &Instance) -> bool {
        let on_lost = self.balancer.upstream().config.on_lost;
        on_lost == OnLost::Fail && instance.state() != InstanceState::Down
    }

    /// Queues for a slot and selects again whenever the queued-for instance becomes unavailable. Returns
    /// `None` when no instance is left. Fails with `QueueFull` or `QueueTimeout`.
    pub(super) async fn wait_for_slot(
        &self,
        exchange: &mut RequestContext,
        wish: SlotRequest,
        tried: &[Arc<Instance>],
    ) -> Result<Option<Lease>, ProxyError> {
        exchange.lease = None;
        let begun = Instant::now();
        let result = self.queue(wish, tried).await;
        exchange.service.worker().counts.update(|counts| {
            let queue = counts.queue(self.balancer.upstream().name());
            match result {
                Err(ProxyError::QueueFull) => queue.full += 1,
                Err(ProxyError::QueueTimeout) => queue.timeouts += 1,
                Ok(Some(_)) => queue.waits.observe(begun.elapsed()),
                _ => {}
            }
        });
        result
    }

    async fn queue(&self, wish: SlotRequest, tried: &[Arc<Instance>]) -> Result<Option<Lease>, ProxyError> {
        let (queue, group) = (self.balancer.upstream().config.queue, self.balancer.upstream().group());
        let mut over = pin!(sleep(queue.timeout));
        let Some(mut ticket) = group.join(wish, queue.length) else {
            return self.unproven(tried).ok_or(ProxyError::QueueFull).map(Some);
        };
        loop {
            // Slots freed before the ticket joined the queue are not granted to it, so select again first.
            let wish = match self.select(tried, Instant::now()) {
                Pick::Taken(lease) => return Ok(Some(lease)),
                Pick::None => return Ok(None),
                Pick::Full(wish) => wish,
            };
            match ticket.wish(wish) {
                QueuePosition::Before => {}
                QueuePosition::Anew => continue,
                QueuePosition::Granted(lease) => return Ok(Some(lease)),
            }
            tokio::select! {
                biased;
                slot = ticket.slot() => if let Some(lease) = slot { return Ok(Some(lease)) },
                () = until(self.balancer.held_until()) => self.balancer.refresh(),
                () = &mut over => return self.unproven(tried).ok_or(ProxyError::QueueTimeout).map(Some),
            }
        }
    }

    /// Takes an instance that has not passed a health check yet. Used when the request cannot wait any
    /// longer.
    fn unproven(&self, tried: &[Arc<Instance>]) -> Option<Lease> {
        self.balancer.take_unproven(Wanted { key: self.key, tried, now: Instant::now() })
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
