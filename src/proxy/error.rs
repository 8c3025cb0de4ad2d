//! Proxy errors and the HTTP status of each.
//!
//! This is the only place where failures are mapped to HTTP statuses.

use std::time::Duration;

use http::StatusCode;

use crate::body::RequestBodyError;
use crate::headers::host::TargetError;
use crate::identity::IdentityError;
use crate::session::{LifecycleError, SessionCommandError, StoreError, Unreadable};
use crate::transport::{ConnectError, SendError};

/// Value of the `Retry-After` header.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A failed request. The error text is for the log. The client sees only [`ProxyError::response`].
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error("the method is not one we forward")]
    Method,
    #[error("the method has other characters than capital letters and hyphens")]
    OddMethod,
    #[error("the method is longer than any that is in use")]
    LongMethod,
    #[error("the request target is longer than allowed")]
    UriTooLong,
    #[error("the request has more header lines than allowed")]
    HeaderCount,
    #[error("the head of the request is larger than allowed")]
    HeaderBytes,
    #[error("the request target has characters that must be percent-encoded")]
    RawTarget,
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("the transfer coding is not plain chunked")]
    Framing,
    #[error("the request body is larger than allowed")]
    BodyTooLarge,
    #[error(transparent)]
    Body(RequestBodyError),
    #[error("no route matches")]
    NoRoute,
    #[error("the route needs a session")]
    SessionRequired,
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Lifecycle(#[from] LifecycleError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("no instance is able to serve")]
    NoInstance,
    #[error("the instance that keeps the client's session cannot serve")]
    TieLost,
    #[error("as many requests wait for a free slot as may")]
    QueueFull,
    #[error("no slot became free in time")]
    QueueTimeout,
    #[error("no answer began in time, whichever instance was asked")]
    TotalTimeout,
    #[error("no instance could be reached")]
    Connect(#[source] ConnectError),
    #[error(transparent)]
    Send(SendError),
    #[error("the instance agreed on a protocol nobody asked for")]
    UnexpectedUpgrade,
    #[error("the answer cannot be passed on: {0}")]
    Answer(&'static str),
    #[error("the upgraded connection broke")]
    Upgrade(#[source] hyper::Error),
    #[error(transparent)]
    Control(#[from] SessionCommandError),
}

/// The error response sent to the client.
pub(super) struct ErrorResponse {
    pub(super) status: StatusCode,
    /// Stable identifier for logs.
    pub(super) reason: &'static str,
    /// One neutral sentence for the client.
    pub(super) detail: &'static str,
    /// Configuration key of the limit that was exceeded.
    pub(super) limit: Option<&'static str>,
    pub(super) retry_after: Option<Duration>,
    /// Whether to close the client connection because the start of the next request is uncertain.
    pub(super) close: bool,
}

impl ProxyError {
    pub(super) fn response(&self) -> ErrorResponse {
        match self {
            ProxyError::Method => verdict(405, "method", "This method is not served here."),
            ProxyError::OddMethod => verdict(400, "method", "The method is not valid."),
            ProxyError::LongMethod => verdict(501, "method", "This method is not known here."),
            ProxyError::UriTooLong => {
                verdict(414, "uri_limit", "The request target is too long.").limit("limits.uri_bytes")
            }
            ProxyError::HeaderCount => {
                verdict(431, "header_limit", "The request has too many headers.").limit("limits.header_count")
            }
            ProxyError::HeaderBytes => verdict(431, "header_limit", "The request's headers are too large.")
                .limit("limits.header_bytes"),
            ProxyError::RawTarget => verdict(400, "raw_target", "The request target is not percent-encoded."),
            ProxyError::Target(error) => verdict(400, "target", target_detail(*error)),
            ProxyError::Framing => verdict(400, "framing", "The transfer coding is not supported.").close(),
            ProxyError::BodyTooLarge | ProxyError::Body(RequestBodyError::TooLarge) => {
                verdict(413, "body_limit", "The request body is too large.").limit("limits.body_bytes")
            }
            ProxyError::Body(RequestBodyError::Stalled) => {
                verdict(408, "body_stalled", "The request body stopped arriving.")
                    .limit("timeouts.client_idle")
            }
            ProxyError::Body(RequestBodyError::Aborted) => {
                verdict(400, "body_aborted", "The request body is incomplete.")
            }
            ProxyError::Body(RequestBodyError::Malformed) => {
                verdict(400, "body_malformed", "The chunks of the request body are not valid.").close()
            }
            ProxyError::NoRoute => verdict(404, "no_route", "Nothing is served at this address."),
            ProxyError::SessionRequired => verdict(401, "session_required", "You are not logged in."),
            ProxyError::Unreadable(_) => {
                verdict(500, "session_unreadable", "Your session cannot be read by the proxy.")
            }
            ProxyError::Store(error) => store(*error),
            ProxyError::Lifecycle(LifecycleError::Store(error)) => store(*error),
            ProxyError::Lifecycle(LifecycleError::Random(_)) => {
                verdict(500, "random", "The proxy has an internal problem.")
            }
            ProxyError::Identity(_) => {
                verdict(500, "identity", "The session holds a value that cannot be used.")
            }
            ProxyError::NoInstance => verdict(503, "no_instance", "No instance is able to serve.").retry(),
            ProxyError::TieLost => {
                verdict(503, "tie_lost", "The instance that keeps your session cannot serve.").retry()
            }
            ProxyError::QueueFull => {
                verdict(503, "queue_full", "All instances are busy, and too many requests wait already.")
                    .limit("upstream.queue.length")
                    .retry()
            }
            ProxyError::QueueTimeout => {
                verdict(503, "queue_timeout", "All instances were busy for too long.")
                    .limit("upstream.queue.timeout")
                    .retry()
            }
            ProxyError::Connect(ConnectError::Full) => {
                verdict(503, "connections_full", "All connections to the instance are in use.")
                    .limit("upstream.max_requests")
                    .retry()
            }
            ProxyError::Connect(ConnectError::TooMany) => {
                verdict(503, "connections_full", "All connections to the instances are in use.")
                    .limit("limits.upstream_connections")
                    .retry()
            }
            ProxyError::Connect(ConnectError::TimedOut) => {
                verdict(504, "connect_timeout", "No instance could be reached in time.")
                    .limit("timeouts.connect")
            }
            ProxyError::Connect(ConnectError::Exhausted(_)) => {
                verdict(503, "exhausted", "The proxy can open no more connections.").retry()
            }
            ProxyError::Connect(_) => verdict(502, "connect_failed", "No instance could be reached."),
            ProxyError::Send(SendError::TimedOut) => {
                verdict(504, "first_byte_timeout", "The instance did not answer in time.")
                    .limit("timeouts.first_byte")
            }
            ProxyError::Send(SendError::Stalled) => {
                verdict(504, "stalled", "The instance did not answer in time.")
                    .limit("timeouts.upstream_idle")
            }
            ProxyError::TotalTimeout => verdict(504, "total_timeout", "No answer began in time.")
                .limit("upstream.retry.total_timeout"),
            ProxyError::Send(SendError::Unsent) => {
                verdict(502, "unsent", "The instance closed the connection.")
            }
            ProxyError::Send(SendError::Broken(_) | SendError::Silent(_)) => {
                verdict(502, "broken", "The instance gave no valid answer.")
            }
            ProxyError::Send(SendError::HeadTooLarge) => {
                verdict(502, "response_head_limit", "The head of the instance's answer is too large.")
                    .limit("limits.response_header_count, limits.response_header_bytes")
            }
            ProxyError::Send(SendError::Malformed(_)) => {
                verdict(502, "malformed_response", "The instance gave no valid answer.")
            }
            ProxyError::Answer(_) => verdict(502, "answer", "The instance gave no valid answer."),
            ProxyError::UnexpectedUpgrade | ProxyError::Upgrade(_) => {
                verdict(502, "upgrade", "The instance gave no valid answer.")
            }
            ProxyError::Control(_) => verdict(502, "session_control", "The instance gave no valid answer."),
        }
    }
}

fn store(error: StoreError) -> ErrorResponse {
    let verdict = verdict(503, error.kind(), "The session store cannot answer at the moment.").retry();
    match error {
        StoreError::Timeout => verdict.limit("session.store.response_timeout"),
        StoreError::Busy => verdict.limit("session.store.wait_timeout"),
        _ => verdict,
    }
}

fn verdict(status: u16, reason: &'static str, detail: &'static str) -> ErrorResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    ErrorResponse { status, reason, detail, limit: None, retry_after: None, close: false }
}

impl ErrorResponse {
    fn limit(self, key: &'static str) -> Self {
        ErrorResponse { limit: Some(key), ..self }
    }

    fn close(self) -> Self {
        ErrorResponse { close: true, ..self }
    }

    fn retry(self) -> Self {
        ErrorResponse { retry_after: Some(RETRY_AFTER), ..self }
    }
}

fn target_detail(error: TargetError) -> &'static str {
    match error {
        TargetError::NoHost => "The request has no Host.",
        TargetError::SeveralHosts => "The request has more than one Host.",
        TargetError::BadHost => "The Host is not valid.",
        TargetError::HostMismatch => "The Host and the request target differ.",
        TargetError::Scheme => "The scheme of the request target is not http.",
        TargetError::NotAPath => "The request target is not a path.",
        TargetError::UnsafePath => "The path is not in normal form.",
    }
}
