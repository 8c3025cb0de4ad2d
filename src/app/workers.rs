//! The worker threads: starting them, and the signals that control them.

use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::AppError;
use crate::server::Server;

/// Interval of a worker's routine maintenance.
const TIDY: Duration = Duration::from_millis(250);

/// Signals to all workers. Each is given at most once.
#[derive(Debug, Clone, Default)]
pub(super) struct WorkerSignals {
    /// Accept clients.
    pub(super) accept: CancellationToken,
    /// Another process accepts new clients: end with the last client.
    pub(super) retire: CancellationToken,
    /// Stop accepting, and let requests in flight end within the deadline.
    pub(super) stop: CancellationToken,
    /// Cut the requests that are still in flight.
    pub(super) cut: CancellationToken,
}

/// Makes the workers open their store connections before requests need them.
#[derive(Debug, Clone)]
pub(super) struct StorePrewarm(Vec<mpsc::Sender<oneshot::Sender<()>>>);

impl StorePrewarm {
    /// Creates the sender for `workers` workers, and the receiver of each worker.
    pub(super) fn of(workers: usize) -> (Self, Vec<mpsc::Receiver<oneshot::Sender<()>>>) {
        let (wishes, orders) = (0..workers).map(|_| mpsc::channel(1)).unzip();
        (StorePrewarm(wishes), orders)
    }

    /// Completes when every worker has a store connection or has failed to open one.
    pub(super) async fn spread(&self) {
        for worker in &self.0 {
            let (warm, is_warm) = oneshot::channel();
            // Sending fails when the worker has ended, which needs no connection.
            if worker.send(warm).await.is_ok() {
                let _ = is_warm.await;
            }
        }
    }
}

/// Everything that one worker needs to run.
pub(super) struct WorkerTask {
    pub(super) server: Arc<Server>,
    pub(super) listeners: Vec<StdListener>,
    pub(super) orders: WorkerSignals,
    pub(super) warmth: mpsc::Receiver<oneshot::Sender<()>>,
    /// Dropped when the worker is able to accept clients.
    pub(super) started: mpsc::Sender<()>,
}

/// Starts a worker in its own thread. The receiver yields the number of requests that the worker cut.
pub(super) fn start(index: usize, shift: WorkerTask) -> Result<oneshot::Receiver<usize>, AppError> {
    let (done, result) = oneshot::channel();
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Thread)?;
    thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            let cut = runtime.block_on(shift.work());
            drop(runtime);
            // Sending fails only when the whole process is ending.
            let _ = done.send(cut);
        })
        .map_err(AppError::Thread)?;
    Ok(result)
}

/// Waits for the end of all workers. Returns the number of requests that they cut.
pub(super) async fn all_ended(workers: Vec<oneshot::Receiver<usize>>) -> Result<usize, AppError> {
    let mut cut = 0;
    for worker in workers {
        cut += worker.await.map_err(|_| AppError::WorkerLost)?;
    }
    Ok(cut)
}

impl WorkerTask {
    async fn work(self) -> usize {
        let WorkerTask { server, listeners, orders, mut warmth, started } = self;
        if server.service.uses_store() {
            server.service.warm_up().await;
        }
        let tidying = server.service.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(TIDY).await;
                tidying.tidy();
            }
        });
        let warming = server.service.clone();
        tokio::spawn(async move {
            while let Some(warm) = warmth.recv().await {
                warming.warm_up().await;
                // Sending fails when the caller has dropped its receiver.
                let _ = warm.send(());
            }
        });
        drop(started);
        tokio::select! {
            biased;
            () = orders.accept.cancelled() => accept(&server, listeners),
            () = orders.stop.cancelled() => return 0,
        }
        tokio::select! {
            biased;
            () = orders.stop.cancelled() => {}
            () = retired(&server, &orders.retire) => return 0,
        }
        server.drain.begin();
        let deadline = server.service.shutdown_deadline();
        let still_there = tokio::select! {
            count = server.drain.finished(deadline) => count,
            () = orders.cut.cancelled() => server.service.running(),
        };
        // Remaining connections may be idle keep-alive connections that are not closed yet; only requests in
        // flight count as cut.
        let cut = if still_there == 0 { 0 } else { server.service.running() };
        server.service.cut_off();
        cut
    }
}

fn accept(server: &Arc<Server>, listeners: Vec<StdListener>) {
    for listener in listeners {
        match TcpListener::from_std(listener) {
            Ok(listener) => server.drain.spawn(server.clone().accept(listener)),
            Err(error) => tracing::error!(%error, "a listener cannot be used"),
        }
    }
}

/// Completes when the worker is retired and its last client connection has ended.
async fn retired(server: &Server, retire: &CancellationToken) {
    retire.cancelled().await;
    server.drain.retire();
    server.drain.ended().await;
}
