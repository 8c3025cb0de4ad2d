//! Whether a request may be sent again after an instance may have seen it.

use std::time::Duration;

use http::header::UPGRADE;
use http::{Method, Request};

use crate::body::RequestBody;
use crate::config::{Retry, RetryOn};
use crate::transport::{ConnectError, SendError};
use crate::upstream::Upstream;

use super::error::ProxyError;
use super::metrics::RetryReason;

/// What may become of a request that may be sent again, with more than one instance to go to.
pub(super) struct RetryState<'a> {
    pub(super) policy: &'a Retry,
    /// Instances that may still see the request.
    pub(super) left: u32,
    /// When a second instance is asked besides; `None` once it was.
    pub(super) hedge_after: Option<Duration>,
}

impl<'a> RetryState<'a> {
    /// Of a request that [may run twice](super::replayable::ReplayableRequest::of_repeatable); `None` where no other instance is
    /// to see it all the same.
    pub(super) fn of(upstream: &'a Upstream, request: &Request<RequestBody>) -> Option<Self> {
        let (policy, hedge) = (&upstream.config.retry, upstream.config.hedge);
        let has_use = !policy.on.is_empty() || hedge.is_some();
        let may = policy.attempts > 1 && has_use && upstream.instances().len() > 1;
        may.then(|| RetryState {
            policy,
            left: policy.attempts - 1,
            hedge_after: hedge.filter(|_| is_hedged(request)).map(|hedge| hedge.after),
        })
    }
}

/// Why a failed request may go to another instance; `None`: it may not. The client's own faults are no reason.
pub(super) fn reason(error: &ProxyError) -> Option<RetryReason> {
    match error {
        // Another instance needs a connection as well.
        ProxyError::Connect(ConnectError::TooMany) => None,
        ProxyError::Connect(_) => Some(RetryReason::Connect),
        ProxyError::Send(SendError::Unsent) => Some(RetryReason::Unsent),
        ProxyError::Send(SendError::Broken(_) | SendError::Silent(_) | SendError::Malformed(_)) => {
            Some(RetryReason::Broken)
        }
        ProxyError::Send(SendError::TimedOut | SendError::Stalled) => Some(RetryReason::Timeout),
        _ => None,
    }
}

/// Whether `reason` makes another attempt worth it. Of a client that is `tied` to the instance only what broke is asked
/// elsewhere: another instance does not know the client's session.
pub(super) fn is_retryable(on: &RetryOn, reason: RetryReason, tied: bool) -> bool {
    match reason {
        RetryReason::Connect | RetryReason::Unsent => true,
        RetryReason::Broken => on.broken,
        RetryReason::Timeout => on.timeout && !tied,
        RetryReason::Status(status) => !tied && on.statuses.iter().any(|own| own.as_u16() == status),
    }
}

fn is_hedged(request: &Request<RequestBody>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && !request.headers().contains_key(UPGRADE)
}
