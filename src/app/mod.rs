//! The composition root: builds a running proxy from a configuration.
//!
//! [`App::run`] is the lifecycle of a process (`lifecycle`): it starts the workers and accepts clients, until
//! shutdown is requested or a new process takes over. `handover` documents the takeover.

mod access_log;
mod changes;
mod control;
mod drain;
mod error;
mod files;
mod handle;
mod handover;
mod inherited;
mod lifecycle;
mod removed_instances;
mod restart_required;
mod sockets;
mod systemd;
mod upgrade;
mod watch;
mod workers;

use std::convert::Infallible;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin, Readiness, Reloads};
use crate::body_memory::BodyMemory;
use crate::config::{self, Config, StoreKind};
use crate::discovery::{Discovery, DiscoveryStatus};
use crate::drain::Drain;
use crate::proxy::drill::Drills;
use crate::proxy::metrics::Shard;
use crate::proxy::{RuntimeConfig, Service, Shared, Worker};
use crate::secret::{Fingerprints, Secret, random_bytes};
use crate::server::Server;
use crate::session::{MemoryStore, SessionCache, SharedState};
use crate::transport::ConnectionLimiter;
use access_log::AccessLog;
use control::{Command, Control};
use files::Shares;
use handle::UpgradeReply;
use inherited::PreviousProcess;
use sockets::Sockets;
use workers::{StorePrewarm, WorkerSignals, WorkerTask};

pub use control::{Changes, ReloadError};
pub use error::AppError;
pub use files::{Shortage, raise_open_files, shortage};
pub use handle::AppHandle;
pub use handover::HandoverError;
pub use inherited::Inherited;
pub use upgrade::UpgradeError;

/// Capacity of the command queue.
const COMMANDS: usize = 16;

/// The result of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Requests that were cut at the deadline.
    pub cut: usize,
}

/// A proxy whose sockets are bound. Clients can connect; they are served once [`App::run`] runs.
pub struct App {
    shared: Arc<Shared>,
    readiness: Readiness,
    sockets: Option<Arc<Sockets>>,
    addresses: Vec<SocketAddr>,
    admin: Option<(SocketAddr, std::net::TcpListener)>,
    shards: Vec<Arc<Shard>>,
    access_log: Option<AccessLog>,
    places: Arc<Semaphore>,
    shares: Shares,
    predecessor: Option<PreviousProcess>,
    /// Handed over to a successor whose configuration has no affinity secret either.
    secret: Secret<Vec<u8>>,
    upgrades: mpsc::Receiver<UpgradeReply>,
    commands: Option<mpsc::Receiver<Command>>,
    /// The configuration file.
    source: Option<PathBuf>,
    reloads: Arc<Reloads>,
    discovery: Discovery,
    board: DiscoveryStatus,
    handle: AppHandle,
}

impl App {
    /// Binds every socket and opens the access log. Needs no runtime.
    pub fn bind(config: Config) -> Result<App, AppError> {
        Self::inherit(config, Inherited::default())
    }

    /// Like [`App::bind`], but uses the inherited sockets and state.
    pub fn inherit(mut config: Config, inheritance: Inherited) -> Result<App, AppError> {
        let Inherited { sockets, secret, ends, predecessor } = inheritance;
        let secret = match secret {
            Some(secret) => secret,
            None => Secret::new(random_bytes::<32>()?.to_vec()),
        };
        config.affinity.secret.get_or_insert_with(|| secret.clone());
        let config = Arc::new(config);
        let shares = files::own_shares(&config);
        let sockets = Sockets::acquire(&config, sockets)?;
        let shared = Arc::new(Shared {
            plan: ArcSwap::from_pointee(RuntimeConfig::new(config.clone())?),
            memory: MemoryStore::new(),
            sessions: session_cache(&config.session),
            session_state: Arc::new(SharedState::new(&config.session)),
            backend: OnceLock::new(),
            marks: Fingerprints::new()?,
            lines: ConnectionLimiter::new(shares.upstream),
            stock: Arc::new(BodyMemory::new(config.limits.buffer_bytes)),
            drills: Drills::default(),
        });
        if let Some(sessions) = &shared.sessions {
            sessions.remember_ends(&ends);
        }
        let access_log = access_log::open(&config.access_log)?;
        let log = access_log.as_ref().map(|(sink, _)| sink.reopener()).unwrap_or_default();
        let readiness = Readiness::default();
        let (upgrades, upgrade_orders) = mpsc::channel(1);
        let (commands, command_orders) = mpsc::channel(COMMANDS);
        let discovery = Discovery::default();
        Ok(App {
            board: discovery.board(),
            discovery,
            handle: AppHandle {
                shared: shared.clone(),
                readiness: readiness.clone(),
                upgrades,
                commands,
                log,
                source: None,
            },
            upgrades: upgrade_orders,
            commands: Some(command_orders),
            source: None,
            reloads: Arc::default(),
            addresses: sockets.addresses().map_err(AppError::Thread)?,
            admin: sockets.for_operator().map_err(AppError::Thread)?,
            sockets: Some(Arc::new(sockets)),
            access_log,
            shards: std::iter::repeat_with(Arc::<Shard>::default).take(config.workers.get()).collect(),
            places: Arc::new(Semaphore::new(shares.clients)),
            shares,
            shared,
            readiness,
            predecessor,
            secret,
        })
    }

