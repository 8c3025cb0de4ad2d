//! The workers: threads that serve clients, and how they are told to begin and to end.

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

/// How often a worker does its routine work.
const TIDY: Duration = Duration::from_millis(250);

/// What all workers are told, each once.
#[derive(Debug, Clone, Default)]
pub(super) struct WorkerSignals {
    /// Accept clients.
    pub(super) accept: CancellationToken,
    /// Another process accepts: end when the last client has left.
    pub(super) retire: CancellationToken,
    /// Accept nobody, and let what runs end within the deadline.
    pub(super) stop: CancellationToken,
    /// Cut what still runs.
    pub(super) cut: CancellationToken,
}

/// Has workers open their ways to the session store before requests need them.
#[derive(Debug, Clone)]
pub(super) struct StorePrewarm(Vec<mpsc::Sender<oneshot::Sender<()>>>);

impl StorePrewarm {
    /// One for these many workers, and what each of them needs for it.
    pub(super) fn of(workers: usize) -> (Self, Vec<mpsc::Receiver<oneshot::Sender<()>>>) {
        let (wishes, orders) = (0..workers).map(|_| mpsc::channel(1)).unzip();
        (StorePrewarm(wishes), orders)
    }

    /// Completes when every worker can ask the store, or knows that it cannot.
    pub(super) async fn spread(&self) {
        for worker in &self.0 {
            let (warm, is_warm) = oneshot::channel();
            // A worker that has ended needs nothing.
            if worker.send(warm).await.is_ok() {
                let _ = is_warm.await;
            }
        }
    }
}

/// One worker's work and time.
pub(super) struct WorkerTask {
    pub(super) server: Arc<Server>,
    pub(super) listeners: Vec<StdListener>,
    pub(super) orders: WorkerSignals,
    pub(super) warmth: mpsc::Receiver<oneshot::Sender<()>>,
    /// Dropped when the worker could accept clients.
    pub(super) started: mpsc::Sender<()>,
}

/// Starts a worker in a thread of its own; it tells how many requests it cut in the end.
pub(super) fn start(index: usize, shift: WorkerTask) -> Result<oneshot::Receiver<usize>, AppError> {
    let (done, result) = oneshot::channel();
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Thread)?;
    thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            let cut = runtime.block_on(shift.work());
            drop(runtime);
            // Nobody waits only when the whole process is ending.
            let _ = done.send(cut);
        })
        .map_err(AppError::Thread)?;
    Ok(result)
}

/// Waits for the end of all workers; how many requests they cut.
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
                // Whoever asked may have left.
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
        // Some may be idle clients that have not been told yet; only requests count.
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

/// Completes when the worker is retired and its last client has left.
async fn retired(server: &Server, retire: &CancellationToken) {
    retire.cancelled().await;
    server.drain.retire();
    server.drain.ended().await;
}
