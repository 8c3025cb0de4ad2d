//! One attempt on one instance: gets a connection, sends the request and reads the response head.

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

/// Result of one attempt.
pub(super) type AttemptResult = Result<Response<UpstreamBody>, ProxyError>;

/// Parameters that the attempts of one request share.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) service: &'a Service,
    pub(super) balancer: &'a Balancer,
    pub(super) upload: Option<&'a Arc<RequestBodyState>>,
    pub(super) connections: &'a PoolSettings,
    /// Whether to wait for the first piece of the body: see [`UpstreamBody::begin`].
    pub(super) until_begun: bool,
    /// The replayable copy. Present only for a request that may be sent twice.
    pub(super) duplicate: Option<&'a ReplayableRequest<'a>>,
    /// The concurrency slot, where slots are limited. It is held for as long as the instance works on the
    /// request.
    pub(super) claim: Option<&'a SlotShare>,
}

impl Attempt<'_> {
    /// Sends the request to `instance` and waits for the response head. If the attempt fails or is dropped
    /// while `request` is still `Some`, nothing was sent.
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
        // The instance may close an idle connection at any moment. A connection that proves unusable before
        // anything is sent is skipped.
        while let Some(idle) = pool.take(now) {
            match idle.send(request, self.upload, self.claim.cloned(), &pool, now).await {
                Err(SendError::Unsent) => {}
                Err(SendError::Silent(error)) => return self.resend(instance, &pool, error).await,
                other => return other.map_err(|error| self.classify(error)),
            }
        }
        self.send_fresh(instance, &pool, request).await
    }

    /// Sends the request on a new connection.
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

    /// A reused connection that ends without a byte of response was probably closed while the request was in
    /// transit (RFC 9112 section 9.3.1), which is no evidence against the instance. A replayable request is
    /// sent again to the same instance on a fresh connection, and only that result counts.
    async fn resend(&self, instance: &Instance, pool: &Arc<Pool>, error: hyper::Error) -> AttemptResult {
        let Some(duplicate) = self.duplicate else { return Err(self.classify(SendError::Silent(error))) };
        self.service
            .worker()
            .counts
            .update(|counts| counts.retries(self.balancer.upstream().name()).resends += 1);
        // A temporary `Some` is passed instead of the caller's `request`, so that a connect failure is not
        // mistaken for "nothing was sent". Boxing keeps the state of this optional feature out of every
        // request's future.
        Box::pin(self.send_fresh(instance, pool, &mut Some(duplicate.request()))).await
    }

    /// Opens a connection, reports the result to the instance and counts it.
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

    /// A failed request body is the cause of a broken exchange, so it takes precedence over the send error.
    fn classify(&self, error: SendError) -> ProxyError {
        match self.upload.and_then(|upload| upload.failure()) {
            Some(failure) => ProxyError::Body(failure),
            None => ProxyError::Send(error),
        }
    }
}

/// Converts a body error that occurs before the response head is passed on. The client can still get an error
/// response.
fn unbegun(error: UpstreamBodyError) -> ProxyError {
    ProxyError::Send(match error {
        UpstreamBodyError::Broken(error) => SendError::Broken(error),
        UpstreamBodyError::Stalled | UpstreamBodyError::Closed => SendError::Stalled,
    })
}
