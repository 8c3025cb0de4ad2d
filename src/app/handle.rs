//! The control handle of a running proxy.

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

/// Controls a running proxy. Clones control the same proxy.
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
    /// Reopens the access-log file by its name. Call it after the file was rotated.
    pub fn reopen_log(&self) {
        self.log.reopen();
    }

    /// The session mode of new requests, or the modes that are compared.
    pub fn modes(&self) -> Modes {
        self.shared.plan.load().modes
    }

    /// Serves new requests in `modes` until the next reload. Requests in flight keep their mode. Completes
    /// when the change is in effect; the proxy must be running.
    pub async fn set_mode(&self, modes: impl Into<Modes>) -> Result<Changes, ReloadError> {
        let modes = modes.into();
        self.command(|reply| Command::SetMode(modes, reply)).await
    }

    /// Reloads the configuration. The new configuration is applied as a whole in one step; after an error the
    /// previous one stays in use. Also [reopens](Self::reopen_log) the access log. Completes when the change
    /// is in effect; the proxy must be running.
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

    /// Changes the state or weight of an instance. The change lasts as long as the instance is configured.
    /// Returns the instance's address. Completes when the change is in effect; the proxy must be running.
    pub async fn order(&self, order: InstanceUpdate) -> Result<SocketAddr, InstanceUpdateError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Order(order, reply)).await.map_err(|_| InstanceUpdateError::Over)?;
        answer.await.map_err(|_| InstanceUpdateError::Over)?
    }

    /// Begins the fault-injection drill `order` and returns its id. Completes when the drill is running; the
    /// proxy must be running.
    pub async fn drill(&self, order: drill::DrillRequest) -> Result<u64, DrillError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Drill(order, reply)).await.map_err(|_| InstanceUpdateError::Over)?;
        answer.await.map_err(|_| InstanceUpdateError::Over)?
    }

    /// Ends the drill with this id. Completes when it has ended.
    pub async fn end_drill(&self, id: u64) -> Result<(), DrillError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::EndDrill(id, reply)).await.map_err(|_| InstanceUpdateError::Over)?;
        answer.await.map_err(|_| InstanceUpdateError::Over)?
    }

    /// The runtime configuration that new requests use.
    pub fn plan(&self) -> Arc<RuntimeConfig> {
        self.shared.plan.load_full()
    }

    /// Whether the proxy accepts new work.
    pub fn is_ready(&self) -> bool {
        self.readiness.is_ready()
    }

    /// Starts the program again and lets the new process take over. Returns the id of the new process. This
    /// process then drains: it ends with its last client, or at the limits of `[upgrade]`. After an error
    /// nothing has changed.
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