    /// The same app with `file` as the configuration file that reloads read.
    pub fn reloading(mut self, file: PathBuf) -> Self {
        self.handle.source = Some(file.clone().into());
        self.source = Some(file);
        self
    }

    /// The client listeners' addresses, in the order of the configuration, with the ports that the system
    /// chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(address, _)| *address)
    }

    pub fn handle(&self) -> AppHandle {
        self.handle.clone()
    }

    /// Serves until `shutdown` completes, then shuts down in this order: readiness goes off at once,
    /// accepting continues for the grace period, then no new connections are accepted and requests in flight
    /// have until the deadline. After an upgrade it ends with its last client.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Outcome, AppError> {
        let told = CancellationToken::new();
        let listen = async {
            shutdown.await;
            told.cancel();
            pending::<Infallible>().await
        };
        tokio::select! {
            outcome = self.live(&told) => outcome,
            never = listen => match never {},
        }
    }

    fn start_admin(&mut self) -> Result<Option<JoinHandle<()>>, AppError> {
        let Some((_, listener)) = self.admin.take() else { return Ok(None) };
        let listener = TcpListener::from_std(listener).map_err(AppError::Thread)?;
        let admin = Admin {
            shared: self.shared.clone(),
            readiness: self.readiness.clone(),
            shards: self.shards.clone(),
            dropped_lines: self.access_log.as_ref().map(|(sink, _)| sink.dropped_counter()),
            places: self.places.clone(),
            most_clients: self.shares.clients,
            most_operators: self.shares.operators,
            sessions: admin::Sessions::default(),
            process: Arc::new(self.handle.clone()),
            reloads: self.reloads.clone(),
            discovery: self.board.clone(),
        };
        Ok(Some(tokio::spawn(Arc::new(admin).serve(listener))))
    }

    async fn start_control(&mut self, orders: &WorkerSignals, warmth: StorePrewarm) -> JoinHandle<Control> {
        let control = Control::start(
            (self.shared.clone(), self.shards.clone()),
            self.source.clone(),
            self.secret.clone(),
            self.reloads.clone(),
            warmth,
            std::mem::take(&mut self.discovery),
        )
        .await;
        // The senders are held by the handles. Without the receiver a replacement that receives no command is
        // used.
        let commands = self.commands.take().unwrap_or_else(|| mpsc::channel(1).1);
        tokio::spawn(control.run(commands, orders.stop.clone()))
    }

    fn start_workers(
        &self,
        orders: &WorkerSignals,
        warmers: Vec<mpsc::Receiver<oneshot::Sender<()>>>,
        started: mpsc::Sender<()>,
    ) -> Result<Vec<oneshot::Receiver<usize>>, AppError> {
        let sockets = self.sockets.as_ref().map(|sockets| sockets.for_workers(self.shards.len()));
        let lists = sockets.transpose().map_err(AppError::Thread)?.unwrap_or_default();
        let shift = |((listeners, counts), warmth)| WorkerTask {
            server: Arc::new(self.server(counts)),
            listeners,
            orders: orders.clone(),
            warmth,
            started: started.clone(),
        };
        let shifts = lists.into_iter().zip(&self.shards).zip(warmers).map(shift);
        shifts.enumerate().map(|(index, shift)| workers::start(index, shift)).collect()
    }

    fn server(&self, counts: &Arc<Shard>) -> Server {
        let lines = self.access_log.as_ref().map(|(sink, _)| sink.buffer());
        let worker = Worker::new(&self.shared, counts.clone(), lines);
        Server {
            service: Arc::new(Service::new(self.shared.clone(), worker)),
            drain: Drain::new(),
            places: self.places.clone(),
        }
    }
}

/// No cache for the embedded store: a lookup in it is faster than in the cache.
fn session_cache(config: &config::Session) -> Option<Arc<SessionCache>> {
    match (&config.store.kind, &config.cache) {
        (StoreKind::Redis(_), Some(cache)) => Some(Arc::new(SessionCache::new(cache, config.idle_timeout))),
        _ => None,
    }
}
