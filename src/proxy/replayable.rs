//! A copy of a request that can be sent again.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};

use crate::body::RequestBody;
use crate::config::Retry;
use crate::headers::host;

use super::interim::Relay;

/// Initial buffer capacity in bytes, enough for most heads.
const USUAL_HEAD: usize = 1024;

/// A copy of a request without a body and without anything of the client connection. Headers are kept as
/// lines because building them takes about half the time of a header map, and most copies are never used.
pub(super) struct ReplayableRequest<'a> {
    method: Method,
    uri: Uri,
    version: Version,
    /// `name:value` lines, each terminated by a line feed. Names and values contain no line feeds.
    lines: Vec<u8>,
    /// Destination of the interim responses.
    relay: Option<&'a Relay>,
}

impl<'a> ReplayableRequest<'a> {
    /// Returns `None` for a request that must not be sent twice: it is not idempotent (RFC 9110 section
    /// 9.2.2), has a body (bodies are not kept), or is exempt by `policy`.
    pub(super) fn of_repeatable(
        policy: &Retry,
        request: &Request<RequestBody>,
        relay: Option<&'a Relay>,
    ) -> Option<Arc<Self>> {
        let may = request.method().is_idempotent()
            && matches!(request.body(), RequestBody::Empty)
            && !is_exempt(policy, request);
        may.then(|| Arc::new(ReplayableRequest::of(request, relay)))
    }

    fn of(request: &Request<RequestBody>, relay: Option<&'a Relay>) -> Self {
        let mut lines = Vec::with_capacity(USUAL_HEAD);
        for (name, value) in request.headers() {
            lines.extend_from_slice(name.as_str().as_bytes());
            lines.push(b':');
            lines.extend_from_slice(value.as_bytes());
            lines.push(b'\n');
        }
        let (method, uri) = (request.method().clone(), request.uri().clone());
        ReplayableRequest { method, uri, version: request.version(), lines, relay }
    }

    /// Builds the request again.
    pub(super) fn request(&self) -> Box<Request<RequestBody>> {
        let mut request = Box::new(Request::new(RequestBody::Empty));
        request.method_mut().clone_from(&self.method);
        request.uri_mut().clone_from(&self.uri);
        *request.version_mut() = self.version;
        for (name, value) in self.headers() {
            request.headers_mut().append(name, value);
        }
        if let Some(relay) = self.relay {
            relay.attach(&mut request);
        }
        request
    }

    fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.lines.split(|byte| *byte == b'\n').filter_map(|line| {
            let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
            let value = value.strip_prefix(b":")?;
            // Parsing cannot fail: the bytes come from a valid header map.
            Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
        })
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
            let copy = ReplayableRequest::of(&request, None).request();
            prop_assert_eq!(copy.headers(), request.headers());
            prop_assert_eq!((copy.method(), copy.uri()), (request.method(), request.uri()));
            prop_assert_eq!(copy.version(), request.version());
        }
    }
}
