//! Answers: an upstream's, passed on as it streams, or our own short problem documents.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use serde_json::json;

use crate::transport::{UpstreamBody, UpstreamBodyError};

use super::context::{Ending, RequestContext};
use super::error::{ErrorResponse, ProxyError};

/// The methods that are not refused by their name and in common use.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
/// An answer of more bytes does not come in one piece, however fast it comes.
const LARGE: u64 = 64 << 10;

/// The body of an answer. It carries the request's record (and with it the instance's lease), which ends
/// with the last byte or when the client leaves.
#[derive(Debug)]
pub struct ResponseBody {
    content: Content,
    /// `None` when the record went elsewhere: with an upgraded connection.
    exchange: Option<Box<RequestContext>>,
}

#[derive(Debug)]
enum Content {
    Upstream(UpstreamBody),
    Text(Option<Bytes>),
}

impl ResponseBody {
    /// An upstream's body, passed on frame by frame; `endless`: it counts as a stream from the beginning.
    pub(super) fn upstream(body: UpstreamBody, endless: bool, mut exchange: Box<RequestContext>) -> Self {
        if body.is_end_stream() {
            exchange.ending = Ending::Whole;
        } else if endless {
            exchange.takes_its_time(true);
        }
        ResponseBody { content: Content::Upstream(body), exchange: Some(exchange) }
    }

    /// The empty body of an answer that switches protocols.
    pub(super) fn switching() -> Self {
        ResponseBody { content: Content::Text(None), exchange: None }
    }

    fn text(text: Bytes, mut exchange: Box<RequestContext>) -> Self {
        exchange.ending = Ending::Whole;
        exchange.sent = text.len() as u64;
        ResponseBody { content: Content::Text(Some(text)), exchange: Some(exchange) }
    }
}

/// The answer to a failed request: a problem document (RFC 9457) that says what the client may know.
pub(super) fn problem(error: &ProxyError, mut exchange: Box<RequestContext>) -> Response<ResponseBody> {
    let verdict = error.response();
    exchange.reason = Some(verdict.reason);
    exchange.answered(verdict.status);
    let document = document(&verdict, &exchange);
    let demands = demands(verdict.status, &exchange.plan.config.session.cookie.name);
    let mut response = Response::new(ResponseBody::text(document, exchange));
    *response.status_mut() = verdict.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if verdict.close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some((name, value)) = demands {
        headers.insert(name, value);
    }
    if let Some(pause) = verdict.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(pause.as_secs()));
    }
    response
}

/// What RFC 9110 wants to be said with a status: how to be let in (section 15.5.2), or which methods there are (15.5.6).
pub(super) fn demands(status: StatusCode, cookie: &str) -> Option<(HeaderName, HeaderValue)> {
    match status {
        StatusCode::UNAUTHORIZED => {
            let challenge = HeaderValue::try_from(format!("Cookie cookie-name=\"{cookie}\""));
            // A cookie's name is a token.
            challenge.ok().map(|challenge| (WWW_AUTHENTICATE, challenge))
        }
        StatusCode::METHOD_NOT_ALLOWED => Some((ALLOW, HeaderValue::from_static(METHODS))),
        _ => None,
    }
}

fn document(verdict: &ErrorResponse, exchange: &RequestContext) -> Bytes {
    let mut document = json!({
        "type": "about:blank",
        "title": verdict.status.canonical_reason().unwrap_or("Error"),
        "status": verdict.status.as_u16(),
        "detail": verdict.detail,
    });
    if let Some(fields) = document.as_object_mut() {
        if let Some(limit) = verdict.limit {
            fields.insert("limit".into(), limit.into());
        }
        if let Some(id) = exchange.request_id.as_ref().and_then(|id| id.to_str().ok()) {
            fields.insert("request_id".into(), id.into());
        }
    }
    document.to_string().into()
}

/// Sends a browser elsewhere.
pub(super) fn redirect(location: &HeaderValue, mut exchange: Box<RequestContext>) -> Response<ResponseBody> {
    exchange.answered(StatusCode::FOUND);
    let mut response = Response::new(ResponseBody::text(Bytes::new(), exchange));
    *response.status_mut() = StatusCode::FOUND;
    response.headers_mut().insert(LOCATION, location.clone());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = UpstreamBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamBodyError>>> {
        let this = self.get_mut();
        let body = match &mut this.content {
            Content::Upstream(body) => body,
            Content::Text(text) => return Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
        };
        let Some(exchange) = &mut this.exchange else { return Poll::Ready(None) };
        if exchange.poll_closed(cx).is_ready() {
            return Poll::Ready(Some(Err(UpstreamBodyError::Closed)));
        }
        let mut next = Pin::new(&mut *body).poll_frame(cx);
        match &mut next {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    exchange.plan.rules.answer_trailers.strip(trailers);
                }
                exchange.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                if body.is_end_stream() {
                    exchange.ending = Ending::Whole;
                } else if exchange.sent >= LARGE {
                    exchange.takes_its_time(false);
                }
            }
            Poll::Ready(Some(Err(_))) => exchange.ending = Ending::Cut,
            Poll::Ready(None) => exchange.ending = Ending::Whole,
            Poll::Pending if exchange.stream.is_none() => {
                exchange.takes_its_time(false);
                // From here on the task is woken when the instance is closed.
                if exchange.poll_closed(cx).is_ready() {
                    return Poll::Ready(Some(Err(UpstreamBodyError::Closed)));
                }
            }
            Poll::Pending => {}
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Upstream(body) => body.is_end_stream(),
            Content::Text(text) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Upstream(body) => body.size_hint(),
            Content::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }
}
