//! The single writer of the runtime configuration and of the operator's wishes for instances. Every change is
//! a [`Command`]; commands are executed one at a time.
//!
//! The configuration in use is the file's configuration plus the discovered instances. When either changes, a
//! new runtime configuration is built from both and replaces the previous one atomically.

use std::future::pending;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::watch::FileWatch;
use super::workers::StorePrewarm;
use super::{changes, removed_instances, restart_required, systemd};
use crate::admin::Reloads;
use crate::balance::Balancer;
use crate::config::{self, Config, LoadError, Mode, Modes};
use crate::discovery::Discovery;
use crate::drain::Drain;
use crate::health;
use crate::proxy::Shared;
use crate::proxy::drill::{self, DrillError, Why};
use crate::proxy::instance_admin::{self, InstanceUpdate, InstanceUpdateError};
use crate::proxy::metrics::Shard;
use crate::secret::{RandomError, Secret};
use crate::session::Store;

/// Longest time that shutdown waits for pending session renewals to be written, and again for the store watch
/// to end.
const LAST_RENEWALS: Duration = Duration::from_millis(500);

/// The changes, one line each. Empty when nothing has changed.
pub type Changes = Vec<String>;

type Reply = oneshot::Sender<Result<Changes, ReloadError>>;

/// A change of the runtime configuration or of an instance. The reply is sent once the change is in effect.
#[derive(Debug)]
pub(super) enum Command {
    /// Read the configuration file again.
    Reload(Reply),
    /// Serve new requests in these modes until the next reload.
    SetMode(Modes, Reply),
    /// Change the state or weight of an instance. Replies with its address.
    Order(InstanceUpdate, oneshot::Sender<Result<SocketAddr, InstanceUpdateError>>),
    /// Begin a fault-injection drill. Replies with the drill's id.
    Drill(drill::DrillRequest, oneshot::Sender<Result<u64, DrillError>>),
    /// End the drill with this id.
    EndDrill(u64, oneshot::Sender<Result<(), DrillError>>),
}

