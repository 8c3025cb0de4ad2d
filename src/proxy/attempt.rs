//! One attempt on one instance: a connection to it, the request sent, the head of the answer.

use std::sync::Arc;

use http::{Request, Response};
use tokio::time::Instant;

use crate::balance::Balancer;
use crate::body::{RequestBody, RequestBodyState};
use crate::transport::{
    ConnectError, Connection, Pool, PoolSettings, SendError, SlotShare, UpstreamBody, UpstreamBodyError,
};
use crate::upstream::Instance;

use super::error::ProxyError;
use super::outlier_report;
use super::replayable::ReplayableRequest;
use super::service::Service;

/// What an attempt comes to.
pub(super) type AttemptResult = Result<Response<UpstreamBody>, ProxyError>;

/// What the attempts of one request have in common.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) service: &'a Service,
    pub(super) balancer: &'a Balancer,
    pub(super) upload: Option<&'a Arc<RequestBodyState>>,
    pub(super) connections: &'a PoolSettings,
    /// Whether the answer is wanted only when it really begins: see [`UpstreamBody::begin`].
    pub(super) until_begun: bool,
    /// Of a request that may run twice.
    pub(super) duplicate: Option<&'a ReplayableRequest<'a>>,
    /// The slot, where slots are limited: it is held as long as the instance is at work.
    pub(super) claim: Option<&'a SlotShare>,
}

impl Attempt<'_> {
    /// Asks `instance`. When it fails, or is dropped, and the request is still in its place, nothing was sent.
    pub(super) async fn run(
        &self,
        instance: &Instance,
        request: &mut Option<Box<Request<RequestBody>>>,
        now: Instant,
    ) -> AttemptResult {
        let answered = self.await_response(instance, request, now).await;
        outlier_report::attempted(self.upload.map(Arc::as_ref), instance, &answered, now);
        answered
    }

    async fn await_response(
        &self,
        instance: &Instance,
        request: &mut Option<Box<Request<RequestBody>>>,
        now: Instant,
    ) -> AttemptResult {
        let mut answer = self.send(instance, request, now).await?;
        if self.until_begun {
            answer.body_mut().begin().await.map_err(unbegun)?;
        }
        answer.body_mut().look_ahead().map_err(unbegun)?;
        Ok(answer)
    }

    async fn send(
        &self,
        instance: &Instance,
        request: &mut Option<Box<Request<RequestBody>>>,
        now: Instant,
    ) -> AttemptResult {
        let settings = PoolSettings { limit: instance.connections(), ..*self.connections };
        let pool = self.service.worker().pools.to(instance.address, &settings);
        // An idle connection may be closed by the instance just now; then it is as if it had not been there.
        while let Some(idle) = pool.take(now) {
            match idle.send(request, self.upload, self.claim.cloned(), &pool, now).await {
                Err(SendError::Unsent) => {}
                Err(SendError::Silent(error)) => return self.resend(instance, &pool, error).await,
                other => return other.map_err(|error| self.classify(error)),
            }
        }
        self.send_fresh(instance, &pool, request).await
    }

    async fn send_fresh(
        &self,
        instance: &Instance,
        pool: &Arc<Pool>,
        request: &mut Option<Box<Request<RequestBody>>>,
    ) -> AttemptResult {
        let connection = self.connect(instance, pool).await.map_err(ProxyError::Connect)?;
        let sent = connection.send(request, self.upload, self.claim.cloned(), pool, Instant::now()).await;
        sent.map_err(|error| self.classify(error))
    }

    /// A connection that was used before and ends without a byte has probably been closed while the request was on its
    /// way (RFC 9112 section 9.3.1), which says nothing of the instance. What may run twice is sent there again, on a fresh
    /// connection; how that ends counts.
    async fn resend(&self, instance: &Instance, pool: &Arc<Pool>, error: hyper::Error) -> AttemptResult {
        let Some(duplicate) = self.duplicate else { return Err(self.classify(SendError::Silent(error))) };
        self.service
            .worker()
            .counts
            .update(|counts| counts.retries(self.balancer.upstream().name()).resends += 1);
        // Not in the place of the first, so that a failure to connect does not look as if nothing had been sent.
        // By option, so its state is not part of every request's.
        Box::pin(self.send_fresh(instance, pool, &mut Some(duplicate.request()))).await
    }

    async fn connect(&self, instance: &Instance, pool: &Pool) -> Result<Box<Connection>, ConnectError> {
        let result = pool.connect().await;
        match &result {
            Ok(_) => instance.connected(),
            Err(error @ (ConnectError::Exhausted(_) | ConnectError::Full | ConnectError::TooMany)) => {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::error!(%error, cause, "no connection can be opened");
            }
            Err(error) => {
                if instance.connect_failed(Instant::now(), error.is_refusal()) {
                    self.balancer.refresh();
                }
                if error.is_refusal() {
                    instance.connect_refused();
                }
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::warn!(instance = instance.label, %error, cause, "an instance cannot be reached");
            }
        }
        self.service.worker().counts.update(|counts| {
            counts.connects += 1;
            counts.connect_failures += u64::from(result.is_err());
        });
        result
    }

    /// A request body that failed is why the exchange broke, not the instance.
    fn classify(&self, error: SendError) -> ProxyError {
        match self.upload.and_then(|upload| upload.failure()) {
            Some(failure) => ProxyError::Body(failure),
            None => ProxyError::Send(error),
        }
    }
}

/// An answer that broke while its client could still be told is none.
fn unbegun(error: UpstreamBodyError) -> ProxyError {
    ProxyError::Send(match error {
        UpstreamBodyError::Broken(error) => SendError::Broken(error),
        UpstreamBodyError::Stalled | UpstreamBodyError::Closed => SendError::Stalled,
    })
}
