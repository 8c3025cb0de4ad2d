//! The operator's listener: is it alive, is it ready, what are the numbers.

mod metrics;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::proxy::Shared;
use crate::proxy::metrics::Shard;

/// Time for a whole head, and to wait for the next request on a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const TEXT: &str = "text/plain; charset=utf-8";

/// Whether new work should be sent here. Clones share the answer.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Relaxed);
    }

    pub fn is_ready(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// What the admin listener reports on.
#[derive(Debug)]
pub struct Admin {
    pub shared: Arc<Shared>,
    pub readiness: Readiness,
    /// One per worker.
    pub shards: Vec<Arc<Shard>>,
    /// Access-log lines lost so far, where there is a log.
    pub dropped_lines: Option<Arc<AtomicU64>>,
    /// Free places for client connections.
    pub places: Arc<Semaphore>,
}

impl Admin {
    /// Answers on `listener` until dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(self.clone().serve_connection(stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an admin connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve_connection(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(|request| {
            let answer = self.answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        // An operator's tool that breaks its connection is its own business.
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, TEXT, "alive\n"),
            "/readyz" if self.readiness.is_ready() => text(StatusCode::OK, TEXT, "ready\n"),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready\n"),
            "/metrics" => match metrics::exposition(self) {
                Ok(page) => text(StatusCode::OK, metrics::CONTENT_TYPE, page),
                Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the metrics could not be written\n"),
            },
            _ => text(StatusCode::NOT_FOUND, TEXT, "/livez /readyz /metrics\n"),
        }
    }
}

fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
