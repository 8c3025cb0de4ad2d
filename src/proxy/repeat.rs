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

/// Bytes that most heads have room in.
const USUAL_HEAD: usize = 1024;

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
    pub(super) fn of(upstream: &'a Upstream, request: &Request<RequestBody>) -> Option<Box<Self>> {
        let (policy, hedge) = (&upstream.config.retry, upstream.config.hedge);
        let has_use = !policy.on.is_empty() || hedge.is_some();
        let may = policy.attempts > 1
            && has_use
            && upstream.instances().len() > 1
            && request.method().is_idempotent()
            && matches!(request.body(), RequestBody::Empty)
            && !is_exempt(policy, request);
        may.then(|| {
            Box::new(Repeat {
                policy,
                left: policy.attempts - 1,
                hedge_after: hedge.filter(|_| is_hedged(request)).map(|hedge| hedge.after),
                copy: Copy::of(request),
            })
        })
    }

    /// The request once more.
    pub(super) fn request(&self) -> Box<Request<RequestBody>> {
        self.copy.request()
    }
}

/// What is kept of a request without a body, nothing of the client's connection included. The headers are kept as lines,
/// which are made in about half the time that a map takes; most are never read.
struct Copy {
    method: Method,
    uri: Uri,
    version: Version,
    /// `name:value`, each with a line feed behind it; neither holds one.
    lines: Vec<u8>,
}

impl Copy {
    fn of(request: &Request<RequestBody>) -> Self {
        let mut lines = Vec::with_capacity(USUAL_HEAD);
        for (name, value) in request.headers() {
            lines.extend_from_slice(name.as_str().as_bytes());
            lines.push(b':');
            lines.extend_from_slice(value.as_bytes());
            lines.push(b'\n');
        }
        let (method, uri) = (request.method().clone(), request.uri().clone());
        Copy { method, uri, version: request.version(), lines }
    }

    fn request(&self) -> Box<Request<RequestBody>> {
        let mut request = Box::new(Request::new(RequestBody::Empty));
        request.method_mut().clone_from(&self.method);
        request.uri_mut().clone_from(&self.uri);
        *request.version_mut() = self.version;
        for (name, value) in self.headers() {
            request.headers_mut().append(name, value);
        }
        request
    }

    fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.lines.split(|byte| *byte == b'\n').filter_map(|line| {
            let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
            let value = value.strip_prefix(b":")?;
            // Both were what they are made of here.
            Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
        })
    }
}

/// Why a failed request may go to another instance; `None`: it may not. The client's own faults are no reason.
pub(super) fn reason(error: &ProxyError) -> Option<RetryReason> {
    match error {
        ProxyError::Connect(_) => Some(RetryReason::Connect),
        ProxyError::Send(SendError::Unsent) => Some(RetryReason::Unsent),
        ProxyError::Send(SendError::Broken(_) | SendError::Malformed(_)) => Some(RetryReason::Broken),
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
    let Ok(path) = host::routing_path(request.method(), request.uri()) else { return true };
    let mut readings = path.others.iter().map(String::as_str).chain([&*path.decoded]);
    readings.any(|path| policy.never.iter().any(|never| never.covers(request.method(), path)))
}

fn is_hedged(request: &Request<RequestBody>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && !request.headers().contains_key(UPGRADE)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_copy_is_the_request_once_more(
            fields in vec(("[ab]|[a-z][a-z0-9-]{0,12}", "[!-~\\u{80}-\\u{ff}]([ -~\t]{0,40}[!-~])?"), 0..12),
        ) {
            let mut request = Request::get("http://app.example.com/a?b=c").body(RequestBody::Empty).unwrap();
            for (name, value) in &fields {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                request.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            let copy = Copy::of(&request).request();
            prop_assert_eq!(copy.headers(), request.headers());
            prop_assert_eq!((copy.method(), copy.uri()), (request.method(), request.uri()));
            prop_assert_eq!(copy.version(), request.version());
        }
    }
}
