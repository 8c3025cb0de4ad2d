//! Responses with complete bodies.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

pub(super) type Reply = Response<Full<Bytes>>;

/// Plain text in UTF-8.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    of_type("text/plain; charset=utf-8", status, body)
}

/// A JSON document of media type `kind`, with `Cache-Control: no-store`.
pub(super) fn json(kind: &'static str, status: StatusCode, document: &impl Serialize) -> Reply {
    // Serialising cannot fail: documents here are plain structures.
    let body = serde_json::to_vec(document).unwrap_or_default();
    let mut reply = of_type(kind, status, body);
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// A response with a body of media type `kind`.
pub(super) fn of_type(kind: &'static str, status: StatusCode, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}