/// Why the previous configuration stays in use.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("the configuration came from no file")]
    NoFile,
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(
        "a running process cannot change {}; upgrade it (`vestibule upgrade` or kill -USR2), restart it, or put back \
         what was there",
        .0.join(", ")
    )]
    Fixed(Vec<&'static str>),
    #[error(transparent)]
    Random(#[from] RandomError),
    #[error("the process is ending")]
    Over,
}

/// Executes commands.
pub(super) struct Control {
    shared: Arc<Shared>,
    /// The counters of the workers.
    shards: Vec<Arc<Shard>>,
    source: Option<PathBuf>,
    /// The configuration at process start. Some of its keys cannot change at run time; see
    /// [`restart_required`].
    started: Arc<Config>,
    file: Config,
    discovery: Discovery,
    /// The affinity secret for a configuration that has none.
    secret: Secret<Vec<u8>>,
    reloads: Arc<Reloads>,
    warmth: StorePrewarm,
    checks: Vec<(Arc<Balancer>, Drain)>,
    /// The task that keeps the session cache consistent with the store. `None` until shared mode is first
    /// used.
    watch: Option<JoinHandle<()>>,
}

impl Control {
    /// Starts discovery and completes after the first lookup of every source; the instances found are in use
    /// by then. Must be called on the runtime that is to run the background tasks.
    pub(super) async fn start(
        (shared, shards): (Arc<Shared>, Vec<Arc<Shard>>),
        source: Option<PathBuf>,
        secret: Secret<Vec<u8>>,
        reloads: Arc<Reloads>,
        warmth: StorePrewarm,
        discovery: Discovery,
    ) -> Self {
        let started = shared.plan.load().config.clone();
        reloads.began(&started);
        warn_of(&started);
        let file = Config::clone(&started);
        let mut control = Control {
            shared,
            shards,
            source,
            started,
            file,
            discovery,
            secret,
            reloads,
            warmth,
            checks: Vec::new(),
            watch: None,
        };
        control.discovery.follow(&control.file.upstreams);
        control.discovery.first_looks().await;
        control.discovered().await;
        control.follow_plan();
        control
    }

    /// Executes `commands` until `stop` is cancelled. Also reacts to discovery, to deadlines of instances and
    /// drills, and to changes of the configuration file.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    ) -> Self {
        let mut watch = FileWatch::default();
        loop {
            let watched = self.source.clone().filter(|_| self.file.reload.watch);
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    // Returns an error when no drill is running, which is fine here.
                    let _ = drill::end(&self.shared, &self.shards, None, Why::Shutdown);
                    return self;
                }
                Some(command) = commands.recv() => self.carry_out(command).await,
                () = self.discovery.changed() => self.discovered().await,
                () = deadline(&self.shared) => instance_admin::expire(&self.shared.plan.load(), Instant::now()),
                () = drill_over(&self.shared) => drill::expire(&self.shared, &self.shards, Instant::now()),
                () = watch.changed(watched) => {
                    // `reload` logs its own result.
                    let _ = self.reload().await;
                }
            }
        }
    }

    /// Stops the background tasks: health checks, pending renewals and the store watch.
    pub(super) async fn end(self) {
        for (_, checks) in &self.checks {
            checks.begin();
        }
        let Some(mut watch) = self.watch else { return };
        if let Some(sessions) = &self.shared.sessions {
            // Renewals that an unreachable store has not accepted by then are lost. Those sessions only
            // expire earlier.
            let _ = timeout(LAST_RENEWALS, sessions.all_renewals_written()).await;
            sessions.leave();
            // When this time runs out, other vestibules wait once for this process when they next meet a new
            // primary.
            let _ = timeout(LAST_RENEWALS, &mut watch).await;
        }
        watch.abort();
    }

    async fn carry_out(&mut self, command: Command) {
        let (done, reply) = match command {
            Command::Reload(reply) => (self.reload().await, reply),
            Command::SetMode(modes, reply) => (self.set_mode(modes).await, reply),
            Command::Order(order, reply) => {
                // Sending fails when the caller has dropped its receiver.
                let _ = reply.send(instance_admin::apply(&self.shared.plan.load(), &order));
                return;
            }
            Command::Drill(order, reply) => {
                let _ = reply.send(drill::begin(&self.shared, &self.shards, &order));
                return;
            }
            Command::EndDrill(id, reply) => {
                let _ = reply.send(drill::end(&self.shared, &self.shards, Some(id), Why::Asked));
                return;
            }
        };
        // Sending fails when the caller has dropped its receiver.
        let _ = reply.send(done);
    }

    async fn reload(&mut self) -> Result<Changes, ReloadError> {
        systemd::reloading();
        let done = match self.load().await {
            Ok(file) => self.apply(file).await,
            Err(error) => Err(error),
        };
        systemd::ready();
        self.reloads.record(done.as_ref().map(|changes| !changes.is_empty()).map_err(|_| ()));
        match &done {
            Ok(changes) if changes.is_empty() => tracing::info!("the configuration says nothing new"),
            Ok(changes) => tracing::info!(changes = changes.join("; "), "the configuration was reloaded"),
            Err(error) => {
                tracing::error!(%error, "the configuration was not reloaded: the one before stays in use")
            }
        }
        done
    }

    async fn load(&self) -> Result<Config, ReloadError> {
        let path = self.source.clone().ok_or(ReloadError::NoFile)?;
        let loaded = spawn_blocking(move || config::load(&path)).await.map_err(|_| ReloadError::Over)?;
        let mut file = loaded?;
        file.affinity.secret.get_or_insert_with(|| self.secret.clone());
        let fixed = restart_required::changed(&self.started, &file);
        if fixed.is_empty() { Ok(file) } else { Err(ReloadError::Fixed(fixed)) }
    }

    async fn set_mode(&mut self, modes: Modes) -> Result<Changes, ReloadError> {
        let mut file = self.file.clone();
        file.session.mode = modes;
        self.apply(file).await
    }

    /// Applies the current set of discovered instances.
    async fn discovered(&mut self) {
        match self.apply(self.file.clone()).await {
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => tracing::info!(changes = changes.join("; "), "instances were found"),
            Err(error) => tracing::error!(%error, "instances that were found cannot be used"),
        }
    }

    /// Puts `file`, completed with the discovered instances, into use. Returns the changes. On error the
    /// previous configuration stays in use.
    async fn apply(&mut self, file: Config) -> Result<Changes, ReloadError> {
        self.discovery.follow(&file.upstreams);
        let config = self.discovery.complete(&file);
        let plan = self.shared.plan.load_full();
        let changes = changes::between(&plan.config, &config);
        if !changes.is_empty() {
            if config.session.mode.include(Mode::Shared) && !plan.modes.include(Mode::Shared) {
                // Must precede the workers' connects: the watch admits the store's primaries, and unadmitted
                // primaries are not used.
                self.keep_watch();
                self.warmth.spread().await;
            }
            let config = Arc::new(config);
            let next = Arc::new(plan.rebuild_from(config.clone())?);
            self.shared.plan.store(next.clone());
            self.reloads.in_use(&config);
            if config.session.mode != plan.modes {
                warn_of(&config);
            }
            self.follow_plan();
            removed_instances::release(&plan, &next);
        }
        self.file = file;
        Ok(changes)
    }

    /// Starts and stops background tasks to match the runtime configuration: one set of health checks per
    /// balancer, and the store watch in shared mode.
    fn follow_plan(&mut self) {
        let plan = self.shared.plan.load_full();
        let same = |one: &Arc<Balancer>, other: &Arc<Balancer>| Arc::ptr_eq(one, other);
        self.checks.retain(|(checked, checks)| {
            let stays = plan.balancers().iter().any(|balancer| same(balancer, checked));
            if !stays {
                checks.begin();
            }
            stays
        });
        for balancer in plan.balancers() {
            if !self.checks.iter().any(|(checked, _)| same(checked, balancer)) {
                let (checks, changed) = (Drain::new(), balancer.clone());
                health::watch(balancer.upstream(), &self.shared.lines, &checks, move || changed.refresh());
                self.checks.push((balancer.clone(), checks));
            }
        }
        if plan.modes.include(Mode::Shared) {
            self.keep_watch();
        }
    }

    fn keep_watch(&mut self) {
        if self.watch.is_none() {
            self.watch = self.start_watch();
        }
    }

    fn start_watch(&self) -> Option<JoinHandle<()>> {
        let sessions = self.shared.sessions.clone();
        let (config, backend) = (self.started.clone(), self.shared.backend.get().cloned().flatten()?);
        backend.guard();
        Some(tokio::spawn(async move { Store::watch(&config.session, &backend, sessions).await }))
    }
}

fn warn_of(config: &Config) {
    config.cautions().iter().for_each(|caution| tracing::warn!("{caution}"));
}

/// Waits until the next deadline of an instance. Never completes without one.
async fn deadline(shared: &Shared) {
    match instance_admin::next_deadline(&shared.plan.load()) {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

/// Waits until the next time at which a drill may have to end. Never completes without one.
async fn drill_over(shared: &Shared) {
    match shared.drills.next_look() {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}
