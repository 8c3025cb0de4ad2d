//! How an HTTP/1.1 request determines the framing of its connection and response.

use http::header::{CONNECTION, TE};
use http::{HeaderValue, Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;

use super::reader::Follows;
use crate::headers::hop_by_hop;
use crate::proxy::ResponseBody;

/// Facts about a request that are needed when its response begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestFraming {
    version: Version,
    /// What follows the head according to hyper.
    pub(super) follows: Follows,
    /// Whether the client accepts a trailer section (`TE: trailers`).
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

    /// Adds `Connection: close` to `response`, which must not switch protocols, when it is the last one on
    /// its connection. `is_last` forces that.
    pub(super) fn announce_end(self, response: &mut Response<ResponseBody>, is_last: bool) {
        // In HTTP/1.0 only the close of the connection marks the end of a body without a length (RFC 9112
        // section 9.3).
        let has_end = self.version == Version::HTTP_11 || response.body().size_hint().exact().is_some();
        if is_last || !has_end {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if self.version == Version::HTTP_10 && response.headers().contains_key(CONNECTION) {
            // When the response version differs, hyper adds its own `Connection` header according to the
            // request.
            *response.version_mut() = Version::HTTP_10;
        }
    }
}
