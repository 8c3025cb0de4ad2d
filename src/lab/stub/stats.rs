//! The counters: the oracle of tests and comparisons.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::respond::json_bytes;
use super::routes::ROUTES;
use super::state::State;

/// The counters of one instance since it was bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    pub instance: String,
    /// All requests.
    pub requests: u64,
    /// Requests by endpoint, as `METHOD pattern`; `other` is what matched none.
    pub endpoints: BTreeMap<String, u64>,
    pub connections: Connections,
    /// Accepted passwords.
    pub logins: u64,
    /// Accepted refresh tokens.
    pub refreshes: u64,
    /// Live sessions in this process' memory; 0 when they are kept elsewhere.
    pub sessions_active: usize,
    /// Requests that came with the cookie of a login that is not known here: users who were logged out
    /// without asking for it.
    pub sessions_unknown: u64,
    pub streams: Streams,
    /// Accepted uploads.
    pub uploads: u64,
    /// Bytes of their files.
    pub upload_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Connections {
    pub accepted: u64,
    pub open: u64,
    /// Open without a request being worked on.
    pub idle: u64,
    /// Most that were open at one time.
    pub peak: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Streams {
    pub open: u64,
    /// Read to their end by the caller.
    pub completed: u64,
    /// Dropped by the caller or by a forced stop.
    pub cut: u64,
}

#[derive(Debug, Default)]
pub(super) struct Stats {
    pub(super) logins: AtomicU64,
    pub(super) refreshes: AtomicU64,
    pub(super) sessions_unknown: AtomicU64,
    pub(super) uploads: AtomicU64,
    pub(super) upload_bytes: AtomicU64,
    pub(super) connections: Gauge,
    /// Requests whose answer has not begun.
    pub(super) handling: Gauge,
    pub(super) streams: Gauge,
    pub(super) streams_completed: AtomicU64,
    endpoints: [AtomicU64; ROUTES.len()],
    other: AtomicU64,
}

impl Stats {
    /// Counts a request to the route at this index of [`ROUTES`].
    pub(super) fn count(&self, route: Option<usize>) {
        route.and_then(|index| self.endpoints.get(index)).unwrap_or(&self.other).fetch_add(1, Relaxed);
    }

    pub(super) fn snapshot(&self, instance: &str, sessions_active: usize) -> Snapshot {
        let mut endpoints: BTreeMap<_, _> = ROUTES
            .iter()
            .zip(&self.endpoints)
            .map(|(route, count)| (route.to_string(), count.load(Relaxed)))
            .collect();
        endpoints.insert("other".to_owned(), self.other.load(Relaxed));
        let (open, streaming) = (self.connections.open(), self.streams.open());
        let completed = self.streams_completed.load(Relaxed);
        Snapshot {
            instance: instance.to_owned(),
            requests: endpoints.values().sum(),
            endpoints,
            connections: Connections {
                accepted: self.connections.begun.load(Relaxed),
                open,
                idle: open.saturating_sub(self.handling.open() + streaming),
                peak: self.connections.peak.load(Relaxed),
            },
            logins: self.logins.load(Relaxed),
            refreshes: self.refreshes.load(Relaxed),
            sessions_active,
            sessions_unknown: self.sessions_unknown.load(Relaxed),
            streams: Streams {
                open: streaming,
                completed,
                cut: self.streams.ended.load(Relaxed).saturating_sub(completed),
            },
            uploads: self.uploads.load(Relaxed),
            upload_bytes: self.upload_bytes.load(Relaxed),
        }
    }
}

/// Things that begin and end.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    begun: AtomicU64,
    ended: AtomicU64,
    peak: AtomicU64,
}

impl Gauge {
    fn begin(&self) {
        let begun = self.begun.fetch_add(1, Relaxed) + 1;
        self.peak.fetch_max(begun - self.ended.load(Relaxed), Relaxed);
    }

    fn end(&self) {
        self.ended.fetch_add(1, Relaxed);
    }

    fn open(&self) -> u64 {
        self.begun.load(Relaxed).saturating_sub(self.ended.load(Relaxed))
    }
}

/// Counts one thing as under way for as long as it lives.
#[derive(Debug)]
pub(super) struct Running {
    state: Arc<State>,
    gauge: fn(&Stats) -> &Gauge,
}

impl Running {
    pub(super) fn begin(state: &Arc<State>, gauge: fn(&Stats) -> &Gauge) -> Self {
        gauge(&state.stats).begin();
        Running { state: Arc::clone(state), gauge }
    }

    pub(super) fn stats(&self) -> &Stats {
        &self.state.stats
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        (self.gauge)(&self.state.stats).end();
    }
}

/// Serves `GET /__stub/stats` until cancelled.
pub(super) async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let state = Arc::clone(&state);
        let service = service_fn(move |request: Request<Incoming>| {
            std::future::ready(Ok::<_, Infallible>(answer(&request, &state)))
        });
        let connection =
            http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        connections.spawn(connection);
    }
}

fn answer(request: &Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    if (request.method(), request.uri().path()) != (&Method::GET, "/__stub/stats") {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    let mut response = Response::new(Full::from(json_bytes(&state.snapshot())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_remembers_its_peak() {
        let gauge = Gauge::default();
        gauge.begin();
        gauge.begin();
        gauge.end();
        gauge.begin();
        assert_eq!((gauge.open(), gauge.peak.load(Relaxed)), (2, 2));
    }

    #[test]
    fn every_request_is_counted_once() {
        let stats = Stats::default();
        stats.count(Some(0));
        stats.count(Some(0));
        stats.count(None);
        let snapshot = stats.snapshot("a", 0);
        assert_eq!(snapshot.requests, 3);
        assert_eq!(snapshot.endpoints[&ROUTES[0].to_string()], 2);
        assert_eq!(snapshot.endpoints["other"], 1);
    }
}
