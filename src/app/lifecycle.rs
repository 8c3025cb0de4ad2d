//! The lifecycle of a process, from the start of the workers to the end of the last client connection.

use std::future::Future;
use std::pin::{Pin, pin};

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::handover::HandoverError;
use super::upgrade::{Attempt, UpgradeError};
use super::workers::{self, StorePrewarm, WorkerSignals};
use crate::drain::Drain;
use crate::proxy::steer_canaries;

use super::{App, AppError, Outcome, access_log, drain, systemd};

/// Why the process stops accepting clients.
enum End {
    /// Shutdown was requested.
    Told,
    /// A new process has taken over.
    Succeeded,
}

impl App {
    /// Serves until `told` is cancelled or a new process takes over.
    pub(super) async fn live(mut self, told: &CancellationToken) -> Result<Outcome, AppError> {
        let orders = WorkerSignals::default();
        self.shared.open_backend();
        let mut admin = None;
        if self.predecessor.is_none() {
            admin = self.start_admin()?;
        }
        let (warmth, warmers) = StorePrewarm::of(self.shards.len());
        let background = Drain::new();
        background.spawn(steer_canaries(self.shared.clone(), self.shards.clone(), background.clone()));
        let control = self.start_control(&orders, warmth).await;
        let (started, mut all_started) = mpsc::channel(1);
        let mut all = pin!(workers::all_ended(self.start_workers(&orders, warmers, started)?));
        let end = async {
            // Each worker drops its sender when it is able to accept; `recv` then returns `None`.
            let _ = all_started.recv().await;
            if let Some(predecessor) = self.predecessor.take() {
                predecessor.take_over()?;
                admin = self.start_admin()?;
            }
            self.serve(&orders, told).await
        };
        let end = tokio::select! {
            end = end => end?,
            // Workers end only after `stop` or `retire`, so this is an error.
            ended = &mut all => return ended.and(Err(AppError::WorkerLost)),
        };
        let cut = match end {
            End::Told => self.stop(&orders, all).await?,
            End::Succeeded => {
                // Canaries are now controlled by the new process, from the traffic that it sees.
                background.begin();
                stopped(admin.take()).await;
                self.retire(&orders, told, all).await?
            }
        };
        background.begin();
        orders.stop.cancel();
        // Joining fails only after a panic of the task, which is already reported.
        if let Ok(control) = control.await {
            control.end().await;
        }
        stopped(admin).await;
        if let Some(log) = self.access_log {
            access_log::close(log).await;
        }
        Ok(Outcome { cut })
    }

    /// Accepts clients until shutdown is requested or an upgrade succeeds.
    async fn serve(&mut self, orders: &WorkerSignals, told: &CancellationToken) -> Result<End, AppError> {
        orders.accept.cancel();
        self.readiness.set(true);
        systemd::ready();
        let mut living = pin!(systemd::live());
        loop {
            let reply = tokio::select! {
                biased;
                () = told.cancelled() => return Ok(End::Told),
                Some(reply) = self.upgrades.recv() => reply,
                () = &mut living => continue,
            };
            let upgraded = tokio::select! {
                upgraded = self.upgrade(told) => upgraded,
                () = &mut living => continue,
            };
            let succeeded = upgraded.is_ok();
            match &upgraded {
                Ok(process) => {
                    tracing::info!(process, "another process has taken over: ending with the last client")
                }
                Err(error) => tracing::error!(
                    error = error as &dyn std::error::Error,
                    "the upgrade failed: going on as before"
                ),
            }
            // Sending fails when the caller has dropped its receiver.
            let _ = reply.send(upgraded);
            if succeeded {
                return Ok(End::Succeeded);
            }
        }
    }

    /// One upgrade attempt. It fails when shutdown is requested meanwhile.
    async fn upgrade(&self, told: &CancellationToken) -> Result<u32, UpgradeError> {
        let sockets = self.sockets.clone().ok_or(UpgradeError::Over)?;
        let secret = self.secret.clone();
        let timeout = self.shared.plan.load().config.upgrade.timeout;
        tracing::info!("upgrading: starting the program again");
        let attempt =
            spawn_blocking(move || Attempt::start(timeout)).await.map_err(|_| UpgradeError::Over)??;
        let channel = attempt.channel().map_err(HandoverError::from)?;
        let sessions = self.shared.sessions.clone();
        let mut finish = spawn_blocking(move || {
            let ends = sessions.map(|sessions| sessions.told_ends()).unwrap_or_default();
            attempt.finish(&sockets, &secret, &ends)
        });
        let finished = tokio::select! {
            finished = &mut finish => finished,
            () = told.cancelled() => {
                channel.close();
                finish.await
            }
        };
        finished.map_err(|_| UpgradeError::Over)?
    }

    /// Ends after a shutdown request. Keeps accepting for `accept_grace` while readiness is already off, so
    /// that load balancers can react. Returns the number of requests that were cut.
    async fn stop(
        &mut self,
        orders: &WorkerSignals,
        all: Pin<&mut impl Future<Output = Result<usize, AppError>>>,
    ) -> Result<usize, AppError> {
        systemd::stopping();
        self.readiness.set(false);
        let grace = self.shared.plan.load().config.shutdown.accept_grace;
        tokio::time::sleep(grace).await;
        self.sockets = None;
        orders.stop.cancel();
        all.await
    }

    /// Drains after an upgrade. Returns the number of requests that were cut.
    async fn retire(
        &mut self,
        orders: &WorkerSignals,
        told: &CancellationToken,
        mut all: Pin<&mut impl Future<Output = Result<usize, AppError>>>,
    ) -> Result<usize, AppError> {
        self.sockets = None;
        orders.retire.cancel();
        let limits = self.shared.plan.load().config.upgrade.clone();
        tokio::select! {
            ended = &mut all => return ended,
            () = told.cancelled() => {}
            limit = drain::over(&limits) => {
                tracing::warn!(%limit, "this process has been taken over from, but its last clients do not leave: cutting them");
                orders.cut.cancel();
            }
        }
        orders.stop.cancel();
        all.await
    }
}

/// Stops the admin listener. It is closed when this completes.
async fn stopped(admin: Option<JoinHandle<()>>) {
    if let Some(admin) = admin {
        admin.abort();
        // Joining can only return the cancellation.
        let _ = admin.await;
    }
}
