//! One attempt on one instance: a connection to it, the request sent, the head of the answer.

use std::sync::Arc;

use http::{Request, Response};
use tokio::time::Instant;

use crate::body::{RequestBody, RequestBodyState};
use crate::transport::{
    ConnectError, Connection, Pool, PoolSettings, SendError, UpstreamBody, UpstreamBodyError,
};
use crate::upstream::Instance;

use super::error::ProxyError;
use super::outcome;
use super::service::Service;

/// What an attempt comes to.
pub(super) type Answered = Result<Response<UpstreamBody>, ProxyError>;

/// What the attempts of one request have in common.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) service: &'a Service,
    pub(super) upload: Option<&'a Arc<RequestBodyState>>,
    pub(super) connections: &'a PoolSettings,
    /// Whether the answer is wanted only when it really begins: see [`UpstreamBody::begin`].
    pub(super) until_begun: bool,
}

impl Attempt<'_> {
    /// Asks `instance`. When it fails, or is dropped, and the request is still in its place, nothing was sent.
    pub(super) async fn on(
        &self,
        instance: &Instance,
        request: &mut Option<Box<Request<RequestBody>>>,
        now: Instant,
    ) -> Answered {
        let answered = self.ask(instance, request, now).await;
        outcome::attempted(self.upload.map(Arc::as_ref), instance, &answered, now);
        answered
    }

    async fn ask(
        &self,
        instance: &Instance,
        request: &mut Option<Box<Request<RequestBody>>>,
        now: Instant,
    ) -> Answered {
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
    ) -> Answered {
        let settings = PoolSettings { limit: instance.slots(), ..*self.connections };
        let pool = self.service.worker().pools.to(instance.address, &settings);
        // An idle connection may be closed by the instance just now; then it is as if it had not been there.
        while let Some(idle) = pool.take(now) {
            match idle.send(request, self.upload, &pool, now).await {
                Err(SendError::Unsent) => {}
                other => return other.map_err(|error| self.blame(error)),
            }
        }
        let connection = self.connect(instance, &pool).await.map_err(ProxyError::Connect)?;
        connection.send(request, self.upload, &pool, Instant::now()).await.map_err(|error| self.blame(error))
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
                instance.connect_failed(Instant::now());
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
    fn blame(&self, error: SendError) -> ProxyError {
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
