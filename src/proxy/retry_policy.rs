//! Decides whether a request may be sent again after an instance may have received it.

use std::time::Duration;

use http::header::UPGRADE;
use http::{Method, Request};

use crate::body::RequestBody;
use crate::config::{Retry, RetryOn};
use crate::transport::{ConnectError, SendError};
use crate::upstream::Upstream;

use super::error::ProxyError;
use super::metrics::RetryReason;

/// Remaining retries and hedging of a request that may be sent to more than one instance.
pub(super) struct RetryState<'a> {
    pub(super) policy: &'a Retry,
    /// Attempts that are left, beyond the first.
    pub(super) left: u32,
    /// Delay before the hedged attempt. `None` when hedging does not apply or was used.
    pub(super) hedge_after: Option<Duration>,
}

impl<'a> RetryState<'a> {
    /// The state for a request that [may be sent twice](super::replayable::ReplayableRequest::of_repeatable).
    /// Returns `None` when the policy or the number of instances allows no second instance.
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

/// The retry reason for `error`, or `None` when it must not be retried. Client errors are never retried.
pub(super) fn reason(error: &ProxyError) -> Option<RetryReason> {
    match error {
        // A retry would need a connection too, and the limit covers all instances.
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

/// Whether `reason` is retried. With `tied` the client is bound to the instance, and timeouts and statuses
/// are not retried: other instances do not have the client's session.
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
