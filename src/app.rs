//! The composition root: a configuration becomes a running proxy.

mod checks;
mod instances;

use std::fs::OpenOptions;
use std::future::Future;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin, Readiness};
use crate::config::{self, AccessLogOutput, Config, Mode, StoreKind};
use crate::discovery::Discovery;
use crate::drain::Drain;
use crate::proxy::metrics::Shard;
use crate::proxy::{Plan, Service, Shared, Worker};
use crate::secret::{Fingerprints, RandomError, Secret, random_bytes};
use crate::server::{self, Server};
use crate::session::{MemoryStore, SessionCache, Store};
use crate::telemetry::lines::{LineSink, LineWriter};
use crate::transport::Lines;

/// How long the end waits for the access log to be written.
const LAST_LINES: Duration = Duration::from_secs(2);
/// How long the end waits for the last renewals of sessions to be written.
const LAST_RENEWALS: Duration = Duration::from_millis(500);
/// How often a worker does its routine work.
const TIDY: Duration = Duration::from_millis(250);

/// Why the proxy could not start, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("cannot listen on {address}")]
    Bind {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the access log to {path}")]
    AccessLog {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Random(#[from] RandomError),
    #[error("the system gives no thread or runtime")]
    Thread(#[source] io::Error),
    #[error("a worker ended before its time")]
    WorkerLost,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Requests that were cut at the deadline.
    pub cut: usize,
}

/// A proxy whose sockets are bound: clients may connect, and are served once it runs.
pub struct App {
    config: Arc<Config>,
    shared: Arc<Shared>,
    readiness: Readiness,
    addresses: Vec<SocketAddr>,
    /// One list of listeners per worker.
    listeners: Vec<Vec<StdListener>>,
    admin: Option<(SocketAddr, StdListener)>,
    shards: Vec<Arc<Shard>>,
    access_log: Option<(LineSink, LineWriter)>,
    places: Arc<Semaphore>,
}

/// A hand on a running proxy.
#[derive(Debug, Clone)]
pub struct AppHandle {
    shared: Arc<Shared>,
    readiness: Readiness,
}

impl AppHandle {
    /// The mode that new requests are served in.
    pub fn mode(&self) -> Mode {
        self.shared.plan.load().mode
    }

    /// Serves new requests in `mode`; requests under way end as they began. Instances keep their state.
    pub fn set_mode(&self, mode: Mode) {
        let plan = self.shared.plan.load().with_mode(mode);
        self.shared.plan.store(Arc::new(plan));
    }

    /// The plan that new requests are served by.
    pub fn plan(&self) -> Arc<Plan> {
        self.shared.plan.load_full()
    }

    /// Whether the proxy takes new work.
    pub fn is_ready(&self) -> bool {
        self.readiness.is_ready()
    }
}

impl App {
    /// Binds every socket and opens the access log. Needs no runtime.
    pub fn bind(mut config: Config) -> Result<App, AppError> {
        if config.affinity.secret.is_none() {
            // Every plan of this process must know the ties of the one before.
            config.affinity.secret = Some(Secret::new(random_bytes::<32>()?.to_vec()));
        }
        let config = Arc::new(config);
        let workers = config.workers.get();
        let (mut addresses, mut listeners) = (Vec::new(), Vec::new());
        listeners.resize_with(workers, Vec::new);
        for address in &config.listeners {
            let bound = server::bind(*address, workers).map_err(bind_error(*address))?;
            if let Some(first) = bound.first() {
                addresses.push(first.local_addr().map_err(bind_error(*address))?);
            }
            for (own, listener) in listeners.iter_mut().zip(bound) {
                own.push(listener);
            }
        }
        let plan = Plan::new(config.clone())?;
        Ok(App {
            admin: config.admin.as_ref().map(|admin| bind_admin(admin.address)).transpose()?,
            access_log: open_access_log(&config.access_log)?,
            shared: Arc::new(Shared {
                plan: ArcSwap::from_pointee(plan),
                memory: MemoryStore::new(),
                sessions: session_cache(&config.session),
                backend: OnceLock::new(),
                marks: Fingerprints::new()?,
                lines: Lines::default(),
            }),
            readiness: Readiness::default(),
            addresses,
            listeners,
            shards: std::iter::repeat_with(Arc::<Shard>::default).take(workers).collect(),
            places: Arc::new(Semaphore::new(config.limits.connections)),
            config,
        })
    }

    /// Where clients connect, in the order of the configuration, with the ports the system chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(address, _)| *address)
    }

    pub fn handle(&self) -> AppHandle {
        AppHandle { shared: self.shared.clone(), readiness: self.readiness.clone() }
    }

    /// Serves until `shutdown` completes, then drains: not ready at once, accepting for the grace period,
    /// then no new connections, and running requests until the deadline.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<Outcome, AppError> {
        let stop = CancellationToken::new();
        let discovery = Discovery::default();
        self.shared.open_backend();
        let admin = self.start_admin(&discovery)?;
        let instances = instances::follow(discovery, self.config.clone(), self.shared.clone()).await;
        let watch = self.start_watch();
        let (started, mut all_started) = mpsc::channel(1);
        let mut workers = Vec::new();
        for (index, listeners) in std::mem::take(&mut self.listeners).into_iter().enumerate() {
            workers.push(self.start_worker(index, listeners, stop.clone(), started.clone())?);
        }
        drop(started);
        let mut all = pin!(finish(workers));
        let readiness = self.readiness.clone();
        let serve = async {
            // Every worker drops its end of the channel when it accepts clients.
            let _ = all_started.recv().await;
            readiness.set(true);
            shutdown.await;
        };
        tokio::select! {
            () = serve => {}
            // Workers end only when told to.
            ended = &mut all => return ended.and(Err(AppError::WorkerLost)),
        }
        self.readiness.set(false);
        tokio::time::sleep(self.config.shutdown.accept_grace).await;
        stop.cancel();
        let cut = all.await?;
        drop(instances);
        if let (Some(watch), Some(sessions)) = (watch, &self.shared.sessions) {
            // What an unreachable store does not take by then is lost; the sessions only end earlier.
            let _ = timeout(LAST_RENEWALS, sessions.all_renewals_written()).await;
            watch.abort();
        }
        if let Some(admin) = admin {
            admin.abort();
            // The listener must be closed when we say that all is over.
            let _ = admin.await;
        }
        if let Some((sink, writer)) = self.access_log {
            drop(sink);
            // An output that nobody reads must not keep the process.
            let _ = timeout(LAST_LINES, tokio::task::spawn_blocking(|| writer.join())).await;
        }
        Ok(Outcome { cut })
    }

    fn start_admin(
        &mut self,
        discovery: &Discovery,
    ) -> Result<Option<tokio::task::JoinHandle<()>>, AppError> {
        let Some((_, listener)) = self.admin.take() else { return Ok(None) };
        let listener = TcpListener::from_std(listener).map_err(AppError::Thread)?;
        let admin = Admin {
            shared: self.shared.clone(),
            readiness: self.readiness.clone(),
            shards: self.shards.clone(),
            dropped_lines: self.access_log.as_ref().map(|(sink, _)| sink.dropped_counter()),
            places: self.places.clone(),
            sessions: admin::Sessions::default(),
            discovery: discovery.board(),
        };
        Ok(Some(tokio::spawn(Arc::new(admin).serve(listener))))
    }

    /// Keeps the session cache in step with the store.
    fn start_watch(&self) -> Option<tokio::task::JoinHandle<()>> {
        let sessions = self.shared.sessions.clone().filter(|_| self.config.session.mode == Mode::Shared)?;
        let (config, backend) = (self.config.clone(), self.shared.backend.get().cloned().flatten()?);
        Some(tokio::spawn(async move { Store::watch(&config.session, &backend, sessions).await }))
    }

    fn start_worker(
        &self,
        index: usize,
        listeners: Vec<StdListener>,
        stop: CancellationToken,
        started: mpsc::Sender<()>,
    ) -> Result<oneshot::Receiver<usize>, AppError> {
        let counts = self.shards.get(index).cloned().unwrap_or_default();
        let lines = self.access_log.as_ref().map(|(sink, _)| sink.buffer());
        let service = Service::new(self.shared.clone(), Worker::new(&self.shared, counts, lines));
        let server = Server {
            service: Arc::new(service),
            limits: self.config.limits.clone(),
            timeouts: self.config.timeouts.clone(),
            drain: Drain::new(),
            places: self.places.clone(),
        };
        let (done, result) = oneshot::channel();
        let deadline = self.config.shutdown.deadline;
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Thread)?;
        thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                let cut = runtime.block_on(work(Arc::new(server), listeners, started, stop, deadline));
                drop(runtime);
                // Nobody waits only when the whole process is ending.
                let _ = done.send(cut);
            })
            .map_err(AppError::Thread)?;
        Ok(result)
    }
}

