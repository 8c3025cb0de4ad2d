//! Steering a running proxy.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::control::{Changes, Command, ReloadError};
use super::upgrade::UpgradeError;
use crate::admin::{Answer, Process, Readiness};
use crate::config::Modes;
use crate::proxy::drill::{self, DrillError};
use crate::proxy::instance_admin::{InstanceUpdate, InstanceUpdateError};
use crate::proxy::{RuntimeConfig, Shared};
use crate::telemetry::lines::LineReopener;

pub(super) type UpgradeReply = oneshot::Sender<Result<u32, UpgradeError>>;

/// A hand on a running proxy.
#[derive(Debug, Clone)]
pub struct AppHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) readiness: Readiness,
    pub(super) upgrades: mpsc::Sender<UpgradeReply>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) log: LineReopener,
    pub(super) source: Option<Arc<Path>>,
}

impl AppHandle {
    /// Opens the file of the access log again, so that one that was moved away is written no longer.
    pub fn reopen_log(&self) {
        self.log.reopen();
    }

    /// The mode that new requests are served in, or those that are compared.
    pub fn modes(&self) -> Modes {
        self.shared.plan.load().modes
    }

    /// Serves new requests in `modes`, until the configuration is read again; requests under way end as they began.
    /// Completes when it is so, in a proxy that runs.
    pub async fn set_mode(&self, modes: impl Into<Modes>) -> Result<Changes, ReloadError> {
        let modes = modes.into();
        self.command(|reply| Command::SetMode(modes, reply)).await
    }

    /// Reads the configuration again. It is put to use whole and in one step; after an error everything is as it was.
    /// Completes when that is done, in a proxy that runs. The access log is [opened again](Self::reopen_log) as well.
    pub async fn reload(&self) -> Result<Changes, ReloadError> {
        self.reopen_log();
        self.command(Command::Reload).await
    }

    async fn command(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<Changes, ReloadError>>) -> Command,
    ) -> Result<Changes, ReloadError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| ReloadError::Over)?;
        answer.await.map_err(|_| ReloadError::Over)?
    }

    /// Changes what becomes of an instance, as long as it is configured. Completes when it is so, in a proxy that runs.
    pub async fn order(&self, order: InstanceUpdate) -> Result<SocketAddr, InstanceUpdateError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Order(order, reply)).await.map_err(|_| InstanceUpdateError::Over)?;
        answer.await.map_err(|_| InstanceUpdateError::Over)?
    }

    /// Lets fail what `order` says; the drill's id. Completes when it is so, in a proxy that runs.
    pub async fn drill(&self, order: drill::DrillRequest) -> Result<u64, DrillError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Drill(order, reply)).await.map_err(|_| InstanceUpdateError::Over)?;
        answer.await.map_err(|_| InstanceUpdateError::Over)?
    }

    /// Ends a drill. Completes when it is so.
    pub async fn end_drill(&self, id: u64) -> Result<(), DrillError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::EndDrill(id, reply)).await.map_err(|_| InstanceUpdateError::Over)?;
        answer.await.map_err(|_| InstanceUpdateError::Over)?
    }

    /// The plan that new requests are served by.
    pub fn plan(&self) -> Arc<RuntimeConfig> {
        self.shared.plan.load_full()
    }

    /// Whether the proxy takes new work.
    pub fn is_ready(&self) -> bool {
        self.readiness.is_ready()
    }

    /// Starts the program again and lets it take over; the id of the new process. This one then ends when its last
    /// client has left, or at the limits of `[upgrade]`. After an error nothing has changed.
    pub async fn upgrade(&self) -> Result<u32, UpgradeError> {
        let (reply, answer) = oneshot::channel();
        self.upgrades.send(reply).await.map_err(|_| UpgradeError::Over)?;
        answer.await.map_err(|_| UpgradeError::Over)?
    }
}

impl Process for AppHandle {
    fn source(&self) -> Option<&Path> {
        self.source.as_deref()
    }

    fn reload(&self) -> Answer<'_, Vec<String>> {
        Box::pin(async { AppHandle::reload(self).await.map_err(|error| error.to_string()) })
    }

    fn upgrade(&self) -> Answer<'_, u32> {
        Box::pin(async { AppHandle::upgrade(self).await.map_err(|error| error.to_string()) })
    }

    fn order(&self, order: InstanceUpdate) -> Answer<'_, SocketAddr, InstanceUpdateError> {
        Box::pin(AppHandle::order(self, order))
    }

    fn drill(&self, order: drill::DrillRequest) -> Answer<'_, u64, DrillError> {
        Box::pin(AppHandle::drill(self, order))
    }

    fn end_drill(&self, id: u64) -> Answer<'_, (), DrillError> {
        Box::pin(AppHandle::end_drill(self, id))
    }
}
