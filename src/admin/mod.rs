//! The admin listener: liveness, readiness, metrics, and the API.
//!
//! `routes` lists every path. `endpoints` are open to every client that can connect; `api` requires the
//! token.

mod api;
mod endpoints;
mod hosts;
mod process;
mod reply;
mod routes;
mod sessions;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::FutureExt;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use self::api::Problem;
use crate::discovery::DiscoveryStatus;
use crate::proxy::Shared;
use crate::proxy::metrics::Shard;

pub use process::{Answer, Process, ReloadStats, Reloads};
pub use sessions::Sessions;

/// Timeout of a request head, and of an idle keep-alive connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether this process accepts new work. Clones share the state.
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

/// The state that the admin listener reports on and controls.
#[derive(Debug)]
pub struct Admin {
    pub shared: Arc<Shared>,
    pub readiness: Readiness,
    /// One per worker.
    pub shards: Vec<Arc<Shard>>,
    /// Access-log lines dropped so far. `None` when the access log is off.
    pub dropped_lines: Option<Arc<AtomicU64>>,
    /// Permits for client connections.
    pub places: Arc<Semaphore>,
    /// The total number of permits.
    pub most_clients: usize,
    /// Maximum open admin connections; further ones wait in the kernel's backlog.
    pub most_operators: usize,
    pub sessions: Sessions,
    pub process: Arc<dyn Process>,
    pub reloads: Arc<Reloads>,
    /// The state of service discovery.
    pub discovery: DiscoveryStatus,
}

impl Admin {
    /// Serves `listener` until dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(self.most_operators));
        // Acquiring fails only when the semaphore is closed, which never happens.
        while let Ok(place) = places.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(self.clone().serve_connection(stream).map(|()| drop(place)));
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
            // In its own task: a client that disconnects must not abort a call half-way, nor keep it out of
            // the log.
            let answer = tokio::spawn(routes::answer(self.clone(), request));
            async { Ok::<_, Infallible>(answer.await.unwrap_or_else(|_| Problem::Internal.into())) }
        });
        // A broken admin connection needs no report.
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }
}
