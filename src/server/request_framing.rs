//! What a request over HTTP/1.1 means for the connection that it came on.

use http::header::{CONNECTION, TE};
use http::{HeaderValue, Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;

use super::reader::Follows;
use crate::headers::hop_by_hop;
use crate::proxy::ResponseBody;

/// What has to be known of a request when its response begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestFraming {
    version: Version,
    /// What hyper found behind its head.
    pub(super) follows: Follows,
    /// Whether the client takes a trailer section.
    pub(super) wants_trailers: bool,
}

impl RequestFraming {
    pub(super) fn of(request: &Request<Incoming>) -> Self {
        let headers = request.headers();
        let follows = match request.body().size_hint().exact() {
            Some(0) if hop_by_hop::asks_for_websocket(headers) => Follows::Tunnel,
            Some(length) => Follows::Length(length),
            None => Follows::Chunks,
        };
        let wants_trailers = request.version() == Version::HTTP_11
            && hop_by_hop::tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"));
        RequestFraming { version: request.version(), follows, wants_trailers }
    }

    /// Tells the client with `response`, which switches no protocols, when it is the last on its connection; `is_last`:
    /// it is in any case.
    pub(super) fn announce_end(self, response: &mut Response<ResponseBody>, is_last: bool) {
        // To HTTP/1.0 only the end of the connection shows the end of a body without a length (RFC 9112 section 9.3).
        let has_end = self.version == Version::HTTP_11 || response.body().size_hint().exact().is_some();
        if is_last || !has_end {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if self.version == Version::HTTP_10 && response.headers().contains_key(CONNECTION) {
            // To a response of another version hyper adds what the client asked for.
            *response.version_mut() = Version::HTTP_10;
        }
    }
}
