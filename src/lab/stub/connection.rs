//! Accepting and serving connections the way a gunicorn worker does.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::respond::{Reply, stamp};
use super::routes;
use super::state::State;
use super::stats::Running;

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) slots: usize,
    pub(super) keep_alive: Duration,
    pub(super) grace: Duration,
}

/// Serves until `shutdown` resolves, then lets running requests end within the grace.
pub(super) async fn serve(
    listener: TcpListener,
    limits: Limits,
    state: Arc<State>,
    mut shutdown: Pin<&mut impl Future<Output = ()>>,
) {
    let slots = Arc::new(Semaphore::new(limits.slots.clamp(1, Semaphore::MAX_PERMITS)));
    let stopping = CancellationToken::new();
    let mut connections = JoinSet::new();
    loop {
        let (stream, slot) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &slots) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        connections.spawn(connection(stream, slot, limits.keep_alive, Arc::clone(&state), stopping.clone()));
    }
    drop(listener);
    stopping.cancel();
    let all_ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(limits.grace, all_ended).await;
    // Dropping the set cuts what is left.
}

/// The next connection, once there is a slot for it: a full instance leaves callers in the backlog.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // Never closed, so there always is a permit.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, slot),
            // Out of descriptors, or a caller that is already gone: give others time to leave.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(
    stream: TcpStream,
    _slot: Option<OwnedSemaphorePermit>,
    keep_alive: Duration,
    state: Arc<State>,
    stopping: CancellationToken,
) {
    let _open = Running::begin(&state, |stats| &stats.connections);
    // Only costs latency when it fails.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| answer(request, Arc::clone(&state)));
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(keep_alive)
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        _ = &mut serving => return,
        () = stopping.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    // How a connection ends is the caller's matter.
    let _ = serving.await;
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Reply, Infallible> {
    let version = request.version();
    let handling = Running::begin(&state, |stats| &stats.handling);
    let mut reply = routes::dispatch(request, &state).await;
    drop(handling);
    stamp(&mut reply, &state.instance, version);
    Ok(reply)
}
