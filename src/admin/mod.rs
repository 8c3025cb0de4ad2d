//! The operator's listener: is it alive, is it ready, what are the numbers, and the API to steer it.
//!
//! `routes` lists every address; `endpoints` are open to whoever can connect, `api` only to those who know the
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

/// Time for a whole head, and to wait for the next request on a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

/// What the admin listener reports on and steers.
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
    /// How many there are when no client is connected.
    pub most_clients: usize,
    /// Connections of operators that may be open at a time; more wait in the kernel's backlog.
    pub most_operators: usize,
    pub sessions: Sessions,
    pub process: Arc<dyn Process>,
    pub reloads: Arc<Reloads>,
    /// How the look-ups for instances stand.
    pub discovery: DiscoveryStatus,
}

impl Admin {
    /// Answers on `listener` until dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(self.most_operators));
        // Nobody closes them.
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
            // In a task of its own: a caller who leaves must not stop a call half-way, nor keep it out of the log.
            let answer = tokio::spawn(routes::answer(self.clone(), request));
            async { Ok::<_, Infallible>(answer.await.unwrap_or_else(|_| Problem::Internal.into())) }
        });
        // An operator's tool that breaks its connection is its own business.
        let _ = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }
}
