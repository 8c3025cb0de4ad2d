//! Whether a request may be sent again after an instance may have seen it, and what is kept of it for that.

use std::time::Duration;

use http::header::UPGRADE;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};

use crate::body::RequestBody;
use crate::config::{Retry, RetryOn};
use crate::headers::host;
use crate::transport::SendError;
use crate::upstream::Upstream;

use super::error::ProxyError;
use super::metrics::RetryReason;

/// A request that may be sent again: idempotent, without a body, not exempt, with more than one instance to go to.
pub(super) struct Repeat<'a> {
    pub(super) policy: &'a Retry,
    /// Instances that may still see the request.
    pub(super) left: u32,
    /// When a second instance is asked besides; `None` once it was.
    pub(super) hedge_after: Option<Duration>,
    copy: Copy,
}

impl<'a> Repeat<'a> {
    /// `None` for a request that is never sent again.
    pub(super) fn of(upstream: &'a Upstream, request: &Request<RequestBody>) -> Option<Self> {
        let (policy, hedge) = (&upstream.config.retry, upstream.config.hedge);
        let has_use = !policy.on.is_empty() || hedge.is_some();
        let may = policy.attempts > 1
            && has_use
            && upstream.instances().len() > 1
            && request.method().is_idempotent()
            && matches!(request.body(), RequestBody::Empty)
            && !is_exempt(policy, request);
        may.then(|| Repeat {
            policy,
            left: policy.attempts - 1,
            hedge_after: hedge.filter(|_| is_hedged(request)).map(|hedge| hedge.after),
            copy: Copy::of(request),
        })
    }

    /// The request once more.
    pub(super) fn request(&self) -> Box<Request<RequestBody>> {
        self.copy.request()
    }
}

/// What is kept of a request without a body, nothing of the client's connection included. The headers are a list, which
/// is made in two thirds of the time that a map takes; most are never used.
struct Copy {
    method: Method,
    uri: Uri,
    version: Version,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Copy {
    fn of(request: &Request<RequestBody>) -> Self {
        let mut headers = Vec::with_capacity(request.headers().len());
        headers.extend(request.headers().iter().map(|(name, value)| (name.clone(), value.clone())));
        let (method, uri) = (request.method().clone(), request.uri().clone());
        Copy { method, uri, version: request.version(), headers }
    }

    fn request(&self) -> Box<Request<RequestBody>> {
        let mut request = Box::new(Request::new(RequestBody::Empty));
        request.method_mut().clone_from(&self.method);
        request.uri_mut().clone_from(&self.uri);
        *request.version_mut() = self.version;
        for (name, value) in &self.headers {
            request.headers_mut().append(name, value.clone());
        }
        request
    }
}

/// Why a failed request may go to another instance; `None`: it may not. The client's own faults are no reason.
pub(super) fn reason(error: &ProxyError) -> Option<RetryReason> {
    match error {
        ProxyError::Connect(_) => Some(RetryReason::Connect),
        ProxyError::Send(SendError::Unsent) => Some(RetryReason::Unsent),
        ProxyError::Send(SendError::Broken(_)) => Some(RetryReason::Broken),
        ProxyError::Send(SendError::TimedOut | SendError::Stalled) => Some(RetryReason::Timeout),
        _ => None,
    }
}

/// Whether `reason` makes another attempt worth it. Of a client that is `tied` to the instance only what broke is asked
/// elsewhere: another instance does not know the client's session.
pub(super) fn is_worth_it(on: &RetryOn, reason: RetryReason, tied: bool) -> bool {
    match reason {
        RetryReason::Connect | RetryReason::Unsent => true,
        RetryReason::Broken => on.broken,
        RetryReason::Timeout => on.timeout && !tied,
        RetryReason::Status(status) => !tied && on.statuses.iter().any(|own| own.as_u16() == status),
    }
}

fn is_exempt(policy: &Retry, request: &Request<RequestBody>) -> bool {
    if policy.never.is_empty() {
        return false;
    }
    let Ok(path) = host::routing_path(request.uri()) else { return true };
    let mut readings = path.others.iter().map(String::as_str).chain([&*path.decoded]);
    readings.any(|path| policy.never.iter().any(|never| never.covers(request.method(), path)))
}

fn is_hedged(request: &Request<RequestBody>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && !request.headers().contains_key(UPGRADE)
}