/// One worker's life; returns how many requests it cut in the end.
async fn work(
    server: Arc<Server>,
    listeners: Vec<StdListener>,
    started: mpsc::Sender<()>,
    stop: CancellationToken,
    deadline: Duration,
) -> usize {
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
    for listener in listeners {
        match TcpListener::from_std(listener) {
            Ok(listener) => server.drain.spawn(server.clone().accept(listener)),
            Err(error) => tracing::error!(%error, "a listener cannot be used"),
        }
    }
    drop(started);
    stop.cancelled().await;
    server.drain.begin();
    let cut = match server.drain.finished(deadline).await {
        0 => 0,
        // Some may be idle clients that have not been told yet; only requests count.
        _ => server.service.running(),
    };
    server.service.cut_off();
    cut
}

async fn finish(workers: Vec<oneshot::Receiver<usize>>) -> Result<usize, AppError> {
    let mut cut = 0;
    for worker in workers {
        cut += worker.await.map_err(|_| AppError::WorkerLost)?;
    }
    Ok(cut)
}

/// The embedded store is asked faster than a cache.
fn session_cache(config: &config::Session) -> Option<Arc<SessionCache>> {
    match (&config.store.kind, &config.cache) {
        (StoreKind::Redis(_), Some(cache)) => Some(Arc::new(SessionCache::new(cache, config.idle_timeout))),
        _ => None,
    }
}

fn bind_admin(address: SocketAddr) -> Result<(SocketAddr, StdListener), AppError> {
    let listener = server::bind_exclusive(address).map_err(bind_error(address))?;
    let local = listener.local_addr().map_err(bind_error(address))?;
    Ok((local, listener))
}

fn bind_error(address: SocketAddr) -> impl FnOnce(io::Error) -> AppError {
    move |source| AppError::Bind { address, source }
}

fn open_access_log(output: &AccessLogOutput) -> Result<Option<(LineSink, LineWriter)>, AppError> {
    let output: Box<dyn Write + Send> = match output {
        AccessLogOutput::Off => return Ok(None),
        AccessLogOutput::Stdout => Box::new(io::stdout()),
        AccessLogOutput::Stderr => Box::new(io::stderr()),
        AccessLogOutput::File(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Box::new(file.map_err(|source| AppError::AccessLog { path: path.clone(), source })?)
        }
    };
    LineSink::start(output).map(Some).map_err(AppError::Thread)
}
